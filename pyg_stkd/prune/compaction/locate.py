"""The first layer at which two models differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.structure.example import Example, evaluating

__all__ = ["first_layer", "gap_of", "tolerance_of"]


def tolerance_of(x: Tensor, given: float | None) -> float:
    """Return the largest relative difference that is none: the one given, or that of the type."""
    if given is not None:
        return given
    return {torch.float64: 1e-7, torch.float32: 1e-4}.get(x.dtype, 2e-2)


def gap_of(x: Tensor, y: Tensor) -> float:
    """Return the largest difference of two tensors, relative to the largest entry of the first."""
    if not (x.is_floating_point() or x.is_complex()):
        return float((x != y).any())
    same = (x == y) | (x.isnan() & y.isnan())
    if bool(same.all()):
        return 0.0
    finite = x[x.isfinite()]
    size = max(1e-3, float(finite.abs().max()) if finite.numel() else 1.0)
    gap = (x - y).abs()[~same].max() / size
    return float(torch.nan_to_num(gap, nan=torch.inf))


def first_layer(
    masked: nn.Module, small: nn.Module, example: Example, tolerance: float | None = None
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
    return x.shape == y.shape and gap_of(x, y) <= 10 * tolerance_of(x, tolerance)


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
