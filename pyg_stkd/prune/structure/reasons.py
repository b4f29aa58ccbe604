"""Why channels are kept."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

__all__ = ["FREED_BY", "Reason", "caller"]

FREED_BY = {
    "mixes": "a layer with a rule, or ignore=[...] to say so",
    "width": "sizes read from shapes or attributes, and nothing beside them that cannot shrink",
    "number": "a factor that does not change with the width",
    "differs": "a rule for the layer (pyg_stkd.prune.register)",
    "rule": "a rule (pyg_stkd.prune.register), or an example to follow channels on",
    "shared": "parameters of its own",
    "early": "a forward of the model in 'call', which renews masks",
}

_PACKAGE = str(Path(__file__).parents[2])
_TORCH = f"{Path(torch.__file__).parent}/"


@dataclass(frozen=True)
class Reason:
    """Why some channels are kept.

    Args:
        module (str): The module in whose code it was found.
        function (str): The function that was called there.
        where (str): The file and the line.
        channels (tuple of int): The units.
        why (str): What is at fault.
    """

    module: str
    function: str
    where: str
    channels: tuple[int, ...] = field(repr=False)
    why: str
    kind: str = "mixes"

    @property
    def is_natural(self) -> bool:
        """Whether nothing could change it: the inputs and outputs of a model."""
        return self.kind == "natural"

    def __str__(self) -> str:
        places = [place for place in (self.module, self.function, self.where) if place]
        return f"{self.why} ({', '.join(places)})" if places else self.why


def caller() -> str:
    """Return the file and the line of the model's code that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        inside = name.startswith((f"{_PACKAGE}/prune/", _TORCH))
        if not inside and not name.startswith("<frozen"):
            path = Path(name)
            return f"{'/'.join(path.parts[-2:])}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""
