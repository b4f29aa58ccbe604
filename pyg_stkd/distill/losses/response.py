"""Distillation of the outputs of a model."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.distill.losses.base import DistillationLoss, Schedule, align
from pyg_stkd.distill.losses.output import check_shapes, logit_error
from pyg_stkd.distill.recording.capture import Capture

__all__ = ["SoftTargetLoss"]


class SoftTargetLoss(DistillationLoss):
    r"""Soft targets from `"Distilling the Knowledge in a Neural Network"
    <https://arxiv.org/abs/1503.02531>`_, on the outputs (logits) of both models.

    .. math::
        \mathcal{L} = \frac{T^2}{N} \sum_i \mathrm{KL} \left(
        \mathrm{softmax}(\mathbf{t}_i / T) \, \Vert \, \mathrm{softmax}(\mathbf{s}_i / T) \right)

    For multi-label tasks (:obj:`multi_label=True`) each of the :math:`C` labels is a distribution
    of its own, :math:`\sigma(\cdot / T)` takes the place of the softmax, and the mean is over
    nodes and labels, as in binary cross-entropy. This is no part of the paper.

    :obj:`temperature=float("inf")` is the limit, in which logits are compared as numbers: half of
    :class:`~pyg_stkd.distill.LogitLoss`, the mean squared difference of centred logits, for a
    softmax; an eighth of :obj:`LogitLoss(multi_label=True)`, which is not centred, for sigmoids.

    Args:
        temperature (float): The temperature :math:`T > 0`, infinity included.
            (default: :obj:`4.0`)
        multi_label (bool): Whether each label is a sigmoid of its own. (default: :obj:`False`)
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"soft_target"`)
        schedule (callable, optional): Maps the epoch to a further factor. (default: :obj:`None`)
        **tap (optional): :obj:`teacher_layer` and :obj:`student_layer`, by default the outputs,
            and all else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(*, N, C)`
        - **teacher:** :math:`(*, N, C)`
        - **output:** a scalar

    Raises:
        TypeError: If :obj:`temperature` is no number or :obj:`multi_label` no bool.
        ValueError: If :obj:`temperature` is not positive, the shapes differ, or a softmax has
            fewer than two classes.

    Example:
        >>> import torch
        >>> from pyg_stkd.distill import Capture
        >>> loss = SoftTargetLoss(temperature=1.0)
        >>> s, t = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 1.0]])
        >>> round(loss(Capture(s), Capture(t)).item(), 4)
        0.3278
    """

    def __init__(
        self,
        temperature: float = 4.0,
        multi_label: bool = False,
        weight: float = 1.0,
        name: str | None = None,
        schedule: Schedule | None = None,
        **tap: Any,
    ) -> None:
        super().__init__(weight=weight, name=name, schedule=schedule, **tap)
        self.temperature = checks.number("temperature", temperature, above=0, finite=False)
        checks.instance("multi_label", multi_label, bool)
        self.multi_label = multi_label

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        check_shapes(student, teacher, softmax=not self.multi_label)
        s, t = align(student, teacher)
        if self.temperature == math.inf:
            return logit_error(s, t, centred=not self.multi_label) / (8 if self.multi_label else 2)
        scale = self.temperature**2
        s, t = s / self.temperature, t / self.temperature
        if self.multi_label:
            on, off = F.logsigmoid(t), F.logsigmoid(-t)
            gap = on.exp() * (on - F.logsigmoid(s)) + off.exp() * (off - F.logsigmoid(-s))
            return gap.sum() * (scale / max(1, gap.numel()))  # 0 without rows
        s, t = s.log_softmax(dim=-1).flatten(0, -2), t.log_softmax(dim=-1).flatten(0, -2)
        return F.kl_div(s, t, reduction="sum", log_target=True) * (scale / max(1, s.size(0)))

    def extra_repr(self) -> str:
        kind = ", multi_label=True" if self.multi_label else ""
        return f"{super().extra_repr()}, temperature={self.temperature}{kind}"
