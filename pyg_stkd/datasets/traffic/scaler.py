"""Standardisation that knows missing readings."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.datasets.traffic.series_checks import as_numbers
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries

__all__ = ["StandardScaler"]


class StandardScaler:
    r"""Gives each channel mean zero and variance one over the observed readings of a series.

    .. math::
        x' = (x - \mu_c) / \sigma_c

    Fit it on the training part only. A constant channel is only centred.

    Args:
        mean (Tensor): The means :math:`[C]`, in the units of the channels.
        std (Tensor): The standard deviations :math:`[C]`, positive, in the same units.

    Shapes:
        - **input:** :math:`[*, C]`, or :math:`[*]` with :obj:`channel`
        - **output:** the same

    Raises:
        ValueError: If the two do not fit each other or are not finite, or a deviation is not
            positive.

    Example:
        >>> series = TrafficSeries(torch.tensor([[50.0], [60.0], [70.0], [0.0]]).unsqueeze(-1))
        >>> scaler = StandardScaler.fit(series[:3])
        >>> scaler
        StandardScaler(mean=[60.0], std=[8.165])
        >>> scaler.inverse_transform(scaler.transform(series.values)).flatten()
        tensor([50., 60., 70.,  0.])
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        mean, std = as_numbers("mean", mean), as_numbers("std", std)
        if mean.dim() != 1 or mean.shape != std.shape:
            raise ValueError(
                f"'mean' and 'std' must be [C] (got {tuple(mean.shape)} and {tuple(std.shape)})"
            )
        if not (mean.isfinite() & std.isfinite() & (std > 0)).all():
            raise ValueError(
                "'mean' and 'std' must be finite and 'std' positive "
                f"(got {mean.tolist()} and {std.tolist()})"
            )
        self.mean, self.std = mean, std

    @classmethod
    def fit(cls, series: TrafficSeries) -> StandardScaler:
        """Return the scaler of a series, from its observed readings.

        Raises:
            ValueError: If a channel has no observed reading.
        """
        checks.instance("series", series, TrafficSeries)
        means, stds = [], []
        for c in range(series.num_channels):  # a channel at a time bounds the float64 copy
            observed = series.values[..., c][series.mask[..., c]].double()
            if observed.numel() == 0:
                raise ValueError(
                    f"'series' must have an observed reading in each channel (got none in "
                    f"{series.channels[c]!r})"
                )
            means.append(observed.mean())
            stds.append((observed - means[-1]).square().mean().sqrt())
        mean, std = torch.stack(means), torch.stack(stds)
        constant = std <= 1e-9 * mean.abs().clamp(min=1e-9)
        dtype = series.values.dtype
        return cls(mean.to(dtype), std.where(~constant, 1.0).to(dtype))

    def transform(self, x: Tensor, channel: int | None = None) -> Tensor:
        """Return `[*, C]`, or one `channel` `[*]`, in standard units."""
        x = as_numbers("x", x)
        mean, std = self._for(x, channel)
        return (x - mean) / std

    def inverse_transform(self, x: Tensor, channel: int | None = None) -> Tensor:
        """Return `[*, C]`, or one `channel` `[*]`, in its original unit."""
        x = as_numbers("x", x)
        mean, std = self._for(x, channel)
        return x * std + mean

    def _for(self, x: Tensor, channel: int | None) -> tuple[Tensor, Tensor]:
        if channel is None and (x.dim() == 0 or x.size(-1) != self.mean.numel()):
            raise ValueError(
                f"'x' must be [*, C] with C = {self.mean.numel()} channels last, unless one "
                f"'channel' is named (got {tuple(x.shape)})"
            )
        mean = self.mean if channel is None else self.mean[channel]
        std = self.std if channel is None else self.std[channel]
        return mean.to(x), std.to(x)

    def __repr__(self) -> str:
        mean, std = ([round(v, 4) for v in t.tolist()] for t in (self.mean, self.std))
        return f"{type(self).__name__}(mean={mean}, std={std})"
