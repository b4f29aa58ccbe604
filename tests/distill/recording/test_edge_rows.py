"""Layers that others call on edges, in graphs of as many nodes as edges: no shape tells them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    MLP,
    EdgeConv,
    GATConv,
    GINConv,
    GINEConv,
    MessagePassing,
    NNConv,
    PointNetConv,
    TransformerConv,
)

import pyg_stkd.nn as ours
from pyg_stkd import Distiller
from pyg_stkd.distill import AttentionTransferLoss, DistillationLoss, GSPLoss, HintLoss, LSPLoss

# Whether a structure is blind depends on the numbers drawn.
pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

torch.manual_seed(0)
N = 6
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 1]])  # as many edges as nodes
X, W, POS = torch.randn(N, 4), torch.randn(N, 3), torch.randn(N, 3)
BATCH = torch.tensor([0, 0, 0, 1, 1, 1])


class Net(nn.Module):
    def __init__(self, conv: nn.Module, give: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.give = conv, give

    def forward(self, x: Tensor, edge_index: Tensor, w: Tensor, batch: Tensor) -> Tensor:
        return self.conv(x, **self.give(edge_index, w))


def plain(edge_index: Tensor, w: Tensor) -> dict[str, Tensor]:
    return {"edge_index": edge_index}


def weighted(edge_index: Tensor, w: Tensor) -> dict[str, Tensor]:
    return {"edge_index": edge_index, "edge_attr": w}


def placed(edge_index: Tensor, w: Tensor) -> dict[str, Tensor]:
    return {"edge_index": edge_index, "pos": POS}


class Renewed(MessagePassing):
    """Updates its edges by a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, e=self.edge_updater(edge_index, x=x))

    def edge_update(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.lin(torch.cat([x_i, x_j], dim=-1))

    def message(self, e: Tensor) -> Tensor:
        return e


ON_EDGES: dict[str, tuple[Callable[[], nn.Module], str, Callable[..., Any]]] = {
    "EdgeConv": (lambda: EdgeConv(MLP([8, 5, 5], norm=None)), "nn.lins.0", plain),
    "EdgeConv, its network": (lambda: EdgeConv(MLP([8, 5, 5], norm=None)), "nn", plain),
    "pyg_stkd EdgeConv": (lambda: ours.EdgeConv(nn.Linear(8, 5)), "nn", plain),
    "GINEConv": (lambda: GINEConv(nn.Linear(4, 5), edge_dim=3), "lin", weighted),
    "NNConv": (lambda: NNConv(4, 5, nn.Linear(3, 20)), "nn", weighted),
    "GATConv": (lambda: GATConv(4, 5, edge_dim=3, add_self_loops=False), "lin_edge", weighted),
    "TransformerConv": (lambda: TransformerConv(4, 5, edge_dim=3), "lin_edge", weighted),
    "PointNetConv": (
        lambda: PointNetConv(nn.Linear(7, 5), add_self_loops=False),
        "local_nn",
        placed,
    ),
    "edge_update": (Renewed, "lin", plain),
}


def compared(kind: str, loss: Callable[[str], DistillationLoss], **options: Any) -> Tensor:
    make, layer, give = ON_EDGES[kind]
    torch.manual_seed(0)
    teacher, student = Net(make(), give), Net(make(), give)
    (value,) = Distiller(teacher, student, [loss(f"conv.{layer}")])(X, EDGES, W, BATCH, **options)[
        1
    ].values()
    return value


@pytest.mark.parametrize("kind", ON_EDGES)
def test_rows_of_edges_are_no_nodes(kind: str) -> None:
    with pytest.raises(ValueError, match=r"one row for each node, a graph is of nodes .*each edge"):
        compared(kind, lambda layer: LSPLoss(layer, layer))
    with pytest.raises(ValueError, match=r"one row for each node, a batch vector is of nodes"):
        compared(kind, lambda layer: AttentionTransferLoss(layer, layer))
    with pytest.raises(ValueError, match=r"one row for each node, 'nodes' choose nodes"):
        compared(kind, lambda layer: HintLoss(layer, layer), nodes=torch.tensor([0]))


@pytest.mark.parametrize("kind", ON_EDGES)
def test_edges_are_compared_one_by_one(kind: str) -> None:
    assert compared(kind, lambda layer: HintLoss(layer, layer, projection=False)) > 0
    assert compared(kind, lambda layer: GSPLoss(layer, layer)) >= 0


def test_the_teacher_of_a_student_on_nodes_is_looked_at_too() -> None:
    make, layer, give = ON_EDGES["EdgeConv"]
    teacher, student = Net(make(), give), Net(GINConv(nn.Linear(4, 5)), give)
    loss = LSPLoss(f"conv.{layer}", "conv", graph="teacher")
    with pytest.raises(ValueError, match=r"teacher layer 'conv\.nn\.lins\.0' must have one"):
        Distiller(teacher, student, [loss])(X, EDGES, W, BATCH)
    known = Distiller(teacher, student, [loss]).capture_teacher(X, EDGES, W, BATCH)
    with pytest.raises(ValueError, match=r"teacher layer 'conv\.nn\.lins\.0' must have one"):
        Distiller(teacher, student, [loss])(X, EDGES, W, BATCH, teacher=known)


def test_a_layer_on_nodes_inside_of_one_with_messages() -> None:
    torch.manual_seed(0)
    teacher, student = (Net(GINConv(nn.Linear(4, 5)), plain) for _ in range(2))
    loss = LSPLoss("conv.nn", "conv.nn")
    few = EDGES[:, :5]  # told apart by their number
    (value,) = Distiller(teacher, student, [loss])(X, few, W, BATCH)[1].values()
    whole = LSPLoss("conv", "conv")
    (expected,) = Distiller(teacher, student, [whole])(X, few, W, BATCH)[1].values()
    torch.testing.assert_close(value, expected)


class Gathered(nn.Module):
    """Makes messages by hand: nothing tells its layer's edges from nodes where they are as many."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.message = nn.Linear(4, 4), nn.Linear(8, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        src, dst = edge_index
        x = self.lin(x)
        message = self.message(torch.cat([x[src], x[dst]], dim=-1))
        return message.new_zeros(N, 5).index_add(0, dst, message)


def test_a_layer_that_may_be_of_either_is_warned_of() -> None:
    teacher, student = Gathered(), Gathered()
    with pytest.warns(UserWarning, match=r"6 rows, which is the number of nodes and of edges"):
        Distiller(teacher, student, [LSPLoss("message", "message")])(X, EDGES)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*number of nodes and of edges")
        Distiller(teacher, student, [LSPLoss("lin", "lin", layout="NC")])(X, EDGES)
        Distiller(teacher, student, [LSPLoss("lin", "lin")])(X, EDGES[:, :5])
    with pytest.raises(ValueError, match="one row for each of the 6 nodes"):
        Distiller(teacher, student, [LSPLoss("message", "message")])(X, EDGES[:, :5])


class Molecules(nn.Module):
    """Takes numbers of atoms, and features of bonds alone."""

    def __init__(self) -> None:
        super().__init__()
        self.atoms, self.bonds = nn.Embedding(5, 4), nn.Linear(3, 4)
        self.conv = GINEConv(nn.Linear(4, 5))

    def forward(self, z: Tensor, edge_index: Tensor, w: Tensor, batch: Tensor | None) -> Tensor:
        return self.conv(self.atoms(z), edge_index, self.bonds(w))


@pytest.mark.parametrize("known", [False, True])
def test_features_of_edges_alone_are_not_taken_for_those_of_nodes(known: bool) -> None:
    teacher, student, batch = Molecules(), Molecules(), torch.tensor([0, 0, 1, 1])
    z, edges = torch.tensor([1, 2, 3, 4]), torch.tensor([[0, 1, 2, 3, 1, 0], [1, 0, 3, 2, 1, 0]])
    args = (z, edges, W, batch if known else None)
    match = "the 4 nodes of its graph" if known else "6 rows, the number of edges.*layout='NC'"
    with pytest.raises(ValueError, match=match):
        Distiller(teacher, student, [LSPLoss("bonds", "bonds")])(*args)
    for layer in ("atoms", "conv"):
        assert Distiller(teacher, student, [LSPLoss(layer, layer)])(*args)[1]["lsp"].isfinite()


def test_a_failure_in_a_message_is_forgotten() -> None:
    make, layer, give = ON_EDGES["EdgeConv"]
    teacher, student = Net(make(), give), Net(make(), give)
    losses = [LSPLoss("conv", "conv")]
    distiller = Distiller(teacher, student, [*losses, HintLoss(f"conv.{layer}", f"conv.{layer}")])
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        distiller(X[:, :2], EDGES, W, BATCH)
    assert all(value.isfinite() for value in distiller(X, EDGES, W, BATCH)[1].values())


def test_hooks_are_taken_off_and_copied_quiet() -> None:
    make, layer, give = ON_EDGES["EdgeConv"]
    teacher, student = Net(make(), give), Net(make(), give)
    distiller = Distiller(teacher, student, [HintLoss(f"conv.{layer}", f"conv.{layer}")])
    twin = copy.deepcopy(teacher)
    torch.testing.assert_close(twin(X, EDGES, W, BATCH), teacher(X, EDGES, W, BATCH))
    assert len(teacher.conv._message_forward_pre_hooks) == 1
    distiller.remove_hooks()
    for name in ("_message_forward_pre_hooks", "_message_forward_hooks"):
        assert not getattr(teacher.conv, name)
        assert not getattr(student.conv, name)
