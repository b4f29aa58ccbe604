"""Tests of export: torch.export and ONNX, with numbers of nodes and edges left open."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch_geometric.nn import GAT as PyGGAT
from torch_geometric.nn import (
    GCN,
    GIN,
    ChebConv,
    GraphSAGE,
    Sequential,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

from pyg_stkd.functional import sddmm, segment_log_softmax, segment_softmax, segment_sum, spmm
from pyg_stkd.functional.neighbours.knn import knn_graph
from pyg_stkd.functional.sparse.neighbour_max import neighbour_max
from pyg_stkd.functional.sparse.plain import plain_knn, plain_max
from pyg_stkd.graph import Graph
from pyg_stkd.nn import ASTGCN, DGCNN, GAT, STGCN, GATConv
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
from pyg_stkd.prune import Pruner, Random
from pyg_stkd.testing import assert_exports

pytestmark = [
    pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="needs torch 2.7"),
    # torch says of masked parameters, as it does of those of its own masks, that they are assigned.
    pytest.mark.filterwarnings("ignore:The tensor attributes .* were assigned during export"),
    # torch's own, and onnxscript's.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

N, E, B = Dim("N"), Dim("E"), Dim("B")


def edges(num_nodes: int, num_edges: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    out = torch.randint(0, num_nodes, (2, num_edges), generator=generator)
    out[:, 1] = 2  # a loop
    out[1] = out[1].clamp(max=num_nodes - 2)  # a node without edges
    return out


def cheb() -> nn.Module:
    """Two of PyG's Chebyshev layers."""
    step = "x, edge_index -> x"
    first, last = ChebConv(3, 6, 3), ChebConv(6, 2, 3)
    return Sequential("x, edge_index", [(first, step), nn.ReLU(), (last, step)])


class OnGraph(nn.Module):
    """A model with its graph, the constant of a road network."""

    def __init__(self, model: nn.Module, graph: Any) -> None:
        super().__init__()
        self.model = model
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, self.graph)


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    args: tuple[Tensor, ...]
    others: tuple[Tensor, ...]  # of other sizes
    shapes: Any


def stgcn(**kwargs: Any) -> STGCN:
    return STGCN(2, [(4, 3, 5)], 3, head_channels=(6, 5), num_steps=6, **kwargs)


ON_NODES = ((torch.randn(6, 3), edges(6, 14)), (torch.randn(9, 3), edges(9, 31)), ({0: N}, {1: E}))
STEPS = (torch.randn(2, 6, 6, 2), torch.randn(3, 6, 9, 2))
OPEN = ((STEPS[0], *ON_NODES[0][1:], torch.rand(14)), (STEPS[1], *ON_NODES[1][1:], torch.rand(31)))
POINTS = (torch.randn(24, 3),), (torch.randn(30, 3),)
FIXED = ((torch.randn(2, 6, 6, 2),), (torch.randn(3, 6, 6, 2),), ({0: B},))

CASES = {
    "gat": Case(lambda: GAT(3, 4, 2, num_layers=2, heads=2, out_heads=3), *ON_NODES),
    "stgcn": Case(stgcn, *OPEN, ({0: B, 2: N}, {1: E}, {0: E})),
    "astgcn": Case(
        lambda: ASTGCN(2, 5, 3, num_nodes=6, num_steps=6, num_blocks=1),
        (STEPS[0], edges(6, 14)),
        (torch.randn(3, 6, 6, 2), edges(6, 31)),
        ({0: B}, {1: E}),
    ),
    "gcn": Case(lambda: GCN(3, 6, 2, 2, norm="batch_norm"), *ON_NODES),
    "sage": Case(lambda: GraphSAGE(3, 6, 2, 2), *ON_NODES),
    "gin": Case(lambda: GIN(3, 6, 2, 2), *ON_NODES),
    "pyg gat": Case(lambda: PyGGAT(3, 6, 2, 2, heads=2), *ON_NODES),
    "pyg cheb": Case(cheb, *ON_NODES[:2], (ON_NODES[2],)),
}


def each(*fast: str) -> list[Any]:
    """Parametrize with all cases; those that are not fast run in the long suite only."""
    long = [pytest.mark.full]
    return [pytest.param(name, marks=[] if name in fast else long, id=name) for name in CASES]


def pruned(name: str) -> tuple[nn.Module, nn.Module]:
    """Return a model with masks and its compacted twin."""
    model = CASES[name].build()
    pruner = Pruner(model, Random(0), keep=1.0, rho=0.0, min_width=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The floors")  # as small as it gets
        pruner.step(share=0.4)
    return model.eval(), pruner.compact().eval()


def export(model: nn.Module, case: Case, strict: bool = False, onnx: bool = False) -> Any:
    """Export and compare, with the sizes of the example and with others."""
    if onnx:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    return assert_exports(
        model, case.args, case.others, dynamic_shapes=case.shapes, strict=strict, onnx=onnx
    )


@pytest.mark.parametrize("name", each("gat"))
def test_exports_a_masked_model(name: str) -> None:
    export(pruned(name)[0], CASES[name])


@pytest.mark.parametrize("name", each("stgcn"))
def test_exports_a_compacted_model_to_torch_and_onnx(name: str) -> None:
    export(pruned(name)[1], CASES[name], onnx=True)


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_exports_an_unpruned_model_to_onnx(name: str) -> None:
    export(CASES[name].build().eval(), CASES[name], onnx=True)


@pytest.mark.full
@pytest.mark.parametrize("name", ["gat", "stgcn"])
def test_exports_in_strict_mode(name: str) -> None:
    export(CASES[name].build().eval(), CASES[name], strict=True)


@pytest.mark.parametrize("fixed", ["graph", "operator"])
def test_a_fixed_graph_is_a_constant(fixed: str) -> None:
    graph = Graph(edges(6, 14), 6)
    constant = graph if fixed == "graph" else cheb_operator(graph)
    case = Case(lambda: OnGraph(stgcn(), constant), *FIXED)
    program = export(case.build().eval(), case)
    assert len(program.graph_signature.user_inputs) == 1


@pytest.mark.full
def test_a_fixed_graph_in_onnx() -> None:
    graph = Graph(edges(6, 14), 6)
    sparse = cheb_operator(graph, propagation="sparse")
    for case in (
        Case(lambda: OnGraph(stgcn(), graph), *FIXED),
        Case(lambda: OnGraph(stgcn(), sparse), *FIXED),
        Case(lambda: OnGraph(GAT(3, 4, 2, 2, heads=2), graph), *[(torch.randn(6, 3),)] * 2, None),
    ):
        export(case.build().eval(), case, onnx=True)


def test_export_leaves_nothing_in_a_fixed_graph() -> None:
    graph = Graph(edges(6, 14), 6)
    x = (torch.randn(6, 3),)
    model = OnGraph(GAT(3, 4, 2, 2, heads=2), graph).eval()
    case = Case(lambda: model, x, x, None)
    export(model, case)  # compares with the model after the export
    torch.testing.assert_close(model(*x), model.model(*x, graph.edge_index))
    assert graph._derived  # and kept by now
    export(model, case)


class Weighing(nn.Module):
    """A layer with features of edges that returns its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GATConv(3, 4, heads=2, edge_dim=2, residual=True)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Any:
        out, (loops, alpha) = self.conv(x, edge_index, edge_attr, return_attention_weights=True)
        return out, loops, alpha


def test_weights_of_attention_keep_their_order() -> None:
    (one, other), shapes = ON_NODES[:2], (*ON_NODES[2], {0: E})
    case = Case(Weighing, (*one, torch.randn(14, 2)), (*other, torch.randn(31, 2)), shapes)
    export(case.build().eval(), case)


class Primitives(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        graph = Graph(edge_index, x.size(0))
        heads = torch.stack([x, x * x], dim=1)  # [N, 2, F]
        score, scores = sddmm(graph, x, x), sddmm(graph, heads, heads)
        return (
            score,
            scores,
            segment_sum(graph, scores),
            segment_softmax(graph, score),
            segment_log_softmax(graph, scores),
            spmm(graph, score, x),
            spmm(graph, scores, heads),
            spmm(graph, None, x),
            graph.rowptr,
            graph.degree,
            graph.edge_index,
        )


def test_primitives_equal_their_kernels() -> None:
    program = export(Primitives(), Case(Primitives, *ON_NODES))
    x = torch.randn(4, 3)
    none = torch.empty(2, 0, dtype=torch.long)
    for args in ((x, none), (x, torch.tensor([[3], [3]]))):
        torch.testing.assert_close(program.module()(*args), Primitives()(*args))


def test_plain_operators_of_point_clouds() -> None:
    for width in (3, 7):
        x = torch.randn(20, width)
        for k, loop in ((1, False), (4, True), (30, True), (30, False)):
            edge_index = knn_graph(x, k, loop=loop)
            assert torch.equal(plain_knn(x, k, loop), edge_index)
        batch = torch.arange(3).repeat_interleave(torch.tensor([8, 4, 8]))
        edge_index = knn_graph(x, 4, batch, loop=True)
        assert torch.equal(plain_knn(x, 4, True, batch), edge_index)
    graph = Graph(edges(6, 14), 6)
    x = torch.randn(6, 3) - 5
    assert torch.equal(plain_max(graph, x), neighbour_max(graph, x))


class Unsized(nn.Module):
    def forward(self, edge_index: Tensor) -> Tensor:
        return Graph(edge_index).degree


def test_the_number_of_nodes_is_not_read_from_the_edges() -> None:
    with pytest.raises(ValueError, match=r"'num_nodes' must be given under torch.export, where"):
        torch.export.export(Unsized(), (edges(6, 14),))


def test_point_clouds_one_at_a_time() -> None:
    points = Dim("N", min=4)
    case = Case(lambda: DGCNN(3, 4, (5, 8), (6,), k=4), *POINTS, ({0: points},))
    export(case.build().eval(), case, onnx=True)


class OfGraphs(nn.Module):
    """A model of graphs, whose number is that of the starts given, less one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, batch: Tensor, ptr: Tensor, *more: Tensor) -> Tensor:
        return self.model(x, *more, batch=batch, batch_size=ptr.size(0) - 1)


def ragged(*sizes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return points of clouds, the cloud of each, and where they start."""
    ends = torch.tensor([0, *sizes])
    batch = torch.arange(len(sizes)).repeat_interleave(ends[1:])
    return torch.randn(sum(sizes), 3), batch, ends.cumsum(0)


CLOUDS = {"N": Dim("N", min=8), "starts": Dim("starts", min=3)}


def test_point_clouds_of_any_number_and_sizes() -> None:
    shapes = ({0: CLOUDS["N"]}, {0: CLOUDS["N"]}, {0: CLOUDS["starts"]})
    case = Case(
        lambda: OfGraphs(DGCNN(3, 4, (5, 8), (6,), k=4)), ragged(14, 10), ragged(5, 9, 2), shapes
    )
    export(case.build().eval(), case, onnx=True)  # the last cloud has fewer than k points
    with pytest.raises(ValueError, match=r"'batch_size' must be given under torch.export with a"):
        torch.export.export(DGCNN(3, 4, (5, 8), (6,), k=4).eval(), ragged(14, 10)[:2])


def test_neighbours_of_several_clouds_without_loops() -> None:
    class Near(nn.Module):
        def forward(self, x: Tensor, batch: Tensor) -> Tensor:
            return knn_graph(x, 2, batch)

    with pytest.raises(ValueError, match=r"'loop' must be True under torch.export with a 'batch'"):
        torch.export.export(Near(), ragged(14, 10)[:2])


class Graphs(nn.Module):
    """A classifier of graphs, of PyG's layers."""

    def __init__(self, pool: Callable[..., Tensor]) -> None:
        super().__init__()
        self.gnn, self.pool, self.head = GraphSAGE(3, 6, 2), pool, nn.Linear(6, 2)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        h = self.gnn(x, edge_index)
        return self.head(self.pool(h, batch, batch_size))


@pytest.mark.parametrize(
    "pool",
    [
        global_mean_pool,
        pytest.param(global_add_pool, marks=pytest.mark.full),
        pytest.param(global_max_pool, marks=pytest.mark.full),
    ],
)
def test_classifiers_of_any_number_of_graphs(pool: Callable[..., Tensor]) -> None:
    nodes, starts = CLOUDS["N"], CLOUDS["starts"]
    case = Case(
        lambda: OfGraphs(Graphs(pool)),
        (*ragged(6, 3, 5), edges(14, 30)),
        (*ragged(7, 4), edges(11, 17)),
        ({0: nodes}, {0: nodes}, {0: starts}, ({1: E},)),
    )
    export(case.build().eval(), case, onnx=True)
