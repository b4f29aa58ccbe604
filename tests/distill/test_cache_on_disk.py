"""A teacher's captures on disk: found again by another run, and refused where anything changed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import (
    HintLoss,
    LogitLoss,
    LSPLoss,
    SpatialCorrelationLoss,
    TeacherCache,
    TemporalCorrelationLoss,
)
from pyg_stkd.distill.losses import correlation, structure
from pyg_stkd.distill.recording.disk import graph_store
from pyg_stkd.functional import lsp
from pyg_stkd.graph import Graph
from pyg_stkd.nn import STGCN

EDGES = torch.tensor([[0, 1, 2, 3, 0, 2], [1, 2, 3, 0, 2, 1]])
X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))

on_disk = pytest.mark.skipif(find_spec("safetensors") is None, reason="needs safetensors")
pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")


class Counted(GCN):
    runs = 0

    def forward(self, *args, **kwargs):
        type(self).runs += 1
        return super().forward(*args, **kwargs)


def build(layer: str = "convs.0", seed: int = 0) -> Distiller:
    torch.manual_seed(seed)
    Counted.runs = 0
    losses = [LogitLoss(), LSPLoss(layer, "convs.0", kernels.Linear())]
    return Distiller(Counted(5, 8, 2, 3), GCN(5, 6, 2, 3), losses)


def losses_of(distiller: Distiller, cache: TeacherCache, x: Tensor = X) -> dict[str, float]:
    _, losses = distiller(x, EDGES, teacher=cache(("train", 0), x, EDGES))
    return {name: value.item() for name, value in losses.items()}


@on_disk
def test_another_run_does_not_ask_the_teacher(tmp_path: Path) -> None:
    first = build()
    expected = {name: value.item() for name, value in first(X, EDGES)[1].items()}
    cache = TeacherCache(first, tmp_path / "cache")
    assert losses_of(first, cache) == expected
    assert len(cache) == 1
    second = build()
    assert losses_of(second, TeacherCache(second, tmp_path / "cache")) == expected
    assert Counted.runs == 0
    half = build()
    cache = TeacherCache(half, tmp_path / "half", dtype=torch.float16)
    losses_of(half, cache)  # written
    near = losses_of(half, cache)  # read
    assert near == pytest.approx(expected, rel=2e-3)
    assert near != expected


@on_disk
def test_refuses_another_teacher_and_other_layers(tmp_path: Path) -> None:
    TeacherCache(build(), tmp_path)
    with pytest.raises(ValueError, match=r"must hold a teacher of this distiller"):
        TeacherCache(build(seed=1), tmp_path)
    with pytest.raises(ValueError, match=r"must hold layers of this distiller: \['', 'convs.1'\]"):
        TeacherCache(build("convs.1"), tmp_path)


@pytest.mark.parametrize("path", [None, pytest.param("cache", marks=on_disk)])
def test_refuses_a_teacher_that_changed(tmp_path: Path, path: str | None) -> None:
    distiller = build()
    cache = TeacherCache(distiller, path and tmp_path / path)
    losses_of(distiller, cache)
    weight = next(distiller.teacher.parameters())
    before = weight.clone()
    with torch.no_grad():
        weight.add_(1.0)
    with pytest.raises(ValueError, match="'teacher' must stay as it is"):
        losses_of(distiller, cache)
    with torch.no_grad():
        weight.copy_(before)
    cache.clear()
    assert len(cache) == 0
    losses_of(distiller, cache)
    with torch.no_grad():
        weight.copy_(before)  # written to, and the same
    losses_of(distiller, cache)


@pytest.mark.parametrize("path", [None, pytest.param("cache", marks=on_disk)])
def test_refuses_another_input_under_a_known_key(tmp_path: Path, path: str | None) -> None:
    distiller = build()
    cache = TeacherCache(distiller, path and tmp_path / path)
    losses_of(distiller, cache)
    losses_of(distiller, cache, X.clone())  # equal
    with pytest.raises(ValueError, match=r"another one for \('train', 0\)"):
        losses_of(distiller, cache, X + 0.1)
    if path is not None:  # in another run too
        with pytest.raises(ValueError, match=r"another one for \('train', 0\)"):
            losses_of(distiller, TeacherCache(distiller, tmp_path / path), X + 0.1)
    careless = TeacherCache(distiller, path and tmp_path / f"{path}2", check_inputs=False)
    losses_of(distiller, careless)
    losses_of(distiller, careless, X + 0.1)


@pytest.mark.parametrize("path", [None, pytest.param("cache", marks=on_disk)])
def test_refuses_another_number_under_a_known_key(tmp_path: Path, path: str | None) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, times: float) -> Tensor:
            return x * times

    distiller = Distiller(Scaled(), Scaled(), [LogitLoss()])
    cache = TeacherCache(distiller, path and tmp_path / path)
    assert cache("a", X, times=2.0)[""][0].value.equal(X * 2)
    assert cache("a", X, times=2.0)[""][0].value.equal(X * 2)
    with pytest.raises(ValueError, match="another one for 'a'"):
        cache("a", X, times=3.0)


@pytest.mark.parametrize("memory", ["no file", None, 1])
def test_an_input_that_is_not_checked_may_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    """What is kept of the first is its own: files of its graph met the edges that came later."""
    if memory != "no file":
        pytest.importorskip("safetensors")
    monkeypatch.setattr(graph_store, "_MANY", 0)
    torch.manual_seed(0)
    loss = LSPLoss("convs.0", "convs.0", graph="teacher", normalize="l2")
    distiller = Distiller(GCN(5, 8, 2, 3), GCN(5, 6, 2, 3), [loss])
    on_file: Any = {} if memory == "no file" else {"path": tmp_path, "memory": memory}
    cache = TeacherCache(distiller, check_inputs=False, **on_file)
    edges, x = torch.randint(0, 20, (2, 60)), torch.randn(20, 5)
    first, convs = edges.clone(), (distiller.student.convs[0], distiller._teachers[0].convs[0])
    for _ in range(4):
        value = distiller(x, edges, teacher=cache("a", x, edges))[1]["lsp"]
        s, t = convs[0](x, edges), convs[1](x, first)
        expected = lsp(s, t, first, normalize="l2")
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
        edges.copy_(torch.randint(0, 20, (2, 60)))


@on_disk
def test_clearing_leaves_the_files_of_others(tmp_path: Path) -> None:
    other = tmp_path / "models" / "student.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"kept")
    distiller = build()
    cache = TeacherCache(distiller, path=tmp_path)
    losses_of(distiller, cache)
    cache.clear()
    assert len(cache) == 0
    assert other.read_bytes() == b"kept"


@on_disk
def test_memory_is_bounded(tmp_path: Path) -> None:
    distiller = build()
    cache = TeacherCache(distiller, tmp_path, memory=2)
    for i in range(4):
        cache(i, X, EDGES)
    assert Counted.runs == 4
    assert len(cache) == 4
    assert list(cache._captures) == [2, 3]
    kept = cache(2, X, EDGES)
    assert kept is cache(2, X, EDGES)
    cache(0, X, EDGES)
    assert list(cache._captures) == [2, 0]
    assert Counted.runs == 4  # read, not asked


@on_disk
def test_keys_last(tmp_path: Path) -> None:
    distiller = build()
    cache = TeacherCache(distiller, tmp_path)
    with pytest.raises(TypeError, match=r"'key' must be a string, a number or a tuple.*got object"):
        cache(object(), X, EDGES)
    cache("a/b:c", X, EDGES)
    (file,) = tmp_path.glob("*.safetensors")
    other = tmp_path / cache._file("d").name
    file.rename(other)
    with pytest.raises(ValueError, match=r"must be of the input 'd' \(got 'a/b:c'\)"):
        cache("d", X, EDGES)


@on_disk
def test_a_graph_of_roads(tmp_path: Path) -> None:
    graph = Graph(EDGES, 4)
    weight = graph.sort_edges(torch.rand(6))
    torch.manual_seed(0)
    teacher, student = STGCN(1, 4, 3, num_blocks=1), STGCN(1, 3, 3, num_blocks=1)
    distiller = Distiller(teacher, student, [HintLoss("blocks.0", "blocks.0")])
    x = torch.randn(2, 12, 4, 1)
    expected = distiller(x, graph, weight)[1]["hint"].item()
    cache = TeacherCache(distiller, tmp_path)
    for _ in range(2):
        known = cache("a", x, graph, weight)
        assert distiller(x, graph, weight, teacher=known)[1]["hint"].item() == expected


@on_disk
def test_structures_are_kept_beside_the_captures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found by another run, by the same input, and belong to one kernel and one graph."""
    torch.manual_seed(0)
    x = torch.randn(2, 12, 4, 1)

    def build(kernel: kernels.Kernel, layer: str = "blocks.0") -> Distiller:
        torch.manual_seed(1)
        teacher, student = STGCN(1, 8, 3, num_blocks=1), STGCN(1, 3, 3, num_blocks=1)
        pair = (layer, layer, kernel)
        return Distiller(
            teacher,
            student,
            [SpatialCorrelationLoss(*pair), TemporalCorrelationLoss(*pair)],
        )

    made: list[int] = []
    for name in ("local_structure", "temporal_structure"):
        module = structure if name == "local_structure" else correlation
        plain = getattr(module, name)
        counted = lambda *args, plain=plain: made.append(1) or plain(*args)  # noqa: E731
        monkeypatch.setattr(module, name, counted)

    def run(distiller: Distiller, edges: Tensor = EDGES) -> tuple[dict[str, float], int]:
        made.clear()
        cache = TeacherCache(distiller, tmp_path)
        key = "a" if edges is EDGES else "b"
        losses = distiller(x, edges, teacher=cache(key, x, edges))[1]
        return {name: value.item() for name, value in losses.items()}, len(made)

    expected = {n: v.item() for n, v in build(kernels.RBF(2.0))(x, EDGES)[1].items()}
    first = build(kernels.RBF(2.0))
    assert run(first) == (pytest.approx(expected), 2)
    assert len(TeacherCache(first, tmp_path)) == 1  # they are no inputs
    assert run(first) == (pytest.approx(expected), 0)
    assert run(build(kernels.RBF(2.0))) == (pytest.approx(expected), 0)
    other, count = run(build(kernels.RBF(0.5)))
    assert count == 2
    assert other != pytest.approx(expected)
    again = {n: v.item() for n, v in build(kernels.RBF(0.5))(x, EDGES)[1].items()}
    assert other == pytest.approx(again)
    flipped, count = run(build(kernels.RBF(2.0)), EDGES.flip(0))
    assert count == 2
    assert flipped != pytest.approx(expected)

    class Mine(kernels.RBF):  # of which the next run may know another version
        pass

    assert run(build(Mine(2.0)))[1] == 2
    assert run(build(Mine(2.0)))[1] == 2
    files = list((tmp_path / "structures").glob("*.safetensors"))
    assert len(files) == 6
    TeacherCache(first, tmp_path).clear()
    assert not list(tmp_path.glob("**/*.safetensors"))
    run(first)
    for file in (tmp_path / "structures").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="must be a file of a structure"):
        run(first)


@on_disk
def test_structures_are_of_the_captures_they_lie_beside(tmp_path: Path) -> None:
    distiller = build()
    losses_of(distiller, TeacherCache(distiller, tmp_path))
    (file,) = tmp_path.glob("*.safetensors")
    file.unlink()
    expected = distiller(X + 1, EDGES)[1]["lsp"].item()
    for _ in range(2):  # another input under the key whose file has gone
        cache = TeacherCache(distiller, tmp_path)
        assert losses_of(distiller, cache, X + 1)["lsp"] == pytest.approx(expected)


@on_disk
def test_a_graph_that_was_given_is_not_sorted_again(tmp_path: Path) -> None:
    graph = Graph(EDGES, 4)
    losses = [LSPLoss("blocks.0", "blocks.0", kernels.Linear())]
    distiller = Distiller(STGCN(1, 4, 3, num_blocks=1), STGCN(1, 3, 3, num_blocks=1), losses)
    x = torch.randn(2, 12, 4, 1)
    checked = TeacherCache(distiller, tmp_path)
    for _ in range(2):
        assert checked("a", x, graph)["blocks.0"][0].edge_index is graph
    careless = TeacherCache(distiller, tmp_path, check_inputs=False)
    other = Graph(EDGES.flip(0), 4)
    found = careless("a", x, other)["blocks.0"][0].edge_index
    assert found is not other
    assert torch.equal(found.edge_index, graph.edge_index)
    careless("b", x, other)
    assert checked("b", x, graph)["blocks.0"][0].edge_index is not graph  # not known to be the same


def test_bad_arguments(tmp_path: Path) -> None:
    distiller = Distiller(nn.Linear(2, 3), nn.Linear(2, 3))
    with pytest.raises(ValueError, match="must be given with a 'path' only"):
        TeacherCache(distiller, memory=2)
    with pytest.raises(TypeError, match="'dtype' must be a floating point type"):
        TeacherCache(distiller, tmp_path, dtype=torch.int8)
    with pytest.raises(ValueError, match="'memory' must be"):
        TeacherCache(distiller, tmp_path, memory=-1)
