"""What a teacher said of one input, to be used instead of running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.graph_cache import GraphCache
from pyg_stkd.graph import Graph

__all__ = ["TeacherCaptures"]


class TeacherCaptures(Mapping[str, tuple[Capture, ...]]):
    r"""The captures of a teacher for one input, by layer, to be used instead of running it.

    Made by :meth:`Distiller.capture_teacher`, given back as :obj:`distiller(..., teacher=...)`.

    Args:
        captures (dict): The calls of each layer, in order; :obj:`""` is the output of the model.

    Attributes:
        graphs: The graphs of the teachers (and of a student that has the same), which stay sorted
            for as long as the captures are kept.

    Example:
        >>> from pyg_stkd.distill import Capture
        >>> TeacherCaptures({"": (Capture(torch.ones(3, 2)),)})
        TeacherCaptures('': [3, 2])
    """

    def __init__(self, captures: Mapping[str, tuple[Capture, ...]]) -> None:
        # One for each of the teachers at most, and what losses make of them.
        self.graphs = GraphCache(size=3 + len(captures))
        self._captures = {
            layer: tuple(capture.at(None, self.graphs) for capture in calls)
            for layer, calls in captures.items()
        }
        for capture in (x for calls in captures.values() for x in calls if x.frozen):
            if isinstance(capture.edge_index, Graph):
                self.graphs.keep(capture.edge_index)

    def __getitem__(self, layer: str) -> tuple[Capture, ...]:
        return self._captures[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._captures)

    def __len__(self) -> int:
        return len(self._captures)

    def to(self, device: torch.device | str) -> TeacherCaptures:
        """Return the captures on another device."""
        return TeacherCaptures(
            {layer: tuple(c.to(device) for c in calls) for layer, calls in self.items()}
        )

    def __repr__(self) -> str:
        items = (
            f"{k!r}: {', '.join(str(list(c.value.shape)) for c in v)}" for k, v in self.items()
        )
        return f"{type(self).__name__}({', '.join(items)})"
