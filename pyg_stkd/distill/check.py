"""What a dry run of a distiller found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pyg_stkd.distill.capture import Capture
from pyg_stkd.distill.losses.base import DistillationLoss

__all__ = ["CheckReport", "LossReport", "TapReport", "report_losses", "report_taps"]


@dataclass(frozen=True)
class TapReport:
    """One layer that losses look at: the shape of each of its calls."""

    owner: str
    layer: str
    losses: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    finite: bool


@dataclass(frozen=True)
class LossReport:
    """One loss: its value before the factor, weight times schedule."""

    name: str
    value: float
    factor: float
    finite: bool


@dataclass(frozen=True)
class CheckReport:
    r"""Every tapped tensor's shape, and every loss's value, of one dry run.

    Args:
        taps (tuple): The tapped layers, the teacher's first.
        losses (tuple): The losses.

    Example:
        >>> from torch import nn, ones
        >>> from pyg_stkd.distill import Distiller, HintLoss
        >>> loss = HintLoss("", "", projection=False)
        >>> report = Distiller(nn.ReLU(), nn.Identity(), [loss]).check(ones(4, 2))
        >>> print(report)
        tap               shape   dtype    finite  losses
        teacher (output)  [4, 2]  float32  yes     hint
        student (output)  [4, 2]  float32  yes     hint
        <BLANKLINE>
        loss  value  factor  finite
        hint  0      1       yes
        >>> report.ok
        True
    """

    taps: tuple[TapReport, ...]
    losses: tuple[LossReport, ...]

    @property
    def ok(self) -> bool:
        """Whether every tapped tensor and every loss is finite."""
        return all(tap.finite for tap in self.taps) and all(loss.finite for loss in self.losses)

    def __str__(self) -> str:
        taps = [("tap", "shape", "dtype", "finite", "losses")]
        for tap in self.taps:
            shapes = [str(list(shape)) for shape in tap.shapes]
            shape = shapes[-1] if len(shapes) == 1 else f"{len(shapes)} calls, last {shapes[-1]}"
            where = f"{tap.owner} {tap.layer or '(output)'}"
            taps.append((where, shape, tap.dtype, _yes(tap.finite), ", ".join(tap.losses)))
        rows = [("loss", "value", "factor", "finite")]
        for loss in self.losses:
            rows.append((loss.name, f"{loss.value:.6g}", f"{loss.factor:g}", _yes(loss.finite)))
        return f"{_table(taps)}\n\n{_table(rows)}"


def report_taps(
    owner: str, calls: Mapping[str, tuple[Capture, ...]], layers: Mapping[str, str]
) -> Iterator[TapReport]:
    """Describe the layers that losses look at, given the layer of each loss.

    Example:
        >>> from torch import ones
        >>> calls = {"a": (Capture(ones(3, 2), layer="a"),)}
        >>> next(report_taps("student", calls, {"hint": "a"})).shapes
        ((3, 2),)
    """
    for layer in dict.fromkeys(layers.values()):
        values = [capture.value for capture in calls[layer]]
        yield TapReport(
            owner,
            layer,
            losses=tuple(name for name, tapped in layers.items() if tapped == layer),
            shapes=tuple(tuple(value.shape) for value in values),
            dtype=str(values[-1].dtype).removeprefix("torch."),
            finite=all(bool(value.isfinite().all()) for value in values),
        )


def report_losses(
    losses: Mapping[str, DistillationLoss], values: Mapping[str, Tensor], epoch: int
) -> Iterator[LossReport]:
    """Describe the losses, given the value of each.

    Example:
        >>> import torch
        >>> loss = DistillationLoss(weight=2.0)
        >>> next(report_losses({"a": loss}, {"a": torch.tensor(3.0)}, epoch=0))
        LossReport(name='a', value=3.0, factor=2.0, finite=True)
    """
    for name, value in values.items():
        yield LossReport(name, float(value), losses[name].factor(epoch), bool(value.isfinite()))


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
