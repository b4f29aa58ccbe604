from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg

from pyg_stkd.nn.sequence.gcn_conv import GCNConv

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1, 0], [1, 2, 0, 0, 1, 2, 0]])
WEIGHT = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.double)


@pytest.mark.parametrize("shape", [(5, 2), (4, 5, 2), (2, 3, 5, 2)])
@pytest.mark.parametrize("width", [1, 2, 6])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_equals_gcnconv_of_pyg(shape: tuple[int, ...], width: int, weight: Any) -> None:
    theirs, ours = pyg.GCNConv(2, width).double(), GCNConv(2, width).double()
    torch.nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape).double().requires_grad_()
    out, expected = ours(x, EDGES, weight), theirs(x, EDGES, weight)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, [x, *ours.parameters()], seed),
        torch.autograd.grad(expected, [x, *theirs.parameters()], seed),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"improved": True},
        {"cached": True},
        {"add_self_loops": False},
        {"normalize": False},
        {"bias": False},
        {"aggr": "max"},
        {"flow": "target_to_source"},
        {"node_dim": 0},
    ],
    ids=str,
)
def test_options_are_those_of_pyg(options: dict[str, Any]) -> None:
    theirs, ours = pyg.GCNConv(2, 3, **options).double(), GCNConv(2, 3, **options).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 2).double()
    for _ in range(2):
        torch.testing.assert_close(ours(x, EDGES, WEIGHT), theirs(x, EDGES, WEIGHT))
    assert repr(ours) == repr(theirs)


def test_pairs_are_refused_as_by_pyg() -> None:
    with pytest.raises(ValueError, match="received a tuple"):
        GCNConv(2, 3)((torch.ones(5, 2), torch.ones(5, 2)), EDGES)  # type: ignore[arg-type]


def test_sparse_features() -> None:
    conv, x = GCNConv(2, 3), torch.eye(5)[:, :2]
    torch.testing.assert_close(conv(x.to_sparse(), EDGES), conv(x, EDGES))


@pytest.mark.filterwarnings("ignore:Sparse CS:UserWarning")
def test_transposed_columns_of_a_sparse_matrix() -> None:
    conv, x = GCNConv(2, 3).double(), torch.randn(5, 2).double()
    for given in (None, WEIGHT):
        value = torch.ones(7).double() if given is None else given
        dense = torch.zeros(5, 5).double().index_put(tuple(EDGES), value, accumulate=True)
        for matrix in (dense.to_sparse_csc().t(), dense.t().to_sparse_coo()):
            torch.testing.assert_close(conv(x, matrix), conv(x, EDGES, given))


def test_decomposed_layers_run_the_message_passing_of_pyg() -> None:
    conv, x = GCNConv(2, 6), torch.randn(5, 2)
    whole, widths = conv(x, EDGES), []
    conv.register_message_forward_pre_hook(
        lambda _, inputs: widths.append(inputs[0]["x_j"].size(-1))
    )
    conv.decomposed_layers = 2
    torch.testing.assert_close(conv(x, EDGES), whole)
    assert widths == [3, 3]
