"""Followed channels are tried out before anything is masked; what fails is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.prune.compaction.compact import narrow
from pyg_stkd.prune.compaction.verify import Comparison, Difference
from pyg_stkd.prune.following.sharpened import Sharpened
from pyg_stkd.prune.mask_hooks.hooks import original_of
from pyg_stkd.prune.mask_hooks.skipping import skip_channels
from pyg_stkd.prune.structure.copies import with_its_parameters
from pyg_stkd.prune.structure.layout import Group, Layout, named_originals
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.reasons import Reason

__all__ = ["Trial", "keep_what_fails"]


class Trial:
    """Masks and compacts copies of a model.

    Args:
        sharp (Sharpened): A model without masks, and inputs.
        ports (Ports): Its ports.
        layout (Layout, optional): Their layout, if it is known.
    """

    def __init__(self, sharp: Sharpened, ports: Ports, layout: Layout | None = None) -> None:
        self.model = sharp.model
        self._comparison = Comparison(sharp.example)
        self.ports = ports
        self.layout = Layout(self.model, ports) if layout is None else layout

    def update(self) -> None:
        """Take notice of units that are kept now."""
        self.layout = Layout(self.model, self.ports)

    def difference(self, kept: Tensor) -> Difference | None:
        """Compare the model with its other units masked and removed."""
        masked = self._masked(kept)
        small = with_its_parameters(self.model)
        narrow(small, self.ports, self.layout, kept)
        return self._comparison.difference(masked, small)

    @torch.no_grad()
    def _masked(self, kept: Tensor) -> nn.Module:
        """Return a copy of the model with other units at 0. It shares what has none of these."""
        others: dict[Tensor, nn.Parameter] = {}
        for name, module, key in named_originals(self.model):
            weight = original_of(module, key)
            for dim, channels in self.layout.slices.get(name, {}).items():
                flags = kept[channels]
                if bool(flags.all()) or (name, dim) in self.layout.unmasked:
                    continue
                flags = flags.to(weight).view([-1 if i == dim else 1 for i in range(weight.dim())])
                if weight in others:
                    others[weight].mul_(flags)
                else:
                    others[weight] = nn.Parameter(weight * flags)
        masked = with_its_parameters(self.model, others)
        for name, channels in self.layout.skips.items():
            skip_channels(masked.get_submodule(name), kept[channels])
        return masked

    def random(self, groups: Sequence[Group], generator: torch.Generator, few: bool) -> Tensor:
        """Return random units to keep: about half of those of some groups, or one of each."""
        kept = torch.ones(len(self.layout.units), dtype=torch.bool)
        for group in groups:
            units = torch.tensor(group.units)
            units = units[~torch.tensor(group.fixed)]
            order = units[torch.randperm(len(units), generator=generator)]
            most = 1 if few else max(1, len(units) - 1)  # or the group would not be tried
            wanted = int(torch.randint(1, most + 1, (1,), generator=generator))
            fixed = len(units) < len(group.units)
            kept[order[(0 if few and fixed else wanted) :]] = False
        return kept


def keep_what_fails(
    trial: Trial,
    is_told: Callable[[Group], bool],
    attributes: Sequence[tuple[str, str, Any]] = (),
) -> None:
    """Keep the groups whose masked and compacted models differ, and say so.

    Args:
        trial (Trial): A trial of the ports as they are.
        is_told (callable): Whether a group follows a user's rule, and so is not kept but
            refused, when it is pruned.
        attributes (list): Attributes that may be widths, with their channels. They follow these
            where models are the same then, and else stay as they are.
    """
    generator = torch.Generator().manual_seed(0)
    ports, told, true = trial.ports, list(trial.ports.attributes), list(attributes)
    for few in (False, True):
        groups = [group for group in trial.layout.groups if not is_told(group)]
        if not groups:
            return
        kept = trial.random(groups, generator, few)
        ports.attributes = told + true
        fault = trial.difference(kept)
        if fault is not None and true:
            ports.attributes = told
            fault = trial.difference(kept)
            good = []
            for attribute in true if fault is None else ():
                ports.attributes = [*told, attribute]
                good += [attribute] if trial.difference(kept) is None else []
            true = good
            ports.attributes = told + true
        if fault is None:
            continue
        trusted: list[Group] = []
        for group in groups:
            chosen = [*trusted, group]
            faults = [trial.difference(trial.random(chosen, generator, f)) for f in (False, True)]
            found = [f for f in faults if f is not None]
            if not found:
                trusted.append(group)
                continue
            units = tuple(trial.layout.units[i] for i in group.units)
            ports.freeze(units)
            why = f"the compacted model differs: {found[0]}"
            ports.reasons.append(Reason(group.name, "", "", units, why, "differs"))
        trial.update()
