"""What losses made of a teacher's captures: remembered with them, and beside their files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.disk.graph_store import GraphStore
from pyg_stkd.distill.recording.fingerprint import fingerprint
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import Kernel, state_of

__all__ = ["remembered"]


def remembered(
    teacher: Capture,
    owner: Any,
    graph: Graph | None,
    options: tuple[Any, ...],
    kernel: Kernel,
    build: Callable[[], Tensor],
    base: tuple[Graph | None, int] = (None, 1),
) -> Tensor | None:
    """Return what was made of a frozen capture before; :obj:`None` the first time, when it is made.

    Args:
        teacher (Capture): The capture.
        owner (Any): Who asks: what it made is in the memory of the capture under its name.
        graph (Graph, optional): The graph on which it was made.
        options (tuple): What it depends on besides, of plain values.
        kernel (Kernel): The kernel, whose numbers may change.
        build (callable): Makes it.
        base (tuple): What the graph is made of, for files: a graph, and a number of copies.
    """
    state = state_of(kernel) if teacher.frozen else None
    if state is None:
        return None
    known, key = teacher.memo.get(owner), (state, *options)
    if known is not None and known[0] is graph and known[1] == key:
        return known[2]
    beside = teacher.beside
    # The classes of others may compute something else in the next run.
    what = _in_words(kernel, options, base) if type(kernel).__module__ == Kernel.__module__ else ""
    made = beside.read(what) if beside is not None and what else None
    if made is not None:
        made = made.to(teacher.value.device)
        teacher.memo[owner] = graph, key, made
        return made
    with torch.no_grad():
        made = build()
    teacher.memo[owner] = graph, key, made
    if beside is not None and what:
        beside.write(what, made)
    return None  # the features once more: losses look at them the first time


def _in_words(kernel: Kernel, options: tuple[Any, ...], base: tuple[Graph | None, int]) -> str:
    state = state_of(kernel)
    assert state is not None
    graph, copies = base
    edges = ""
    if graph is not None and isinstance(graph.store, GraphStore):
        edges = graph.store.name  # of the same file, in each run
    elif graph is not None:
        edges = graph.derived("fingerprint", lambda: fingerprint(graph))
    return f"{type(kernel).__name__} {sorted(state[1].items())} {options} {edges} x {copies}"
