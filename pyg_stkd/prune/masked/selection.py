"""Which channels or weights go, so that a budget is met and no layer falls below its floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pyg_stkd.prune.structure.layout import Layout

__all__ = ["normalize", "select_by_cost", "select_channels", "select_weights"]


def normalize(layout: Layout, scores: Tensor, kept: Tensor) -> Tensor:
    r"""Divide the scores of each group by their mean over what is left of it.

    Example:
        >>> from torch import nn
        >>> from pyg_stkd.prune.structure.ports import Ports
        >>> model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
        >>> layout = Layout(model, Ports(model))
        >>> scores = torch.tensor([9.0, 1.0, 3.0, 9.0])
        >>> normalize(layout, scores, torch.ones(4, dtype=torch.bool))[1:3]
        tensor([0.5000, 1.5000])
    """
    scores = scores.clone()
    for group in layout.groups:
        units = torch.tensor(group.units)
        units = units[kept[units] & layout.prunable[units]]
        mean = scores[units].mean() if units.numel() else scores.new_zeros(())
        if mean > 0:
            scores[units] /= mean
    return scores


def select_channels(
    layout: Layout,
    scores: Tensor,
    kept: Tensor,
    target: int,
    floors: Sequence[tuple[Sequence[int], int]],
) -> Tensor:
    """Drop the units of the lowest scores, one by one, until a number of parameters is met.

    Args:
        layout (Layout): The units of the model.
        scores (Tensor): The score of each unit.
        kept (Tensor): Which units there are now.
        target (int): The number of parameters to stay below or at.
        floors (list): Pairs of units and the number of them that must stay.
    """
    if layout.num_parameters(kept) > target:
        for left, num_parameters in drops(layout, scores, kept, floors):
            kept = left
            if num_parameters <= target:
                break
    return kept.clone()


def select_by_cost(
    layout: Layout,
    scores: Tensor,
    kept: Tensor,
    cost: Callable[[Tensor], float],
    target: float,
    floors: Sequence[tuple[Sequence[int], int]],
) -> Tensor:
    """Drop the units of the lowest scores, as few as meet a cost, found by bisection.

    Args:
        layout (Layout): The units of the model.
        scores (Tensor): The score of each unit.
        kept (Tensor): Which units there are now.
        cost (callable): What the model costs with these units; it falls with each that goes.
        target (float): The cost to stay below or at.
        floors (list): Pairs of units and the number of them that must stay.
    """
    choices = [kept.clone()]
    choices += [left.clone() for left, _ in drops(layout, scores, kept, floors)]
    low, high = 0, len(choices) - 1  # the last one, if none is cheap enough
    while low < high:
        middle = (low + high) // 2
        if cost(choices[middle]) <= target:
            high = middle
        else:
            low = middle + 1
    return choices[low]


def drops(
    layout: Layout, scores: Tensor, kept: Tensor, floors: Sequence[tuple[Sequence[int], int]]
) -> Iterator[tuple[Tensor, int]]:
    """Drop unit after unit, the lowest scores first, where floors allow it.

    Yields what is kept (the same tensor each time) and the number of parameters left.
    """
    kept = kept.clone()
    flags = kept.numpy()  # the same memory, quicker to write to
    bounds = [torch.tensor(units, dtype=torch.long) for units, _ in floors]
    left = [int(kept[units].sum()) for units in bounds]
    least = [number for _, number in floors]
    sizes = {name: list(size) for name, size in layout.sizes.items()}
    axes: list[tuple[str, int]] = []  # what shrinks with its units
    members: list[Tensor] = []
    for name, dims in layout.slices.items():
        for dim, channels in dims.items():
            if name in sizes:
                sizes[name][dim] = int(kept[channels].sum())
                axes.append((name, dim))
                members.append(channels)
    counts = {name: math.prod(size) for name, size in sizes.items()}
    total = sum(counts.values())
    candidates = (kept & layout.prunable).nonzero().view(-1)
    order = candidates[scores[candidates].argsort(stable=True)]
    bounds_of, axes_of = _inverse(bounds, len(kept)), _inverse(members, len(kept))
    for unit in order.tolist():
        if any(left[i] <= least[i] for i in bounds_of(unit)):
            continue
        flags[unit] = False
        for i in bounds_of(unit):
            left[i] -= 1
        for i in axes_of(unit):
            name, dim = axes[i]
            size = sizes[name]
            gone = counts[name] // size[dim]  # one slice
            counts[name] -= gone
            total -= gone
            size[dim] -= 1
        yield kept, total


def _inverse(parts: Sequence[Tensor], size: int) -> Callable[[int], list[int]]:
    """Return a function that says which of some parts have a unit, as often as they have it.

    Numbers in flat lists are no work for the collector of garbage, as many small lists would be.

    Example:
        >>> of = _inverse([torch.tensor([0, 2]), torch.tensor([2, 2])], 3)
        >>> of(0), of(1), of(2)
        ([0], [], [0, 1, 1])
    """
    units = torch.cat([*parts, torch.zeros(0, dtype=torch.long)])
    numbers = torch.arange(len(parts)).repeat_interleave(torch.tensor([*map(len, parts)]).long())
    flat = numbers[units.argsort(stable=True)].tolist()
    ends = units.bincount(minlength=size).cumsum(0).tolist()
    return lambda unit: flat[ends[unit - 1] if unit else 0 : ends[unit]]


def select_weights(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    target: int,
    floors: Mapping[str, int],
) -> dict[str, Tensor]:
    """Keep the weights of the highest scores, exactly :obj:`target` of them in all.

    Example:
        >>> scores = {"a": torch.tensor([3.0, 2.0, 1.0]), "b": torch.tensor([0.2, 0.1])}
        >>> masks = {name: torch.ones_like(score) for name, score in scores.items()}
        >>> kept = select_weights(scores, masks, 2, {"a": 1, "b": 1})
        >>> kept["a"].tolist(), kept["b"].tolist()
        ([1.0, 0.0, 0.0], [1.0, 0.0])
    """
    ranks = []
    for name, score in scores.items():
        rank = score.detach().flatten().to("cpu", torch.float64).clone()
        alive = masks[name].flatten().cpu() > 0
        rank[~alive] = -torch.inf
        floor = min(floors[name], int(alive.sum()))
        rank[rank.topk(floor).indices] = torch.inf
        ranks.append(rank)
    joined = torch.cat(ranks)
    alive_count = int((joined > -torch.inf).sum())
    needed = int((joined == torch.inf).sum())
    kept = torch.zeros_like(joined)
    kept[joined.topk(min(alive_count, max(needed, target))).indices] = 1
    parts = kept.split([rank.numel() for rank in ranks])
    return {
        name: part.view_as(scores[name]).to(masks[name])
        for (name, part) in zip(scores, parts, strict=True)
    }
