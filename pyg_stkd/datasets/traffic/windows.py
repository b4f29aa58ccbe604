"""Windows of a traffic series for training and forecasting."""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyg_stkd.datasets.traffic.scaler import StandardScaler
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries


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
    it to :class:`Window` with :math:`[B, T, N, C]`. Windows never span a gap in time (the nights
    before a weekend that the series leaves out), if the series has time stamps.

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
        days (int): Also read the steps to forecast as they were on so many days before.
            (default: :obj:`0`)
        weeks (int): The same for weeks. :obj:`x` then holds weeks, days and the recent steps, in
            this order and each in order of time; :obj:`parts` has their lengths.
            (default: :obj:`0`)
        within_day (bool): Leave out windows that span midnight, as STGCN does; needs time stamps.
            (default: :obj:`False`)

    Shapes:
        - **x:** :math:`[T_{in}, N, C]`, or :math:`[(weeks + days) T_{out} + T_{in}, N, C]`
        - **y:** :math:`[T_{out}, N]`
        - **mask:** :math:`[T_{out}, N]`, boolean

    Raises:
        ValueError: If the series is shorter than a window or has none without a gap.

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
        steps = {"input_steps": input_steps, "output_steps": output_steps, "stride": stride}
        for name, value in steps.items():
            if value < 1:
                raise ValueError(f"'{name}' must be at least 1 (got {value})")
        if days < 0 or weeks < 0:
            raise ValueError(f"'days' and 'weeks' must be at least 0 (got {days} and {weeks})")
        if not 0 <= target_channel < series.num_channels:
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
        self.lags = [k * series.steps_per_week for k in range(weeks, 0, -1)]
        self.lags += [k * series.steps_per_day for k in range(days, 0, -1)]
        self.parts = (weeks * output_steps, days * output_steps, input_steps)

        history = max([input_steps, *self.lags])
        if series.num_steps < history + output_steps:
            raise ValueError(
                f"'series' must have at least the {history} + {output_steps} steps of one window, "
                f"on axis 0 of [T, N, C] (got T = {series.num_steps})"
            )
        #: The first step to forecast of each window :math:`[len(self)]`.
        self.origins = torch.arange(history, series.num_steps - output_steps + 1, stride)
        if series.times is not None:
            first = series.times[self.origins.numpy() - input_steps]
            last = series.times[self.origins.numpy() + output_steps - 1]
            length = (input_steps + output_steps - 1) * series.step_minutes
            keep = last - first == np.timedelta64(length, "m")
            if within_day:
                keep &= first.astype("datetime64[D]") == last.astype("datetime64[D]")
            self.origins = self.origins[torch.from_numpy(keep)]
        if len(self.origins) == 0:
            raise ValueError(
                f"'series' must have a window of {input_steps} + {output_steps} steps "
                f"{'within a day' if within_day else 'without a gap in time'} (got none)"
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
        return Window(self._inputs(t), y, mask)

    def _inputs(self, t: int) -> Tensor:
        values = self.series.values
        x = values[t - self.input_steps : t]  # [T_in, N, C]
        if self.lags:
            past = [values[t - lag : t - lag + self.output_steps] for lag in self.lags]
            x = torch.cat([*past, x])
        if self.scaler is not None:
            # Missing readings are NaN here and only here become the training mean.
            x = self.scaler.transform(x).nan_to_num_(nan=0.0)
        return x

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self)}, input_steps={self.input_steps}, "
            f"output_steps={self.output_steps}, {self.series!r})"
        )
