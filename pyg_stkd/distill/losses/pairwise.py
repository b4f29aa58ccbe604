"""Distillation of the relations of all pairs of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.distill.losses.base import (
    DistillationLoss,
    align,
)
from pyg_stkd.distill.losses.projection import Projection, project
from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.functional.structures.contrast import contrast
from pyg_stkd.functional.structures.global_structure import gsp
from pyg_stkd.graph.order import usable_in_training
from pyg_stkd.kernels import Cosine, Kernel

__all__ = ["ContrastiveLoss", "GSPLoss"]


class GSPLoss(DistillationLoss):
    r"""Global structure preserving loss from `"On Representation Knowledge Distillation for Graph
    Neural Networks" <https://arxiv.org/abs/2111.04964>`_: the similarities of all pairs of nodes
    are to be the teacher's.

    The math is in :func:`pyg_stkd.functional.gsp`. Every row is a node: axes before the nodes are
    flattened, and the graphs of a mini-batch are one set, as in the public code.

    Args:
        teacher_layer (str): The teacher's layer.
        student_layer (str): The student's layer, of any width.
        kernel (Kernel, optional): The similarity. (default: :obj:`Cosine()`)
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"gsp"`)
        max_samples (int, optional): Of more nodes than this, so many are drawn at random where
            :math:`N \times N` matrices are needed. (default: :obj:`8192`)
        **tap (optional): All else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(*, N, F_s)`
        - **teacher:** :math:`(*, N, F_t)`
        - **output:** a scalar

    Raises:
        TypeError: If :obj:`kernel` is not a kernel.
        ValueError: If :obj:`max_samples` is below 1 or the numbers of nodes differ.

    Example:
        >>> import torch
        >>> from pyg_stkd.distill import Capture
        >>> loss = GSPLoss("convs.0", "convs.0")
        >>> loss(Capture(torch.ones(2, 1)), Capture(torch.eye(2))).item()
        0.5
    """

    def __init__(
        self,
        teacher_layer: str,
        student_layer: str,
        kernel: Kernel | None = None,
        weight: float = 1.0,
        name: str | None = None,
        *,
        max_samples: int | None = 8192,
        **tap: Any,
    ) -> None:
        super().__init__(teacher_layer, student_layer, weight, name, **tap)
        self.kernel = Cosine() if kernel is None else kernel
        checks.instance("kernel", self.kernel, Kernel)
        self.max_samples = _check_samples(max_samples)

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        s, t = _rows(student, teacher)
        return gsp(s, t, self.kernel, max_samples=self.max_samples)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kernel={self.kernel!r}"


class ContrastiveLoss(DistillationLoss):
    r"""Graph contrastive representation distillation (G-CRD) from `"On Representation Knowledge
    Distillation for Graph Neural Networks" <https://arxiv.org/abs/2111.04964>`_: each node of the
    student is to find itself among the nodes of the teacher.

    The math is in :func:`pyg_stkd.functional.contrast`. Both sides are projected to one width by a
    linear layer, batch normalisation and ReLU, as in the public code, trained along with the
    student. Their widths are taken from :obj:`in_channels`, else from the first features: run
    :meth:`Distiller.check` on one batch before parameters are counted, compiled or given to
    :class:`~torch.nn.parallel.DistributedDataParallel`. Every row is a node, as for
    :class:`GSPLoss`.

    Args:
        teacher_layer (str): The teacher's layer.
        student_layer (str): The student's layer.
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"contrastive"`)
        channels (int, optional): The common width; :obj:`None` compares the features as they are,
            which needs equal widths. (default: :obj:`256`)
        in_channels ((int, int), optional): The widths of the student and of the teacher.
            (default: those of the first features)
        temperature (float): The temperature, positive. (default: :obj:`0.075`)
        max_samples (int, optional): Of more nodes than this, so many are drawn at random.
            (default: :obj:`8192`)
        **tap (optional): All else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(*, N, F_s)`
        - **teacher:** :math:`(*, N, F_t)`
        - **output:** a scalar

    Raises:
        TypeError: If an option is of another type.
        ValueError: If an option is not in its range, or widths or numbers of nodes differ.

    Example:
        >>> import torch
        >>> from pyg_stkd.distill import Capture
        >>> loss = ContrastiveLoss("convs.0", "convs.0", channels=None, temperature=1.0)
        >>> round(loss(Capture(torch.eye(2)), Capture(torch.eye(2))).item(), 4)
        0.3133
    """

    def __init__(
        self,
        teacher_layer: str,
        student_layer: str,
        weight: float = 1.0,
        name: str | None = None,
        *,
        channels: int | None = 256,
        in_channels: tuple[int, int] | None = None,
        temperature: float = 0.075,
        max_samples: int | None = 8192,
        **tap: Any,
    ) -> None:
        super().__init__(teacher_layer, student_layer, weight, name, **tap)
        self.temperature = checks.number("temperature", temperature, above=0)
        self.max_samples = _check_samples(max_samples)
        self.channels = channels
        self.student_head = self.teacher_head = None
        if channels is not None:
            checks.count("channels", channels)
            widths = (None, None) if in_channels is None else _check_widths(in_channels)
            self.student_head, self.teacher_head = (_head(width, channels) for width in widths)
        elif in_channels is not None:
            raise ValueError(f"'in_channels' must come with 'channels' (got {in_channels!r})")

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        s, t = _rows(student, teacher)
        sides = ((self.student_head, s, student), (self.teacher_head, t, teacher))
        heads = [(self._fit(head, x), x, side) for head, x, side in sides if head is not None]
        if s.size(0) < 2:  # nothing to be told from; and BatchNorm refuses a single row
            own = (parameter for head, *_ in heads for parameter in head.parameters())
            return sum((p.sum() * 0 for p in own), start=s.sum() * 0)  # DDP waits for them
        if heads:
            s, t = (project(head, x, side, self.name) for head, x, side in heads)
        return contrast(s, t, self.temperature, max_samples=self.max_samples)

    def student_maps(self) -> list[nn.Module]:
        return [] if self.student_head is None else [self.student_head]

    def _fit(self, head: nn.Sequential, x: Tensor) -> nn.Sequential:
        if isinstance(head[0], Projection):
            assert self.channels is not None
            head[0].fit(x, self.channels)
            with usable_in_training():
                head.to(x.device, x.dtype)
        return head

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, channels={self.channels}, temperature={self.temperature}"


def _head(in_channels: int | None, channels: int) -> nn.Sequential:
    linear = Projection() if in_channels is None else nn.Linear(in_channels, channels)
    return nn.Sequential(linear, nn.BatchNorm1d(channels), nn.ReLU())


def _check_widths(in_channels: Sequence[int]) -> tuple[int, int]:
    if not isinstance(in_channels, Sequence) or isinstance(in_channels, str):
        raise TypeError(
            f"'in_channels' must be two widths, of student and teacher (got {in_channels!r})"
        )
    if len(in_channels) != 2:
        raise ValueError(
            f"'in_channels' must be two widths, of student and teacher (got {in_channels!r})"
        )
    for width in in_channels:
        checks.count("in_channels", width)
    return in_channels[0], in_channels[1]


def _rows(student: Capture, teacher: Capture) -> tuple[Tensor, Tensor]:
    s, t = align(student, teacher)
    if s.dim() < 2:
        raise ValueError(f"The {student.where} must be [*, N, F] (got {list(s.shape)})")
    return s.flatten(0, -2), t.flatten(0, -2)


def _check_samples(max_samples: int | None) -> int | None:
    if max_samples is not None:
        checks.count("max_samples", max_samples)
    return max_samples
