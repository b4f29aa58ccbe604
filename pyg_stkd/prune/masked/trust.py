"""Followed channels are tried out before anything is masked; what fails is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyg_stkd.prune.following.find import sharpened
from pyg_stkd.prune.masked.compact import narrow
from pyg_stkd.prune.masked.verify import Difference, difference
from pyg_stkd.prune.masks.hooks import original_of
from pyg_stkd.prune.masks.skipping import skip_channels
from pyg_stkd.prune.structure.example import Example, with_its_parameters
from pyg_stkd.prune.structure.layout import Group, Layout, named_originals
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.reasons import Reason

__all__ = ["Trial", "keep_what_fails"]


class Trial:
    """Masks and compacts copies of a model.

    Args:
        model (torch.nn.Module): A model without masks.
        ports (Ports): Its ports.
        example (Example): Inputs.
    """

    def __init__(self, model: nn.Module, ports: Ports, example: Example) -> None:
        self.model, self.example = sharpened(model, example)
        self.ports = ports
        self.layout = Layout(self.model, ports)

    def difference(self, kept: Tensor) -> Difference | None:
        """Compare the model with its other units masked and removed."""
        masked = copy.deepcopy(self.model)
        modules = dict(masked.named_modules())
        with torch.no_grad():
            for name, module, key in named_originals(masked):
                if name in self.layout.slices:
                    weight = original_of(module, key)
                    weight.mul_(self.layout.mask(name, kept).to(weight))
        for name, channels in self.layout.skips.items():
            skip_channels(modules[name], kept[channels])
        small = with_its_parameters(self.model)
        narrow(small, self.ports, self.layout, kept)
        return difference(masked, small, self.example)

    def random(self, groups: Sequence[Group], generator: torch.Generator, few: bool) -> Tensor:
        """Return random units to keep: about half of those of some groups, or one of each."""
        kept = torch.ones(len(self.layout.units), dtype=torch.bool)
        for group in groups:
            units = torch.tensor(group.units)
            units = units[~torch.tensor(group.fixed)]
            order = units[torch.randperm(len(units), generator=generator)]
            wanted = 1 if few else int(torch.randint(1, len(units) + 1, (1,), generator=generator))
            fixed = len(units) < len(group.units)
            kept[order[(0 if few and fixed else wanted) :]] = False
        return kept


def keep_what_fails(
    make: Callable[[], Trial], ports: Ports, is_told: Callable[[Group], bool]
) -> None:
    """Keep the groups whose masked and compacted models differ, and say so.

    Args:
        make (callable): Makes a trial of the ports as they are.
        ports (Ports): The ports.
        is_told (callable): Whether a group follows a user's rule, and so is not kept but
            refused, when it is pruned.
    """
    generator = torch.Generator().manual_seed(0)
    trial = make()
    for few in (False, True, False):
        groups = [group for group in trial.layout.groups if not is_told(group)]
        if not groups:
            return
        fault = trial.difference(trial.random(groups, generator, few))
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
        trial = make()
