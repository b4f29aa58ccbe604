"""Groups of channels that are pruned by one ranking, and exact counts of parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pyg_stkd.prune.mask_hooks.hooks import mask_of, masked_names, original_of
from pyg_stkd.prune.mask_hooks.skipping import channel_mask
from pyg_stkd.prune.structure.parametrized import unmasked_dims
from pyg_stkd.prune.structure.ports import Ports

__all__ = ["floor_width", "Group", "Layout", "named_originals"]


@dataclass(frozen=True)
class Group:
    r"""Channels that are alike: the outputs of one layer, or of layers whose outputs are added.

    Where a wider output is added to a narrower one, the channels of both and those of the wider
    one alone are two groups.

    Args:
        name (str): The layers whose outputs they are, joined by :obj:`+`.
        width (int): The number of channels, or of heads.
        members (tuple of str): The parameters that lose a slice with each of them.
        units (tuple of int): The units of the channels.
        fixed (tuple of bool): Which of them are kept, whatever their scores.
    """

    name: str
    width: int
    members: tuple[str, ...]
    units: tuple[int, ...] = field(repr=False)
    fixed: tuple[bool, ...] = field(repr=False)


def floor_width(width: int, share: float, rho: float = 0.6, min_width: int = 2) -> int:
    r"""Return how many channels a layer must keep,
    :math:`\max(w_{\min}, \lceil \rho \sqrt{s} \, w \rceil)`, at most all.

    Args:
        width (int): The number of channels at first.
        share (float): The share :math:`s` of the parameters that the model may keep.
        rho (float): The factor :math:`\rho`. (default: :obj:`0.6`)
        min_width (int): The fewest channels of any layer. (default: :obj:`2`)

    Example:
        >>> floor_width(64, share=0.03), floor_width(8, share=0.03), floor_width(1, share=0.03)
        (7, 2, 1)
    """
    wanted = math.ceil(rho * math.sqrt(share) * width - 1e-9)
    return min(width, max(min_width, wanted))


class Layout:
    r"""The units of a model, laid out for pruning.

    Args:
        model (torch.nn.Module): The model, masked or not.
        ports (Ports): Its ports.

    Attributes:
        units: All units; positions in it are the indices of every mask and score here.
        prunable: Which units may be dropped.
        axes: For each output of a layer that has prunable units, the positions of its units.
        groups: The groups.
        shapes: The shape of each parameter, by all its names.
        sizes: The same, by the first name of each: what is counted and scored.
        slices: For each parameter and dimension, the position of the unit of each index.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> layout = Layout(model, Ports(model))
        >>> layout.groups
        [Group(name='0', width=3, members=('0.bias', '0.weight', '1.weight'))]
        >>> kept = layout.prunable.clone().fill_(True)
        >>> kept[layout.groups[0].units[0]] = False
        >>> layout.num_parameters(), layout.num_parameters(kept)
        (13, 9)
    """

    def __init__(self, model: nn.Module, ports: Ports) -> None:
        self.units = ports.units
        place = {unit: i for i, unit in enumerate(self.units)}
        self._place_of = torch.tensor([place.get(unit, -1) for unit in ports.representatives])
        self.slices = {
            name: {dim: self.places(channels) for dim, channels in dims.items()}
            for name, dims in ports.owned.items()
        }
        self.skips = {name: self.places(channels) for name, channels in ports.skips.items()}
        self.unmasked = unmasked_dims(model)
        tensors = {name: original_of(mod, key) for name, mod, key in named_originals(model)}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        first = {tensor: name for name, tensor in reversed(tensors.items())}
        self.sizes = {
            name: shape for name, shape in self.shapes.items() if first[tensors[name]] == name
        }
        owned = {i for dims in self.slices.values() for p in dims.values() for i in p.tolist()}
        frozen = {place[unit] for unit in ports.frozen}
        self.prunable = torch.tensor(
            [i in owned and i not in frozen for i in range(len(self.units))], dtype=torch.bool
        )
        self.axes: list[Tensor] = []
        names: list[str] = []
        for name, channels in ports.axes:
            axis = self.places(channels).unique()
            if not bool(self.prunable[axis].any()):
                continue
            same = [i for i, other in enumerate(self.axes) if torch.equal(axis, other)]
            if same:
                names[same[0]] += f"+{name}"
            else:
                self.axes.append(axis)
                names.append(name)
        self.groups = self._group(names)

    def places(self, channels: Sequence[int]) -> Tensor:
        """Return the positions of the units of channels."""
        return self._place_of[torch.tensor(channels, dtype=torch.long)]

    def count(self, name: str, kept: Tensor | None = None) -> int:
        """Return the number of entries of one parameter when these units are kept."""
        total = 1
        for dim, size in enumerate(self.sizes[name]):
            channels = self.slices.get(name, {}).get(dim)
            if channels is not None and kept is not None:
                size = int(kept[channels].sum())
            total *= size
        return total

    def num_parameters(self, kept: Tensor | None = None) -> int:
        """Return the number of all parameters when these units are kept."""
        return sum(self.count(name, kept) for name in self.sizes)

    def num_prunable(self, kept: Tensor | None = None) -> int:
        """Return the number of those parameters of which something may be dropped."""
        return sum(
            self.count(name, kept)
            for name, dims in self.slices.items()
            if name in self.sizes and any(bool(self.prunable[p].any()) for p in dims.values())
        )

    def mask(self, name: str, kept: Tensor) -> Tensor:
        """Return the mask of one parameter, 0 in all slices of units that are not kept."""
        shape = self.shapes[name]
        mask = torch.ones(shape)
        for dim, channels in self.slices[name].items():
            if (name, dim) in self.unmasked:
                continue
            flags = kept[channels].to(mask)
            mask *= flags.view([-1 if i == dim else 1 for i in range(len(shape))])
        return mask

    def reduce(self, scores: Mapping[str, Tensor]) -> Tensor:
        """Return for each unit the sum of the scores of all its slices, in float64."""
        total = torch.zeros(len(self.units), dtype=torch.float64)
        for name, dims in self.slices.items():
            if name not in scores:
                continue
            score = scores[name].detach().to("cpu", torch.float64)
            for dim, channels in dims.items():
                rest = [i for i in range(score.dim()) if i != dim]
                total.index_add_(0, channels, score.sum(rest) if rest else score)
        return total

    def kept(self, model: nn.Module) -> Tensor:
        """Read off the masks of a model which units are kept: those with a slice that is not 0."""
        alive = torch.zeros(len(self.units), dtype=torch.bool)
        for name, module, key in named_originals(model):
            if name not in self.slices:
                continue
            mask = mask_of(module, key)
            for dim, channels in self.slices[name].items():
                if (name, dim) in self.unmasked:
                    continue
                if mask is None:
                    alive[channels] = True
                    continue
                rest = [i for i in range(mask.dim()) if i != dim]
                flags = mask.bool().cpu()
                flags = flags.any(rest) if rest else flags
                alive[channels[flags]] = True
        for name, channels in self.skips.items():  # zeros count in statistics that they are not
            counted = channel_mask(model.get_submodule(name))  # left out of
            alive[channels if counted is None else channels[counted.cpu()]] = True
        return alive | ~self.prunable

    def _group(self, names: list[str]) -> list[Group]:
        """Put units together that are in the same outputs, and so own alike slices."""
        prunable = self.prunable.tolist()
        outputs: dict[int, list[int]] = {}
        for i, axis in enumerate(self.axes):
            for unit in axis.tolist():
                outputs.setdefault(unit, []).append(i)
        clusters: dict[tuple[int, ...], list[int]] = {}
        for unit in sorted(outputs):
            clusters.setdefault(tuple(outputs[unit]), []).append(unit)
        number = torch.full((len(self.units) + 1,), -1)
        for i, units in enumerate(clusters.values()):
            number[units] = i
        members_of: list[list[str]] = [[] for _ in clusters]
        for name, dims in self.slices.items():
            if name in self.shapes:
                for i in torch.cat([number[p] for p in dims.values()]).unique().tolist():
                    if i >= 0:
                        members_of[i].append(name)
        groups: list[Group] = []
        used: Counter[str] = Counter()
        for (cluster, units), members in zip(clusters.items(), members_of, strict=True):
            if not any(prunable[unit] for unit in units):
                continue
            joined = "+".join(names[i] for i in cluster)
            name = "+".join(dict.fromkeys(joined.split("+")))
            used[name] += 1
            groups.append(
                Group(
                    name if used[name] == 1 else f"{name} ({used[name]})",
                    len(units),
                    tuple(sorted(members)),
                    tuple(units),
                    tuple(not prunable[unit] for unit in units),
                )
            )
        return groups


def named_originals(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """Return each parameter's name without masks, its module, and its name there."""
    found = []
    for prefix, module in model.named_modules():
        masked = set(masked_names(module))
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            plain = key.removesuffix("_orig")
            plain = plain if plain in masked else key
            found.append((f"{prefix}.{plain}" if prefix else plain, module, plain))
    return found
