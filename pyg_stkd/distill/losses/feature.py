"""Distillation of hidden features, node by node."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.distill.losses.base import DistillationLoss, align
from pyg_stkd.distill.losses.projection import Projection, project
from pyg_stkd.distill.recording.capture import Capture

__all__ = ["AttentionTransferLoss", "HintLoss"]


class HintLoss(DistillationLoss):
    r"""Hint-based training from `"FitNets: Hints for Thin Deep Nets"
    <https://arxiv.org/abs/1412.6550>`_ (Eq. 3): the student's features, projected to the
    teacher's width by a linear layer :math:`r` that is trained along, are to equal the teacher's.

    .. math::
        \mathcal{L} = \frac{1}{N F_t} \sum_i
        \left\Vert \mathbf{t}_i - r(\mathbf{s}_i) \right\Vert_2^2

    The paper has :math:`1/2` in place of :math:`1/(N F_t)`. The projection takes its widths from
    :obj:`in_channels` and :obj:`out_channels`, else from the first features: run
    :meth:`Distiller.check` on one batch before parameters are counted, compiled or given to
    :class:`~torch.nn.parallel.DistributedDataParallel`. An optimizer may be built before.

    Args:
        teacher_layer (str): The teacher's layer (the hint).
        student_layer (str): The student's layer (the guided one).
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"hint"`)
        in_channels (int, optional): The student's width. (default: that of the first features)
        out_channels (int, optional): The teacher's width. (default: that of the first features)
        projection (bool or torch.nn.Module): The projection; :obj:`True` is a linear layer with
            bias, :obj:`False` none, which needs equal widths. (default: :obj:`True`)
        **tap (optional): All else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(*, N, F_s)`
        - **teacher:** :math:`(*, N, F_t)`
        - **output:** a scalar

    Raises:
        TypeError: If :obj:`projection` is neither a bool nor a module.
        ValueError: If only one of the widths is given, the projection does not take them, or the
            features have another width.

    Example:
        >>> from pyg_stkd.distill import Capture
        >>> loss = HintLoss("convs.0", "convs.0", projection=False)
        >>> loss(Capture(torch.zeros(3, 2)), Capture(torch.full((3, 2), 2.0))).item()
        4.0
    """

    def __init__(
        self,
        teacher_layer: str,
        student_layer: str,
        weight: float = 1.0,
        name: str | None = None,
        *,
        in_channels: int | None = None,
        out_channels: int | None = None,
        projection: bool | nn.Module = True,
        **tap: Any,
    ) -> None:
        super().__init__(teacher_layer, student_layer, weight, name, **tap)
        if not isinstance(projection, (bool, nn.Module)):
            raise TypeError(f"'projection' must be a bool or a module (got {projection!r})")
        if projection is not True and (in_channels, out_channels) != (None, None):
            raise ValueError(
                f"'in_channels' and 'out_channels' must be those of projection=True, nothing else "
                f"takes them (got {in_channels} and {out_channels})"
            )
        if (in_channels is None) != (out_channels is None):
            raise ValueError(
                "'in_channels' and 'out_channels' must be given together "
                f"(got {in_channels} and {out_channels})"
            )
        self.projection: nn.Module
        if isinstance(projection, nn.Module):
            self.projection = projection
        elif not projection:
            self.projection = nn.Identity()
        elif in_channels is not None and out_channels is not None:
            checks.count("in_channels", in_channels)
            checks.count("out_channels", out_channels)
            self.projection = nn.Linear(in_channels, out_channels)
        else:
            self.projection = Projection()

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        s, t = align(student, teacher)
        if isinstance(self.projection, Projection):
            self.projection.fit(s, t.size(-1))
        projected = project(self.projection, s, student, self.name)
        if projected.shape != t.shape:
            raise ValueError(
                f"The projected {student.where} must have the shape of the {teacher.where} "
                f"(got {list(projected.shape)} and {list(t.shape)}): loss {self.name!r} needs "
                f"another projection"
            )
        return F.mse_loss(projected, t, reduction="mean" if t.numel() > 0 else "sum")

    def student_maps(self) -> list[nn.Module]:
        return [self.projection]


class AttentionTransferLoss(DistillationLoss):
    r"""Activation-based attention transfer from `"Paying More Attention to Attention"
    <https://arxiv.org/abs/1612.03928>`_ (Eq. 2), with nodes in the place of pixels.

    .. math::
        \mathcal{L} = \frac{1}{B} \sum_{b=1}^B \left\Vert
        \frac{\mathbf{q}^s_b}{\Vert \mathbf{q}^s_b \Vert_2} -
        \frac{\mathbf{q}^t_b}{\Vert \mathbf{q}^t_b \Vert_2} \right\Vert_2,
        \qquad q_i = \sum_c |h_{ic}|^p

    :math:`\mathbf{q}_b` holds the nodes of graph :math:`b`: the graphs of a mini-batch where the
    layer or the model is called with a :obj:`batch` vector, else everything given is one graph.
    The :math:`\beta / 2` of the paper is :obj:`weight`.

    Args:
        teacher_layer (str): The teacher's layer.
        student_layer (str): The student's layer, of any width.
        p (int): The power of the activations, :obj:`1` or :obj:`2`. (default: :obj:`2`)
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"attention_transfer"`)
        **tap (optional): All else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(*, N, F_s)`; without :obj:`batch`, leading axes are graphs
        - **teacher:** :math:`(*, N, F_t)`
        - **output:** a scalar

    Raises:
        ValueError: If :obj:`p` is another power, or the numbers of nodes differ.

    Example:
        >>> from pyg_stkd.distill import Capture
        >>> loss = AttentionTransferLoss("convs.0", "convs.0", p=1)
        >>> s, t = torch.tensor([[3.0], [-4.0]]), torch.tensor([[8.0, 0.0], [3.0, 3.0]])
        >>> round(loss(Capture(s), Capture(t)).item(), 4)
        0.2828
    """

    def __init__(
        self,
        teacher_layer: str,
        student_layer: str,
        p: int = 2,
        weight: float = 1.0,
        name: str | None = None,
        **tap: Any,
    ) -> None:
        super().__init__(teacher_layer, student_layer, weight, name, **tap)
        self.p = checks.choice("p", p, (1, 2))

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        s, t = align(student, teacher)
        if s.dim() < 2:
            raise ValueError(f"The {student.where} must be [*, N, F] (got {list(s.shape)})")
        batch = None if s.dim() > 2 else student.batch
        if batch is not None:
            batch = _graph_of_row(batch, student)
        gap = attention_map(s, self.p, batch) - attention_map(t, self.p, batch)
        return _norm(gap, batch).mean()

    def count(self, student: Capture, teacher: Capture, target: Any = None) -> int:
        rows = student.rows  # one norm for each graph, or for all rows
        if rows.dim() > 2:
            return rows[..., 0, 0].numel()
        if student.batch is None:
            return 1
        return int(_graph_of_row(student.batch, student).max()) + 1

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


def attention_map(x: Tensor, p: int, batch: Tensor | None = None) -> Tensor:
    r"""Return the attention :math:`\sum_c |x_{ic}|^p` of every node, of unit length in each graph.

    Args:
        x (Tensor): Features :math:`(*, N, F)`.
        p (int): The power.
        batch (Tensor, optional): The graph of each node, all numbers in use.
            (default: :obj:`None`)

    Example:
        >>> attention_map(torch.tensor([[3.0], [-4.0]]), p=1)
        tensor([0.6000, 0.8000])
    """
    attention = x.abs().sum(dim=-1) if p == 1 else x.square().sum(dim=-1)
    norm = _norm(attention, batch).clamp(min=1e-12)
    return attention / (norm.unsqueeze(-1) if batch is None else norm.index_select(0, batch))


def _norm(value: Tensor, batch: Tensor | None) -> Tensor:
    if batch is None:
        return torch.linalg.vector_norm(value, dim=-1)
    total = value.new_zeros(int(batch.max()) + 1 if batch.numel() > 0 else 0)
    total = total.index_add(0, batch, value.square())
    zero = total == 0  # the root has no gradient there
    return total.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _graph_of_row(batch: Tensor, student: Capture) -> Tensor:
    student.check_no_edges("a batch vector is of nodes")
    if batch.shape != (student.num_nodes,):
        raise ValueError(
            f"'batch' must have one entry for each of the {student.num_nodes} rows of the "
            f"{student.where} (got shape {list(batch.shape)})"
        )
    index = student.node_index
    batch = batch if index is None else batch.index_select(0, index)
    return batch.unique(return_inverse=True)[1]  # graphs without a chosen node do not count
