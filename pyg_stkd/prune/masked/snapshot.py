"""Which masks a model has, to take off those that come later."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.utils import prune

from pyg_stkd.prune.mask_hooks.hooks import masked_names
from pyg_stkd.prune.mask_hooks.skipping import channel_mask, stop_skipping
from pyg_stkd.prune.masked.model import MaskedModel

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """For each module its masks and the order of its parameters; no values.

    Example:
        >>> from torch import tensor
        >>> from pyg_stkd.prune import Magnitude, Pruner
        >>> model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
        >>> pruner = Pruner(model, Magnitude())
        >>> before = pruner.snapshot()
        >>> pruner.mask({"0": tensor([1, 0])})
        >>> pruner.restore(before)
        >>> list(model.state_dict())
        ['0.weight', '0.bias', '1.weight', '1.bias']
    """

    masked: dict[nn.Module, list[str]]
    parameters: dict[nn.Module, list[str]]
    skipping: set[nn.Module]
    spent: float | None

    @classmethod
    def of(cls, model: MaskedModel) -> Snapshot:
        """Return what there is now."""
        modules = list(model.model.modules())
        return cls(
            {module: masked_names(module) for module in modules},
            {module: list(module._parameters) for module in modules},
            {module for module in modules if channel_mask(module) is not None},
            model.spent,
        )

    def restore(self, model: MaskedModel) -> None:
        """Take off the masks that came later. Their zeros stay until the values are loaded."""
        for module, masked in self.masked.items():
            for name in masked_names(module):
                if name not in masked:
                    prune.remove(module, name)
            for name in self.parameters[module]:  # which are the last now
                module._parameters[name] = module._parameters.pop(name)
            if channel_mask(module) is not None and module not in self.skipping:
                stop_skipping(module)
        model.spent = self.spent
