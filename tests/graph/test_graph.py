from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor

from pyg_stkd.functional import sddmm, spmm
from pyg_stkd.graph import Graph, union_edges
from pyg_stkd.graph.loops import add_loops, drop_loops
from pyg_stkd.graph.union import same_edges

RANDOM = torch.tensor([[3, 0, 2, 4, 0, 1, 3, 2], [1, 2, 0, 4, 2, 0, 3, 1]])  # loops and duplicates
EDGES = {
    "random": RANDOM,
    "sorted": RANDOM[:, RANDOM[1].argsort(stable=True)],
    "int32": RANDOM.to(torch.int32),
    "strided": torch.stack([RANDOM, RANDOM + 7], dim=2).flatten(1)[:, ::2],
    "transposed": RANDOM.t().contiguous().t(),
    "one": torch.tensor([[4], [1]]),
    "none": torch.empty(2, 0, dtype=torch.long),
}


@st.composite
def edge_sets(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int]]:
    num_src, num_dst = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    edge = st.tuples(st.integers(0, num_src - 1), st.integers(0, num_dst - 1))
    edges = draw(st.lists(edge, max_size=20))
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t(), (num_src, num_dst)


def pairs(edge_index: Tensor) -> list[tuple[int, int]]:
    return [(int(src), int(dst)) for src, dst in edge_index.t()]


def assert_order(graph: Graph, given: Tensor) -> None:
    src, dst = given.long()
    perm = torch.argsort(dst, stable=True)
    degree = torch.bincount(dst, minlength=graph.size[1])
    assert graph.perm.equal(perm)
    assert graph.edge_index.equal(given.long()[:, perm])
    assert graph.col.equal(src[perm])
    assert graph.degree.equal(degree)
    assert graph.rowptr.tolist() == [0, *degree.cumsum(0).tolist()]
    for index in (graph.edge_index, graph.perm, graph.rowptr, graph.col):
        assert index.dtype == torch.int64


def assert_transpose(graph: Graph) -> None:
    pointer, row, perm = graph.csc()
    src, dst = graph.edge_index[:, perm]
    assert src.equal(graph.col.sort().values)
    assert row.long().equal(dst)
    assert pointer.diff().tolist() == torch.bincount(graph.col, minlength=graph.size[0]).tolist()
    assert graph.csc()[0] is pointer  # made once


@pytest.mark.parametrize("name", EDGES)
def test_order(name: str, device: torch.device) -> None:
    given = EDGES[name].to(device)
    graph = Graph(given, 6)
    assert (graph.num_nodes, graph.num_edges, graph.device) == (6, given.size(1), given.device)
    assert graph.value is None
    assert_order(graph, given)
    assert_transpose(graph)


@given(edge_sets())
def test_order_of_any_edges(drawn: tuple[Tensor, tuple[int, int]]) -> None:
    graph = Graph(*drawn)
    assert_order(graph, drawn[0])
    assert_transpose(graph)


def test_large_graph_is_sorted_stably() -> None:
    given = torch.randint(0, 300, (2, 100_000))
    assert_order(Graph(given), given)


def test_sizes() -> None:
    assert Graph(RANDOM).size == (5, 5)
    assert Graph(EDGES["none"]).size == (0, 0)
    assert Graph(EDGES["none"], 3).rowptr.tolist() == [0, 0, 0, 0]
    assert Graph(EDGES["none"], 0).rowptr.tolist() == [0]
    graph = Graph(torch.tensor([[0, 6], [1, 0]]), (7, 2))
    assert (graph.size, graph.num_nodes, graph.degree.tolist()) == ((7, 2), 2, [1, 1])
    assert repr(graph) == "Graph(num_nodes=(7, 2), num_edges=2)"
    assert repr(Graph(RANDOM)) == "Graph(num_nodes=5, num_edges=8)"


def matrix(layout: str, value: Tensor) -> object:
    """The random edges as an ``adj_t`` of five targets and six sources."""
    if layout == "SparseTensor":
        if not WITH_TORCH_SPARSE:
            pytest.skip("torch-sparse is not installed")
        return SparseTensor(row=RANDOM[1], col=RANDOM[0], value=value, sparse_sizes=(5, 6))
    coo = torch.sparse_coo_tensor(RANDOM.flip(0), value, (5, 6), check_invariants=True)
    if layout == "uncoalesced":
        return coo
    coo = coo.coalesce()
    return {"coo": coo, "csr": coo.to_sparse_csr(), "csc": coo.to_sparse_csc()}[layout]


@pytest.mark.parametrize("layout", ["SparseTensor", "uncoalesced", "coo", "csr", "csc"])
def test_sparse_matrix(layout: str) -> None:
    value = torch.arange(1.0, 9.0)
    graph = Graph(matrix(layout, value))
    dense = torch.zeros(5, 6).index_put((RANDOM[1], RANDOM[0]), value, accumulate=True)
    assert graph.size == (6, 5)
    assert graph.value is not None
    got = torch.zeros(5, 6).index_put((graph.edge_index[1], graph.col), graph.value, True)
    assert got.equal(dense)
    # Matrices that torch coalesces have merged the duplicate edge; the others keep it.
    assert graph.num_edges == (8 if layout in ("SparseTensor", "uncoalesced") else 7)


def test_unweighted_sparse_tensor() -> None:
    graph = Graph(matrix("SparseTensor", None))  # type: ignore[arg-type]
    assert graph.value is None
    assert sorted(pairs(graph.edge_index)) == sorted(pairs(RANDOM))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("order", ["row", "col"])
def test_edge_index_class(dtype: torch.dtype, order: str) -> None:
    given = EdgeIndex(RANDOM.to(dtype), sparse_size=(6, 5)).sort_by(order).values
    graph = Graph(given)
    assert graph.size == (6, 5)
    assert type(graph.edge_index) is Tensor
    assert_order(graph, given.as_tensor())
    assert Graph(EdgeIndex(RANDOM)).size == (5, 5)


def test_graph_of_graph() -> None:
    graph = Graph(RANDOM)
    assert Graph.of(graph) is graph
    assert Graph.of(graph, 5) is graph
    assert Graph.of(graph, (5, 5)) is graph
    assert Graph.of(RANDOM, 9).num_nodes == 9
    with pytest.raises(ValueError, match=r"must be \(6, 6\).*\(got \(5, 5\)\)"):
        Graph.of(graph, 6)
    again = Graph(graph)
    assert again.edge_index.equal(graph.edge_index)
    assert again.perm.tolist() == list(range(8))


def test_sort_edges() -> None:
    graph = Graph(RANDOM)
    assert graph.sort_edges(RANDOM[0]).equal(graph.col)
    assert graph.sort_edges(RANDOM.t()).equal(graph.edge_index.t())
    with pytest.raises(ValueError, match=r"'value' must have one row for each of the 8.*\(got 3\)"):
        graph.sort_edges(torch.ones(3))


def assert_same(a: Graph, b: Graph) -> None:
    x = torch.randn(5, 3)
    assert a.size == b.size
    assert a.edge_index.equal(b.edge_index)
    assert a.perm.equal(b.perm)
    assert (a.value is None) == (b.value is None)
    x_a, x_b = (x.clone().requires_grad_() for _ in range(2))
    spmm(a, sddmm(a, x_a, x_a), x_a).sum().backward()
    spmm(b, sddmm(b, x_b, x_b), x_b).sum().backward()
    assert x_a.grad.equal(x_b.grad)


@pytest.mark.parametrize("used", [False, True])
def test_copies(used: bool) -> None:
    value = torch.rand(8)
    graph = Graph(torch.sparse_coo_tensor(RANDOM.flip(0), value, (5, 5), check_invariants=True))
    if used:
        graph.csc()
    stream = io.BytesIO()
    torch.save(graph, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    for other in (
        copy.copy(graph),
        copy.deepcopy(graph),
        loaded,
        pickle.loads(pickle.dumps(graph)),
    ):
        assert other is not graph
        assert_same(graph, other)


def test_to(device: torch.device) -> None:
    graph = Graph(RANDOM)
    graph.csc()
    moved = graph.to(device)
    assert moved.device.type == device.type
    assert_same(graph, moved.to("cpu"))
    assert graph.to("cpu") is graph
    meta = graph.to("meta")
    tensors = [meta.edge_index, meta.perm, meta.rowptr, meta.degree, *meta.csr(), *meta.csc()]
    assert {index.device.type for index in tensors} == {"meta"}


def test_graph_does_not_change_with_its_input() -> None:
    given = EDGES["sorted"].clone()
    graph = Graph(given)
    given.zero_()
    assert_order(graph, EDGES["sorted"])


@pytest.mark.parametrize("name", ["random", "sorted"])
def test_graph_of_an_evaluation_serves_training(name: str) -> None:
    with torch.inference_mode():
        graph = Graph(EDGES[name].clone())
        graph.csc()
    assert not any(t.is_inference() for t in (graph.edge_index, *graph.csr(), *graph.csc()))
    assert_same(graph, Graph(EDGES[name]))
    with torch.inference_mode():
        moved = graph.to("meta")
    assert not any(t.is_inference() for t in (moved.edge_index, *moved.csr(), *moved.csc()))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_build() -> None:
    def neighbours(edge_index: Tensor, x: Tensor) -> Tensor:
        return spmm(Graph(edge_index, x.size(0)), None, x)

    x = torch.randn(5, 3)
    compiled = torch.compile(neighbours, backend="aot_eager", fullgraph=True)
    assert compiled(RANDOM, x).equal(neighbours(RANDOM, x))


BAD = {
    "list": ([[0], [1]], None, TypeError, r"'edge_index' must be a tensor.*\(got list\)"),
    "float": (torch.ones(2, 3), None, TypeError, r"must be of dtype.*\(got torch.float32\)"),
    "bool": (torch.ones(2, 3).bool(), None, TypeError, r"must be of dtype.*\(got torch.bool\)"),
    "rows": (RANDOM[0], None, ValueError, r"shape \[2, num_edges\].*\(got \[8\]\)"),
    "columns": (RANDOM.t(), None, ValueError, r"shape \[2, num_edges\].*\(got \[8, 2\]\)"),
    "negative": (RANDOM - 1, None, IndexError, r"negative indices \(got -1\)"),
    "source": (RANDOM, (4, 5), IndexError, r"source indices below the 4 source nodes \(got 4\)"),
    "target": (RANDOM, (5, 4), IndexError, r"target indices below the 4 target nodes \(got 4\)"),
    "size": (EDGES["none"], -1, ValueError, r"'num_nodes' must not be negative \(got -1\)"),
    "size type": (RANDOM, 5.0, TypeError, r"'num_nodes' must be an integer.*\(got 5.0\)"),
    "size pair": (RANDOM, (5, 5, 5), TypeError, r"'num_nodes' must be .* \(got \(5, 5, 5\)\)"),
    "matrix": (torch.ones(9, 9).to_sparse(), 4, ValueError, r"the \(9, 9\) .*\(got 4\)"),
    "batch": (torch.ones(2, 2, 2).to_sparse(), None, ValueError, r"two dimensions \(got 3\)"),
    "hybrid": (torch.ones(2, 2).to_sparse(1), None, ValueError, r"sparse in both dimensions"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    edge_index, num_nodes, error, text = BAD[name]
    with pytest.raises(error, match=text):
        Graph(edge_index, num_nodes)


@given(edge_sets(), edge_sets())
def test_union(a: tuple[Tensor, tuple[int, int]], b: tuple[Tensor, tuple[int, int]]) -> None:
    united = union_edges(Graph(*a), Graph(*b))
    expected = sorted({*pairs(a[0]), *pairs(b[0])}, key=lambda pair: pair[::-1])
    assert pairs(united.edge_index) == expected
    assert united.perm.tolist() == list(range(united.num_edges))
    assert united.size == (max(a[1][0], b[1][0]), max(a[1][1], b[1][1]))
    assert pairs(union_edges(b[0], a[0]).edge_index) == expected
    assert_transpose(united)


def test_union_sizes() -> None:
    a, b = torch.tensor([[0], [1]]), torch.tensor([[4], [0]])
    assert union_edges(a, b).size == (5, 5)
    assert union_edges(a, b, 7).size == (7, 7)
    assert union_edges(a, b, (6, 3)).size == (6, 3)
    assert union_edges(a[:, :0], b[:, :0]).size == (0, 0)
    assert union_edges(Graph(a, 3), Graph(b, (9, 2))).size == (9, 3)
    with pytest.raises(IndexError, match=r"below the 4 source nodes \(got 4\)"):
        union_edges(a, b, 4)
    with pytest.raises(IndexError, match="negative"):
        union_edges(a, b - 1)
    with pytest.raises(ValueError, match=r"one device \(got cpu and meta\)"):
        union_edges(a, b.to("meta"))


def test_union_of_wide_graphs_does_not_overflow() -> None:
    top = 2**31 + 5
    a, b = Graph(torch.tensor([[top, 1], [3, 2]]), (top + 1, 9)), torch.tensor([[1], [2]])
    assert pairs(union_edges(a, b).edge_index) == [(1, 2), (top, 3)]


def test_same_edges_in_any_order() -> None:
    edges = torch.randint(0, 5, (2, 30))  # many duplicates
    graph, turned = Graph(edges, 5), Graph(edges[:, torch.randperm(30)], 5)
    assert not torch.equal(graph.edge_index, turned.edge_index)
    assert same_edges(graph, turned)
    assert same_edges(graph, Graph(edges, 5))
    moved = graph.edge_index.clone()
    moved[0, 0] = (moved[0, 0] + 1) % 5
    assert not same_edges(graph, Graph(moved, 5))
    assert not same_edges(graph, Graph(edges, 6))
    assert not same_edges(graph, Graph(edges[:, 1:], 5))
    assert not same_edges(graph, Graph(edges.flip(0), 5))
    pair = [Graph(torch.tensor([col, [0, 0, 0]]), 5) for col in ([0, 3, 3], [1, 1, 4])]
    assert not same_edges(*pair)  # for all that their sums of squares are equal
    none = torch.empty(2, 0, dtype=torch.long)
    assert same_edges(Graph(none, 0), Graph(none, 0))
    assert not same_edges(graph, graph.to("meta"))


def test_loops_are_dropped_and_added() -> None:
    edges = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 1, 1, 0, 2, 1]])
    graph = Graph(edges, 4)
    looped = add_loops(graph)
    for given_ in (graph, looped):
        assert drop_loops(given_).edge_index.tolist() == [[2, 0, 0], [0, 1, 1]]
        assert drop_loops(given_).size == (4, 4)
    assert same_edges(looped, Graph(torch.cat([edges, torch.tensor([[0, 3]] * 2)], dim=1), 4))
    assert add_loops(Graph(edges[:, :0], 0)).num_edges == 0


def test_what_is_derived_belongs_to_one_graph() -> None:
    graph, calls = Graph(RANDOM), []

    def build() -> Tensor:
        calls.append(0)
        return graph.degree + 1

    with torch.inference_mode():
        first = graph.derived("sums", build, 3)
    assert not first.is_inference()
    assert graph.derived("sums", build, 3) is first
    assert graph.derived("sums", build, 4) is not first
    assert graph.derived("others", build, 3) is not first
    assert Graph(RANDOM).derived("sums", build, 3) is not first
    assert len(calls) == 4
    assert graph.to("meta").derived("sums", lambda: None) is None
    for option in (1, 2, 1, 3):  # 2 was not asked for the longest
        graph.derived("few", build, option, most=2)
    kept = [key for key in graph._derived if key[0] == "few"]
    assert kept == [("few", 1), ("few", 3)]


def test_names_in_place_of_indices_take_no_memory() -> None:
    with pytest.raises(ValueError, match=r"'edge_index' must hold indices of at most 4294967296"):
        Graph(torch.tensor([[0], [10**12]]))
    with pytest.raises(ValueError, match=r"'num_nodes' must be of at most 4294967296 nodes"):
        Graph(torch.tensor([[0], [1]]), 10**13)
