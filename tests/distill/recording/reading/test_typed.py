from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GraphConv, HeteroConv, SAGEConv, to_hetero

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import HintLoss, LSPLoss, OutputLoss, SoftTargetLoss, TeacherCache
from pyg_stkd.distill.recording.reading.typed import typed_edges
from pyg_stkd.functional import lsp

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

WRITES, CITES, BACK = ("a", "writes", "p"), ("p", "cites", "p"), ("p", "by", "a")
KERNEL = kernels.Cosine()


def graph() -> HeteroData:
    torch.manual_seed(0)
    data = HeteroData()
    data["a"].x, data["p"].x = torch.randn(9, 6), torch.randn(7, 6)
    data[WRITES].edge_index = torch.stack([torch.randint(9, (25,)), torch.randint(7, (25,))])
    data[CITES].edge_index = torch.randint(7, (2, 20))
    data[BACK].edge_index = torch.stack([torch.randint(7, (22,)), torch.randint(9, (22,))])
    return data


class Typed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = HeteroConv({kind: SAGEConv((6, 6), width) for kind in (WRITES, CITES, BACK)})
        self.head = nn.Linear(width, 3)

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Tensor:
        return self.head(self.conv(x_dict, edge_index_dict)["p"].relu())


class Given(Typed):
    """The same, given the whole data."""

    def forward(self, data: HeteroData) -> Tensor:
        return super().forward(data.x_dict, data.edge_index_dict)


def between(s: Any, t: Any, data: HeteroData, kind: Any, nodes: Any = None) -> Tensor:
    """LSP of the edges of one type, by hand."""
    edges = data[kind].edge_index
    if kind[0] == kind[2]:
        return lsp(s[kind[0]], t[kind[0]], edges, KERNEL, nodes=nodes)
    sources, targets = s[kind[0]].size(0), s[kind[2]].size(0)
    s, t = (torch.cat([x[kind[0]], x[kind[2]]]) for x in (s, t))
    edges = edges + torch.tensor([[0], [sources]])
    chosen = torch.arange(targets) if nodes is None else nodes
    return lsp(s, t, edges, KERNEL, nodes=chosen + sources)


@pytest.mark.parametrize("given", [False, True])
def test_a_layer_of_many_types_is_compared_by_type_of_edge(given: bool) -> None:
    data = graph()
    teacher, student = (Given(8), Given(4)) if given else (Typed(8), Typed(4))
    args = (data,) if given else (data.x_dict, data.edge_index_dict)
    s, t = (model.conv(data.x_dict, data.edge_index_dict) for model in (student, teacher))
    every = [between(s, t, data, kind) for kind in (WRITES, CITES, BACK)]
    for options, expected in (
        ({}, sum(every) / 3),
        ({"weights": {CITES: 1.0, WRITES: 3.0}}, (every[1] + 3 * every[0]) / 4),
        ({"select": "p"}, every[1]),
    ):
        distiller = Distiller(teacher, student, [LSPLoss("conv", "conv", KERNEL, **options)])
        for known in (None, TeacherCache(distiller)(0, *args)):
            for _ in range(2):  # the second time, the teacher's structure may be known
                _, losses = distiller(*args, teacher=known)
                torch.testing.assert_close(losses["lsp"], expected)
    losses["lsp"].backward()


def test_nodes_are_those_of_the_targets() -> None:
    data, teacher, student = graph(), Typed(8), Typed(4)
    s, t = (model.conv(data.x_dict, data.edge_index_dict) for model in (student, teacher))
    weights = {WRITES: 1.0, CITES: 1.0}
    distiller = Distiller(teacher, student, [LSPLoss("conv", "conv", KERNEL, weights=weights)])
    nodes = torch.tensor([5, 0])
    _, losses = distiller(data.x_dict, data.edge_index_dict, nodes={"p": nodes})
    expected = sum(between(s, t, data, kind, nodes) for kind in weights) / 2
    torch.testing.assert_close(losses["lsp"], expected)


def test_layers_of_one_type_inside() -> None:
    data, teacher, student = graph(), Typed(8), Typed(4)
    layer = min((name for name, _ in student.named_modules() if "cites" in name), key=len)
    args = data.x_dict, data.edge_index_dict
    distiller = Distiller(teacher, student, [LSPLoss(layer, layer, KERNEL)])
    _, losses = distiller(*args)
    s, t = (m.get_submodule(layer)(data["p"].x, data[CITES].edge_index) for m in (student, teacher))
    torch.testing.assert_close(losses["lsp"], lsp(s, t, data[CITES].edge_index, KERNEL))


class Plain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.lin = GraphConv((-1, -1), width), nn.Linear(width, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.conv(x, edge_index).relu())

    forward.__annotations__.clear()  # which torch.fx of torch 2.6 does not write as strings


def transformed(width: int, data: HeteroData) -> nn.Module:
    model = to_hetero(Plain(width), data.metadata(), aggr="sum")
    with torch.no_grad():
        model(data.x_dict, data.edge_index_dict)
    return model


def test_transformed_models_find_the_graph_of_their_type() -> None:
    data = graph()
    teacher, student = transformed(8, data), transformed(4, data)
    args = data.x_dict, data.edge_index_dict
    losses = [
        OutputLoss(),
        SoftTargetLoss(select="p"),
        HintLoss("lin.p", "lin.p", projection=False),
        LSPLoss("lin.p", "lin.p", KERNEL, name="lin"),
        LSPLoss("", "", KERNEL),
    ]
    out, losses, said = Distiller(teacher, student, losses)(*args, return_teacher=True)
    errors = [(out[kind] - said[kind]).square().mean() for kind in ("a", "p")]
    torch.testing.assert_close(losses["output"], sum(errors) / 2)
    torch.testing.assert_close(losses["hint"], errors[1])
    cites = between(out, said, data, CITES)
    torch.testing.assert_close(losses["lin"], cites)
    every = [between(out, said, data, kind) for kind in (WRITES, CITES, BACK)]
    torch.testing.assert_close(losses["lsp"], sum(every) / 3)
    sum(losses.values()).backward()
    with pytest.raises(ValueError, match=r"No graph was found for the student layer 'lin.a'"):
        Distiller(teacher, student, [LSPLoss("lin.a", "lin.a", KERNEL)])(*args)


def test_several_graphs_among_one_type_are_refused() -> None:
    data, student, teacher = graph(), Typed(4), Typed(8)
    edges = {**data.edge_index_dict, ("p", "like", "p"): data[CITES].edge_index}
    match = r"The nodes of type 'p' must have one type of edges.*'cites'.*'like'.*graph="
    with pytest.raises(ValueError, match=match):
        Distiller(teacher, student, [LSPLoss("conv", "conv", select="p")])(data.x_dict, edges)


def test_ends_of_other_widths_are_refused() -> None:
    class Widths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.p = nn.Linear(6, 4), nn.Linear(6, 5)

        def forward(self, x_dict: Any, edge_index_dict: Any) -> Any:
            return {"a": self.a(x_dict["a"]), "p": self.p(x_dict["p"])}

    data = graph()
    args = data.x_dict, data.edge_index_dict
    match = r"one width at both ends of \('a', 'writes', 'p'\) \(got \[9, 4\] and \[7, 5\]\)"
    with pytest.raises(ValueError, match=match):
        Distiller(Widths(), Widths(), [LSPLoss("", "", KERNEL)])(*args)
    loss = LSPLoss("", "", KERNEL, weights={CITES: 1.0})
    assert Distiller(Widths(), Widths(), [loss])(*args)[1]["lsp"] > 0


def test_edges_by_type_are_found_in_any_form() -> None:
    data = graph()
    assert set(typed_edges({"data": data})) == {WRITES, CITES, BACK}
    assert set(typed_edges({"x": data.x_dict, "e": data.edge_index_dict})) == {WRITES, CITES, BACK}
    assert typed_edges({"x": data.x_dict, "edge_index": data[CITES].edge_index}) == {}
