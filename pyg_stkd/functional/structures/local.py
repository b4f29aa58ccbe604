r"""Local structures of node features, and the loss that preserves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.sparse.sparse_ops import compute_dtype, reduce_segments
from pyg_stkd.functional.structures.blind import SAMPLE, warn_if_blind
from pyg_stkd.functional.structures.divergences.divergence import (
    Direction,
    check_finite,
    common_dtype,
    given_structure,
)
from pyg_stkd.functional.structures.divergences.local_divergence import (
    local_divergence,
    structure_of_scores,
)
from pyg_stkd.functional.structures.divergences.slice_divergence import slice_divergence
from pyg_stkd.functional.structures.similarities.prepared import (
    Normalize,
    for_softmax,
    has_bound,
    mapped,
    prepared,
)
from pyg_stkd.functional.structures.similarities.similarity import checked_similarity, graph_of
from pyg_stkd.functional.structures.similarities.slice_distance import (
    slice_distances,
    slices_innermost,
)
from pyg_stkd.graph import Graph, is_transforming
from pyg_stkd.graph.slices import SliceBlocks
from pyg_stkd.kernels import RBF, Kernel

__all__ = ["by_edge", "local_structure", "lsp", "mean_over", "structure_loss", "structure_of"]

_DEFAULT_KERNEL = RBF()


def local_structure(
    z: Tensor, graph: Any, kernel: Kernel = _DEFAULT_KERNEL, normalize: Normalize = None
) -> Tensor:
    r"""Local structures, as logarithms: how each node's in-neighbours share its similarity.

    From `"Distilling Knowledge from Graph Convolutional Networks"
    <https://arxiv.org/abs/2003.10477>`_ (Eq. 3), in log space:

    .. math::
        \log \mathrm{LS}_{ij} = \mathrm{SIM}(\mathbf{z}_i, \mathbf{z}_j) -
        \log \sum_{j':\, (j', i) \in \mathcal{E}} \exp \mathrm{SIM}(\mathbf{z}_i, \mathbf{z}_{j'})

    Args:
        z (Tensor): Node features.
        graph (Graph, Tensor, EdgeIndex or SparseTensor): The edges.
        kernel (Kernel, optional): The similarity. (default: :class:`~pyg_stkd.kernels.RBF`)
        normalize (str, optional): :obj:`"l2"` for unit vectors, :obj:`"layer"` for features of
            mean 0 and variance 1 at each node. (default: :obj:`None`)

    Shapes:
        - **z:** :math:`(N, F)`
        - **output:** :math:`(|\mathcal{E}|)`, in the graph's order

    Raises:
        TypeError: If :obj:`z` is not of real floating point numbers, or :obj:`kernel` no kernel.
        ValueError: If :obj:`z` does not fit the graph.

    Example:
        >>> z = torch.tensor([[0.0], [0.0], [9.0]])
        >>> local_structure(z, torch.tensor([[1, 2], [0, 0]])).exp()
        tensor([0.7311, 0.2689])
    """
    checks.instance("kernel", kernel, Kernel)
    checks.features("z", z)
    return _structure(z, graph_of(z, graph), kernel, normalize).to(compute_dtype(z.dtype))


def lsp(
    z_student: Tensor,
    z_teacher: Tensor | None,
    edge_index: Any,
    kernel: Kernel = _DEFAULT_KERNEL,
    direction: Direction = "student",
    *,
    normalize: Normalize = None,
    reduction: Literal["node", "edge"] = "node",
    nodes: Tensor | None = None,
    teacher_structure: Tensor | None = None,
) -> Tensor:
    r"""Local structure preserving loss between two models' features of the same nodes.

    From `"Distilling Knowledge from Graph Convolutional Networks"
    <https://arxiv.org/abs/2003.10477>`_ (Eqs. 5 and 6):

    .. math::
        \mathcal{L} = \frac{1}{N} \sum_i \sum_{j:\, (j, i) \in \mathcal{E}}
        \mathrm{LS}^s_{ij} \log \frac{\mathrm{LS}^s_{ij}}{\mathrm{LS}^t_{ij}}

    Nodes without in-edges contribute 0 and count in :math:`N`.

    Args:
        z_student (Tensor): Node features of the student.
        z_teacher (Tensor, optional): Node features of the teacher, which get no gradient, or
            :obj:`None` with :obj:`teacher_structure`.
        edge_index (Graph, Tensor, EdgeIndex or SparseTensor): The edges. Give a
            :class:`~pyg_stkd.graph.Graph` to sort them only once.
        kernel (Kernel, optional): The similarity of two nodes.
            (default: :class:`~pyg_stkd.kernels.RBF`)
        direction (str, optional): :obj:`"student"` for the paper's
            :math:`\mathrm{KL}(s \Vert t)`, :obj:`"teacher"` for :math:`\mathrm{KL}(t \Vert s)`.
            (default: :obj:`"student"`)
        normalize (str, optional): As in :func:`local_structure`. (default: :obj:`None`)
        reduction (str, optional): Mean over :obj:`"node"` (the paper) or :obj:`"edge"`.
            (default: :obj:`"node"`)
        nodes (Tensor, optional): Indices or a boolean mask of the centre nodes that count.
            (default: all)
        teacher_structure (Tensor, optional): The teacher's :func:`local_structure` on the same
            graph, kernel and normalisation: a constant of a fixed teacher and a fixed graph.

    Shapes:
        - **z_student:** :math:`(N, F_s)`
        - **z_teacher:** :math:`(N, F_t)`
        - **teacher_structure:** :math:`(|\mathcal{E}|)`, in the graph's order
        - **output:** scalar

    Raises:
        TypeError: If the features are not of real floating point numbers, or :obj:`kernel` is no
            kernel, or :obj:`nodes` no indices or mask.
        ValueError: If the numbers of nodes differ, an argument is unknown, neither or both of
            :obj:`z_teacher` and :obj:`teacher_structure` are given, or features are not finite.
        IndexError: If :obj:`nodes` holds an index that is out of range.

    Example:
        >>> edge_index = torch.tensor([[1, 2], [0, 0]])
        >>> z = torch.tensor([[0.0], [0.0], [9.0]])
        >>> lsp(z, z, edge_index).item()
        0.0
        >>> round(lsp(z[[0, 2, 1]], z, edge_index).item(), 4)
        0.154
    """
    checks.choice("direction", direction, ("student", "teacher"))
    checks.choice("reduction", reduction, ("node", "edge"))
    checks.instance("kernel", kernel, Kernel)
    checks.features("z_student", z_student)
    graph = graph_of(z_student, edge_index)
    if nodes is not None:
        checks.nodes("nodes", nodes, graph.num_nodes)
    if (z_teacher is None) == (teacher_structure is None):
        raise ValueError("Exactly one of 'z_teacher' and 'teacher_structure' must be given")
    if z_teacher is not None:
        _check_teacher(z_student, z_teacher)
        teacher = structure_of(z_teacher, graph, kernel, normalize)
        with torch.no_grad():
            _warn_if_blind(graph, teacher, kernel, normalize)
    else:
        assert teacher_structure is not None
        shape = [graph.num_edges]
        if teacher_structure.dim() == 2 and isinstance(graph, SliceBlocks):  # of by_edge
            shape = [graph.base.num_edges, graph.num_slices]
        teacher = given_structure(teacher_structure, shape, "a value for each edge")
    inputs = {"z_teacher": z_teacher, "teacher_structure": teacher_structure}
    return structure_loss(
        graph, z_student, teacher, kernel, direction, normalize, reduction, nodes, inputs
    )


def structure_of(
    z_teacher: Tensor, graph: Graph, kernel: Kernel, normalize: Normalize = None
) -> Tensor:
    """Return the structure of the teacher as logarithms, a constant.

    It has the precision in which it was computed, so that small differences keep it.

    Example:
        >>> z, graph = torch.tensor([[0.0], [0.0], [9.0]]), Graph(torch.tensor([[1, 2], [0, 0]]))
        >>> structure_of(z, graph, RBF()).exp()
        tensor([0.7311, 0.2689])
    """
    with torch.no_grad():
        return _structure(z_teacher, graph, kernel, normalize)


def by_edge(graph: SliceBlocks, structure: Tensor) -> Tensor:
    """Return a structure in slices as one row for each edge, [|E|, S], in memory too.

    Example:
        >>> from pyg_stkd.graph.slices import slice_blocks
        >>> blocks = slice_blocks(Graph(torch.tensor([[1, 2], [0, 0]])), 3)
        >>> by_edge(blocks, torch.tensor([0.0, 0.1, 1.0, 1.1, 2.0, 2.1]))
        tensor([[0.0000, 1.0000, 2.0000],
                [0.1000, 1.1000, 2.1000]])
    """
    if structure.dim() == 2:
        return structure
    return structure.view(graph.num_slices, -1).t().contiguous()


def structure_loss(
    graph: Graph,
    z_student: Tensor,
    teacher: Tensor,
    kernel: Kernel,
    direction: Direction = "student",
    normalize: Normalize = None,
    reduction: str = "node",
    nodes: Tensor | None = None,
    inputs: dict[str, Tensor | None] | None = None,
) -> Tensor:
    r"""Return the loss of the student's features and the teacher's structure.

    Args:
        graph (Graph): The edges.
        z_student (Tensor): The student's features.
        teacher (Tensor): The structure, as logarithms; of a graph in slices, it may be that of
            :func:`by_edge`.
        kernel (Kernel): The similarity.
        direction (str): As in :func:`lsp`. (default: :obj:`"student"`)
        normalize (str, optional): As in :func:`lsp`. (default: :obj:`None`)
        reduction (str): As in :func:`lsp`. (default: :obj:`"node"`)
        nodes (Tensor, optional): As in :func:`lsp`. (default: all)
        inputs (dict, optional): What the teacher's came from: errors name it, and the loss has the
            dtype of it and of :obj:`z_student`. (default: itself)

    Example:
        >>> graph = Graph(torch.tensor([[1, 2], [0, 0]]))
        >>> z, t = torch.tensor([[0.0], [1.0], [1.0]]), torch.tensor([0.25, 0.75]).log()
        >>> round(structure_loss(graph, z, t, RBF()).item(), 4)
        0.0479
    """
    per_node = _divergences(graph, z_student, teacher, kernel, direction, normalize, nodes)
    inputs = {"z_student": z_student, **(inputs or {"teacher": teacher})}
    return mean_over(graph, per_node, nodes, reduction, inputs)


def mean_over(
    graph: Graph,
    per_node: Tensor,
    nodes: Tensor | None,
    reduction: str,
    inputs: Mapping[str, Tensor | None],
) -> Tensor:
    """Return the mean of the divergences of nodes, of which without nodes the sum is given.

    Raises:
        ValueError: If it is not finite.

    Example:
        >>> graph, ones = Graph(torch.tensor([[1, 2], [0, 0]])), torch.ones(3)
        >>> mean_over(graph, ones.sum(), None, "edge", {"z": ones}).item()
        1.5
    """
    loss = _mean(graph, per_node, nodes, reduction)
    loss = loss.to(common_dtype(*inputs.values()))
    check_finite(loss, "local", **inputs)
    return loss


def _divergences(
    graph: Graph,
    z: Tensor,
    teacher: Tensor,
    kernel: Kernel,
    direction: Direction,
    normalize: Normalize,
    nodes: Tensor | None,
) -> Tensor:
    """Return the divergences of nodes, of which without :obj:`nodes` the sum is given."""
    options: Any = {"bounded": has_bound(kernel), "total": nodes is None}
    if not isinstance(graph, SliceBlocks) or not slices_innermost(graph, z, kernel):
        if teacher.dim() == 2:
            teacher = teacher.t().flatten()
        score = _scores(z, graph, kernel, normalize)
        return local_divergence(graph, score, teacher, direction, **options)
    teacher = by_edge(graph, teacher)
    if nodes is None and type(kernel) is RBF:
        z = prepared(z, kernel, normalize).view(graph.num_slices, -1, z.size(1))
        return slice_divergence(graph.base, z, teacher, kernel, direction)
    score = _scores_in_slices(z, graph, kernel, normalize)  # [|E|, S]
    per_node = local_divergence(graph.base, score, teacher, direction, **options)
    return per_node if nodes is None else per_node.t().flatten()  # slice after slice


def _structure(z: Tensor, graph: Graph, kernel: Kernel, normalize: Normalize) -> Tensor:
    return structure_of_scores(graph, _scores(z, graph, kernel, normalize), has_bound(kernel))


def _scores(z: Tensor, graph: Graph, kernel: Kernel, normalize: Normalize) -> Tensor:
    return for_softmax(z, kernel, lambda z: checked_similarity(z, graph, kernel, normalize))


def _scores_in_slices(
    z: Tensor, graph: SliceBlocks, kernel: Kernel, normalize: Normalize
) -> Tensor:
    def measured(z: Tensor) -> Tensor:
        z = prepared(z, kernel, normalize).view(graph.num_slices, -1, z.size(1))
        value = slice_distances(graph.base, z)
        return mapped(kernel, value.flatten()).view(value.shape)

    return for_softmax(z, kernel, measured)


def _mean(graph: Graph, per_node: Tensor, nodes: Tensor | None, reduction: str) -> Tensor:
    if nodes is None:
        count = graph.num_nodes if reduction == "node" else graph.num_edges
        return per_node / max(1, count)
    degree = graph.degree
    if nodes.dtype == torch.bool:  # no shape depends on the mask: torch.compile takes it
        total = per_node.masked_fill(~nodes, 0).sum()
        counted = nodes if reduction == "node" else degree.masked_fill(~nodes, 0)
        return total / counted.sum().clamp(min=1)
    total = per_node.index_select(0, nodes).sum()
    if reduction == "node":
        return total / max(1, nodes.numel())
    return total / degree.index_select(0, nodes).sum().clamp(min=1)


def _warn_if_blind(graph: Graph, structure: Tensor, kernel: Kernel, normalize: Normalize) -> None:
    if torch.compiler.is_compiling() or is_transforming():
        return
    pointer, col, row = graph.csr()
    pointer = pointer[: SAMPLE + 1]
    end = int(pointer[-1])
    if end == 0:
        return
    loop, structure = row[:end] == col[:end], structure[:end]  # a loop is like no neighbour
    entropy = -reduce_segments(pointer, structure.exp() * structure, "sum")
    limit = pointer.diff().clamp(min=1).to(entropy.dtype).log()
    top = reduce_segments(pointer, structure.masked_fill(loop, -torch.inf), "max")
    low = reduce_segments(pointer, structure.masked_fill(loop, torch.inf), "min")
    several = reduce_segments(pointer, (~loop).to(entropy.dtype), "sum") > 1
    spread, share = (top - low)[several].mean(), entropy.sum() / limit.sum()
    warn_if_blind("local", spread, share, kernel, normalize)


def _check_teacher(z_student: Tensor, z_teacher: Tensor) -> None:
    checks.features("z_teacher", z_teacher)
    if z_teacher.size(0) != z_student.size(0):
        raise ValueError(
            "'z_student' and 'z_teacher' must have the same number of nodes "
            f"(got {z_student.size(0)} and {z_teacher.size(0)})"
        )
