from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_stkd.graph import Graph
from pyg_stkd.nn import GAT, GATConv


def count(model: torch.nn.Module) -> int:
    named = model.named_parameters()
    return sum(p.numel() for name, p in named if not name.endswith("bias"))


def test_sizes_of_the_paper() -> None:
    teacher, student = GAT.teacher(), GAT.student(50, 121)
    assert count(teacher) == 3_640_748
    assert count(student) == 185_172
    assert [(c.heads, c.out_channels) for c in teacher.convs] == [(4, 256), (4, 256), (6, 121)]
    assert [(c.heads, c.out_channels) for c in student.convs] == [(2, 68)] * 4 + [(2, 121)]
    assert GAT.student(7, 3).in_channels == 7


def dense(model: GAT, x: Tensor, adj: Tensor) -> Tensor:
    """The model on a dense matrix of targets by sources, head by head."""
    for i, conv in enumerate(model.convs):
        H, C = conv.heads, conv.out_channels
        h = (x @ conv.lin.weight.t()).view(-1, H, C)
        heads = []
        for k in range(H):
            src, dst = h[:, k] @ conv.att_src[0, k], h[:, k] @ conv.att_dst[0, k]
            score = F.leaky_relu(dst[:, None] + src[None, :], 0.2)
            heads.append(score.masked_fill(~adj, float("-inf")).softmax(1) @ h[:, k])
        out = torch.cat(heads, dim=1) + conv.bias
        if i > 0:
            out = out + x @ conv.res.weight.t()
        x = F.elu(out) if i < len(model.convs) - 1 else out.view(-1, H, C).mean(1)
    return x


def test_values_are_those_of_the_dense_formula() -> None:
    model = GAT(5, 4, 3, num_layers=3, heads=2, out_heads=3).double()
    for conv in model.convs:
        torch.nn.init.normal_(conv.bias)
    adj = torch.rand(8, 8) < 0.3
    edge_index = adj.t().nonzero().t()
    x = torch.randn(8, 5, dtype=torch.double)
    expected = dense(model, x, adj | torch.eye(8, dtype=torch.bool))
    torch.testing.assert_close(model(x, edge_index), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(x, Graph(edge_index, 8)), expected, rtol=0, atol=1e-12)
    batch = model(x.expand(2, 8, 5), edge_index)
    torch.testing.assert_close(batch, expected.expand(2, 8, 3), rtol=0, atol=1e-12)


def test_the_graph_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = GATConv.forward
    monkeypatch.setattr(
        GATConv, "forward", lambda self, x, g, *args: seen.append(g) or forward(self, x, g, *args)
    )
    GAT(5, 4, 3, num_layers=3)(torch.randn(4, 5), torch.tensor([[0, 1], [1, 2]]))
    assert len(seen) == 3
    assert len({id(graph) for graph in seen}) == 1


def test_dropout_and_edge_features() -> None:
    model = GAT(5, 4, 3, num_layers=2, dropout=0.5, edge_dim=2)
    x, edge_index = torch.randn(4, 5), torch.tensor([[0, 1], [1, 2]])
    a, b = (model(x, edge_index, torch.randn(2, 2)) for _ in range(2))
    assert not torch.equal(a, b)
    model.eval()
    assert torch.equal(model(x, edge_index), model(x, edge_index))
    assert model.convs[0].dropout == 0.5


def test_state_dict_reset_and_repr() -> None:
    model, other = GAT(5, 4, 3, 2), GAT(5, 4, 3, 2)
    x, edge_index = torch.randn(4, 5), torch.tensor([[0, 1], [1, 2]])
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(x, edge_index), other(x, edge_index))
    other.reset_parameters()
    assert not torch.equal(model.convs[1].res.weight, other.convs[1].res.weight)
    assert str(model) == "GAT(5, 3, num_layers=2)"


def test_without_residuals_or_bias_and_with_another_activation() -> None:
    model = GAT(5, 4, 3, 2, residual=False, bias=False, act="relu")
    assert {name.split(".", 2)[2] for name in model.state_dict()} == {
        "att_src",
        "att_dst",
        "lin.weight",
    }
    assert isinstance(model.act, torch.nn.ReLU)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"num_layers": 0}, r"'num_layers' must be at least 1 \(got 0\)"),
        ({"out_heads": -1}, r"'out_heads' must be at least 1 \(got -1\)"),
        ({"concat": False}, r"'concat' is fixed.*\(got False\)"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GAT(
            **{"in_channels": 5, "hidden_channels": 4, "out_channels": 3, "num_layers": 2, **kwargs}
        )


@pytest.mark.parametrize("x", [None, [[1.0] * 5], "x", np.ones((3, 5), dtype=np.float32)], ids=type)
def test_what_is_no_tensor_is_refused_by_name(x: Any) -> None:
    with pytest.raises(TypeError, match=r"'x' must be a Tensor \(got "):
        GAT(5, 4, 3, num_layers=2)(x, torch.tensor([[0], [1]]))


@pytest.mark.parametrize("x", [torch.tensor(1.0), torch.ones(5)], ids=["one number", "one node"])
def test_a_tensor_without_nodes_is_refused_by_name(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"'x' must have shape \[N, F\] \(got \["):
        GAT(5, 4, 3, num_layers=2)(x, torch.tensor([[0], [1]]))
