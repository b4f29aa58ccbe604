"""Norms over channels that leave masked channels out of their statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CHANNEL_MASK", "SkipMasked", "channel_mask", "skip_channels", "stop_skipping"]

CHANNEL_MASK = "channel_mask"


class SkipMasked:
    r"""Stands in for the :obj:`forward` of a norm with masked channels.

    Zeros would count in the mean and the variance over channels, so that a masked model would
    not equal the small one. The norm runs on the other channels only; masked ones come out as 0.
    """

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kept = self.norm._buffers[CHANNEL_MASK]
        assert kept is not None
        if x.is_nested:  # as torch's transformer makes of padded batches
            parts = [self(part, *args, **kwargs) for part in x.unbind()]
            return torch.nested.as_nested_tensor(parts)
        index = kept.nonzero().view(-1)
        dim = 1 if isinstance(self.norm, nn.GroupNorm) else x.dim() - 1
        out = _narrow(self.norm, index).forward(x.index_select(dim, index), *args, **kwargs)
        shape = [kept.numel() if i == dim else size for i, size in enumerate(out.shape)]
        return out.new_zeros(shape).index_copy(dim, index, out)


def channel_mask(norm: nn.Module) -> Tensor | None:
    """Return which channels count in a norm's statistics, :obj:`None` for all."""
    return norm._buffers[CHANNEL_MASK] if _skips(norm) else None


def skip_channels(norm: nn.Module, kept: Tensor) -> None:
    """Leave all but the channels that are kept, a boolean mask, out of a norm's statistics."""
    if _skips(norm):
        norm._buffers[CHANNEL_MASK] = norm._buffers[CHANNEL_MASK] & kept  # type: ignore[operator]
    else:
        norm.register_buffer(CHANNEL_MASK, kept.clone())
        norm.__dict__["forward"] = SkipMasked(norm)


def stop_skipping(model: nn.Module) -> None:
    """Give all norms their own :obj:`forward` again."""
    for module in model.modules():
        if _skips(module):
            del module._buffers[CHANNEL_MASK], module.__dict__["forward"]


def _skips(norm: nn.Module) -> bool:
    """Tell whether it does; a buffer of that name may be the user's."""
    return isinstance(norm.__dict__.get("forward"), SkipMasked)


def _narrow(norm: nn.Module, index: Tensor) -> Any:
    """Return the norm of these channels; it shares all else, such as running statistics."""
    twin = object.__new__(type(norm))
    twin.__dict__.update(norm.__dict__)
    twin.__dict__.pop("forward")
    twin.__dict__["_parameters"] = {}
    # A batch norm has a weight for each of its features, which are nodes here.
    of_nodes = isinstance(norm, torch.nn.modules.batchnorm._BatchNorm)
    for name in ("weight", "bias"):
        value = getattr(norm, name, None)
        if value is not None and not of_nodes:
            value = value.index_select(-1, index)
        twin.__dict__[name] = value
    if isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        twin.__dict__["normalized_shape"] = (*norm.normalized_shape[:-1], index.numel())
    for name in ("in_channels", "num_channels"):
        if hasattr(norm, name):
            twin.__dict__[name] = index.numel()
    return twin
