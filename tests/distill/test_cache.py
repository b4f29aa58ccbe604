from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex

from pyg_stkd.distill import (
    Capture,
    Distiller,
    LSPLoss,
    SoftTargetLoss,
    TeacherCache,
    TeacherCaptures,
)
from pyg_stkd.distill.losses import structure
from pyg_stkd.distill.recording.graph_cache import GraphCache, LayeredCache
from pyg_stkd.graph import Graph, union_edges
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import GAT

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
OTHER = torch.tensor([[2, 1, 1], [1, 0, 0]])


def test_equal_edges_are_sorted_once():
    cache = GraphCache()
    graph = cache.get(EDGES, 3)
    assert cache.get(EDGES, 3) is graph
    assert cache.get(EDGES.clone(), 3) is graph
    assert cache.get(EDGES, 4) is not graph
    assert cache.get(EDGES.flip(0), 3) is not graph
    assert cache.get(EDGES[:, :2], 3) is not graph


def test_graphs_pass_through():
    graph = Graph(EDGES)
    assert GraphCache().get(graph, 3) is graph
    with pytest.raises(ValueError, match=r"got \(3, 3\)"):
        GraphCache().get(graph, 4)


def test_rewritten_edges_are_sorted_again():
    cache, edges = GraphCache(), EDGES.clone()
    before = cache.get(edges, 3)
    edges[0, 0] = 2
    after = cache.get(edges, 3)
    assert after is not before
    assert after.edge_index.tolist() == Graph(edges).edge_index.tolist()
    assert cache.get(EDGES, 3) is before  # what was given then is still known


def rewrite_data(edges: Tensor) -> None:
    edges.data.copy_(OTHER)


def rewrite_shared_memory(edges: Tensor) -> None:
    edges.numpy()[:] = OTHER.numpy()


@pytest.mark.parametrize("rewrite", [rewrite_data, rewrite_shared_memory])
def test_writes_that_no_version_counts_are_seen(rewrite: Callable[[Tensor], None]):
    cache, edges = GraphCache(), EDGES.clone()
    before, version = cache.get(edges, 3), edges._version
    rewrite(edges)
    assert edges._version == version
    after = cache.get(edges, 3)
    assert after.edge_index.tolist() == Graph(OTHER, 3).edge_index.tolist()
    assert cache.get(edges.clone(), 3) is cache.get(OTHER, 3) is after
    assert cache.get(EDGES, 3) is before  # what was given then is still known


def test_writes_in_inference_mode_are_seen():
    cache = GraphCache()
    with torch.inference_mode():
        edges = EDGES.clone()
        before = cache.get(edges, 3)
        edges.copy_(OTHER)
        after = cache.get(edges, 3)
    assert after.edge_index.tolist() == Graph(OTHER, 3).edge_index.tolist()
    assert cache.get(EDGES, 3) is before
    assert cache.get(OTHER, 3) is after


def test_other_formats_are_known_by_their_object():
    cache = GraphCache()
    adj = torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(3), (3, 3), check_invariants=True)
    graph = cache.get(adj, 3)
    assert cache.get(adj, 3) is graph
    assert cache.get(adj.clone(), 3) is not graph
    edges = EdgeIndex(EDGES, sparse_size=(3, 3))
    graph = cache.get(edges, 3)
    assert cache.get(edges, 3) is graph
    assert cache.get(EDGES.int(), 3) is not cache.get(EDGES, 3)


def test_only_the_last_graphs_are_kept():
    cache = GraphCache(size=2)
    edges = [EDGES, EDGES.flip(0), EDGES[:, :1]]
    graphs = [cache.get(e, 3) for e in edges]
    assert cache.get(edges[2], 3) is graphs[2]
    assert cache.get(edges[1], 3) is graphs[1]
    assert cache.get(edges[0], 3) is not graphs[0]


def test_derived_graphs_are_kept_by_source():
    cache = GraphCache()
    a, b = Graph(EDGES), Graph(EDGES.flip(0))
    union = cache.derive("union", union_edges, a, b)
    assert cache.derive("union", union_edges, a, b) is union
    assert cache.derive("union", union_edges, b, a) is not union
    assert union.num_edges == 6


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_are_empty(copied):
    cache = GraphCache(size=3)
    graph = cache.get(EDGES, 3)
    other = copied(cache)
    assert other.size == 3
    assert other.get(EDGES, 3) is not graph


def test_teacher_runs_once_an_input():
    calls = []
    teacher = nn.Linear(2, 3)
    teacher.register_forward_hook(lambda *args: calls.append(1))
    distiller = Distiller(teacher, nn.Linear(2, 3), [SoftTargetLoss()])
    cache, inputs = TeacherCache(distiller), [torch.randn(4, 2), torch.randn(5, 2)]
    for _ in range(3):
        for i, x in enumerate(inputs):
            _, known = distiller(x, teacher=cache(i, x))
            before = len(calls)
            _, live = distiller(x)
            assert len(calls) == before + 1
            calls.pop()
            assert torch.equal(known["soft_target"], live["soft_target"])
    assert len(calls) == len(cache) == 2
    cache.clear()
    assert len(cache) == 0


def test_captures_are_a_mapping_that_moves():
    captures = TeacherCaptures({"a": (Capture(torch.ones(3, 2), {"edge_index": EDGES}),)})
    assert list(captures) == ["a"]
    assert len(captures) == 1
    assert captures["a"][0].graphs is captures.graphs
    moved = captures.to("meta")
    assert moved["a"][0].value.is_meta
    assert repr(captures) == "TeacherCaptures('a': [3, 2])"


def test_two_layers_keep_apart_what_lasts():
    known, own = GraphCache(), GraphCache(size=1)
    teacher = known.get(EDGES, 3)
    both = LayeredCache(known, own)
    assert both.get(EDGES.clone(), 3) is teacher
    other = both.get(EDGES.flip(0), 3)
    assert (known.holds(other), own.holds(other), both.holds(other)) == (False, True, True)
    union = both.derive("union", union_edges, teacher, other)
    assert (known.holds(union), own.holds(union)) == (False, True)
    turned = both.derive("flip", lambda g: Graph(g.edge_index.flip(0), 3), teacher)
    assert known.holds(turned)
    assert both.derive("flip", lambda g: Graph(g.edge_index, 3), teacher) is turned
    assert both.find(EDGES, 4) is None
    assert type(copy.deepcopy(both)) is GraphCache


def test_the_structure_on_a_graph_that_was_given_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Graph belongs to the user: nothing was built, and what is made on it is found again."""
    made: list[int] = []
    plain = structure.local_structure
    counted = lambda *args: made.append(1) or plain(*args)  # noqa: E731
    monkeypatch.setattr(structure, "local_structure", counted)
    x, edges = torch.randn(6, 3), torch.randint(6, (2, 20))
    for self_loops in ("keep", "drop"):
        made.clear()
        graph = Graph(edges, 6)
        torch.manual_seed(0)
        loss = LSPLoss("convs.0", "convs.0", RBF("median"), self_loops=self_loops)
        distiller = Distiller(GAT(3, 8, 2, 2), GAT(3, 4, 2, 2), [loss]).eval()
        expected = distiller(x, graph)[1]["lsp"]
        cache = TeacherCache(distiller)
        for _ in range(3):
            torch.testing.assert_close(
                distiller(x, graph, teacher=cache(0, x, graph))[1]["lsp"], expected
            )
        assert made == [1]


def test_known_inputs_and_teachers_are_not_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyg_stkd.distill.cache as module

    hashed: list[int] = []
    plain = module.fingerprint
    monkeypatch.setattr(module, "fingerprint", lambda *args: hashed.append(1) or plain(*args))
    x, graph = torch.randn(6, 3), Graph(torch.randint(6, (2, 20)), 6)
    teacher = GAT(3, 8, 2, 2)
    distiller = Distiller(teacher, GAT(3, 4, 2, 2), [LSPLoss("convs.0", "convs.0")])
    cache = TeacherCache(distiller)
    for _ in range(4):
        cache("a", x, graph)
    assert hashed == [1, 1]  # the teacher, and the input
    teacher.convs[1].lin.weight = torch.nn.Parameter(teacher.convs[1].lin.weight.clone())
    cache("a", x, graph)
    assert hashed == [1, 1, 1]  # another tensor of the same numbers
    with torch.no_grad():
        teacher.convs[1].lin.weight.add_(1)
    with pytest.raises(ValueError, match="other weights"):
        cache("a", x, graph)
