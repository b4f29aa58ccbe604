"""Distillation of local structures."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.distill.losses.base import DistillationLoss, align, until_epoch
from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.graph_cache import GraphCache
from pyg_stkd.distill.recording.reading.inputs import is_edge_index
from pyg_stkd.distill.recording.remembered import remembered
from pyg_stkd.distill.recording.typed_ends import by_edge_type
from pyg_stkd.functional import local_structure, lsp
from pyg_stkd.functional.structures.divergences.local_divergence import local_divergence
from pyg_stkd.functional.structures.local import (
    by_edge,
    mean_over,
    structure_loss,
    structure_of,
)
from pyg_stkd.functional.structures.similarities.slice_distance import slices_innermost
from pyg_stkd.functional.structures.spatial import in_all_slices
from pyg_stkd.functional.structures.unions.extended_divergence import extended_divergence
from pyg_stkd.functional.structures.unions.extended_structure import (
    can_extend,
    extended_scores,
    extended_structure,
    measured,
)
from pyg_stkd.graph import Graph, union_edges
from pyg_stkd.graph.extended import ExtendedGraph, simple
from pyg_stkd.graph.graph import OfGraph
from pyg_stkd.graph.loops import add_loops, drop_loops
from pyg_stkd.graph.slices import SliceBlocks, slice_blocks
from pyg_stkd.graph.union import same_edges
from pyg_stkd.kernels import RBF, Cosine, Kernel, Laplacian

__all__ = ["Direction", "LSPLoss", "Normalize", "SelfLoops"]

Direction: TypeAlias = Literal["student", "teacher"]
Normalize: TypeAlias = Literal["l2", "layer"] | None
SelfLoops: TypeAlias = Literal["keep", "drop", "add"]


# Whether the kernel is blind to a teacher is looked at in the first forwards, then now and then.
_LOOKS, _EVERY = 8, 64


class LSPLoss(DistillationLoss):
    r"""Local structure preserving loss from `"Distilling Knowledge from Graph Convolutional
    Networks" <https://arxiv.org/abs/2003.10477>`_ (Eqs. 3-8).

    .. math::
        \mathcal{L} = \frac{1}{N} \sum_i \mathrm{KL} \left(
        \mathrm{LS}^s_i \, \Vert \, \mathrm{LS}^t_i \right), \qquad
        \mathrm{LS}_{ij} = \underset{j \to i}{\mathrm{softmax}} \,
        \mathrm{SIM}(\mathbf{z}_i, \mathbf{z}_j)

    The edges are those **given to** the layers, without the self-loops that a layer adds inside;
    where the two layers see different graphs, the union of both (Section 3.5). Of features by type
    of node, with edges by type (:obj:`edge_index_dict`, :obj:`HeteroData`), each type of edge is a
    part of its own: its targets are told its sources apart. The math is in
    :func:`pyg_stkd.functional.lsp`. Presets: :meth:`paper`, :meth:`official`,
    :meth:`efficient_gnns`.

    Args:
        teacher_layer (str): The teacher's layer.
        student_layer (str): The student's layer, of any width.
        kernel (Kernel, optional): The similarity of two nodes.
            (default: :obj:`RBF(sigma=1.0)`)
        graph (optional): The edges: :obj:`"student"`, :obj:`"teacher"`, :obj:`"union"`, or a
            fixed :obj:`edge_index`, :obj:`adj_t` or :class:`~pyg_stkd.graph.Graph`.
            (default: the union where the two graphs differ, else the one they share)
        weight (float): The factor of the loss in the total. (default: :obj:`1.0`)
        name (str, optional): The key of the loss. (default: :obj:`"lsp"`)
        self_loops (str): :obj:`"keep"` self-loops as given, :obj:`"drop"` all, or :obj:`"add"`
            one where a node has none. (default: :obj:`"keep"`)
        direction (str): :obj:`"student"` for the paper's :math:`\mathrm{KL}(s \Vert t)`,
            :obj:`"teacher"` for :math:`\mathrm{KL}(t \Vert s)`. (default: :obj:`"student"`)
        normalize (str, optional): :obj:`"l2"` or :obj:`"layer"` to normalise the features of each
            node first. (default: :obj:`None`)
        reduction (str): Mean over :obj:`"node"` or :obj:`"edge"`. (default: :obj:`"node"`)
        **tap (optional): All else that :class:`~pyg_stkd.distill.DistillationLoss` takes.

    Shapes:
        - **student:** :math:`(N, F_s)`, or :math:`(B, N, F_s)` of one graph
        - **teacher:** :math:`(N, F_t)`, or :math:`(B, N, F_t)`
        - **output:** a scalar

    Raises:
        TypeError: If :obj:`kernel` is no kernel.
        ValueError: If an option is not one of those above, no graph is found, or the shapes do
            not fit.

    Example:
        >>> import torch
        >>> edge_index = torch.tensor([[1, 2], [0, 0]])
        >>> s = Capture(torch.tensor([[0.0], [9.0], [0.0]]), {"edge_index": edge_index})
        >>> t = Capture(torch.tensor([[0.0], [0.0], [9.0]]), {"edge_index": edge_index})
        >>> round(LSPLoss("convs.1", "convs.2")(s, t).item(), 4)
        0.154
    """

    def __init__(
        self,
        teacher_layer: str,
        student_layer: str,
        kernel: Kernel | None = None,
        graph: Any = None,
        weight: float = 1.0,
        name: str | None = None,
        *,
        self_loops: SelfLoops = "keep",
        direction: Direction = "student",
        normalize: Normalize = None,
        reduction: Literal["node", "edge"] = "node",
        **tap: Any,
    ) -> None:
        super().__init__(teacher_layer, student_layer, weight, name, **tap)
        kernel = RBF() if kernel is None else kernel
        checks.instance("kernel", kernel, Kernel)
        if _is_word(graph):
            checks.choice("graph", graph, (None, "student", "teacher", "union"))
        elif not is_edge_index(graph):
            raise TypeError(
                "'graph' must be 'student', 'teacher', 'union', an edge_index, an adj_t or a "
                f"Graph (got {type(graph).__name__})"
            )
        checks.choice("self_loops", self_loops, ("keep", "drop", "add"))
        checks.choice("direction", direction, ("student", "teacher"))
        checks.choice("normalize", normalize, (None, "l2", "layer"))
        checks.choice("reduction", reduction, ("node", "edge"))
        self.kernel = kernel
        self.graph = graph.graph if isinstance(graph, OfGraph) else graph
        self.self_loops = self_loops
        self.direction = direction
        self.normalize = normalize
        self.reduction = reduction
        # Copies of a graph for each slice are large: keep few, not some for every capture.
        self._graphs = GraphCache()
        self._looks = [0]  # nn.Module is slow to take a number

    @classmethod
    def paper(cls, teacher_layer: str, student_layer: str, **kwargs: Any) -> LSPLoss:
        """Return the loss as printed: RBF kernel with width 1, KL(s||t), mean over nodes.

        Example:
            >>> LSPLoss.paper("convs.1", "convs.2", weight=100.0).kernel
            RBF(sigma=1.0)
        """
        return cls(teacher_layer, student_layer, **{"kernel": RBF(sigma=1.0), **kwargs})

    @classmethod
    def official(cls, teacher_layer: str, student_layer: str, **kwargs: Any) -> LSPLoss:
        """Return that of the authors' code: Laplacian kernel of scale 100, KL(t||s), for 30 epochs.

        The epoch is what :meth:`~pyg_stkd.distill.Distiller.set_epoch` was told last, 0 at first:
        without that call the loss is never off.

        Example:
            >>> loss = LSPLoss.official("convs.1", "convs.2", weight=100.0)
            >>> loss.kernel, loss.factor(29), loss.factor(30)
            (Laplacian(scale=100.0), 100.0, 0.0)
        """
        preset = {
            "kernel": Laplacian(scale=100.0),
            "direction": "teacher",
            "schedule": until_epoch(30),
        }
        return cls(teacher_layer, student_layer, **{**preset, **kwargs})

    @classmethod
    def efficient_gnns(cls, teacher_layer: str, student_layer: str, **kwargs: Any) -> LSPLoss:
        """The code of `"On Representation Knowledge Distillation for Graph Neural Networks"
        <https://arxiv.org/abs/2111.04964>`_: KL(t||s), mean over edges. Its kernels are
        :obj:`Cosine()` (the default), :obj:`Polynomial(2, cosine=True)`, :obj:`Euclidean()` and
        :obj:`RBF()`.

        Example:
            >>> LSPLoss.efficient_gnns("convs.1", "convs.2").reduction
            'edge'
        """
        preset = {"kernel": Cosine(), "direction": "teacher", "reduction": "edge"}
        return cls(teacher_layer, student_layer, **{**preset, **kwargs})

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        s, t = self._aligned(student, teacher)
        nodes, slices = student.node_index, 1
        if nodes is not None and nodes.numel() == 0:  # a type of nodes of which there are none
            return s.sum() * 0
        if s.dim() == 2:
            base = graph = self.edges(student, teacher)
            lasting = teacher.graphs.holds(graph)  # others, of dynamic graphs, are not seen again
        else:  # one graph of as many copies as there are slices
            student = student.at(student.nodes, self._graphs)
            base = self.edges(student, teacher.at(teacher.nodes, self._graphs))
            slices, lasting = s.shape[:-2].numel(), True
            if nodes is not None:
                nodes = in_all_slices(nodes, slices, base.num_nodes)
            graph = slice_blocks(base, slices)
            s, t = s.flatten(0, -2), t.flatten(0, -2)  # [B * N, F]
        structure = None
        if isinstance(graph, ExtendedGraph) and can_extend(t, self.kernel, self.normalize):
            value = self._extended(teacher, s, t, graph, nodes)
            if value is not None:
                return value
        elif lasting:
            structure = self._remembered(teacher, s, t, graph, (base, slices))
        self._looks[0] += 1
        if structure is None and self._looks[0] > _LOOKS and self._looks[0] % _EVERY:
            # As lsp would, but for a look at whether the kernel is blind.
            known = structure_of(t, graph, self.kernel, self.normalize)
            options = self.kernel, self.direction, self.normalize, self.reduction, nodes
            return structure_loss(graph, s, known, *options, {"z_teacher": t})
        return lsp(
            s,
            t if structure is None else None,
            graph,
            self.kernel,
            self.direction,
            normalize=self.normalize,
            reduction=self.reduction,
            nodes=nodes,
            teacher_structure=structure,
        )

    def _remembered(
        self, teacher: Capture, s: Tensor, t: Tensor, graph: Graph, base: tuple[Graph, int]
    ) -> Tensor | None:
        """Return the teacher's structure, laid out as the student's will be."""
        blocks = graph if isinstance(graph, SliceBlocks) else None
        if blocks is not None and not slices_innermost(blocks, s, self.kernel):
            blocks = None

        def build() -> Tensor:
            made = local_structure(t, graph, self.kernel, self.normalize)
            return made if blocks is None else by_edge(blocks, made)

        options = "local structure", self.normalize, t.dtype, blocks is not None
        return remembered(teacher, self, graph, options, self.kernel, build, base)

    def _extended(
        self, teacher: Capture, s: Tensor, t: Tensor, graph: ExtendedGraph, nodes: Tensor | None
    ) -> Tensor | None:
        """Return the loss on a union, if the teacher's distances on its own graph are known."""
        made = remembered(
            teacher,
            (self, "distances"),
            graph.known,
            ("distances", t.dtype),
            self.kernel,
            lambda: measured(t, graph.known),
            (graph.known, 1),
        )
        if made is None:
            return None
        with torch.no_grad():
            known = extended_structure(t, made, graph, self.kernel)
        if nodes is None and isinstance(self.kernel, RBF):  # as all are that can be extended
            per_node = extended_divergence(s, known, graph, self.kernel, self.direction)
        else:
            score, parts = extended_scores(s, graph, self.kernel), (graph.known, graph.more)
            options: Any = {"bounded": True, "total": nodes is None}
            per_node = local_divergence(parts, score, known, self.direction, **options)
        inputs = {"z_student": s, "z_teacher": t}
        return mean_over(graph, per_node, nodes, self.reduction, inputs)

    def _aligned(self, student: Capture, teacher: Capture) -> tuple[Tensor, Tensor]:
        s, t = align(student, teacher, rows=False)
        if s.dim() not in (2, 3):
            raise ValueError(
                f"The {student.where} must be [N, F] or [B, N, F] (got {list(s.shape)}): for "
                f"sequences take SpatialCorrelationLoss, for other orders of axes layout="
            )
        return s, t

    def parts_of_student(self, student: Capture) -> Mapping[Hashable, Capture]:
        return by_edge_type(student, student.parts(self.select, self.layout), self.weights)

    def parts_of_teacher(self, teacher: Capture) -> Mapping[Hashable, Capture]:
        parts = teacher.parts(self.teacher_select, self.teacher_layout)
        return by_edge_type(teacher, parts, self.weights)

    def count(self, student: Capture, teacher: Capture, target: Any = None) -> int:
        if self.reduction == "node":
            return super().count(student, teacher, target)
        degree = self.edges(student, teacher).rowptr.diff()
        index = student.node_index
        total = int((degree if index is None else degree.index_select(0, index)).sum())
        return total * student.features.shape[:-2].numel()

    def edges(self, student: Capture, teacher: Capture) -> Graph:
        """Return the graph on which the two structures are compared."""
        cache = student.graphs
        if _is_word(self.graph) and teacher.frozen and teacher.edge_index is not None:
            _ = teacher.graph  # now kept with the teacher's features: the student may have the same
        if not _is_word(self.graph):
            kept, device = teacher.graphs, student.value.device
            graph = kept.get(self.graph, student.num_nodes)
            graph = kept.derive(f"to {device}", lambda graph: graph.to(device), graph)
        elif self.graph in ("student", "teacher"):
            graph = (student if self.graph == "student" else teacher).graph
        else:
            graph = _common(student, teacher, cache, always=self.graph == "union")
        if self.self_loops == "drop":
            return cache.derive("drop", drop_loops, graph)
        return cache.derive("add", add_loops, graph) if self.self_loops == "add" else graph

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kernel={self.kernel}"


def _common(student: Capture, teacher: Capture, cache: GraphCache, always: bool) -> Graph:
    if student.edge_index is None and teacher.edge_index is not None:
        return teacher.graph
    if teacher.edge_index is None:
        return student.graph
    a = student.graph
    b = a if teacher.edge_index is student.edge_index else teacher.graph
    unite: Callable[[Graph, Graph], Graph] = union_edges
    if teacher.frozen and teacher.graphs.holds(b) and not teacher.graphs.holds(a):
        unite = _extended
    if always:
        return cache.derive("union", unite, a, b)
    return a if a is b else cache.derive("shared", partial(_shared, unite), a, b)


def _shared(unite: Callable[[Graph, Graph], Graph], a: Graph, b: Graph) -> Graph:
    return a if same_edges(a, b) else unite(a, b)


def _extended(a: Graph, b: Graph) -> Graph:
    return ExtendedGraph(simple(b), a)


def _is_word(graph: Any) -> bool:
    return graph is None or isinstance(graph, str)
