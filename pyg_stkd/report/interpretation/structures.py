"""How far a student keeps its teacher's structures, edge by edge, step by step, node by node."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_stkd.functional import local_structure, temporal_structure
from pyg_stkd.functional.structures.spatial import rows
from pyg_stkd.graph import Graph
from pyg_stkd.graph.slices import slice_blocks
from pyg_stkd.kernels import Kernel

__all__ = ["Agreement", "local_agreement", "temporal_agreement"]


@dataclass(frozen=True)
class Agreement:
    r"""The share of the teacher's structure that the student has, 1 for all of it.

    It is :math:`1 - \mathrm{KL}(t \Vert s) / \mathrm{KL}(t \Vert u)`, with :math:`u` the structure
    in which all neighbours (or steps) count alike: 0 is no better than that, below 0 is worse. NaN
    where the teacher's own structure is :math:`u`, as that of a node with one neighbour is.

    Args:
        total (float): Of all nodes and steps together.
        nodes (Tensor): Of each node, :math:`(N)`.
        steps (Tensor): Of each time step of the layer, :math:`(T)`.
        teacher (Tensor): For each edge how much the teacher weighs it, on average and against the
            other edges of its target: 1 is as much as these, :math:`(|\mathcal{E}|)`. Of temporal
            structures: for each pair of steps, :math:`(T, T)`, the diagonal NaN.
        student (Tensor): The same for the student.
    """

    total: float
    nodes: Tensor
    steps: Tensor
    teacher: Tensor
    student: Tensor


@torch.no_grad()
def local_agreement(teacher: Tensor, student: Tensor, graph: Graph, kernel: Kernel) -> Agreement:
    r"""Return how far local structures agree in each time slice.

    Args:
        teacher (Tensor): Hidden sequences of the teacher.
        student (Tensor): Those of the student.
        graph (Graph): The edges of a slice.
        kernel (Kernel): The similarity.

    Shapes:
        - **teacher:** :math:`(B, T, N, C_t)`
        - **student:** :math:`(B, T, N, C_s)`
    """
    batch, steps, num_nodes, _ = teacher.shape
    blocks = slice_blocks(graph, batch * steps)
    t, s = (
        local_structure(rows(h), blocks, kernel).view(batch, steps, -1).double()
        for h in (teacher, student)
    )  # [B, T, E]
    target = graph.edge_index[1]
    degree = torch.bincount(target, minlength=num_nodes).to(t)
    several = degree > 1  # a lone neighbour's structure is 1, and the rest of it rounding
    lost, whole = (
        t.new_zeros(batch, steps, num_nodes).index_add(2, target, t.exp() * (t - other)) * several
        for other in (s, -degree.log()[target])
    )  # [B, T, N]
    weights = (h.exp().mean((0, 1)) * degree[target] for h in (t, s))
    return _agreement(lost, whole, *weights)


@torch.no_grad()
def temporal_agreement(teacher: Tensor, student: Tensor, kernel: Kernel) -> Agreement | None:
    r"""Return how far temporal structures agree, or :obj:`None` of a single step.

    Args:
        teacher (Tensor): Hidden sequences of the teacher.
        student (Tensor): Those of the student.
        kernel (Kernel): The similarity.

    Shapes:
        - **teacher:** :math:`(B, T, N, C_t)`
        - **student:** :math:`(B, T, N, C_s)`
    """
    length = teacher.size(1)
    if length < 2:
        return None
    t, s = (temporal_structure(h, kernel).double() for h in (teacher, student))  # [B, N, T, T - 1]
    uniform = -torch.tensor(length - 1.0, dtype=t.dtype).log()
    lost, whole = ((t.exp() * (t - other)).sum(-1).mT for other in (s, uniform))  # [B, T, N]
    weights = (_square(h.exp().mean((0, 1))) * (length - 1) for h in (t, s))
    return _agreement(lost, whole, *weights)


def _agreement(lost: Tensor, whole: Tensor, teacher: Tensor, student: Tensor) -> Agreement:
    """Sum divergences [B, T, N] over what is not asked for, then take shares."""
    shares = [_share(lost.sum(dims), whole.sum(dims)) for dims in ((0, 1, 2), (0, 1), (0, 2))]
    return Agreement(float(shares[0]), shares[1], shares[2], teacher, student)


def _share(lost: Tensor, whole: Tensor) -> Tensor:
    """Return 1 - lost / whole; NaN where there is nothing to lose but rounding."""
    return torch.where(whole > 1e-9, 1 - lost / whole.clamp(min=1e-9), torch.nan)


def _square(pairs: Tensor) -> Tensor:
    """Put the pairs of a step and another one [T, T - 1] into a square, the diagonal NaN."""
    length = pairs.size(0)
    square = pairs.new_full((length, length), torch.nan)
    square[~torch.eye(length, dtype=torch.bool)] = pairs.flatten()
    return square
