"""Distillation of spatial and temporal correlations of sequences on a graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.losses.sequences import align_steps
from pyg_stkd.distill.losses.structure import Direction, LSPLoss, Normalize, SelfLoops
from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.remembered import remembered
from pyg_stkd.functional.structures.temporal import temporal_correlation, temporal_structure
from pyg_stkd.kernels import RBF, Kernel

__all__ = ["SpatialCorrelationLoss", "TemporalCorrelationLoss"]


class SpatialCorrelationLoss(LSPLoss):
    r"""Spatial correlation distillation, our definition of :math:`\mathcal{L}_{SCD}` of `"STCD"
    <https://arxiv.org/abs/2401.11798>`_: :class:`~pyg_stkd.distill.LSPLoss` over the graph in
    each time slice.

    .. math::
        \mathcal{L} = \frac{1}{B T N} \sum_{b, t, i} \mathrm{KL} \left(
        \mathrm{LS}^s_{bti} \, \Vert \, \mathrm{LS}^t_{bti} \right), \qquad
        \mathrm{LS}_{btij} = \underset{j \to i}{\mathrm{softmax}} \,
        \mathrm{SIM}(\mathbf{h}_{bti}, \mathbf{h}_{btj})

    Layers of different :math:`T` are compared over the steps that both have, from the last one
    back. The math is in :func:`pyg_stkd.functional.spatial_correlation`. Give the models
    a :class:`~pyg_stkd.graph.Graph` where memory counts: all losses then share its copies.

    Args:
        teacher_layer (str): The teacher's layer.
        student_layer (str): The student's layer, of any width and length.
        kernel (Kernel, optional): The similarity of two nodes.
            (default: :obj:`RBF(sigma=1.0)`)
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"spatial_correlation"`)
        graph (optional): The edges, as in :class:`~pyg_stkd.distill.LSPLoss`.
            (default: the union where the two graphs differ, else the one they share)
        self_loops (str): :obj:`"keep"` self-loops as given, :obj:`"drop"` all, or :obj:`"add"`
            one where a node has none. (default: :obj:`"keep"`)
        direction (str): :obj:`"student"` for :math:`\mathrm{KL}(s \Vert t)`, :obj:`"teacher"` for
            :math:`\mathrm{KL}(t \Vert s)`. (default: :obj:`"student"`)
        normalize (str, optional): :obj:`"l2"` or :obj:`"layer"` to normalise the features of each
            node and step first. (default: :obj:`None`)
        **tap (optional): All else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(B, T_s, N, C_s)`
        - **teacher:** :math:`(B, T_t, N, C_t)`
        - **output:** a scalar

    Raises:
        TypeError: If :obj:`kernel` is no kernel.
        ValueError: If an option is not one of those above, no graph is found, or the shapes do
            not fit.

    Example:
        >>> import torch
        >>> edge_index = torch.tensor([[1, 2], [0, 0]])
        >>> import torch
        >>> h = torch.tensor([0.0, 0.0, 9.0]).view(1, 1, 3, 1)
        >>> s = Capture(h[:, :, [0, 2, 1]], {"edge_index": edge_index})
        >>> loss = SpatialCorrelationLoss("blocks.0", "blocks.0")
        >>> round(loss(s, Capture(h, {"edge_index": edge_index})).item(), 4)
        0.154
    """

    def __init__(
        self,
        teacher_layer: str,
        student_layer: str,
        kernel: Kernel | None = None,
        weight: float = 1.0,
        name: str | None = None,
        *,
        graph: Any = None,
        self_loops: SelfLoops = "keep",
        direction: Direction = "student",
        normalize: Normalize = None,
        **tap: Any,
    ) -> None:
        super().__init__(
            teacher_layer,
            student_layer,
            kernel,
            graph,
            weight,
            name,
            self_loops=self_loops,
            direction=direction,
            normalize=normalize,
            **tap,
        )

    def _aligned(self, student: Capture, teacher: Capture) -> tuple[Tensor, Tensor]:
        return align_steps(student, teacher)


class TemporalCorrelationLoss(DistillationLoss):
    r"""Temporal correlation distillation, our definition of :math:`\mathcal{L}_{TCD}` of `"STCD"
    <https://arxiv.org/abs/2401.11798>`_: how each time step of a node resembles the others.

    .. math::
        \mathcal{L} = \frac{1}{B T N} \sum_{b, t, n} \mathrm{KL} \left(
        \mathrm{TS}^s_{bnt} \, \Vert \, \mathrm{TS}^t_{bnt} \right), \qquad
        \mathrm{TS}_{bntt'} = \underset{t' \neq t}{\mathrm{softmax}} \,
        \mathrm{SIM}(\mathbf{h}_{btn}, \mathbf{h}_{bt'n})

    Layers of different :math:`T` are compared over the steps that both have, from the last one
    back. The math is in :func:`pyg_stkd.functional.temporal_correlation`.

    Args:
        teacher_layer (str): The teacher's layer.
        student_layer (str): The student's layer, of any width and length.
        kernel (Kernel, optional): The similarity of two steps.
            (default: :obj:`RBF(sigma=1.0)`)
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"temporal_correlation"`)
        direction (str): :obj:`"student"` for :math:`\mathrm{KL}(s \Vert t)`, :obj:`"teacher"` for
            :math:`\mathrm{KL}(t \Vert s)`. (default: :obj:`"student"`)
        normalize (str, optional): :obj:`"l2"` or :obj:`"layer"` to normalise the features of each
            node and step first. (default: :obj:`None`)
        **tap (optional): All else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(B, T_s, N, C_s)`
        - **teacher:** :math:`(B, T_t, N, C_t)`
        - **output:** a scalar

    Raises:
        TypeError: If :obj:`kernel` is no kernel.
        ValueError: If an option is not one of those above, or the shapes do not fit.

    Example:
        >>> import torch
        >>> h = torch.tensor([0.0, 0.0, 9.0]).view(1, 3, 1, 1)
        >>> loss = TemporalCorrelationLoss("blocks.0", "blocks.0")
        >>> round(loss(Capture(h[:, [0, 2, 1]]), Capture(h)).item(), 4)
        0.2311
    """

    def __init__(
        self,
        teacher_layer: str,
        student_layer: str,
        kernel: Kernel | None = None,
        weight: float = 1.0,
        name: str | None = None,
        *,
        direction: Direction = "student",
        normalize: Normalize = None,
        **tap: Any,
    ) -> None:
        super().__init__(teacher_layer, student_layer, weight, name, **tap)
        kernel = RBF() if kernel is None else kernel
        checks.instance("kernel", kernel, Kernel)
        checks.choice("direction", direction, ("student", "teacher"))
        checks.choice("normalize", normalize, (None, "l2", "layer"))
        self.kernel = kernel
        self.direction: Direction = direction
        self.normalize: Normalize = normalize

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        s, t = align_steps(student, teacher)
        known = remembered(
            teacher,
            self,
            None,
            ("temporal structure", self.normalize, t.dtype, t.size(1)),
            self.kernel,
            # As the student's is: nodes innermost, which a file does not tell.
            lambda: (
                temporal_structure(t, self.kernel, self.normalize).permute(0, 2, 3, 1).contiguous()
            ),
        )
        return temporal_correlation(
            s,
            t if known is None else None,
            self.kernel,
            self.direction,
            normalize=self.normalize,
            nodes=student.node_index,
            teacher_structure=None if known is None else known.permute(0, 3, 1, 2),
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kernel={self.kernel}"
