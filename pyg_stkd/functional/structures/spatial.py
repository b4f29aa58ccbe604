r"""The loss that preserves local structures in each time slice of a sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.structures.divergences.divergence import Direction
from pyg_stkd.functional.structures.local import lsp
from pyg_stkd.functional.structures.sequences import check_pair
from pyg_stkd.functional.structures.similarities.prepared import Normalize
from pyg_stkd.graph import Graph
from pyg_stkd.graph.slices import slice_blocks
from pyg_stkd.kernels import RBF, Kernel

__all__ = ["in_all_slices", "rows", "spatial_correlation"]

_DEFAULT_KERNEL = RBF()


def spatial_correlation(
    h_student: Tensor,
    h_teacher: Tensor | None,
    edge_index: Any,
    kernel: Kernel = _DEFAULT_KERNEL,
    direction: Direction = "student",
    *,
    normalize: Normalize = None,
    nodes: Tensor | None = None,
    teacher_structure: Tensor | None = None,
) -> Tensor:
    r"""Spatial correlation distillation between two models' features of the same sequences.

    Our definition of :math:`\mathcal{L}_{SCD}` of `"STCD" <https://arxiv.org/abs/2401.11798>`_:
    the local structure preserving loss over the graph in each time slice,

    .. math::
        \mathcal{L} = \frac{1}{B T N} \sum_{b, t, i} \sum_{j:\, (j, i) \in \mathcal{E}}
        \mathrm{LS}^s_{b t i j} \log \frac{\mathrm{LS}^s_{b t i j}}{\mathrm{LS}^t_{b t i j}}

    The slices are one graph of :math:`B \cdot T` disjoint copies
    (``functional/slices.py``), and no :math:`(B, T, |\mathcal{E}|, C)` array is built. Sequences of
    different lengths are compared over the steps that both have, from the last one back.

    Args:
        h_student (Tensor): Sequences of the student.
        h_teacher (Tensor, optional): Sequences of the teacher, which get no gradient, or
            :obj:`None` with :obj:`teacher_structure`.
        edge_index (Graph, Tensor, EdgeIndex or SparseTensor): The edges of one slice. Give a
            :class:`~pyg_stkd.graph.Graph` to sort and copy them only once.
        kernel (Kernel, optional): The similarity. (default: :class:`~pyg_stkd.kernels.RBF`)
        direction (str, optional): :obj:`"student"` for :math:`\mathrm{KL}(s \Vert t)`,
            :obj:`"teacher"` for :math:`\mathrm{KL}(t \Vert s)`. (default: :obj:`"student"`)
        normalize (str, optional): :obj:`"l2"` or :obj:`"layer"` to normalise the features of each
            node and step first. (default: :obj:`None`)
        nodes (Tensor, optional): Indices or a boolean mask of the nodes that count.
            (default: all)
        teacher_structure (Tensor, optional): The teacher's
            :func:`~pyg_stkd.functional.local_structure` of :obj:`h_teacher.reshape(B * T * N, C)`
            on :obj:`slice_blocks(graph, B * T)`, over the steps of the student: a constant of a
            fixed teacher.

    Shapes:
        - **h_student:** :math:`(B, T_s, N, C_s)`
        - **h_teacher:** :math:`(B, T_t, N, C_t)`
        - **teacher_structure:** :math:`(B \cdot T_s \cdot |\mathcal{E}|)`
        - **output:** scalar

    Raises:
        TypeError: If the features are not of real floating point numbers, or :obj:`kernel` is no
            kernel, or :obj:`nodes` no indices or mask.
        ValueError: If the batches or nodes differ or do not fit the graph, neither or both of
            :obj:`h_teacher` and :obj:`teacher_structure` are given, or features are not finite.
        IndexError: If :obj:`nodes` holds an index that is out of range.

    Example:
        >>> edge_index = torch.tensor([[1, 2], [0, 0]])
        >>> h = torch.tensor([0.0, 0.0, 9.0]).view(1, 1, 3, 1)
        >>> round(spatial_correlation(h[:, :, [0, 2, 1]], h, edge_index).item(), 4)
        0.154
    """
    h_student, h_teacher = check_pair(h_student, h_teacher, teacher_structure, steps=1)
    batch, steps, num_nodes, _ = h_student.shape
    num_slices = batch * steps
    blocks = slice_blocks(Graph.of(edge_index, num_nodes), num_slices)
    if nodes is not None:
        nodes = in_all_slices(nodes, num_slices, num_nodes)
    return lsp(
        rows(h_student),
        None if h_teacher is None else rows(h_teacher),
        blocks,
        kernel,
        direction,
        normalize=normalize,
        nodes=nodes,
        teacher_structure=teacher_structure,
    )


def rows(h: Tensor) -> Tensor:
    """View sequences [B, T, N, C] as the nodes [B * T * N, C] of their slices."""
    return h.flatten(0, 2)  # which an empty batch has too


def in_all_slices(nodes: Tensor, num_slices: int, num_nodes: int) -> Tensor:
    """Return nodes of one slice, as indices or as a mask, in each of several."""
    checks.nodes("nodes", nodes, num_nodes)
    if nodes.dtype == torch.bool:
        return nodes.repeat(num_slices)
    offset = torch.arange(num_slices, device=nodes.device) * num_nodes
    return (nodes + offset[:, None]).flatten()
