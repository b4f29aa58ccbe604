r"""Temporal structures of sequences of node features, and the loss that preserves them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.sparse.sparse_ops import compute_dtype
from pyg_stkd.functional.structures.blind import SAMPLE, warn_if_blind
from pyg_stkd.functional.structures.divergences.divergence import (
    Direction,
    check_finite,
    common_dtype,
    divergence,
    given_structure,
)
from pyg_stkd.functional.structures.divergences.step_divergence import step_divergence
from pyg_stkd.functional.structures.sequences import check_pair
from pyg_stkd.functional.structures.similarities.pairwise import pairwise
from pyg_stkd.functional.structures.similarities.prepared import (
    Normalize,
    for_softmax,
    mapped,
    prepared,
)
from pyg_stkd.functional.structures.similarities.step_distance import few_steps, step_distances
from pyg_stkd.graph import is_transforming
from pyg_stkd.kernels import RBF, Kernel

__all__ = ["temporal_correlation", "temporal_structure"]

_DEFAULT_KERNEL = RBF()


def temporal_structure(
    h: Tensor, kernel: Kernel = _DEFAULT_KERNEL, normalize: Normalize = None
) -> Tensor:
    r"""Temporal structures, as logarithms: how the other time steps share a step's similarity.

    .. math::
        \log \mathrm{TS}_{n t t'} = \mathrm{SIM}(\mathbf{h}_{tn}, \mathbf{h}_{t'n}) -
        \log \sum_{t'' \neq t} \exp \mathrm{SIM}(\mathbf{h}_{tn}, \mathbf{h}_{t''n})

    All pairs of steps of a node are one Gram matrix :math:`(T, T)`.

    Args:
        h (Tensor): Sequences of node features.
        kernel (Kernel, optional): The similarity. (default: :class:`~pyg_stkd.kernels.RBF`)
        normalize (str, optional): :obj:`"l2"` for unit vectors, :obj:`"layer"` for features of
            mean 0 and variance 1 at each node and step. (default: :obj:`None`)

    Shapes:
        - **h:** :math:`(B, T, N, C)`
        - **output:** :math:`(B, N, T, T - 1)`, the other steps in their order

    Raises:
        TypeError: If :obj:`h` is not of real floating point numbers, or :obj:`kernel` no kernel.
        ValueError: If :obj:`h` has other axes or fewer than two steps.

    Example:
        >>> h = torch.tensor([0.0, 0.0, 9.0]).view(1, 3, 1, 1)
        >>> temporal_structure(h).exp()[0, 0, 0]
        tensor([0.7311, 0.2689])
    """
    checks.instance("kernel", kernel, Kernel)
    checks.sequence("h", h, steps=2)
    return _structure(h, kernel, normalize).to(compute_dtype(h.dtype))


def temporal_correlation(
    h_student: Tensor,
    h_teacher: Tensor | None,
    kernel: Kernel = _DEFAULT_KERNEL,
    direction: Direction = "student",
    *,
    normalize: Normalize = None,
    nodes: Tensor | None = None,
    teacher_structure: Tensor | None = None,
) -> Tensor:
    r"""Temporal correlation distillation between two models' features of the same sequences.

    Our definition of :math:`\mathcal{L}_{TCD}` of `"STCD" <https://arxiv.org/abs/2401.11798>`_:

    .. math::
        \mathcal{L} = \frac{1}{B T N} \sum_{b, t, n} \sum_{t' \neq t}
        \mathrm{TS}^s_{b n t t'} \log \frac{\mathrm{TS}^s_{b n t t'}}{\mathrm{TS}^t_{b n t t'}}

    Sequences of different lengths are compared over the steps that both have, from the last one
    back.

    Args:
        h_student (Tensor): Sequences of the student.
        h_teacher (Tensor, optional): Sequences of the teacher, which get no gradient, or
            :obj:`None` with :obj:`teacher_structure`.
        kernel (Kernel, optional): The similarity. (default: :class:`~pyg_stkd.kernels.RBF`)
        direction (str, optional): :obj:`"student"` for :math:`\mathrm{KL}(s \Vert t)`,
            :obj:`"teacher"` for :math:`\mathrm{KL}(t \Vert s)`. (default: :obj:`"student"`)
        normalize (str, optional): As in :func:`temporal_structure`. (default: :obj:`None`)
        nodes (Tensor, optional): Indices or a boolean mask of the nodes that count.
            (default: all)
        teacher_structure (Tensor, optional): The teacher's :func:`temporal_structure` over the
            steps of the student, with all nodes: a constant of a fixed teacher.

    Shapes:
        - **h_student:** :math:`(B, T_s, N, C_s)`
        - **h_teacher:** :math:`(B, T_t, N, C_t)`
        - **teacher_structure:** :math:`(B, N, T_s, T_s - 1)`
        - **output:** scalar

    Raises:
        TypeError: If the features are not of real floating point numbers, or :obj:`kernel` is no
            kernel, or :obj:`nodes` no indices or mask.
        ValueError: If the batches or nodes differ, there are fewer than two steps, neither or both
            of :obj:`h_teacher` and :obj:`teacher_structure` are given, or features are not finite.
        IndexError: If :obj:`nodes` holds an index that is out of range.

    Example:
        >>> h = torch.tensor([0.0, 0.0, 9.0]).view(1, 3, 1, 1)
        >>> temporal_correlation(h, h).item()
        0.0
        >>> round(temporal_correlation(h[:, [0, 2, 1]], h).item(), 4)
        0.2311
    """
    checks.choice("direction", direction, ("student", "teacher"))
    checks.instance("kernel", kernel, Kernel)
    h_student, h_teacher = check_pair(h_student, h_teacher, teacher_structure)
    if nodes is not None:
        nodes = checks.node_index("nodes", nodes, h_student.size(2))
    if h_teacher is not None:
        with torch.no_grad():
            chosen = h_teacher if nodes is None else h_teacher.index_select(2, nodes)
            teacher = _structure(chosen, kernel, normalize)
            _warn_if_blind(teacher, kernel, normalize)
    else:
        assert teacher_structure is not None
        batch, steps, num_nodes, _ = h_student.shape
        expected = [batch, num_nodes, steps, steps - 1]
        teacher = given_structure(teacher_structure, expected, "[B, N, T, T - 1]")
        teacher = teacher if nodes is None else teacher.index_select(1, nodes)
    chosen = h_student if nodes is None else h_student.index_select(2, nodes)
    total = _divergence(chosen, teacher, kernel, direction, normalize)
    inputs = {"h_student": h_student, "h_teacher": h_teacher}
    inputs["teacher_structure"] = teacher_structure
    loss = (total / max(1, teacher[..., 0].numel())).to(common_dtype(*inputs.values()))
    check_finite(loss, "temporal", **inputs)
    return loss


def _divergence(
    h: Tensor, teacher: Tensor, kernel: Kernel, direction: Direction, normalize: Normalize
) -> Tensor:
    if type(kernel) is RBF and few_steps(h) and h.numel() > 0:
        return step_divergence(prepared(h, kernel, normalize), teacher, kernel, direction)
    return divergence(_structure(h, kernel, normalize), teacher, direction).sum()


def _structure(h: Tensor, kernel: Kernel, normalize: Normalize) -> Tensor:
    """Temporal structures in the precision in which they are computed."""
    scores = for_softmax(h, kernel, lambda h: _similarity(h, kernel, normalize))
    if scores.stride(1) == 1:  # nodes are innermost
        return scores.permute(0, 2, 3, 1).log_softmax(dim=2).permute(0, 3, 1, 2)
    # Along the second to last axis a softmax of few elements costs a quarter.
    return scores.mT.contiguous().log_softmax(dim=-2).mT


def _similarity(h: Tensor, kernel: Kernel, normalize: Normalize) -> Tensor:
    """Similarity of each step to the others, [B, N, T, T - 1]."""
    if few_steps(h) and getattr(kernel, "measure", None) == "squared_distance":
        return mapped(kernel, step_distances(prepared(h, kernel, normalize)))
    batch, steps, num_nodes, width = h.shape
    z = h.transpose(1, 2).reshape(batch * num_nodes, steps, width)  # [B * N, T, C]
    value = pairwise(z, kernel, normalize)  # [B * N, T, T]
    # Without the first element, each row of T + 1 ends in an element of the diagonal.
    value = value.flatten(1)[:, 1:].unflatten(1, (steps - 1, steps + 1))[..., :-1]
    return mapped(kernel, value.reshape(batch, num_nodes, steps, steps - 1))


def _warn_if_blind(structure: Tensor, kernel: Kernel, normalize: Normalize) -> None:
    others = structure.size(-1)
    if torch.compiler.is_compiling() or is_transforming() or others < 2 or structure.numel() == 0:
        return
    structure = structure.flatten(0, 1)[:SAMPLE]
    entropy = -(structure.exp() * structure).sum(-1).mean()
    spread = (structure.amax(-1) - structure.amin(-1)).mean()
    warn_if_blind("temporal", spread, entropy / math.log(others), kernel, normalize)
