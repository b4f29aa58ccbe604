"""The masked and the compacted model must compute the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from pyg_stkd.prune.following.call import tensors_of
from pyg_stkd.prune.masked.compact import plain_copy
from pyg_stkd.prune.structure.example import Example, evaluating

__all__ = ["Difference", "check_copy", "difference", "in_float64"]

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


def difference(
    masked: nn.Module,
    small: nn.Module,
    example: Example,
    tolerance: float | None = None,
    train: bool = True,
) -> Difference | None:
    """Compare two models, in eval mode and, where that draws no random numbers, in train mode.

    Args:
        masked (torch.nn.Module): A model under masks.
        small (torch.nn.Module): The same without what is masked. Both are run, so they must be
            copies.
        example (Example): Inputs.
        tolerance (float, optional): The largest relative difference. (default: by the type)
        train (bool): Whether they are compared in train mode too. (default: :obj:`True`)
    """
    for training in (False, True)[: 1 + train]:
        found = _compare(masked, small, example, tolerance, training)
        if found is not None:
            layer = _first_layer(masked, small, example, tolerance)
            mode = "train" if training else "eval"
            return Difference(layer, f"in {mode} mode {found.what}")
    return None


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
        if x.shape != y.shape or not _gap(x, y) <= _tolerance(x, None):
            raise ValueError(
                "'model' must compute the same without its hooks, which compact() leaves behind "
                f"(got hooks at {', '.join(repr(name or 'the model') for name in names)})"
            )


def _compare(
    masked: nn.Module, small: nn.Module, example: Example, tolerance: float | None, training: bool
) -> Difference | None:
    state = torch.get_rng_state()
    try:
        with evaluating():
            a = tensors_of(example.run(masked.train(training)))
            draws = not torch.equal(state, torch.get_rng_state())
    except Exception:  # whatever a model raises that does not run in this mode
        return None
    if training and draws:
        return None
    try:
        with evaluating():
            b = tensors_of(example.run(small.train(training)))
    except Exception as error:
        text = str(error).strip().splitlines()
        return Difference("", f"{type(error).__name__}: {text[0] if text else ''}")
    if len(a) != len(b):
        return Difference("", "the number of outputs differs")
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if x.shape != y.shape:
            return Difference("", f"outputs of shape {list(x.shape)} become {list(y.shape)}")
        gap = _gap(x, y)
        allowed = _tolerance(x, tolerance)
        if not gap <= allowed:
            allowed = min(10.0 * _own_gap(masked, example, x, i), _MOST_OWN)
        if not gap <= allowed:
            return Difference("", f"outputs differ by {gap:.1e}")
    return None


def _own_gap(model: nn.Module, example: Example, x: Tensor, place: int) -> float:
    """Return by how much an output differs from itself, as by random iterations of a library."""
    gaps = []
    for _ in range(3):
        with evaluating():
            gaps.append(_gap(x, tensors_of(example.run(model))[place]))
    return max(gaps)


def _tolerance(x: Tensor, given: float | None) -> float:
    if given is not None:
        return given
    return {torch.float64: 1e-7, torch.float32: 1e-4}.get(x.dtype, 2e-2)


def _gap(x: Tensor, y: Tensor) -> float:
    if not (x.is_floating_point() or x.is_complex()):
        return float((x != y).any())
    same = (x == y) | (x.isnan() & y.isnan())
    if bool(same.all()):
        return 0.0
    finite = x[x.isfinite()]
    size = max(1e-3, float(finite.abs().max()) if finite.numel() else 1.0)
    gap = (x - y).abs()[~same].max() / size
    return float(torch.nan_to_num(gap, nan=torch.inf))


def _first_layer(
    masked: nn.Module, small: nn.Module, example: Example, tolerance: float | None
) -> str:
    """Return the first layer whose output differs, as far as that can be told."""
    calls: list[list[tuple[str, Any]]] = []
    for model in (masked, small):
        with evaluating(), _recorded(model) as seen:
            calls.append(seen)
            with suppress(Exception):  # what the small one raises is known
                example.run(model)
    for (name, x), (other, y) in zip(*calls, strict=False):
        if name != other or not _same(x, y, tolerance):
            return name
    return calls[1][-1][0] if len(calls[1]) < len(calls[0]) and calls[1] else ""


def _same(x: Tensor, y: Tensor, tolerance: float | None) -> bool:
    if x.dim() != y.dim():
        return False
    for dim in range(x.dim()):
        if x.size(dim) != y.size(dim):
            x = _matched(x, y, dim)
    return x.shape == y.shape and _gap(x, y) <= 10 * _tolerance(x, tolerance)


def _matched(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Return those channels of x that are most like those of y."""
    a, b = x.movedim(dim, 0).flatten(1), y.movedim(dim, 0).flatten(1)
    if a.size(1) != b.size(1) or not a.is_floating_point():
        return x
    gaps = torch.cdist(b.double(), a.double()).nan_to_num(nan=torch.inf)
    return x.index_select(dim, gaps.argmin(1))


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[tuple[str, Any]]]:
    """Record the outputs of all layers without layers inside."""
    seen: list[tuple[str, Any]] = []
    handles = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            for tensor in tensors_of(out):
                if not is_functorch_wrapped_tensor(tensor):  # in vmap, outside of which it is none
                    seen.append((name, tensor.detach().clone()))

        return hook

    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(record(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
