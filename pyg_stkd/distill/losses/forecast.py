"""Distillation of forecasts, and the whole STCD loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from torch import Tensor

from pyg_stkd.checks import node_index
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.losses.correlation import SpatialCorrelationLoss, TemporalCorrelationLoss
from pyg_stkd.distill.losses.structure import Direction, Normalize
from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.functional.structures.response import Error, Gate, check_options, response
from pyg_stkd.kernels import Kernel

__all__ = ["ResponseLoss", "STCDLoss"]


class ResponseLoss(DistillationLoss):
    r"""Response distillation of a regression, our definition of :math:`\mathcal{L}_{ORD}` of
    `"STCD" <https://arxiv.org/abs/2401.11798>`_, on the outputs of both models and the labels
    (:obj:`target=` of the distiller's call).

    .. math::
        \mathcal{L} = \mathrm{mean} \left[ (1 - w) \, (s - y)^2 + w \, (s - t)^2 \right]

    It holds the error against the labels too: it takes the place of the task's loss. Missing
    labels, NaN, do not count. The gates and the math are in
    :func:`pyg_stkd.functional.response`.

    Args:
        alpha (float): The share :math:`\alpha` of the teacher in :math:`w`. (default: :obj:`0.5`)
        gate (str, optional): :obj:`"outlier"` trusts the teacher more where it is far from the
            label, :obj:`"bounded"` follows the teacher only where the student is worse,
            :obj:`None` is :math:`w = \alpha`. (default: :obj:`"outlier"`)
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"response"`)
        error (str): The error :obj:`"mse"`, :obj:`"mae"` or :obj:`"huber"`.
            (default: :obj:`"mse"`)
        delta (float, optional): The width of the gate :obj:`"outlier"`, in the units of the
            labels. (default: twice the teacher's RMSE on the batch)
        margin (float): The margin of the gate :obj:`"bounded"`, in the units of the error.
            (default: :obj:`0.0`)
        huber_delta (float): Where Huber's error turns linear. (default: :obj:`1.0`)
        node_dim (int): The axis of the nodes, for the :obj:`nodes` that a call of the distiller
            is restricted to. (default: :obj:`-1`, as in forecasts :math:`(B, T, N)`)
        **tap (optional): :obj:`teacher_layer` and :obj:`student_layer`, by default the outputs,
            and all else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student**, **teacher**, **target:** of one shape, such as :math:`(B, T, N)`
        - **output:** a scalar

    Raises:
        TypeError: If :obj:`target` is no tensor.
        ValueError: If an option is not one of those above, there is no :obj:`target`, or the
            shapes differ.

    Example:
        >>> import torch
        >>> s, t = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[2.0, 4.0]]])
        >>> y = torch.tensor([[[0.0, float("nan")]]])
        >>> ResponseLoss(gate=None)(Capture(s), Capture(t), y).item()
        1.0
    """

    def __init__(
        self,
        alpha: float = 0.5,
        gate: Gate = "outlier",
        weight: float = 1.0,
        name: str | None = None,
        *,
        error: Error = "mse",
        delta: float | None = None,
        margin: float = 0.0,
        huber_delta: float = 1.0,
        node_dim: int = -1,
        **tap: Any,
    ) -> None:
        super().__init__(weight=weight, name=name, **tap)
        check_options(alpha, gate, error, delta, margin, huber_delta)
        self.alpha = alpha
        self.gate: Gate = gate
        self.error: Error = error
        self.delta = delta
        self.margin = margin
        self.huber_delta = huber_delta
        self.node_dim = node_dim

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        if target is None:
            raise ValueError("The labels must be given: distiller(..., target=y) (got None)")
        if not isinstance(target, Tensor):
            raise TypeError(f"'target' must be a tensor of labels (got {type(target).__name__})")
        s, t = student.features, teacher.features
        if s.shape != t.shape or s.shape != target.shape:
            raise ValueError(
                f"The {student.where}, the {teacher.where} and 'target' must have the same shape "
                f"(got {list(s.shape)}, {list(t.shape)} and {list(target.shape)})"
            )
        if student.nodes is not None:
            index = node_index("nodes", student.nodes, s.size(self.node_dim))
            s, t, target = (x.index_select(self.node_dim, index) for x in (s, t, target))
        return response(
            s,
            t,
            target,
            self.alpha,
            self.gate,
            self.error,
            delta=self.delta,
            margin=self.margin,
            huber_delta=self.huber_delta,
        )

    def count(self, student: Capture, teacher: Capture, target: Any = None) -> int:
        if not isinstance(target, Tensor):
            return 1  # forward says what is missing
        if student.nodes is not None:
            index = node_index("nodes", student.nodes, target.size(self.node_dim))
            target = target.index_select(self.node_dim, index)
        return int((~target.isnan()).sum())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}, gate={self.gate!r}"


class STCDLoss(Sequence[DistillationLoss]):
    r"""The three losses of `"STCD" <https://arxiv.org/abs/2401.11798>`_ at one pair of layers.

    .. math::
        \mathcal{L}_{STCD} = a_1 \mathcal{L}_{ORD} + a_2 \mathcal{L}_{SCD} + a_3 \mathcal{L}_{TCD}

    A sequence of :class:`ResponseLoss`, :class:`SpatialCorrelationLoss` and
    :class:`TemporalCorrelationLoss`: give it to the distiller as its losses, or among others
    (:obj:`[STCDLoss(...), HintLoss(...)]`; in a dictionary, its key goes before the three names).
    The distiller returns each of the three by its name; their sum is the loss.

    Args:
        teacher_layer (str): The teacher's layer :math:`(B, T, N, C)`.
        student_layer (str): The student's layer.
        weights (tuple): The factors :math:`a_1, a_2, a_3`. (default: :obj:`(1.0, 1.0, 1.0)`)
        name (str, optional): A prefix of the three names, for several pairs of layers.
            (default: none)
        alpha (float): As in :class:`ResponseLoss`. (default: :obj:`0.5`)
        gate (str, optional): As in :class:`ResponseLoss`. (default: :obj:`"outlier"`)
        error (str): As in :class:`ResponseLoss`. (default: :obj:`"mse"`)
        kernel (Kernel, optional): The similarity of nodes and of steps.
            (default: :obj:`RBF(sigma=1.0)`)
        graph (optional): The edges, as in :class:`~pyg_stkd.distill.LSPLoss`.
            (default: those of the layers)
        direction (str): :obj:`"student"` for :math:`\mathrm{KL}(s \Vert t)`, :obj:`"teacher"` for
            :math:`\mathrm{KL}(t \Vert s)`. (default: :obj:`"student"`)
        normalize (str, optional): :obj:`"l2"` or :obj:`"layer"` to normalise the hidden features.
            (default: :obj:`None`)
        **tap (optional): What the two correlations take of
            :class:`~pyg_stkd.distill.DistillationLoss` besides, such as :obj:`schedule`.

    Raises:
        ValueError: If :obj:`weights` are not three.

    Example:
        >>> losses = STCDLoss("blocks.0", "blocks.0", weights=(1.0, 10.0, 5.0))
        >>> {loss.name: loss.weight for loss in losses}
        {'response': 1.0, 'spatial_correlation': 10.0, 'temporal_correlation': 5.0}
    """

    def __init__(
        self,
        teacher_layer: str,
        student_layer: str,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        name: str | None = None,
        *,
        alpha: float = 0.5,
        gate: Gate = "outlier",
        error: Error = "mse",
        kernel: Kernel | None = None,
        graph: Any = None,
        direction: Direction = "student",
        normalize: Normalize = None,
        **tap: Any,
    ) -> None:
        if len(weights) != 3:
            raise ValueError(
                f"'weights' must be three: of response, spatial and temporal correlation "
                f"(got {weights})"
            )
        parts = ("response", "spatial_correlation", "temporal_correlation")
        names = [part if name is None else f"{name}_{part}" for part in parts]
        layers = teacher_layer, student_layer
        shared: dict[str, Any] = {
            "direction": direction,
            "normalize": normalize,
            **tap,
        }
        self._losses: tuple[DistillationLoss, ...] = (
            ResponseLoss(alpha, gate, weights[0], names[0], error=error),
            SpatialCorrelationLoss(*layers, kernel, weights[1], names[1], graph=graph, **shared),
            TemporalCorrelationLoss(*layers, kernel, weights[2], names[2], **shared),
        )

    @overload
    def __getitem__(self, index: int) -> DistillationLoss: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[DistillationLoss, ...]: ...

    def __getitem__(self, index: int | slice) -> DistillationLoss | tuple[DistillationLoss, ...]:
        return self._losses[index]

    def __len__(self) -> int:
        return len(self._losses)

    def __iter__(self) -> Iterator[DistillationLoss]:
        return iter(self._losses)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._losses!r}"
