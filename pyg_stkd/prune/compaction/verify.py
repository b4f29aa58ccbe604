"""The masked and the compacted model must compute the same."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyg_stkd.prune.compaction.compact import plain_copy
from pyg_stkd.prune.compaction.locate import first_layer, gap_of, tolerance_of
from pyg_stkd.prune.compaction.runs import Outputs, Runs, damped
from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.structure.example import Example, evaluating

__all__ = ["Comparison", "Difference", "check_copy", "difference", "in_float64"]

_MOST_OWN = 1e-4  # what a model may differ from itself, and still be compared
_NOTICED = 1e4  # how much of a last bit is left of it in models that are compared damped
_TRIES = 16  # of an epsilon of norms, between that of most and 1


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
    """Compares pairs of models in eval mode and in train mode.

    The pairs are copies of one model: where the outputs of a first pair are the same in both modes,
    the others are compared in eval mode alone. Random numbers stand still; where some are drawn
    even so in train mode, more or fewer by one of the two, shapes are compared.

    What the last bit of an input decides is no difference, as far as it is small. A model that
    makes more of it in train mode, as by batch norms of features that are all but equal, is
    compared with its norms damped.

    Args:
        example (Example): Inputs.
        tolerance (float, optional): The largest relative difference. (default: by the type)
    """

    def __init__(self, example: Example, tolerance: float | None = None) -> None:
        self.example = example
        self.tolerance = tolerance
        self._train = True  # whether train mode may tell more than eval mode
        self._runs = Runs(example)

    def difference(self, masked: nn.Module, small: nn.Module) -> Difference | None:
        """Compare two models.

        Args:
            masked (torch.nn.Module): A model under masks.
            small (torch.nn.Module): The same without what is masked. Both are run, so they must
                be copies.
        """
        part = self._runs.first(small, False)
        found = self._compare(masked, self._runs.first(masked, False), part)
        if found is not None:
            return self._located(masked, small, found)
        if not self._train:
            return None
        trained = self._runs.first(small, True)  # the cheaper one first
        self._train = not trained.is_same(part, self.tolerance)
        return self._in_training(masked, small, trained) if self._train else None

    def _in_training(
        self, masked: nn.Module, small: nn.Module, trained: Outputs
    ) -> Difference | None:
        whole = self._runs.first(masked.train(), True)
        found = self._compare(masked, whole, trained)
        if found is None:
            return None
        own = self._runs.largest_own_gap(masked, whole) if whole.shapes == trained.shapes else 0.0
        if own > whole.tolerance:
            return self._in_training_damped(masked, small, found)
        return self._located(masked, small, found)

    def _in_training_damped(
        self, masked: nn.Module, small: nn.Module, found: str
    ) -> Difference | None:
        """Compare models of which a difference proves nothing, as rounding alone makes it.

        So little is added beneath the roots of norms that the models still make much of a last bit,
        and so of a fault, but less than is a difference.
        """
        low, high = 1e-5, 1.0
        for _ in range(_TRIES):
            eps = math.sqrt(low * high)
            with damped(masked, eps), damped(small, eps):
                whole = self._runs.run(masked, True)
                own = self._runs.largest_own_gap(masked, whole)
                if own > whole.tolerance:
                    low = eps
                elif own < _NOTICED * whole.last_bit:
                    high = eps
                else:
                    fault = self._compare(masked, whole, self._runs.run(small, True))
                    return None if fault is None else self._located(masked, small, fault)
        return self._located(masked, small, found)

    def _located(self, masked: nn.Module, small: nn.Module, found: str) -> Difference:
        training = masked.training
        with self._runs.numbers(training):
            layer = first_layer(masked, small.train(training), self.example, self.tolerance)
        return Difference(layer, f"in {'train' if training else 'eval'} mode {found}")

    def _compare(self, masked: nn.Module, whole: Outputs, part: Outputs) -> str | None:
        """Say in what the outputs of the small model are others than those of the masked one."""
        if whole.error or part.error:
            return None if whole.error else part.error
        if len(whole.tensors) != len(part.tensors):
            return "the number of outputs differs"
        # Random numbers of another count are others.
        drawn = masked.training and whole.draws and not torch.equal(whole.state, part.state)
        for i, (x, y) in enumerate(zip(whole.tensors, part.tensors, strict=True)):
            if x.shape != y.shape:
                return f"outputs of shape {list(x.shape)} become {list(y.shape)}"
            gap = gap_of(x, y)
            if gap <= tolerance_of(x, self.tolerance) or drawn:
                continue
            if not gap <= min(10.0 * self._runs.own_gap(masked, x, i), _most(x, masked.training)):
                return f"outputs differ by {gap:.1e}"
        return None


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


def _most(x: Tensor, training: bool) -> float:
    """Return the largest relative difference that may be a model's own."""
    return _MOST_OWN if x.dtype == torch.float64 or not training else 100 * _MOST_OWN
