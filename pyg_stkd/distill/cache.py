"""What need not be computed again: the outputs of a fixed teacher."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from pyg_stkd.distill.graph_cache import GraphCache

if TYPE_CHECKING:
    from pyg_stkd.distill.capture import Capture
    from pyg_stkd.distill.distiller import Distiller

__all__ = ["TeacherCache", "TeacherCaptures"]


class TeacherCaptures(Mapping[str, "tuple[Capture, ...]"]):
    r"""The captures of a teacher for one input, by layer, to be used instead of running it.

    Made by :meth:`Distiller.capture_teacher`, given back as :obj:`distiller(..., teacher=...)`.

    Args:
        captures (dict): The calls of each layer, in order; :obj:`""` is the output of the model.

    Attributes:
        graphs: The graphs of this input, which stay sorted for as long as the captures are kept.

    Example:
        >>> from pyg_stkd.distill import Capture
        >>> TeacherCaptures({"": (Capture(torch.ones(3, 2)),)})
        TeacherCaptures('': [3, 2])
    """

    def __init__(self, captures: Mapping[str, tuple[Capture, ...]]) -> None:
        # That of the student, and maybe one of its own (and a union) for each of the teachers.
        self.graphs = GraphCache(size=3 + len(captures))
        self._captures = {
            layer: tuple(capture.at(None, self.graphs) for capture in calls)
            for layer, calls in captures.items()
        }

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


class TeacherCache:
    r"""The captures of a fixed teacher for each of a fixed set of inputs.

    A frozen teacher says the same of the same graph in every epoch: run it once.

    Args:
        distiller (Distiller): The distiller whose teacher is asked.

    Example:
        >>> from pyg_stkd.distill import Distiller, SoftTargetLoss
        >>> teacher, student = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        >>> distiller = Distiller(teacher, student, [SoftTargetLoss()])
        >>> cache, x = TeacherCache(distiller), torch.ones(4, 2)
        >>> for epoch in range(2):
        ...     out, losses = distiller(x, teacher=cache("train", x))
        >>> len(cache)
        1
    """

    def __init__(self, distiller: Distiller) -> None:
        self._distiller = distiller
        self._captures: dict[Hashable, TeacherCaptures] = {}

    def __call__(self, key: Hashable, *args: Any, **kwargs: Any) -> TeacherCaptures:
        """Return the captures of the input named :obj:`key`; the first call runs the teacher."""
        if key not in self._captures:
            self._captures[key] = self._distiller.capture_teacher(*args, **kwargs)
        return self._captures[key]

    def clear(self) -> None:
        """Forget all captures, for example after the teacher's weights were changed."""
        self._captures.clear()

    def __len__(self) -> int:
        return len(self._captures)
