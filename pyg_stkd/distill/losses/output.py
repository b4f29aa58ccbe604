"""Outputs of two models compared as numbers."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.distill.losses.base import DistillationLoss, align
from pyg_stkd.distill.recording.capture import Capture

__all__ = ["LogitLoss", "OutputLoss", "check_shapes", "logit_error"]

Kind: TypeAlias = Literal["mse", "mae", "huber"]


class OutputLoss(DistillationLoss):
    r"""The mean error between the outputs of both models, entry by entry.

    .. math::
        \mathcal{L} = \mathrm{mean} \; \ell(s - t), \qquad
        \ell(d) = d^2, \quad |d| \quad \text{or} \quad
        \begin{cases} d^2 / 2 & |d| \le \delta \\ \delta (|d| - \delta / 2) & |d| > \delta
        \end{cases}

    It needs no labels, so that inputs without them teach as well, and it fits any task: forecasts
    in their units, logits (:obj:`kind="mse"` is then "matching logits" of `"Distilling the
    Knowledge in a Neural Network" <https://arxiv.org/abs/1503.02531>`_, Section 2.1), embeddings
    of equal width. It is what :class:`~pyg_stkd.distill.Distiller` uses where no losses are given.

    Args:
        kind (str): The error :obj:`"mse"`, :obj:`"mae"` or :obj:`"huber"`.
            (default: :obj:`"mse"`)
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"output"`)
        huber_delta (float): Where Huber's error turns linear, in the units of the outputs.
            (default: :obj:`1.0`)
        node_dim (int, optional): The axis of the nodes, for the :obj:`nodes` that a call of the
            distiller is restricted to: :obj:`-1` for forecasts :math:`(B, T, N)`.
            (default: the second to last, or the only one)
        **tap (optional): :obj:`teacher_layer` and :obj:`student_layer`, by default the outputs,
            and all else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student**, **teacher:** of one shape, such as :math:`(N, C)` or :math:`(B, T, N)`
        - **output:** a scalar, 0 without any entry

    Raises:
        TypeError: If :obj:`huber_delta` is no number or :obj:`node_dim` no integer.
        ValueError: If an option is not one of those above, or the shapes differ.

    Example:
        >>> import torch
        >>> from pyg_stkd.distill import Capture
        >>> s, t = Capture(torch.tensor([[1.0, 2.0]])), Capture(torch.tensor([[0.0, 5.0]]))
        >>> [OutputLoss(kind)(s, t).item() for kind in ("mse", "mae", "huber")]
        [5.0, 2.0, 1.5]
    """

    def __init__(
        self,
        kind: Kind = "mse",
        weight: float = 1.0,
        name: str | None = None,
        *,
        huber_delta: float = 1.0,
        node_dim: int | None = None,
        **tap: Any,
    ) -> None:
        super().__init__(weight=weight, name=name, **tap)
        self.kind: Kind = checks.choice("kind", kind, ("mse", "mae", "huber"))
        self.huber_delta = checks.number("huber_delta", huber_delta, above=0)
        self.node_dim = None if node_dim is None else checks.count("node_dim", node_dim, least=None)

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        check_shapes(student, teacher)
        s, t = align(student, teacher, rows=self.node_dim is None)
        if self.node_dim is not None and student.nodes is not None:
            if not -s.dim() <= self.node_dim < s.dim():
                raise ValueError(
                    f"'node_dim' must be an axis of the {student.where} of shape {list(s.shape)} "
                    f"(got {self.node_dim})"
                )
            index = checks.node_index("nodes", student.nodes, s.size(self.node_dim))
            s, t = (x.index_select(self.node_dim, index) for x in (s, t))
        if self.kind == "mse":
            error = (s - t).square()
        elif self.kind == "mae":
            error = (s - t).abs()
        else:
            error = F.huber_loss(s, t, reduction="none", delta=self.huber_delta)
        return error.sum() / max(1, error.numel())

    def count(self, student: Capture, teacher: Capture, target: Any = None) -> int:
        if self.node_dim is None:
            return super().count(student, teacher, target)
        num_nodes = student.features.size(self.node_dim)
        if student.nodes is None:
            return student.features.numel()
        index = checks.node_index("nodes", student.nodes, num_nodes)
        return student.features.numel() // num_nodes * index.numel()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kind={self.kind!r}"


class LogitLoss(DistillationLoss):
    r"""The mean squared error of logits, up to what a softmax does not see.

    .. math::
        \mathcal{L} = \frac{1}{N C} \sum_{i, c} \left( d_{ic} - \bar{d}_i \right)^2, \qquad
        \mathbf{d}_i = \mathbf{s}_i - \mathbf{t}_i, \quad
        \bar{d}_i = \frac{1}{C} \sum_c d_{ic}

    A softmax does not change when a constant is added to a row of logits, so each row is centred.
    Sigmoids do see it: with :obj:`multi_label=True` nothing is taken off (:math:`\bar{d}_i = 0`)
    and the loss is the plain mean squared error. It is the limit of
    :class:`~pyg_stkd.distill.SoftTargetLoss` at a high temperature, times 2 (softmax) or 8
    (sigmoid): "matching logits" of `"Distilling the Knowledge in a Neural Network"
    <https://arxiv.org/abs/1503.02531>`_, Section 2.1. Unlike soft targets, its gradient does not
    vanish where both models are sure.

    Args:
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        multi_label (bool): Whether each label is a sigmoid of its own. (default: :obj:`False`)
        name (str, optional): The key of the loss. (default: :obj:`"logit"`)
        **tap (optional): :obj:`teacher_layer` and :obj:`student_layer`, by default the outputs,
            and all else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(*, N, C)`, of two classes or more unless :obj:`multi_label=True`
        - **teacher:** :math:`(*, N, C)`
        - **output:** a scalar, 0 without rows

    Raises:
        TypeError: If :obj:`multi_label` is no bool.
        ValueError: If the shapes differ or there are fewer than two classes.

    Example:
        >>> import torch
        >>> from pyg_stkd.distill import Capture
        >>> s, t = Capture(torch.tensor([[1.0, 3.0]])), Capture(torch.tensor([[0.0, 0.0]]))
        >>> LogitLoss()(s, t).item(), LogitLoss(multi_label=True)(s, t).item()
        (1.0, 5.0)
    """

    def __init__(
        self,
        weight: float = 1.0,
        multi_label: bool = False,
        name: str | None = None,
        **tap: Any,
    ) -> None:
        super().__init__(weight=weight, name=name, **tap)
        checks.instance("multi_label", multi_label, bool)
        self.multi_label = multi_label

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        check_shapes(student, teacher, softmax=not self.multi_label)
        return logit_error(*align(student, teacher), centred=not self.multi_label)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}{', multi_label=True' if self.multi_label else ''}"


def logit_error(student: Tensor, teacher: Tensor, centred: bool) -> Tensor:
    """Return the mean squared difference of logits, each row's mean difference taken off or not.

    Example:
        >>> import torch
        >>> logit_error(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), centred=True).item()
        1.0
    """
    gap = student - teacher
    if centred:
        gap = gap - gap.mean(dim=-1, keepdim=True)
    return gap.square().sum() / max(1, gap.numel())


def check_shapes(student: Capture, teacher: Capture, softmax: bool = False) -> None:
    """Raise unless the outputs of both have one shape, and classes for a softmax.

    Example:
        >>> import torch
        >>> check_shapes(Capture(torch.ones(3, 2)), Capture(torch.ones(3, 4), owner="teacher"))
        Traceback (most recent call last):
        ValueError: The student output and the teacher output must have the same shape (got [3, 2]
        and [3, 4])
    """
    s, t = student.value, teacher.value
    if s.shape != t.shape:
        raise ValueError(
            f"The {student.where} and the {teacher.where} must have the same shape "
            f"(got {list(s.shape)} and {list(t.shape)})"
        )
    if softmax and (s.dim() < 2 or s.size(-1) < 2):
        raise ValueError(
            f"The {student.where} must have two classes or more, or the loss "
            f"multi_label=True (got shape {list(s.shape)})"
        )
