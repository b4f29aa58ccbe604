from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import EdgeConv, global_max_pool, global_mean_pool

from pyg_stkd.functional.neighbours.knn import knn_graph
from pyg_stkd.nn.models.dgcnn import DGCNN


def small(**kwargs: object) -> DGCNN:
    preset = {"channels": (6, 8, 10), "mlp_channels": (7,), "k": 4}
    return DGCNN(3, 5, **{**preset, **kwargs})  # type: ignore[arg-type]


def plain(model: DGCNN, x: Tensor, batch: Tensor) -> Tensor:
    """The same model by PyG's layers."""
    features = []
    for conv in model.convs:
        reference = EdgeConv(copy.deepcopy(conv.nn), aggr="max").to(x.dtype)
        reference.load_state_dict(conv.state_dict())
        reference.train(model.training)
        x = reference(x, knn_graph(x, model.k, batch, loop=True))
        features.append(x)
    x = model.embedding(torch.cat(features, dim=1))
    return model.mlp(torch.cat([global_max_pool(x, batch), global_mean_pool(x, batch)], dim=1))


@pytest.mark.parametrize("sizes", [[12, 12, 12], [20, 3, 13], [36]], ids=str)
def test_equals_pyg(sizes: list[int]) -> None:
    model = small(dropout=0.0).double()
    x = torch.randn(36, 3, dtype=torch.float64)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    for training in (True, False):
        if training and len(sizes) == 1:
            continue  # batch normalisation wants more than one cloud
        model.train(training)
        expected = plain(copy.deepcopy(model), x, batch)
        torch.testing.assert_close(model(x, batch), expected, rtol=0, atol=1e-9)
    if len(sizes) == 1:
        torch.testing.assert_close(model(x), model(x, batch))


def test_the_papers_models() -> None:
    def count(model: DGCNN) -> int:
        return sum(p.numel() for p in model.parameters())

    teacher, student = DGCNN.teacher(out_channels=40), DGCNN.student(out_channels=40)
    assert count(teacher) == 1_809_576  # 1.81 M
    assert count(student) == 99_560  # 0.1 M
    assert (teacher.k, student.k) == (20, 10)
    assert [name for name, _ in student.named_children()] == ["convs", "embedding", "mlp"]
    # Table 6, "more MLPs": 0.30 M
    assert round(count(DGCNN.student(40, mlp_channels=(512, 256))) / 1e6, 2) == 0.30


def test_a_step_reaches_every_parameter() -> None:
    model = small()
    x, batch = torch.randn(40, 3), torch.arange(2).repeat_interleave(20)
    model(x, batch).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    before = model.mlp.lins[0].weight.detach().clone()
    model.reset_parameters()
    assert not torch.equal(model.mlp.lins[0].weight, before)


def test_clouds_do_not_see_each_other() -> None:
    model = small().eval()
    x = torch.randn(30, 3)
    batch = torch.arange(2).repeat_interleave(torch.tensor([18, 12]))
    alone = torch.cat([model(x[:18]), model(x[18:])])
    torch.testing.assert_close(model(x, batch), alone, rtol=1e-4, atol=1e-5)


def test_without_a_hidden_layer() -> None:
    assert small(mlp_channels=()).eval()(torch.randn(9, 3)).shape == (1, 5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"channels": (4,)}, r"'channels' must name an edge convolution and the embedding"),
        ({"channels": (4, 0)}, r"'channels' must be at least 1 \(got 0\)"),
        ({"mlp_channels": (-1,)}, r"'mlp_channels' must be at least 1 \(got -1\)"),
        ({"dropout": 2.0}, r"'dropout' must be at least 0 and at most 1 \(got 2.0\)"),
        ({"k": 0}, r"'k' must be at least 1 \(got 0\)"),
    ],
)
def test_bad_arguments(change: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        small(**change)


@pytest.mark.parametrize("bad", [torch.ones(8, 3).numpy(), None, [0.0]], ids=type)
def test_what_is_no_tensor(bad: object) -> None:
    model = DGCNN(3, 2, k=2, channels=(4, 4), mlp_channels=(4,))
    with pytest.raises(TypeError, match="'x' must be a tensor of real floating point numbers"):
        model(bad)
    if bad is not None:
        with pytest.raises(TypeError, match="'batch' must be a Tensor"):
            model(torch.ones(8, 3), bad)


def test_bad_clouds() -> None:
    model, x = small(), torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"'batch' must number the clouds .* \(got \[0, 2\]\)"):
        model(x, torch.tensor([0, 0, 2, 2]))
    with pytest.raises(ValueError, match=r"'batch' must number the clouds .* \(got \[0, 1, 0\]\)"):
        model(x, torch.tensor([0, 1, 1, 0]))
    for shape in ((), (5,), (2, 5, 3)):
        with pytest.raises(ValueError, match=r"'x' must have shape \[N, F\] \(got \["):
            model(torch.ones(shape))
    with pytest.raises(ValueError, match="'x' must hold at least one point"):
        model(torch.empty(0, 3))
    with pytest.raises(ValueError, match="'x' must be finite"):
        model(torch.full((4, 3), torch.nan))
