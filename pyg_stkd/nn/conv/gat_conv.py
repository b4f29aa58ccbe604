"""PyG's GATConv without its edge-sized arrays."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch_geometric.nn
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.typing import SparseTensor, torch_sparse
from torch_geometric.utils import add_self_loops, is_torch_sparse_tensor, remove_self_loops
from torch_geometric.utils.sparse import set_sparse_value

from pyg_stkd.functional.sparse.attention import additive_attention
from pyg_stkd.graph import Graph
from pyg_stkd.graph.looped import with_self_loops
from pyg_stkd.nn.conv import fusing, inputs
from pyg_stkd.nn.scripting import refuse_script

__all__ = ["GATConv"]


class GATConv(torch_geometric.nn.GATConv):
    r"""The graph attentional operator from `"Graph Attention Networks"
    <https://arxiv.org/abs/1710.10903>`_ (Eqs. 1 to 6).

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i) \cup \{ i \}} \alpha_{i,j}
        \mathbf{\Theta}_s \mathbf{x}_j, \qquad
        \alpha_{i,j} = \mathrm{softmax}_j \left( \mathrm{LeakyReLU} \left(
        \mathbf{a}^{\top}_{s} \mathbf{\Theta}_{s} \mathbf{x}_j
        + \mathbf{a}^{\top}_{t} \mathbf{\Theta}_{t} \mathbf{x}_i
        + \mathbf{a}^{\top}_{e} \mathbf{\Theta}_{e} \mathbf{e}_{i,j} \right) \right)

    A :class:`torch_geometric.nn.GATConv` with the same arguments, parameters and results, whose
    attention is one operator that builds no :math:`(|\mathcal{E}|, H \cdot F_{out})` array. Give
    it a :class:`~pyg_stkd.graph.Graph` in place of its :obj:`edge_index` to sort the edges once
    for many calls; edge features and attention weights keep the order of that
    :obj:`edge_index`. In addition to PyG it takes features :math:`(*, |\mathcal{V}|, F_{in})` of
    a static graph.

    PyG's own message passing runs instead where it could differ: in a sub-class that overrides a
    step of it, with hooks on its steps, when explained, traced or decomposed, with
    :obj:`flow="target_to_source"`, another :obj:`aggr`, or a sparse matrix together with
    :obj:`edge_dim`. It cannot be compiled by :func:`torch.jit.script` (use :func:`torch.compile`).

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to derive it from the
            first input; a tuple for the sources and targets of a bipartite graph.
        out_channels (int): Size of each output sample, of each head.
        heads (int): Number of attention heads. (default: :obj:`1`)
        concat (bool): Whether heads are concatenated, else averaged. (default: :obj:`True`)
        **kwargs (optional): :obj:`negative_slope`, :obj:`dropout`, :obj:`add_self_loops`,
            :obj:`edge_dim`, :obj:`fill_value`, :obj:`bias`, :obj:`residual` and those of
            :class:`torch_geometric.nn.conv.MessagePassing`, as in
            :class:`torch_geometric.nn.GATConv`.

    Shapes:
        - **input:** node features :math:`(*, |\mathcal{V}|, F_{in})` or
          :math:`((*, |\mathcal{V_s}|, F_s), (*, |\mathcal{V_t}|, F_t))` if bipartite, edge
          indices :math:`(2, |\mathcal{E}|)`, edge features :math:`(|\mathcal{E}|, D)`
          *(optional)*
        - **output:** node features :math:`(*, |\mathcal{V_t}|, H \cdot F_{out})`; with
          :obj:`return_attention_weights` also edge indices :math:`(2, |\mathcal{E}^{\prime}|)`
          and weights :math:`(*, |\mathcal{E}^{\prime}|, H)`

    Raises:
        ValueError: If shapes, dtypes or numbers of nodes, edges and channels do not fit.
        IndexError: If :obj:`edge_index` refers to a node that is not there.

    Example:
        >>> conv = GATConv(2, 3, heads=4)
        >>> conv
        GATConv(2, 3, heads=4)
        >>> x, graph = torch.randn(3, 2), Graph(torch.tensor([[0, 1], [1, 2]]), 3)
        >>> conv(x, graph).shape
        torch.Size([3, 12])
        >>> conv(x.expand(5, 3, 2), graph).shape
        torch.Size([5, 3, 12])
    """

    __prepare_scriptable__ = refuse_script

    # PyG looks for these two in the source of the class.
    # propagate_type: (x: OptPairTensor, alpha: Tensor)
    # edge_updater_type: (alpha: OptPairTensor, edge_attr: OptTensor)

    _changed: ClassVar[bool] = False
    # PyG generates these for each class, from those of the parent if a parent was built before:
    # explanations would then call the parent's generated ones, which cannot explain.
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._changed = cls._changed or fusing.overrides_step(cls)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],
        edge_index: Tensor | SparseTensor | Graph,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Run the layer.

        Args:
            x (Tensor or (Tensor, Tensor)): Node features; the targets' may be :obj:`None`.
            edge_index (Tensor, EdgeIndex, SparseTensor or Graph): The edges.
            edge_attr (Tensor, optional): Edge features, in the order of the given edges.
            size ((int, int), optional): Numbers of source and target nodes.
            return_attention_weights (bool, optional): Also return the edges, without the loops
                given and with those added at the end, and their weights.

        Raises:
            ValueError: If shapes, dtypes or numbers of nodes, edges and channels do not fit.
            IndexError: If :obj:`edge_index` refers to a node that is not there.
        """
        lin_dst = self.lin if self.lin is not None else self.lin_dst
        x_src, x_dst = inputs.check_features(x, self.lin or self.lin_src, lin_dst)
        weights = bool(return_attention_weights)
        if x_src.dim() > 2:
            return self._forward_static(x, edge_index, edge_attr, size, weights)
        if not self._is_fused(edge_index):
            if isinstance(edge_index, Graph):
                edge_index = inputs.given_edges(edge_index)
            return super().forward(x, edge_index, edge_attr, size, weights or None)

        # The graph comes before the products: an error in the edges should show at once.
        nodes = inputs.num_nodes(x_src, x_dst, edge_index, size)
        graph, edges, edge_attr = self._prepare(edge_index, edge_attr, nodes, weights)
        att, score_dst, H, C = self.att_src, None, self.heads, self.out_channels
        h_src = (self.lin or self.lin_src)(x_src).view(-1, H, C)
        if self.lin is not None and x_dst is x_src:
            att = torch.cat([self.att_src, self.att_dst])
        elif x_dst is not None:
            h_dst = lin_dst(x_dst).view(-1, H, C)
            score_dst = (h_dst * self.att_dst).sum(-1)
        out, alpha = additive_attention(
            graph,
            h_src,
            att,
            score_dst,
            None if edge_attr is None else self._score_edges(edge_attr),
            self.negative_slope,
            self.dropout if self.training else 0.0,
            weights,
        )
        if not self.concat:
            out = out.view(-1, H, C).mean(dim=1)
        if self.res is not None and x_dst is not None:
            out = _add(out, self.res(x_dst))
        if self.bias is not None:
            out = _add(out, self.bias)
        if not weights:
            return out
        if isinstance(edges, SparseTensor):
            return out, edges.set_value(alpha, layout="coo")
        if is_torch_sparse_tensor(edges):
            return out, (set_sparse_value(edges, alpha), alpha)
        return out, (edges, alpha)

    def _prepare(
        self, edge_index: Any, edge_attr: Tensor | None, nodes: tuple[int, int], weights: bool
    ) -> tuple[Graph, Any, Tensor | None]:
        """Return the graph with the layer's loops, its edges and features in PyG's order."""
        edges, reused = edge_index, isinstance(edge_index, Graph)
        if reused:
            graph = Graph.of(edge_index, nodes)
            if self.lin_edge is not None and edge_attr is None and graph.value is not None:
                edge_attr = torch.empty_like(graph.value)
                edge_attr[graph.perm] = graph.value
            if edge_attr is not None or weights:
                edges = inputs.given_edges(edge_index)
        count = inputs.num_edges(edge_index)
        if edge_attr is not None:
            width = getattr(self.lin_edge, "in_channels", -1)
            edge_attr = inputs.check_edge_attr(edge_attr, count, width, self.att_src.dtype)
        if self.lin_edge is None:
            edge_attr = None  # as in PyG, which does not read them then
        if self.add_self_loops:
            if isinstance(edges, SparseTensor):
                edges = torch_sparse.set_diag(edges)
            elif isinstance(edges, Tensor):
                edges, edge_attr = remove_self_loops(edges, edge_attr)
                # PyG fails on the features of loops where there are more targets than sources:
                # make a loop for each target, and keep those that are sources too.
                num_loops = nodes[1] if edge_attr is not None else min(nodes)
                edges, edge_attr = add_self_loops(
                    edges, edge_attr, fill_value=self.fill_value, num_nodes=num_loops
                )
                if num_loops > min(nodes):
                    kept = edges.size(1) - num_loops + min(nodes)
                    edges, edge_attr = edges[:, :kept], edge_attr[:kept]
        if not reused:
            graph = Graph(edges, nodes)
        elif self.add_self_loops:
            graph = with_self_loops(graph)
        return graph, edges, edge_attr

    def _forward_static(
        self, x: Any, edge_index: Any, edge_attr: Tensor | None, size: Any, weights: bool
    ) -> Any:
        """Run each of the :math:`*` slices on the graph, whose sorting they share."""
        pair = isinstance(x, (tuple, list))
        parts = x if pair else (x, x)
        flat = [None if p is None else p.flatten(0, -3) for p in parts]
        lead, count = parts[0].shape[:-2], math.prod(parts[0].shape[:-2])
        if weights and isinstance(edge_index, SparseTensor):
            raise ValueError(
                "'edge_index' of a static graph whose weights are returned must not be a "
                "SparseTensor, whose values have no batch dimension"
            )
        if self._is_fused(edge_index) and not inputs.is_sparse(edge_index):
            nodes = inputs.num_nodes(parts[0], parts[1], edge_index, size)
            inputs.num_edges(edge_index)
            edge_index = Graph.of(edge_index, nodes)
        outs, alphas, edges = [], [], None
        for i in range(max(1, count)):  # without a slice, an empty one gives the shapes
            one: list[Any] = [
                None if p is None else p[i] if count else p.new_zeros(p.shape[1:]) for p in flat
            ]
            out = GATConv.forward(
                self,
                (one[0], one[1]) if pair else one[0],
                edge_index,
                edge_attr,
                size,
                weights,
            )
            if weights:
                out, (edges, alpha) = out
                alphas.append(alpha)
            outs.append(out)
        result = torch.stack(outs)[:count].view(*lead, *outs[0].shape)
        if not weights:
            return result
        return result, (edges, torch.stack(alphas)[:count].view(*lead, *alphas[0].shape))

    def _is_fused(self, edge_index: Any) -> bool:
        if self._changed or self.node_dim != 0 or type(self.aggr_module) is not SumAggregation:
            return False
        if self.lin_edge is not None and inputs.is_sparse(edge_index):
            return False
        return fusing.runs_unchanged(self)

    def _score_edges(self, edge_attr: Tensor) -> Tensor:
        lin, H, C = self.lin_edge, self.heads, self.out_channels
        assert lin is not None
        assert self.att_edge is not None
        if edge_attr.dim() == 1:
            edge_attr = edge_attr.view(-1, 1)
        if getattr(lin, "in_channels", None) == -1:
            lin(edge_attr[:1])  # a lazy layer takes its width from its first input
        hooked = lin._forward_hooks or lin._forward_pre_hooks  # masks of pruning among them
        if type(lin) is not torch_geometric.nn.Linear or hooked:
            return (lin(edge_attr).view(-1, H, C) * self.att_edge).sum(-1)
        # Fold both products into one [edge_dim, H] matrix: no [E, H * C] array.
        fold = (lin.weight.view(H, C, -1) * self.att_edge.view(H, C, 1)).sum(1)
        return edge_attr @ fold.t()


def _add(out: Tensor, other: Tensor) -> Tensor:
    """Add in place where the sum has the dtype of the output, which nothing else refers to."""
    if torch.promote_types(out.dtype, other.dtype) != out.dtype:
        return out + other
    return out.add_(other)
