"""The masked and the compacted model must compute the same."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.calls.removal import in_one_line
from pyg_stkd.prune.masked.compact import plain_copy
from pyg_stkd.prune.masked.locate import first_layer, gap_of, tolerance_of
from pyg_stkd.prune.structure.example import Example, evaluating

__all__ = ["Comparison", "Difference", "check_copy", "difference", "in_float64"]

_MOST_OWN = 1e-4  # what a model may differ from itself, and still be compared


class Difference(NamedTuple):
    """Where two models differ.

    Args:
        layer: The first layer whose output differs, by name.
        what: What differs.
    """

    layer: str
    what: str

    def __str__(self) -> str:
        return f"{self.what}, first at {self.layer!r}" if self.layer else self.what


class Comparison:
    """Compares pairs of models in eval mode and, where that draws no random numbers, in train mode.

    The pairs are copies of one model: where the outputs of a first pair are the same in both modes,
    or train mode draws, the others are compared in eval mode alone.

    Args:
        example (Example): Inputs.
        tolerance (float, optional): The largest relative difference. (default: by the type)
    """

    def __init__(self, example: Example, tolerance: float | None = None) -> None:
        self.example = example
        self.tolerance = tolerance
        self._train = True  # whether train mode may tell more than eval mode

    def difference(self, masked: nn.Module, small: nn.Module) -> Difference | None:
        """Compare two models.

        Args:
            masked (torch.nn.Module): A model under masks.
            small (torch.nn.Module): The same without what is masked. Both are run, so they must
                be copies.
        """
        whole, part = self._run(masked, False), self._run(small, False)
        found, mode = self._compare(masked, whole, part), "eval"
        if found is None and self._train:
            trained, mode = self._run(small, True), "train"  # the cheaper one first
            self._train = not trained.draws and not trained.is_same(part, self.tolerance)
            if self._train:
                found = self._compare(masked, self._run(masked, True), trained)
        if found is None:
            return None
        layer = first_layer(masked, small, self.example, self.tolerance)
        return Difference(layer, f"in {mode} mode {found}")

    def _run(self, model: nn.Module, training: bool) -> _Outputs:
        state = torch.get_rng_state()
        try:
            with evaluating():
                outs = tensors_of(self.example.run(model.train(training)))
                return _Outputs(outs, not torch.equal(state, torch.get_rng_state()))
        except Exception as error:  # whatever a model raises that does not run in this mode
            return _Outputs([], False, in_one_line(error))

    def _compare(self, masked: nn.Module, whole: _Outputs, part: _Outputs) -> str | None:
        """Say in what the outputs of the small model are others than those of the masked one."""
        if whole.error or part.error:
            return None if whole.error else part.error
        if len(whole.tensors) != len(part.tensors):
            return "the number of outputs differs"
        for i, (x, y) in enumerate(zip(whole.tensors, part.tensors, strict=True)):
            if x.shape != y.shape:
                return f"outputs of shape {list(x.shape)} become {list(y.shape)}"
            gap = gap_of(x, y)
            if gap <= tolerance_of(x, self.tolerance):
                continue
            if masked.training:  # statistics of a batch may make as much of an input's last bit
                allowed = 10.0 * _own_gap(masked, _rounded(self.example), x, i)
            else:  # what varies by itself, as by random iterations of a library
                own = max(_own_gap(masked, self.example, x, i) for _ in range(3))
                allowed = min(10.0 * own, _MOST_OWN)
            if not gap <= allowed:
                return f"outputs differ by {gap:.1e}"
        return None


class _Outputs(NamedTuple):
    """What a run returned, whether it drew random numbers, and what it raised."""

    tensors: list[Tensor]
    draws: bool
    error: str = ""

    def is_same(self, other: _Outputs, tolerance: float | None) -> bool:
        """Tell whether all outputs are the same."""
        return (self.error, len(self.tensors)) == (other.error, len(other.tensors)) and all(
            x.shape == y.shape and gap_of(x, y) <= tolerance_of(x, tolerance)
            for x, y in zip(self.tensors, other.tensors, strict=True)
        )


def difference(
    masked: nn.Module, small: nn.Module, example: Example, tolerance: float | None = None
) -> Difference | None:
    """Compare two models, of which there is no other pair, as :class:`Comparison` does."""
    return Comparison(example, tolerance).difference(masked, small)


def in_float64(masked: nn.Module, small: nn.Module, example: Example) -> Difference | None:
    """Compare two models in float64, or in their own type where they do not run in that."""
    masked, small = plain_copy(masked, skipping=True), plain_copy(small)
    try:
        doubles = copy.deepcopy(masked).double(), copy.deepcopy(small).double()
        inputs = example.to(torch.float64)
        with evaluating():
            inputs.run(copy.deepcopy(doubles[0]).eval())
    except Exception:  # whatever a model of one type raises
        return difference(masked, small, example)
    return difference(doubles[0], doubles[1], inputs)


def check_copy(model: nn.Module, example: Example) -> None:
    """Raise if a model computes something else than its copy without hooks, as hooks make it."""
    names = [
        name
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks
    ]
    if not names:
        return
    modes = {module: module.training for module in model.modules()}
    state = torch.get_rng_state()
    outs = []
    try:
        for each in (model.eval(), plain_copy(model, skipping=True).eval()):
            with evaluating():
                torch.set_rng_state(state)
                outs.append(tensors_of(example.run(each)))
    finally:
        for module, mode in modes.items():
            module.training = mode
    for x, y in zip(*outs, strict=True):
        if x.shape != y.shape or not gap_of(x, y) <= tolerance_of(x, None):
            raise ValueError(
                "'model' must compute the same without its hooks, which compact() leaves behind "
                f"(got hooks at {', '.join(repr(name or 'the model') for name in names)})"
            )


def _rounded(example: Example) -> Example:
    """Return an example whose floating-point numbers differ in their last bit."""
    return example.mapped(
        lambda x: x * (1.0 + torch.finfo(x.dtype).eps) if x.is_floating_point() else x
    )


def _own_gap(model: nn.Module, example: Example, x: Tensor, place: int) -> float:
    """Return by how much an output differs in another run."""
    with evaluating():
        return gap_of(x, tensors_of(example.run(model))[place])
