"""Edge convolutions on given and on dynamic graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch_geometric.nn
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import MaxAggregation
from torch_geometric.typing import SparseTensor

from pyg_stkd import checks
from pyg_stkd.graph import Graph
from pyg_stkd.graph.order import assumed
from pyg_stkd.nn.conv import fusing
from pyg_stkd.nn.conv.edge_network import EdgeBlock, read_edge_network
from pyg_stkd.nn.conv.fused_edge_conv import fused_edge_conv
from pyg_stkd.nn.conv.knn_graph import KNNGraph, pair_of
from pyg_stkd.nn.scripting import refuse_script

__all__ = ["DynamicEdgeConv", "EdgeConv"]


class EdgeConv(torch_geometric.nn.EdgeConv):
    r"""The edge convolutional operator from the `"Dynamic Graph CNN for Learning on Point Clouds"
    <https://arxiv.org/abs/1801.07829>`_ paper (Eqs. 1 and 8).

    .. math::
        \mathbf{x}^{\prime}_i = \max_{j \in \mathcal{N}(i)}
        h_{\mathbf{\Theta}}(\mathbf{x}_i \, \Vert \, \mathbf{x}_j - \mathbf{x}_i)

    A :class:`torch_geometric.nn.EdgeConv` with the same parameters and results for any :obj:`nn`.
    Where :obj:`nn` is one linear layer, with or without batch normalisation and a monotone
    activation, and :obj:`aggr="max"`, no array of edges is built: the linear layer splits into
    :math:`(\mathbf{W}_1 - \mathbf{W}_2) \mathbf{x}_i + \mathbf{W}_2 \mathbf{x}_j`, the statistics
    over edges follow from those of nodes and one sparse product, and the maximum comes before the
    activation. That path is exact, running statistics and derivatives of any order included, and
    in half precision rounds its output alone (the products are of single precision). All else
    runs PyG's own message passing: hooks inside :obj:`nn` for example, or, in training, features
    that differ so much less between neighbours than between places that the two terms above would
    cancel (checked unless compiled).

    Unlike PyG's layer, this one keeps the weights of :obj:`nn` as they are given (they may be
    pre-trained); :meth:`reset_parameters` draws new ones. It cannot be compiled by
    :func:`torch.jit.script` (use :func:`torch.compile`).

    Args:
        nn (torch.nn.Module): A network :math:`h_{\mathbf{\Theta}}` that maps edge features
            :math:`(|\mathcal{E}|, 2 F_{in})` to :math:`(|\mathcal{E}|, F_{out})`, such as a
            :class:`torch.nn.Sequential`.
        aggr (str, optional): The aggregation (:obj:`"max"`, :obj:`"add"`, :obj:`"mean"`, ...).
            (default: :obj:`"max"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, or a pair of those of sources
          and targets of a bipartite graph; edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** node features :math:`(|\mathcal{V}|, F_{out})`, 0 where no edge enters

    Raises:
        ValueError: If the features do not fit the linear layer or the graph.

    Example:
        >>> import torch
        >>> conv = EdgeConv(torch.nn.Linear(2, 1, bias=False))
        >>> conv.nn.weight.data = torch.tensor([[1.0, 10.0]])
        >>> conv(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[1, 2], [0, 0]]))
        tensor([[30.],
                [ 0.],
                [ 0.]], grad_fn=...)
    """

    __prepare_scriptable__ = refuse_script
    _fused: ClassVar[bool] = True
    propagate = MessagePassing.propagate  # not the one that PyG generated for its own EdgeConv

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if fusing.overrides_step(cls):
            cls._fused = False

    def __init__(self, nn: Callable[..., Tensor], aggr: Any = "max", **kwargs: Any) -> None:
        MessagePassing.__init__(self, aggr=aggr, **kwargs)
        self.nn = nn

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | SparseTensor | Graph,
    ) -> Tensor:
        """Run the layer.

        Args:
            x (Tensor or (Tensor, Tensor)): Node features, or those of sources and of targets.
            edge_index (Tensor, EdgeIndex, SparseTensor or Graph): The edges. Give a
                :class:`~pyg_stkd.graph.Graph` to sort them only once.
        """
        pair = pair_of("x", x)
        for part in pair:
            checks.instance("x", part, Tensor)
        block = self._block()
        if block is not None and pair[0].layout == pair[1].layout == torch.strided:
            _check(pair, block)
            graph = Graph.of(edge_index, (pair[0].size(0), pair[1].size(0)))
            # Batch normalisation has its own word on a single edge.
            if assumed(graph.num_edges > 1):
                out = fused_edge_conv(block, pair, graph)
                if out is not None:
                    return out
        if isinstance(edge_index, Graph):
            edge_index = edge_index.edge_index
        # propagate_type: (x: PairTensor)
        return self.propagate(edge_index, x=pair)

    def _block(self) -> EdgeBlock | None:
        """Return the parts of the network if the layer may run without edges now."""
        usual = self._fused and type(self.aggr_module) is MaxAggregation
        if not usual or not fusing.runs_unchanged(self):
            return None
        return read_edge_network(self.nn)


class DynamicEdgeConv(EdgeConv):
    r"""The dynamic edge convolutional operator from the `"Dynamic Graph CNN for Learning on Point
    Clouds" <https://arxiv.org/abs/1801.07829>`_ paper: an :class:`EdgeConv` on the graph of the
    nearest neighbours in the space of its input.

    Each point is one of its own :math:`k` neighbours, as in
    :class:`torch_geometric.nn.DynamicEdgeConv`, whose :obj:`state_dict` fits; unlike that layer it
    needs no extension. The graph is built by :obj:`self.knn`, a :class:`KNNGraph`.

    Args:
        nn (torch.nn.Module): The network of edges, see :class:`EdgeConv`.
        k (int): Number of nearest neighbours, the point itself included.
        aggr (str, optional): The aggregation. (default: :obj:`"max"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, batch vector
          :math:`(|\mathcal{V}|)` *(optional)*; or pairs of both, of sources and of targets
        - **output:** node features :math:`(|\mathcal{V}|, F_{out})`

    Raises:
        ValueError: If :obj:`k` is not an integer of at least 1, or the features, their clouds or
            :obj:`batch` are not as :func:`~pyg_stkd.functional.knn_graph` and :class:`EdgeConv`
            want them.

    Example:
        >>> import torch
        >>> conv = DynamicEdgeConv(torch.nn.Linear(2, 1, bias=False), k=2)
        >>> conv.nn.weight.data = torch.tensor([[1.0, 10.0]])
        >>> conv(torch.tensor([[0.0], [1.0], [5.0]]))
        tensor([[10.],
                [ 1.],
                [ 5.]], grad_fn=...)
    """

    def __init__(self, nn: Callable[..., Tensor], k: int, aggr: Any = "max", **kwargs: Any) -> None:
        if kwargs.pop("flow", "source_to_target") != "source_to_target":
            raise ValueError("'flow' must be 'source_to_target' on a dynamic graph")
        kwargs.pop("num_workers", None)  # the search of PyG's layer has such an option
        super().__init__(nn, aggr, **kwargs)
        self.k = k
        self.knn = KNNGraph(k, loop=True)

    def forward(  # type: ignore[override]
        self,
        x: Tensor | tuple[Tensor, Tensor],
        batch: Tensor | tuple[Tensor | None, Tensor | None] | None = None,
    ) -> Tensor:
        """Run the layer.

        Args:
            x (Tensor or (Tensor, Tensor)): Node features; a pair for the neighbours of the second
                among the first.
            batch (Tensor or (Tensor, Tensor), optional): The cloud of each point, in ascending
                order.
        """
        for part in pair_of("x", x):
            if not isinstance(part, Tensor) or part.dim() != 2:
                shape = list(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise ValueError(
                    f"'x' must be a tensor of shape [N, F], or a pair of them (got {shape})"
                )
        # propagate_type: (x: PairTensor)
        return super().forward(x, self.knn(x, batch))

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(nn={self.nn}, k={self.k})"


DynamicEdgeConv.propagate = MessagePassing.propagate  # in the class, it would be an override


def _check(x: tuple[Tensor, Tensor], block: EdgeBlock) -> None:
    width = block.linear.weight.size(1) // 2
    for part in x:
        checks.floating("x", part)
        if part.dim() != 2 or part.size(1) != width or 2 * width != block.linear.weight.size(1):
            raise ValueError(
                f"'x' must have shape [N, {block.linear.weight.size(1) / 2:g}], half the inputs of "
                f"'nn' (got {list(part.shape)})"
            )
