"""Models and inputs on which a run tells more."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.structure.copies import with_its_parameters
from pyg_stkd.prune.structure.example import Example, evaluating

__all__ = ["Sharpened", "check_finite"]

_NOISE = 65521  # random numbers, over and over: a prime, so that no two rows get the same ones

T = TypeVar("T")


class Sharpened:
    """A model and inputs that tell more: float64, and weights that are not 0 or alike.

    They are made when they are first asked for, and are as they were where the model does not run
    so.

    Args:
        plain (callable): Makes a copy of the model without masks.
        example (Example): Inputs.
    """

    def __init__(self, plain: Callable[[], nn.Module], example: Example) -> None:
        self._plain = plain
        self._example = example
        self._pair: tuple[nn.Module, Example] | None = None

    @property
    def model(self) -> nn.Module:
        """The model, in eval mode."""
        return self._found()[0]

    @property
    def example(self) -> Example:
        """The inputs."""
        return self._found()[1]

    def tried(self, function: Callable[[nn.Module, Example, bool], T]) -> T:
        """Return what a function makes of a copy of the model, and of the inputs.

        It runs the model, so that nothing else has to, and raises where that does not run sharpened
        so far: it is called again on one that is sharpened less.

        Args:
            function (callable): Takes the copy, which has the parameters of the model and may be
                changed, the inputs, and whether outputs that are not finite must raise.
        """
        if self._pair is not None:
            return function(with_its_parameters(self._pair[0]), self._pair[1], False)
        for shaken, dtype in product((True, False), (torch.float64, None)):
            model, inputs = pair = self._made(shaken, dtype)
            is_plain = not shaken and dtype is None
            try:
                out = function(with_its_parameters(model), inputs, not is_plain)
            except Exception:  # whatever a model of other numbers raises
                if is_plain:
                    raise
                continue
            self._pair = pair
            break
        return out

    def _found(self) -> tuple[nn.Module, Example]:
        if self._pair is None:
            try:
                self.tried(_run)
            except Exception:  # whoever runs it finds out, and can say where
                self._pair = self._made(False, None)
        assert self._pair is not None
        return self._pair

    def _made(self, shaken: bool, dtype: torch.dtype | None) -> tuple[nn.Module, Example]:
        model = self._plain().eval()
        if shaken:
            _shake(model)
        if dtype is None:
            return model, self._example
        return model.to(dtype), self._example.to(dtype)


def check_finite(out: Any) -> None:
    """Raise if an output of a model is not finite.

    Example:
        >>> check_finite({"x": torch.ones(2), "index": torch.arange(3)})
    """
    if not all(bool(t.isfinite().all()) for t in tensors_of(out) if t.is_floating_point()):
        raise ValueError("the outputs must be finite")


def _run(model: nn.Module, inputs: Example, finite: bool) -> None:
    with evaluating():
        out = inputs.run(model)
    if finite:
        check_finite(out)


@torch.no_grad()
def _shake(model: nn.Module) -> None:
    noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0))
    noise = torch.cat([noise, noise])
    start = 0
    for parameter in model.parameters():
        if parameter.is_floating_point():
            size, count = _size(parameter), parameter.numel()
            turn = noise[start : start + _NOISE]
            more = turn.repeat(-(-count // _NOISE)) if count > _NOISE else turn
            parameter.add_(more[:count].view(parameter.shape).to(parameter), alpha=0.3 * size)
            start = (start + count + 1) % _NOISE


def _size(parameter: Tensor) -> float:
    size = float(parameter.std(correction=0)) if parameter.numel() > 1 else 0.0
    return size if size > 0 else 0.1
