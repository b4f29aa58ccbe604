"""Windows of a traffic series for training and forecasting."""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyg_stkd import checks
from pyg_stkd.datasets.traffic.scaler import StandardScaler
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries
from pyg_stkd.datasets.traffic.window_rows import (
    on_one_day,
    rows_before,
    rows_follow,
    without_gap,
)

__all__ = ["Window", "WindowDataset"]


class Window(NamedTuple):
    r"""One example, or a batch of them with a leading axis `B`.

    Args:
        x (Tensor): The steps to read.
        y (Tensor): The steps to forecast, of one channel.
        mask (Tensor): Where :obj:`y` was observed.

    Shapes:
        - **x:** :math:`[T_{in}, N, C]`
        - **y**, **mask:** :math:`[T_{out}, N]`

    Example:
        >>> series = TrafficSeries(torch.tensor([50.0, 60.0, 55.0]).view(3, 1, 1))
        >>> window = WindowDataset(series, input_steps=2, output_steps=1)[0]
        >>> window.y, window.mask
        (tensor([[55.]]), tensor([[True]]))
    """

    x: Tensor  # [T_in, N, C]
    y: Tensor  # [T_out, N]
    mask: Tensor  # [T_out, N], True where y was observed


class WindowDataset(Dataset[Window]):
    r"""The windows of a traffic series: some steps to read, the next ones to forecast.

    A window is cut when it is asked for: the memory is that of the series, also with many workers.
    Both :class:`torch.utils.data.DataLoader` and :class:`torch_geometric.loader.DataLoader` batch
    it to :class:`Window` with :math:`[B, T, N, C]`.

    If the series has time stamps, windows go by them. None spans a gap in time, such as the nights
    before a weekend that the series leaves out, and the steps of days and weeks before are those
    of the same time of day: a window whose earlier steps are not there, after an hour that
    daylight saving time skips or a holiday that the series leaves out, is left out.
    :obj:`left_out` counts these. Without time stamps a day is as many steps as it has.

    Args:
        series (TrafficSeries): The readings.
        input_steps (int): Steps :math:`T_{in}` to read. (default: :obj:`12`)
        output_steps (int): Steps :math:`T_{out}` to forecast. (default: :obj:`12`)
        scaler (StandardScaler, optional): Scales :obj:`x`, where missing readings then are zero,
            the mean of the training part. :obj:`None`: original units, missing readings NaN.
            (default: :obj:`None`)
        target_channel (int): The channel to forecast. (default: :obj:`0`)
        scale_target (bool): Also scale :obj:`y`, which otherwise keeps its original unit. Its
            missing readings are NaN and :obj:`False` in :obj:`mask`. (default: :obj:`False`)
        stride (int): Steps from a window to the next. (default: :obj:`1`)
        days (int): Also read the steps to forecast as they were on each of so many days before; in
            a series of working days only, on so many working days. (default: :obj:`0`)
        weeks (int): The same for weeks, of seven days. :obj:`x` then holds weeks, days and the
            recent steps, in this order and each in order of time; :obj:`parts` has their lengths.
            (default: :obj:`0`)
        within_day (bool): Leave out windows that span midnight, as STGCN does; needs time stamps.
            (default: :obj:`False`)

    Attributes:
        origins (Tensor): The first step to forecast of each window.
        left_out (dict[str, int]): How many windows, from the first one on that has its days and
            weeks before, are left out for a :obj:`"gap"`, with :obj:`within_day` for
            :obj:`"midnight"`, or for lack of their :obj:`"past"`.

    Shapes:
        - **x:** :math:`[T_{in}, N, C]`, or :math:`[(weeks + days) T_{out} + T_{in}, N, C]`
        - **y:** :math:`[T_{out}, N]`
        - **mask:** :math:`[T_{out}, N]`, boolean

    Raises:
        ValueError: If the series is shorter than a window, or has none without a gap and with its
            past, or the steps to forecast are more than a day or week, which would read them.

    Example:
        >>> series = TrafficSeries(torch.arange(10.0, 16.0).view(6, 1, 1))
        >>> windows = WindowDataset(series, input_steps=3, output_steps=2)
        >>> len(windows)
        2
        >>> x, y, mask = windows[0]
        >>> x.flatten(), y.flatten()
        (tensor([10., 11., 12.]), tensor([13., 14.]))
    """

    def __init__(
        self,
        series: TrafficSeries,
        input_steps: int = 12,
        output_steps: int = 12,
        scaler: StandardScaler | None = None,
        *,
        target_channel: int = 0,
        scale_target: bool = False,
        stride: int = 1,
        days: int = 0,
        weeks: int = 0,
        within_day: bool = False,
    ) -> None:
        checks.instance("series", series, TrafficSeries)
        if scaler is not None:
            checks.instance("scaler", scaler, StandardScaler)
        steps = {"input_steps": input_steps, "output_steps": output_steps, "stride": stride}
        for name, value in steps.items():
            checks.count(name, value)
        span = series.num_steps // series.steps_per_day
        if series.times is not None:
            span = int((series.times[-1] - series.times[0]) // np.timedelta64(1, "D"))
        for name, value in (("days", days), ("weeks", weeks)):
            if checks.count(name, value, least=0) > span + 1:
                raise ValueError(
                    f"'{name}' must lie within the {span} days of 'series' (got {value})"
                )
        checks.count("target_channel", target_channel, least=0)
        if target_channel >= series.num_channels:
            raise ValueError(
                f"'target_channel' must be one of the {series.num_channels} channels "
                f"{series.channels} (got {target_channel})"
            )
        if scaler is not None and scaler.mean.numel() != series.num_channels:
            raise ValueError(
                f"'scaler' must have the {series.num_channels} channels of the series "
                f"(got {scaler.mean.numel()})"
            )
        if scale_target and scaler is None:
            raise ValueError("'scale_target' needs a 'scaler' (got None)")
        if within_day and series.times is None:
            raise ValueError("'within_day' needs a series with time stamps (got times=None)")

        self.series, self.scaler, self.target_channel = series, scaler, target_channel
        self.input_steps, self.output_steps, self.scale_target = (
            input_steps,
            output_steps,
            scale_target,
        )
        self.parts = (weeks * output_steps, days * output_steps, input_steps)
        most = series.steps_per_day if days else series.steps_per_week
        if (days or weeks) and (output_steps > most or 1440 % series.step_minutes):
            raise ValueError(
                f"'output_steps' must be at most the {most} steps of a whole day or week before, "
                f"of {series.step_minutes} minutes each (got {output_steps})"
            )
        past = rows_before(series, days, weeks)  # [T, weeks + days]
        history = input_steps
        if series.times is None and past.size:  # of the longest look-back; the same for each step
            history = max(history, int((past < 0).sum(axis=0).max()))
        last = series.num_steps - output_steps
        if last < history:
            raise ValueError(
                f"'series' must have at least the {history} + {output_steps} steps of one window, "
                f"on axis 0 of [T, N, C] (got T = {series.num_steps})"
            )
        whole = rows_follow(past, output_steps)  # [T - T_out + 1]
        first = history + int(whole[history:].argmax())
        origins = np.arange(first, last + 1, min(stride, series.num_steps))
        kept = np.ones(len(origins), dtype=bool)
        self.left_out: dict[str, int] = {}
        for reason, good in (
            ("gap", without_gap(series, origins - input_steps, origins + output_steps - 1)),
            ("midnight", on_one_day(series, origins - input_steps, origins + output_steps - 1)),
            ("past", whole[origins]),
        ):
            if reason != "midnight" or within_day:
                self.left_out[reason] = int((kept & ~good).sum())
                kept &= good
        self.origins = torch.from_numpy(origins[kept])
        self._past = torch.from_numpy(past[origins[kept]])  # [len(self), weeks + days]
        if not kept.any():
            raise ValueError(
                f"'series' must have a window of {input_steps} + {output_steps} steps "
                f"{'within a day' if within_day else 'without a gap in time'}"
                f"{' and with the days and weeks before it' if past.size else ''} (got none)"
            )

    def __len__(self) -> int:
        return self.origins.numel()

    def __getitem__(self, index: int) -> Window:
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"'index' must name one of {len(self)} windows (got {i})")
        t = int(self.origins[i])
        ahead = slice(t, t + self.output_steps)
        y = self.series.values[ahead, :, self.target_channel]  # [T_out, N]
        mask = self.series.mask[ahead, :, self.target_channel]
        if self.scaler is not None and self.scale_target:
            y = self.scaler.transform(y, self.target_channel)
        return Window(self._inputs(i, t), y, mask)

    def _inputs(self, i: int, t: int) -> Tensor:
        values = self.series.values
        x = values[t - self.input_steps : t]  # [T_in, N, C]
        if self._past.size(1):
            rows = self._past[i].tolist()
            x = torch.cat([*(values[row : row + self.output_steps] for row in rows), x])
        if self.scaler is not None:
            # Missing readings are NaN here and only here become the training mean.
            x = self.scaler.transform(x).nan_to_num_(nan=0.0)
        return x

    def __repr__(self) -> str:
        left_out = f", left_out={self.left_out}" if any(self.left_out.values()) else ""
        return (
            f"{type(self).__name__}({len(self)}, input_steps={self.input_steps}, "
            f"output_steps={self.output_steps}{left_out}, {self.series!r})"
        )
