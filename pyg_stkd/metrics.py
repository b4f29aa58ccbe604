r"""Errors of a forecast in original units, over observed readings only, per horizon and mean.

Needs torchmetrics (the extra ``metrics``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        "pyg_stkd.metrics needs the package torchmetrics: pip install 'pyg-stkd[metrics]'"
    ) from error

__all__ = [
    "MaskedMAE",
    "MaskedMAPE",
    "MaskedRMSE",
    "masked_mae",
    "masked_mape",
    "masked_rmse",
]


def masked_mae(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the mean absolute error over the observed readings.

    .. math::
        \frac{1}{\sum m} \sum m \, |\hat{y} - y|

    The gradient is finite also where :obj:`target` is NaN and masked. Over no reading at all the
    mean is NaN.

    Args:
        pred (Tensor): The forecast.
        target (Tensor): The truth, in the same unit.
        mask (Tensor, optional): Where :obj:`target` was observed, boolean. :obj:`None`: where it is
            not NaN. (default: :obj:`None`)

    Shapes:
        - **input:** three tensors of one shape
        - **output:** a scalar

    Raises:
        TypeError: If the mask is not boolean.
        ValueError: If the shapes differ.

    Example:
        >>> masked_mae(torch.tensor([50.0, 60.0]), torch.tensor([52.0, float("nan")]))
        tensor(2.)
    """
    error, mask = _error(pred, target, mask)
    return error.abs().sum() / mask.sum()


def masked_rmse(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the root of the mean squared error over the observed readings.

    .. math::
        \sqrt{\frac{1}{\sum m} \sum m \, (\hat{y} - y)^2}

    Args:
        pred (Tensor): The forecast.
        target (Tensor): The truth, in the same unit.
        mask (Tensor, optional): As in :func:`masked_mae`. (default: :obj:`None`)

    Shapes:
        - **input:** three tensors of one shape
        - **output:** a scalar

    Raises:
        TypeError: If the mask is not boolean.
        ValueError: If the shapes differ.

    Example:
        >>> masked_rmse(torch.tensor([50.0, 60.0]), torch.tensor([53.0, 56.0]))
        tensor(3.5355)
    """
    error, mask = _error(pred, target, mask)
    return (error.square().sum() / mask.sum()).sqrt()


def masked_mape(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the mean absolute error as a percentage of the truth, where that was seen and not 0.

    .. math::
        \frac{100}{\sum m} \sum m \, \left| \frac{\hat{y} - y}{y} \right|

    Args:
        pred (Tensor): The forecast.
        target (Tensor): The truth, in the same unit. Where it is zero it does not count.
        mask (Tensor, optional): As in :func:`masked_mae`. (default: :obj:`None`)

    Shapes:
        - **input:** three tensors of one shape
        - **output:** a scalar, in per cent

    Raises:
        TypeError: If the mask is not boolean.
        ValueError: If the shapes differ.

    Example:
        >>> masked_mape(torch.tensor([55.0, 3.0]), torch.tensor([50.0, 0.0]))
        tensor(10.)
    """
    error, mask = _relative_error(pred, target, mask)
    return 100 * error.abs().sum() / mask.sum()


def _error(pred: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if pred.shape != target.shape or (mask is not None and mask.shape != target.shape):
        shapes = [tuple(t.shape) for t in (pred, target, mask) if t is not None]
        raise ValueError(f"'pred', 'target' and 'mask' must have one shape (got {shapes})")
    if mask is None:
        mask = ~target.isnan()
    elif mask.dtype != torch.bool:
        raise TypeError(f"'mask' must be boolean (got {mask.dtype})")
    # Select before subtracting: the gradient of a masked NaN would be NaN.
    return pred.where(mask, 0.0) - target.where(mask, 0.0), mask


def _relative_error(pred: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    error, mask = _error(pred, target, mask)
    mask = mask & (target != 0)
    return error.where(mask, 0.0) / target.where(mask, 1.0), mask


class _MaskedMetric(Metric):
    # Sums and counts a step ahead, in float64: sums of a long run in float32 lose digits, and only
    # sums (not means of batches) add up across batches and processes.
    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    _name = ""
    total: Tensor  # [T_out]
    count: Tensor  # [T_out]

    def __init__(
        self,
        output_steps: int = 12,
        horizons: Sequence[int] = (15, 30, 45, 60),
        step_minutes: int = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        last = output_steps * step_minutes
        wrong = [h for h in horizons if h % step_minutes or not 0 < h <= last]
        if wrong:
            raise ValueError(
                f"'horizons' must be multiples of {step_minutes} minutes up to the {last} of "
                f"{output_steps} steps (got {wrong})"
            )
        self.output_steps, self.step_minutes = output_steps, step_minutes
        self.horizons = tuple(horizons)
        zeros = torch.zeros(output_steps, dtype=torch.double)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", zeros.clone(), dist_reduce_fx="sum")

    def update(self, pred: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch: forecast, truth and where it was observed, `[B, T_out, N]`."""
        if pred.dim() != 3 or pred.size(1) != self.output_steps:
            raise ValueError(
                f"'pred' must be [B, T_out, N] with T_out = {self.output_steps} steps on axis 1 "
                f"(got {tuple(pred.shape)})"
            )
        error, mask = self._measure(pred.detach().double(), target.double(), mask)
        self.total += error.sum(dim=(0, 2))
        self.count += mask.sum(dim=(0, 2))

    def compute(self) -> dict[str, Tensor]:
        """Return the metric at each horizon (`mae/15`, in minutes) and of all (`mae/mean`)."""
        at = {f"{self._name}/{h}": h // self.step_minutes - 1 for h in self.horizons}
        out = {key: self._finish(self.total[i] / self.count[i]) for key, i in at.items()}
        out[f"{self._name}/mean"] = self._finish(self.total.sum() / self.count.sum())
        return out

    def _measure(self, pred: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        error, mask = _error(pred, target, mask)
        return error.abs(), mask

    def _finish(self, mean: Tensor) -> Tensor:
        return mean


class MaskedMAE(_MaskedMetric):
    r"""The mean absolute error per horizon and over all steps, as a torchmetrics metric.

    See :func:`masked_mae`. Sums are kept, so batches and processes of any size add up exactly. A
    horizon without an observed reading gives NaN.

    Args:
        output_steps (int): Steps :math:`T_{out}` of a forecast. (default: :obj:`12`)
        horizons (sequence of int): Horizons to report, in minutes.
            (default: :obj:`(15, 30, 45, 60)`)
        step_minutes (int): Length of a time step in minutes. (default: :obj:`5`)
        **kwargs (optional): Arguments of :class:`torchmetrics.Metric`.

    Shapes:
        - **pred**, **target**, **mask**: :math:`[B, T_{out}, N]`, in original units

    Raises:
        ValueError: If a horizon is not one of the steps.

    Example:
        >>> metric = MaskedMAE(output_steps=2, horizons=(5, 10))
        >>> metric.update(torch.tensor([[[60.0], [60.0]]]), torch.tensor([[[61.0], [57.0]]]))
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'mae/5': 1.0, 'mae/10': 3.0, 'mae/mean': 2.0}
    """

    _name = "mae"


class MaskedRMSE(_MaskedMetric):
    r"""The root mean squared error per horizon and over all steps, as a torchmetrics metric.

    See :func:`masked_rmse`; arguments, shapes and errors are those of :class:`MaskedMAE`. The mean
    over all steps is the root of the mean square, not the mean of the roots.

    Example:
        >>> metric = MaskedRMSE(output_steps=1, horizons=(5,))
        >>> metric.update(torch.tensor([[[53.0, 56.0]]]), torch.tensor([[[50.0, 60.0]]]))
        >>> round(metric.compute()["rmse/mean"].item(), 4)
        3.5355
    """

    _name = "rmse"

    def _measure(self, pred: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        error, mask = _error(pred, target, mask)
        return error.square(), mask

    def _finish(self, mean: Tensor) -> Tensor:
        return mean.sqrt()


class MaskedMAPE(_MaskedMetric):
    r"""The mean absolute percentage error per horizon and over all steps, as a torchmetrics metric.

    See :func:`masked_mape`; arguments, shapes and errors are those of :class:`MaskedMAE`.

    Example:
        >>> metric = MaskedMAPE(output_steps=1, horizons=(5,))
        >>> metric.update(torch.tensor([[[55.0]]]), torch.tensor([[[50.0]]]))
        >>> metric.compute()["mape/mean"].item()
        10.0
    """

    _name = "mape"

    def _measure(self, pred: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        error, mask = _relative_error(pred, target, mask)
        return 100 * error.abs(), mask
