"""The one form in which every traffic set of the package comes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import subgraph

from pyg_stkd import checks
from pyg_stkd.datasets.traffic.series_checks import (
    as_numbers,
    axis_hint,
    check_graph,
    check_values,
    time_stamps,
)

__all__ = ["TrafficSeries"]


class TrafficSeries:
    r"""Readings of :math:`N` sensors on a road graph over :math:`T` equal time steps.

    A missing reading is :obj:`False` in :obj:`mask` and NaN in :obj:`values`, never a number that
    a model or a metric could take for a speed.

    Args:
        values (Tensor): The readings :math:`[T, N, C]`, in the :obj:`units` of their channels.
        mask (Tensor, optional): Where a reading was observed, :math:`[T, N, C]` or :math:`[T, N]`.
            :obj:`None`: everywhere. (default: :obj:`None`)
        edge_index (Tensor, optional): The road graph :math:`[2, E]`, source to target.
            :obj:`None`: no edges. (default: :obj:`None`)
        edge_weight (Tensor, optional): Finite weights :math:`[E]`, not below zero.
            :obj:`None`: ones. (default: :obj:`None`)
        names (sequence of str, optional): The :math:`N` sensor names. (default: :obj:`None`)
        channels (sequence of str): The :math:`C` channel names. (default: :obj:`("speed",)`)
        units (sequence of str): The unit of each channel. (default: :obj:`("mph",)`)
        step_minutes (int): Length of a time step in minutes. (default: :obj:`5`)
        times (np.ndarray or str, optional): Time stamps :math:`[T]` as :obj:`datetime64`, or the
            first of them, if known. (default: :obj:`None`)
        days_per_week (int): Days of a week that the series holds; 5 for a series of working days
            only. (default: :obj:`7`)
        pos (Tensor, optional): Sensor coordinates :math:`[N, 2]`. (default: :obj:`None`)
        drop_dead (bool): Leave out sensors with a channel that was never observed, together with
            their edges, instead of raising. (default: :obj:`False`)

    Shapes:
        - **values:** :math:`[T, N, C]`
        - **mask:** :math:`[T, N, C]`, boolean
        - **edge_index:** :math:`[2, E]`, **edge_weight:** :math:`[E]`

    Raises:
        ValueError: If an axis is not where :math:`[T, N, C]` wants it, the graph does not fit the
            sensors, an observed reading is NaN or infinite, or a sensor was never observed.

    Example:
        >>> values = torch.tensor([[60.0, 0.0], [58.0, 61.0]]).unsqueeze(-1)
        >>> series = TrafficSeries(values, mask=values != 0)
        >>> series
        TrafficSeries(T=2, N=2, C=1, edges=0, missing=25.0 %, 5 min, speed [mph])
        >>> series.values[..., 0]
        tensor([[60., nan],
                [58., 61.]])
    """

    def __init__(
        self,
        values: Tensor | np.ndarray,
        mask: Tensor | np.ndarray | None = None,
        edge_index: Tensor | None = None,
        edge_weight: Tensor | None = None,
        *,
        names: Sequence[str] | None = None,
        channels: Sequence[str] = ("speed",),
        units: Sequence[str] = ("mph",),
        step_minutes: int = 5,
        times: np.ndarray | np.datetime64 | str | None = None,
        days_per_week: int = 7,
        pos: Tensor | None = None,
        drop_dead: bool = False,
    ) -> None:
        values = as_numbers("values", values)
        if values.dim() != 3 or 0 in values.shape:
            raise ValueError(
                "'values' must be a non-empty [T, N, C] tensor: time steps, nodes, channels "
                f"(got shape {tuple(values.shape)})"
            )
        if checks.count("step_minutes", step_minutes) > 1440:
            raise ValueError(f"'step_minutes' must be at most a day's 1440 (got {step_minutes})")
        checks.choice("days_per_week", days_per_week, (5, 7))
        shape = tuple(values.shape)
        if len(channels) != shape[2] or len(units) != shape[2]:
            raise ValueError(
                f"'channels' and 'units' must name the C = {shape[2]} channels of 'values', which "
                f"is [T, N, C] = {shape} (got {tuple(channels)} and {tuple(units)})"
            )
        if names is not None and len(names) != shape[1]:
            raise ValueError(
                f"'names' must name the N = {shape[1]} nodes of 'values', which is [T, N, C] = "
                f"{shape}{axis_hint(shape, len(names))} (got {len(names)} names)"
            )
        pos = None if pos is None else as_numbers("pos", pos)
        if pos is not None and tuple(pos.shape) != (shape[1], 2):
            raise ValueError(f"'pos' must be [{shape[1]}, 2] (got {tuple(pos.shape)})")

        self.edge_index, self.edge_weight = check_graph(
            edge_index, edge_weight, shape, guess_axes=names is None
        )
        self.values, self.mask = check_values(values, mask)
        self.names = None if names is None else [str(name) for name in names]
        self.channels, self.units = tuple(channels), tuple(units)
        self.step_minutes, self.days_per_week = step_minutes, days_per_week
        self.times = time_stamps(times, shape[0], step_minutes)
        self.pos = pos

        dead = ~self.mask.any(dim=0).all(dim=-1)  # [N]
        if dead.any():
            if not drop_dead or dead.all():
                which = dead.nonzero().flatten().tolist()
                shown = [self.names[i] if self.names else i for i in which[:8]]
                raise ValueError(
                    "every sensor must be observed at least once in each channel; pass "
                    f"'drop_dead=True' to leave the others out (got {len(which)} sensors without "
                    f"a reading: {shown}{' ...' if len(which) > 8 else ''})"
                )
            self.__dict__.update(self.select(~dead).__dict__)

    @property
    def num_steps(self) -> int:
        """Return the number of time steps :math:`T`."""
        return self.values.size(0)

    @property
    def num_nodes(self) -> int:
        """Return the number of sensors :math:`N`."""
        return self.values.size(1)

    @property
    def num_channels(self) -> int:
        """Return the number of channels :math:`C`."""
        return self.values.size(2)

    @property
    def unit(self) -> str:
        """Return the unit of the first channel."""
        return self.units[0]

    @property
    def start(self) -> np.datetime64 | None:
        """Return the time of the first step, if known."""
        return None if self.times is None else self.times[0]

    @property
    def steps_per_day(self) -> int:
        """Return the number of time steps of a day."""
        return 24 * 60 // self.step_minutes

    @property
    def steps_per_week(self) -> int:
        """Return the number of time steps of a week, which may be one of working days only."""
        return self.days_per_week * self.steps_per_day

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, span: slice) -> TrafficSeries:
        """Return the series over a slice of time, as a view that shares this one's memory."""
        if not isinstance(span, slice) or span.step not in (None, 1):
            raise TypeError(f"a series takes a slice of time without a step (got {span!r})")
        times = None if self.times is None else self.times[span]
        return self._with(values=self.values[span], mask=self.mask[span], times=times)

    def split(self, *parts: float, overlap: int = 0) -> tuple[TrafficSeries, ...]:
        r"""Return the series cut in time order, for training, validation and test.

        Args:
            *parts (float): The shares of the parts, which add up to 1, or their numbers of steps.
            overlap (int): Steps by which each part but the first reaches back into the one before
                it. With the input length of a window (or the longest look-back), the targets of a
                part start at its border and its inputs may come from before. (default: :obj:`0`)

        Returns:
            tuple[TrafficSeries, ...]: Views that share this series' memory.

        Example:
            >>> series = TrafficSeries(torch.rand(20, 3, 1))
            >>> [part.num_steps for part in series.split(0.7, 0.1, 0.2)]
            [14, 2, 4]
        """
        if not parts:
            raise ValueError("'parts' must be positive shares or numbers of steps (got none)")
        whole = all(isinstance(p, Integral) for p in parts)
        parts = tuple(checks.number("parts", p, above=0) for p in parts)
        checks.count("overlap", overlap, least=0)
        sums = list(accumulate(parts))
        if whole and sums[-1] > 1:
            if sums[-1] > self.num_steps:
                raise ValueError(f"'parts' must fit in {self.num_steps} steps (got {parts})")
            ends = [int(s) for s in sums]
        elif abs(sums[-1] - 1) < 1e-6:
            # A share such as 0.7 + 0.1 lies just below 0.8: do not lose a step to rounding.
            ends = [int(self.num_steps * s + 1e-6) for s in sums]
        else:
            raise ValueError(f"the shares in 'parts' must add up to 1 (got {parts})")
        begins = [0, *ends[:-1]]
        if any(a >= b for a, b in zip(begins, ends, strict=True)):
            raise ValueError(f"{self.num_steps} steps are too few for a part (got {parts})")
        if len(parts) > 1 and overlap > ends[0]:
            raise ValueError(
                f"'overlap' must lie between 0 and the first part's {ends[0]} steps (got {overlap})"
            )
        return tuple(self[max(a - overlap, 0) : b] for a, b in zip(begins, ends, strict=True))

    def select(self, nodes: Tensor) -> TrafficSeries:
        """Return the series of some sensors (index or boolean mask) with the edges among them."""
        nodes = nodes if isinstance(nodes, Tensor) else torch.as_tensor(np.asarray(nodes))
        index = checks.node_index("nodes", nodes, self.num_nodes, "sensors").long()
        if index.unique().numel() < index.numel():
            raise ValueError(f"'nodes' must name each sensor once (got {nodes.tolist()[:8]} ...)")
        edge_index, edge_weight = subgraph(
            index, self.edge_index, self.edge_weight, relabel_nodes=True, num_nodes=self.num_nodes
        )
        return self._with(
            values=self.values[:, index],
            mask=self.mask[:, index],
            edge_index=edge_index,
            edge_weight=edge_weight,
            names=None if self.names is None else [self.names[i] for i in index.tolist()],
            pos=None if self.pos is None else self.pos[index],
        )

    def _with(self, **changes: Any) -> TrafficSeries:
        out = TrafficSeries.__new__(TrafficSeries)
        names = ("values", "mask", "edge_index", "edge_weight", "names", "channels", "units")
        for name in (*names, "step_minutes", "days_per_week", "times", "pos"):
            setattr(out, name, changes.get(name, getattr(self, name)))
        return out

    def __repr__(self) -> str:
        missing = 100 * (1 - self.mask.float().mean().item()) if self.mask.numel() else 0.0
        channels = ", ".join(f"{c} [{u}]" for c, u in zip(self.channels, self.units, strict=True))
        return (
            f"{type(self).__name__}(T={self.num_steps}, N={self.num_nodes}, "
            f"C={self.num_channels}, edges={self.edge_index.size(1)}, missing={missing:.1f} %, "
            f"{self.step_minutes} min, {channels})"
        )
