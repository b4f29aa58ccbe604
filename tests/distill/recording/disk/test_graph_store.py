"""What is made of a graph, in files: read as it was made, and refused where it is damaged."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_stkd.distill.recording.disk import graph_store as module
from pyg_stkd.distill.recording.disk.beside import Beside
from pyg_stkd.distill.recording.disk.graph_store import GraphStore, store_beside
from pyg_stkd.graph import Graph
from pyg_stkd.graph.both_ways import both_ways
from pyg_stkd.graph.extended import simple
from pyg_stkd.graph.unordered import unordered

pytest.importorskip("safetensors")

_ONE_WAY = torch.randint(9, (2, 20))
_LOOPS = torch.tensor([[0, 1, 3, 3], [1, 0, 3, 3]])
EDGES = torch.cat([_ONE_WAY, _ONE_WAY.flip(0), _LOOPS], dim=1)
# What is in files, and all that comes with it.
MADE: dict[str, Callable[[Graph], Any]] = {
    "simple": lambda graph: all_of(simple(graph)),
    "unordered": lambda graph: all_of(graph)[1:],
}


def all_of(graph: Graph) -> tuple[Any, ...]:
    pairs, place = unordered(graph)
    return graph, pairs, place, both_ways(graph if pairs is None else pairs)


def kept(folder: Path, edges: Tensor = EDGES, nodes: int = 9) -> Graph:
    graph = Graph(edges, nodes)
    graph.store = GraphStore(Beside(folder, "a"), "graph")
    return graph


def arrays(value: Any) -> list[Tensor]:
    if isinstance(value, Graph):
        return [value.edge_index, *value.csr(), *value.csc(), value.perm]
    if value is None or isinstance(value, Tensor):
        return [] if value is None else [value]
    return [x for each in value for x in arrays(each)]


def check_same(ours: Any, theirs: Any) -> None:
    ours, theirs = arrays(ours), arrays(theirs)
    assert len(ours) == len(theirs)
    for each, other in zip(ours, theirs, strict=True):
        assert each.tolist() == other.tolist()


def never(*_: Any) -> Any:
    raise AssertionError("made again")


@pytest.mark.parametrize("kind", MADE)
def test_what_was_made_is_read(tmp_path: Path, kind: str) -> None:
    expected = MADE[kind](Graph(EDGES, 9))
    for graph in (kept(tmp_path), kept(tmp_path)):  # made, and read
        check_same(MADE[kind](graph), expected)
    assert len(list(tmp_path.iterdir())) == 1
    graph = kept(tmp_path)
    made = graph.store.derived(graph, kind, never)
    check_same(made, expected[:2] if kind == "unordered" else expected[0])


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(0, 12), st.sampled_from(list(MADE)))
def test_of_any_graph(tmp_path_factory: Any, nodes: int, count: int, kind: str) -> None:
    folder, edges = tmp_path_factory.mktemp("kept"), torch.randint(nodes, (2, count))
    expected = MADE[kind](Graph(edges, nodes))
    for _ in range(2):
        check_same(MADE[kind](kept(folder, edges, nodes)), expected)


def test_nothing_is_sorted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not both directions of the pairs of the sorted edges, as losses over a union ask for them."""
    expected = MADE["simple"](Graph(EDGES, 9))
    MADE["simple"](kept(tmp_path))
    graph = kept(tmp_path)
    for name in ("extended", "unordered", "both_ways"):
        place = importlib.import_module(f"pyg_stkd.graph.{name}")
        monkeypatch.setattr(place, "_keys" if name == "extended" else "_build", never)
    check_same(MADE["simple"](graph), expected)


def test_other_things_are_built(tmp_path: Path) -> None:
    graph = kept(tmp_path)
    assert graph.derived("twice", lambda: 2) == 2
    assert not list(tmp_path.iterdir())
    assert graph.without_derived().store is None


def test_only_of_large_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = Graph(EDGES, 9), Graph(EDGES, 9)
    store_beside(small, Beside(tmp_path, "a"))
    assert small.store is None
    monkeypatch.setattr(module, "_MANY", EDGES.size(1))
    store_beside(large, Beside(tmp_path, "a"))
    first = large.store
    assert first == GraphStore(Beside(tmp_path, "a"), "graph")
    store_beside(large, Beside(tmp_path, "b"))  # another layer on the same graph
    assert large.store is first


def swapped(x: Tensor) -> Tensor:
    return x.flip(-1)


def beyond(x: Tensor) -> Tensor:
    return torch.cat([x[..., :-1], x[..., -1:] + 1000], dim=-1)


def below(x: Tensor) -> Tensor:
    return torch.cat([x[..., :1] - 1000, x[..., 1:]], dim=-1)


def shorter(x: Tensor) -> Tensor:
    return x[..., :-1]


@pytest.mark.parametrize("damage", [beyond, below, shorter, Tensor.float], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("kind", "name"),
    [("simple", "edges")]
    + [(kind, name) for kind in MADE for name in ("pairs", "place", "pointer", "node", "weight")],
)
def test_refuses_what_is_damaged(tmp_path: Path, kind: str, name: str, damage: Any) -> None:
    if damage is shorter and name in ("edges", "pairs"):
        damage = swapped
    MADE[kind](kept(tmp_path))
    beside = Beside(tmp_path, "a")
    found = {key: value.clone() for key, value in beside.read_all(f"graph/{kind}").items()}
    beside.write_all(f"graph/{kind}", {**found, name: damage(found[name])})
    with pytest.raises(ValueError, match=r"safetensors must be a file of a graph with 44 edges"):
        MADE[kind](kept(tmp_path))


@pytest.mark.parametrize("kind", MADE)
def test_refuses_another_file(tmp_path: Path, kind: str) -> None:
    MADE[kind](kept(tmp_path))
    Beside(tmp_path, "a").write("graph/" + kind, torch.ones(3))
    with pytest.raises(ValueError, match=r"must be a file of a graph with 44 edges"):
        MADE[kind](kept(tmp_path))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="must be a file of a structure"):
        MADE[kind](kept(tmp_path))
