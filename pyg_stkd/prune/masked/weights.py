"""Masks of single weights: no byte is saved and nothing gets faster."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.prune.mask_hooks.hooks import mask_of, original_of, set_mask
from pyg_stkd.prune.masked.importance import Importance
from pyg_stkd.prune.masked.model import Left, MaskedModel, check_at_first, check_mask
from pyg_stkd.prune.masked.processes import first
from pyg_stkd.prune.masked.selection import select_weights
from pyg_stkd.prune.structure.layout import Group, named_originals
from pyg_stkd.prune.structure.prunable import check_parameters

__all__ = ["MaskedWeights"]


class MaskedWeights(MaskedModel):
    """A model whose weights, parameters of two dimensions or more, are masked one by one.

    Args:
        model (torch.nn.Module): The model.
        ignore (list of str): Names of modules to leave as they are.
    """

    def __init__(self, model: nn.Module, ignore: Iterable[str]) -> None:
        super().__init__(model)
        self.groups: list[Group] = []
        ignored = tuple(ignore)
        names = dict(model.named_modules())
        for name in ignored:
            if not name or name not in names:
                raise ValueError(f"'ignore' must name modules of the model (got {name!r})")
        check_parameters(model)
        originals = named_originals(model)
        self._places = {
            name: (module, key)
            for name, module, key in originals
            if original_of(module, key).dim() > 1
            and not any(name.startswith(f"{other}.") for other in ignored)
        }
        if not self._places:
            raise ValueError(
                f"'model' must have weights that can be pruned (got {type(model).__name__})"
            )
        self.total = sum(original_of(module, key).numel() for _, module, key in originals)
        self._prunable_total = sum(weight.numel() for weight in self.weights().values())

    def weights(self) -> dict[str, Tensor]:
        return {name: original_of(*place) for name, place in self._places.items()}

    def left(self) -> Left:
        masks = self._masks().items()
        widths = {name: int(mask.sum(dtype=torch.float64)) for name, mask in masks}
        prunable = sum(widths.values())
        return Left(
            self.total - self._prunable_total + prunable, prunable / self._prunable_total, widths
        )

    def prune(
        self,
        importance: Importance,
        scores: Mapping[str, Tensor],
        share: float,
        rho: float,
        min_width: int,
    ) -> None:
        scores = {name: importance.finish(score) for name, score in scores.items()}
        target = int(share * self.total + 1e-6) - (self.total - self._prunable_total)
        floors = {
            name: min(score.numel(), max(min_width, math.ceil(rho**2 * share * score.numel())))
            for name, score in scores.items()
        }
        masks = select_weights(scores, self._masks(), max(target, 0), floors)
        self._apply({name: first(mask) for name, mask in masks.items()})

    def mask(self, kept: Mapping[str, Tensor]) -> None:
        masks = {}
        for name, given in kept.items():
            if name not in self._places:
                raise ValueError(
                    f"Masks must be of parameters: {', '.join(self._places)} (got {name!r})"
                )
            masks[name] = check_mask(name, given, tuple(original_of(*self._places[name]).shape))
        self._apply(masks)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": {name: mask.bool().cpu() for name, mask in self._masks().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        expected = {name: tuple(weight.shape) for name, weight in self.weights().items()}
        got = {name: tuple(mask.shape) for name, mask in state["kept"].items()}
        if expected != got:
            raise ValueError(
                f"'state' must be of a model with weights of these shapes: {expected} (got {got})"
            )
        for name, mask in self._masks().items():
            check_at_first(name, state["kept"][name], mask.bool().cpu())
        self.mask(state["kept"])

    def _masks(self) -> dict[str, Tensor]:
        masks = {}
        for name, (module, key) in self._places.items():
            mask = mask_of(module, key)
            weight = original_of(module, key)
            masks[name] = torch.ones_like(weight, requires_grad=False) if mask is None else mask
        return masks

    @torch.inference_mode(False)
    def _apply(self, masks: Mapping[str, Tensor]) -> None:
        self.attach()
        for name, mask in masks.items():
            set_mask(*self._places[name], mask)
