"""Masks of whole channels or heads, and the small model below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.prune.compaction.compact import narrow, plain_copy, unmask
from pyg_stkd.prune.compaction.trust import Trial, keep_what_fails
from pyg_stkd.prune.compaction.verify import check_copy, in_float64
from pyg_stkd.prune.following.attributes import remembered
from pyg_stkd.prune.following.explain import Explanation, explain, refusal
from pyg_stkd.prune.following.find import find_ports
from pyg_stkd.prune.following.sharpened import Sharpened
from pyg_stkd.prune.mask_hooks.hooks import original_of, set_mask
from pyg_stkd.prune.mask_hooks.skipping import skip_channels
from pyg_stkd.prune.masked.cost import Cost, check_cost
from pyg_stkd.prune.masked.importance import Importance
from pyg_stkd.prune.masked.model import (
    LayerChannels,
    Left,
    MaskedModel,
    check_at_first,
    check_mask,
)
from pyg_stkd.prune.masked.processes import first
from pyg_stkd.prune.masked.selection import normalize, select_by_cost, select_channels
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.layout import Group, Layout, floor_width, named_originals
from pyg_stkd.prune.structure.prunable import check_as_written, check_example

__all__ = ["MaskedChannels"]


class MaskedChannels(MaskedModel):
    """A model whose channels, or attention heads, are masked.

    Args:
        model (torch.nn.Module): The model.
        ignore (list of str): Names of modules to leave as they are.
        heads (bool): Whether heads are masked, not channels.
        cost (callable, optional): What shares are of. (default: the number of parameters)
        example (Example, optional): Inputs to follow channels on, and to compare models on.
        verify (bool): Whether masked and compacted models are compared.
    """

    def __init__(
        self,
        model: nn.Module,
        ignore: Iterable[str],
        heads: bool,
        cost: Cost | None = None,
        example: Example | None = None,
        verify: bool = True,
    ) -> None:
        super().__init__(model)
        if example is None:
            check_as_written(model)
        else:
            check_example(plain_copy(model), example.run)
            if verify:
                check_copy(model, example)
        self._example = example if verify else None
        sharp = None if example is None else Sharpened(lambda: plain_copy(model), example)
        self.ports = find_ports(model, ignore, heads, sharp)
        if sharp is not None and verify and self.ports.is_followed:
            attributes = remembered(self.ports, model)
            keep_what_fails(Trial(sharp, self.ports), self._is_told, attributes)
        self.layout = Layout(model, self.ports)
        if not self.layout.groups:
            raise ValueError(
                f"'model' must have {'heads' if heads else 'channels'} that can be pruned "
                f"(got {type(model).__name__}, whose inputs, outputs and ignored modules are kept)"
                + refusal(explain(self.ports))
            )
        self._is_verified = self._example is None
        self.total = self.layout.num_parameters()
        self.prunable_total = self.layout.num_prunable()
        self._first_groups = self.layout.groups
        # What has a floor: the output of each layer, and each group.
        self._bounded = [axis.tolist() for axis in self.layout.axes]
        self._bounded += [list(group.units) for group in self._first_groups]
        # The units that are left after shrinking, as positions among all.
        self._places = torch.arange(len(self.layout.units))
        self._num_units = len(self.layout.units)
        self._cost = cost
        if cost is not None:
            self._first_cost = check_cost(cost(plain_copy(model)))
            self.spent = 1.0

    def _is_told(self, group: Group) -> bool:
        """Tell whether a user's rule speaks for a member of a group."""
        return any(
            name.startswith(f"{told}.") or not told
            for name in group.members
            for told in self.ports.told
        )

    def _verify(self, kept: Tensor) -> None:
        """Raise if the model with these units masked is not the model without the others."""
        if self._is_verified or self._example is None:
            return
        sharp = Sharpened(lambda: plain_copy(self.model), self._example)
        trial = Trial(sharp, self.ports, self.layout)
        generator = torch.Generator().manual_seed(0)
        for units in (kept, trial.random(self.groups, generator, True)):
            found = trial.difference(units)
            if found is not None:
                raise ValueError(
                    "The masked and the compacted model must compute the same on 'example' "
                    f"(got: {found}); a rule of a layer there does not hold"
                )
        self._is_verified = True

    @property
    def groups(self) -> list[Group]:  # type: ignore[override]
        """The groups of the model as it is."""
        return self.layout.groups

    @property
    def kept(self) -> Tensor:
        """Which units are left, read off the masks."""
        return self.layout.kept(self.model)

    def explain(self) -> Explanation:
        return explain(self.ports)

    def weights(self) -> dict[str, Tensor]:
        return {
            name: original_of(module, key)
            for name, module, key in named_originals(self.model)
            if name in self.layout.slices and name in self.layout.sizes
        }

    def left(self) -> Left:
        kept = self.kept
        return Left(
            self.layout.num_parameters(kept),
            self.layout.num_prunable(kept) / self.prunable_total,
            {group.name: int(kept[list(group.units)].sum()) for group in self.groups},
        )

    def channels_of(self, layer: str) -> LayerChannels:
        channels = self.ports.outputs.get(layer)
        if channels is None:
            return LayerChannels(False, self.kept, self.layout.prunable)
        places = self.layout.places(channels)
        return LayerChannels(True, self.kept[places], self.layout.prunable[places])

    def prune(
        self,
        importance: Importance,
        scores: Mapping[str, Tensor],
        share: float,
        rho: float,
        min_width: int,
    ) -> None:
        kept = self.kept
        if bool(kept.all()):  # nothing is masked yet
            alive = dict(scores)
        else:
            alive = {
                name: score * self.layout.mask(name, kept).to(score)
                for name, score in scores.items()
            }
        reduced = importance.finish(importance.reduce(self.layout, alive))
        ranked = normalize(self.layout, reduced, kept)
        floors = self._floors(share, rho, min_width)
        if self._cost is None:
            target = int(share * self.total + 1e-6)
            chosen = first(select_channels(self.layout, ranked, kept, target, floors))
            self._verify(chosen)
            self._apply(chosen)
            return
        target_cost = share * self._first_cost
        chosen = select_by_cost(
            self.layout, ranked, kept, self._cost_of, target_cost * (1.0 + 1e-9), floors
        )
        chosen = first(chosen)
        self._verify(chosen)
        self.spent = first(self._cost_of(chosen) / self._first_cost)
        self._apply(chosen)

    def mask(self, kept: Mapping[str, Tensor]) -> None:
        groups = {group.name: group for group in self.groups}
        units = self.kept
        for name, given in kept.items():
            if name not in groups:
                raise ValueError(f"Masks must be of groups: {', '.join(groups)} (got {name!r})")
            group = groups[name]
            mask = check_mask(name, given, (group.width,))
            if bool((~mask & torch.tensor(group.fixed)).any()):
                fixed = [i for i, is_fixed in enumerate(group.fixed) if is_fixed]
                raise ValueError(f"The mask of {name!r} must keep channels {fixed}")
            units[list(group.units)] &= mask
        for axis in self.layout.axes:
            if not bool(units[axis].any()):
                name = next(g.name for g in self.groups if int(axis[0]) in g.units)
                raise ValueError(f"The mask of {name!r} must keep a channel of each layer")
        if self._cost is not None:
            self.spent = self._cost_of(units) / self._first_cost
        self._apply(units)

    def compact(self) -> nn.Module:
        small = plain_copy(self.model)
        narrow(small, self.ports, self.layout, self.kept)
        if self._example is not None:
            found = in_float64(self.model, small, self._example)
            if found is not None:
                raise ValueError(
                    "The masked and the compacted model must compute the same on 'example' "
                    f"(got: {found})"
                )
        return small

    def shrink(self) -> None:
        kept = self.kept
        unmask(self.model)
        narrow(self.model, self.ports, self.layout, kept)
        self._places = self._places[kept]
        self.ports.without({self.layout.units[i] for i in (~kept).nonzero().view(-1).tolist()})
        self.layout = Layout(self.model, self.ports)

    def state_dict(self) -> dict[str, Any]:
        kept = torch.zeros(self._num_units, dtype=torch.bool)
        kept[self._places[self.kept]] = True
        groups = {group.name: kept[list(group.units)] for group in self._first_groups}
        return {"kept": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        kept = state["kept"]
        expected = {group.name: group.width for group in self.groups}
        got = {name: mask.numel() for name, mask in kept.items()}
        if expected != got:
            raise ValueError(
                f"'state' must be of a model with groups of these widths: {expected} (got {got})"
            )
        now = self.kept
        for group in self.groups:
            check_at_first(group.name, kept[group.name], now[list(group.units)])
        self.mask(kept)

    def _cost_of(self, kept: Tensor) -> float:
        """Return what the model costs with these units alone."""
        assert self._cost is not None
        small = plain_copy(self.model)
        narrow(small, self.ports, self.layout, kept)
        return check_cost(self._cost(small))

    def _floors(self, share: float, rho: float, min_width: int) -> list[tuple[list[int], int]]:
        now = {first: i for i, first in enumerate(self._places.tolist())}
        return [
            (
                [now[unit] for unit in units if unit in now],
                floor_width(len(units), share, rho, min_width),
            )
            for units in self._bounded
        ]

    @torch.inference_mode(False)
    def _apply(self, kept: Tensor) -> None:
        modules = {name: (module, key) for name, module, key in named_originals(self.model)}
        self.attach()
        for name, channels in self.layout.skips.items():
            if not bool(kept[channels].all()):
                norm = self.model.get_submodule(name)
                skip_channels(norm, kept[channels].to(_device(self.model)))
        for name, dims in self.layout.slices.items():
            if name in modules and not all(bool(kept[p].all()) for p in dims.values()):
                set_mask(*modules[name], self.layout.mask(name, kept))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
