"""What losses make of captures: found again by its kernel, its options and its graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyg_stkd.distill import Capture
from pyg_stkd.distill.recording.disk.beside import Beside
from pyg_stkd.distill.recording.remembered import remembered
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF, Kernel

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


class Made:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Tensor:
        self.times += 1
        return torch.tensor([1.5, 2.5])


def frozen(beside: Beside | None = None) -> Capture:
    capture = Capture(torch.ones(3, 2), {"edge_index": EDGES}).freeze()
    capture.beside = beside
    return capture


def test_first_made_then_found() -> None:
    capture, made, kernel = frozen(), Made(), RBF(2.0)
    graph = Graph(EDGES, 3)

    def ask(owner: str = "a", graph: Graph = graph, width: int = 2) -> Tensor | None:
        return remembered(capture, owner, graph, ("x", width), kernel, made)

    assert ask() is None
    assert torch.equal(ask(), torch.tensor([1.5, 2.5]))
    assert made.times == 1
    for changed in ({"owner": "b"}, {"graph": Graph(EDGES, 3)}, {"width": 3}):
        assert ask(**changed) is None
    assert made.times == 4
    ask()
    kernel.sigma = 1.0
    assert ask() is None


def test_only_of_frozen_captures_and_plain_kernels() -> None:
    class Odd(Kernel):
        def __init__(self) -> None:
            self.inner = [1.0]

    made = Made()
    for _ in range(2):
        moving = Capture(torch.ones(3, 2))
        assert remembered(moving, "a", None, (), RBF(), made) is None
        assert remembered(frozen(), "a", None, (), Odd(), made) is None
    assert made.times == 0


def test_beside_a_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    made = Made()

    def ask(name: str = "1", kernel: Kernel | None = None, **about: object) -> Tensor | None:
        graph = about.get("graph", Graph(EDGES, 3))
        options = ("x", about.get("width", 2))
        kernel = RBF(2.0) if kernel is None else kernel
        beside = Beside(tmp_path, name)
        return remembered(
            frozen(beside), "a", None, options, kernel, made, (graph, about.get("copies", 1))
        )

    assert ask() is None
    assert torch.equal(ask(), torch.tensor([1.5, 2.5]))  # of another capture, by an equal graph
    assert made.times == 1
    others = (
        {"name": "2"},
        {"kernel": RBF(1.0)},
        {"graph": Graph(EDGES.flip(0), 3)},
        {"width": 3},
        {"copies": 2},
    )
    for changed in others:
        assert ask(**changed) is None
        assert torch.equal(ask(**changed), torch.tensor([1.5, 2.5]))
    assert made.times == 6
