"""Runs of a model that can be compared with those of another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyg_stkd.prune.compaction.locate import gap_of, tolerance_of
from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.calls.removal import in_one_line
from pyg_stkd.prune.following.draws import Still
from pyg_stkd.prune.structure.copies import with_its_parameters
from pyg_stkd.prune.structure.example import Example, evaluating

__all__ = ["Outputs", "Runs", "damped"]


class Outputs(NamedTuple):
    """What a run returned, whether it drew random numbers, their state then, and what it raised."""

    tensors: list[Tensor]
    draws: bool
    state: Tensor
    error: str = ""

    @property
    def shapes(self) -> list[torch.Size]:
        """The shapes of all outputs."""
        return [x.shape for x in self.tensors]

    @property
    def numbers(self) -> list[Tensor]:
        """The outputs that have a last bit."""
        return [x for x in self.tensors if x.is_floating_point()]

    @property
    def tolerance(self) -> float:
        """The largest difference of any such output that is none."""
        return max((tolerance_of(x, None) for x in self.numbers), default=0.0)

    @property
    def last_bit(self) -> float:
        """The least last bit of the outputs."""
        return min((torch.finfo(x.dtype).eps for x in self.numbers), default=0.0)

    def is_same(self, other: Outputs, tolerance: float | None) -> bool:
        """Tell whether all outputs are the same."""
        return (self.error, self.shapes) == (other.error, other.shapes) and all(
            gap_of(x, y) <= tolerance_of(x, tolerance)
            for x, y in zip(self.tensors, other.tensors, strict=True)
        )


class Runs:
    """Runs copies of one model, with the same random numbers whatever their widths.

    Args:
        example (Example): Inputs.
    """

    def __init__(self, example: Example) -> None:
        self.example = example
        # Whether random numbers stand still in a mode, once it is known whether some are drawn.
        self._still: dict[bool, bool] = {}

    def first(self, model: nn.Module, training: bool) -> Outputs:
        """Run a model in a mode, and learn whether random numbers are drawn in it."""
        if training in self._still:
            return self.run(model, training)
        # A copy shows what is drawn in train mode, where modules may count their calls.
        out = self.run(with_its_parameters(model) if training else model, training)
        if not out.draws:
            if not out.error:
                self._still[training] = False
            return out
        self._still[training] = True
        return self.run(model, training)

    def run(self, model: nn.Module, training: bool) -> Outputs:
        """Run a model in a mode."""
        with evaluating(), self.numbers(training):
            state = torch.get_rng_state()
            try:
                outs, error = tensors_of(self.example.run(model.train(training))), ""
            except Exception as raised:  # whatever a model raises that does not run in this mode
                outs, error = [], in_one_line(raised)
            after = torch.get_rng_state()
            return Outputs(outs, not torch.equal(state, after), after, error)

    def numbers(self, training: bool) -> AbstractContextManager[Any]:
        """Let random numbers of a mode stand still, if there are any."""
        return Still() if self._still.get(training) else nullcontext()

    def own_gap(self, model: nn.Module, x: Tensor, place: int) -> float:
        """Return by how much an output differs by itself, in the mode in which the model is.

        In train mode where the last bits of inputs and parameters are others, of which statistics
        of a batch make more; in eval mode in another run, as by random iterations of a library.

        Args:
            model (torch.nn.Module): The model.
            x (Tensor): The output.
            place (int): Which one it is.
        """
        example, runs = self.example, 3
        if model.training:
            example, runs = example.mapped(_rounded), 1
            others: dict[Tensor, nn.Parameter] = {
                p: nn.Parameter(_rounded(p), p.requires_grad) for p in model.parameters()
            }
            model = with_its_parameters(model, others)
        with evaluating(), self.numbers(model.training):
            return max(gap_of(x, tensors_of(example.run(model))[place]) for _ in range(runs))

    def largest_own_gap(self, model: nn.Module, outs: Outputs) -> float:
        """Return by how much any output that has a last bit differs by itself."""
        places = [i for i, x in enumerate(outs.tensors) if x.is_floating_point()]
        return max((self.own_gap(model, outs.tensors[i], i) for i in places), default=0.0)


@contextmanager
def damped(model: nn.Module, eps: float) -> Iterator[None]:
    """Let no norm blow up what is all but constant: add more to the variance beneath its root.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with damped(norm, 0.1):
        ...     norm.eps
        0.1
        >>> norm.eps
        1e-05
    """
    held = [vars(module) for module in model.modules()]
    before = [(norm, norm["eps"]) for norm in held if type(norm.get("eps")) is float]
    for norm, own in before:
        norm["eps"] = max(own, eps)
    try:
        yield
    finally:
        for norm, own in before:
            norm["eps"] = own


def _rounded(x: Tensor) -> Tensor:
    """Return floating-point numbers whose last bits are others."""
    return x.detach() * (1.0 + torch.finfo(x.dtype).eps) if x.is_floating_point() else x
