"""What masks of channels and of single weights have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.prune.compaction.compact import plain_copy
from pyg_stkd.prune.following.explain import Explanation
from pyg_stkd.prune.mask_hooks.hooks import Refresh, masked_names, original_of, refresh
from pyg_stkd.prune.masked.importance import Importance
from pyg_stkd.prune.structure.layout import Group, named_originals

__all__ = ["check_at_first", "check_mask", "LayerChannels", "Left", "MaskedModel"]


@dataclass(frozen=True)
class Left:
    """The number of parameters, the share of those that can be pruned, and what each group has."""

    num_parameters: int
    prunable_share: float
    widths: dict[str, int]


@dataclass(frozen=True)
class LayerChannels:
    """Which channels of a layer's output are left, and which may still go.

    Where it is not known which those of the layer are, both are of all the model's.
    """

    known: bool
    kept: Tensor
    prunable: Tensor


class MaskedModel:
    """A model, its masks and its first size.

    What it offers under the names of :class:`~pyg_stkd.prune.Pruner` is described there.

    Args:
        model (torch.nn.Module): The model.
    """

    groups: list[Group]
    total: int
    spent: float | None = None  # the share left of a budget that is not parameters

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters that are scored, by their names without masks."""
        raise NotImplementedError

    def left(self) -> Left:
        """Return what is left, read off the masks once."""
        raise NotImplementedError

    def channels_of(self, layer: str) -> LayerChannels:
        """Return the channels of a layer; whole channels go nowhere unless this says so."""
        return LayerChannels(False, torch.ones(0).bool(), torch.ones(0).bool())

    def prune(
        self,
        importance: Importance,
        scores: Mapping[str, Tensor],
        share: float,
        rho: float,
        min_width: int,
    ) -> None:
        """Mask what scores lowest."""
        raise NotImplementedError

    def mask(self, kept: Mapping[str, Tensor]) -> None:
        """Mask all but what is given."""
        raise NotImplementedError

    def compact(self) -> nn.Module:
        """Return a plain copy."""
        return plain_copy(self.model)

    def explain(self) -> Explanation:
        """Return what is kept and why."""
        return Explanation(())

    def shrink(self) -> None:
        """Make the model small where that is possible."""

    def rewind(self, state: Mapping[str, Tensor]) -> None:
        """Set weights back."""
        originals = {
            name: original_of(module, key) for name, module, key in named_originals(self.model)
        }
        for name, parameter in originals.items():
            if name not in state or state[name].shape != parameter.shape:
                got = list(state[name].shape) if name in state else "none"
                raise ValueError(
                    f"'state' must hold {name!r} of shape {list(parameter.shape)} (got {got})"
                )
        for name, parameter in originals.items():
            parameter.copy_(state[name])
        for name, buffer in self.model.named_buffers():
            if name in state and state[name].shape == buffer.shape:
                buffer.copy_(state[name])
        refresh(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Mask as saved."""
        raise NotImplementedError

    def with_originals(self, function: Callable[[nn.Module], None]) -> None:
        """Call a function on the model with its unmasked parameters in their places."""
        for module in self.model.modules():
            for name in masked_names(module):
                module.__dict__[name] = original_of(module, name)
        function(self.model)
        refresh(self.model)

    def attach(self) -> None:
        """Keep masks up to date for those who read a parameter without calling its module."""
        hooks = self.model._forward_pre_hooks.values()
        if not any(isinstance(hook, Refresh) for hook in hooks):
            # Before the masks of the module itself, which then count last.
            self.model.register_forward_pre_hook(Refresh(), prepend=True)


def check_mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a mask as booleans; it must have this shape and be of zeros and ones.

    Example:
        >>> check_mask("lin", torch.tensor([1, 0]), (2,))
        tensor([ True, False])
    """
    mask = torch.as_tensor(mask).cpu()
    if tuple(mask.shape) != shape:
        raise ValueError(
            f"The mask of {name!r} must have shape {list(shape)} (got {list(mask.shape)})"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(f"The mask of {name!r} must hold zeros and ones (got others)")
    return mask.bool()


def check_at_first(name: str, saved: Tensor, kept: Tensor) -> None:
    """Raise if a saved mask keeps what the model has masked already.

    Example:
        >>> check_at_first("lin", torch.tensor([True, False]), torch.tensor([True, True]))
    """
    if bool((check_mask(name, saved, tuple(kept.shape)) & ~kept).any()):
        raise ValueError(
            "'state' must be given to the model as it was at first, or masked less than the "
            f"state (got one where {name!r} is masked further)"
        )
