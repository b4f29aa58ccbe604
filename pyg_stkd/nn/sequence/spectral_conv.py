"""What the spectral layers share: one propagation for all features of PyG's layers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, ClassVar

import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch_geometric.nn.aggr import SumAggregation

from pyg_stkd import checks
from pyg_stkd.graph import Graph
from pyg_stkd.nn.conv import fusing
from pyg_stkd.nn.scripting import refuse_script
from pyg_stkd.nn.sequence.cheb_filter import cheb_filter, cheb_terms
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, Propagation

__all__ = ["autocast", "edges_for_pyg", "SpectralConv", "weights_of"]

_LINEAR = (torch_geometric.nn.Linear, nn.Linear)
# Gradients of weights of edges go through a dense matrix up to here.
_MOST_WEIGHTED_NODES = 1024


class SpectralConv:
    """A mix-in before a layer of PyG, whose maps :meth:`maps` are filters of orders from first."""

    __prepare_scriptable__ = refuse_script

    first: ClassVar[int] = 0  # the order of the first map
    _changed: ClassVar[bool] = False
    bias: Tensor | None
    in_channels: int
    propagation: Propagation

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._changed = cls._changed or fusing.overrides_step(cls)

    def maps(self) -> Iterable[nn.Module]:
        """Return the linear maps, order after order."""
        raise NotImplementedError

    def rule(self) -> Hashable:
        """Return what the matrix of a graph depends on, besides the graph."""
        raise NotImplementedError

    def operator(
        self, x: Tensor, edge_index: Any, edge_weight: Tensor | None, lambda_max: float | None
    ) -> GraphOperator:
        """Return the matrix of a graph."""
        raise NotImplementedError

    def is_own(self) -> bool:
        """Tell whether nobody changed, or looks into, PyG's message passing."""
        state: Any = self
        usual = type(state._modules["aggr_module"]) is SumAggregation and state.node_dim == -2
        return not self._changed and usual and fusing.runs_unchanged(state)

    def operator_for(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        lambda_max: float | None = None,
    ) -> GraphOperator:
        """Return the matrix in the dtype of the input (:obj:`edge_index` itself if it is one)."""
        if isinstance(edge_index, GraphOperator):
            operator = edge_index.to(x.dtype)
        else:
            operator = self.operator(x, edge_index, edge_weight, lambda_max)
        if operator.num_nodes != x.size(-2):
            raise ValueError(
                f"'edge_index' must have the {x.size(-2)} nodes of 'x' [*, N, C] "
                f"(got {operator.num_nodes})"
            )
        return operator

    def filter(self, x: Tensor, operator: GraphOperator, residual: Tensor | None = None) -> Tensor:
        """Filter features [*, N, C]; :obj:`residual` [C, C'] is one more matrix of order 0."""
        lead = x.shape[:-2]
        steps = x if x.dim() == 4 else x.reshape(lead.numel(), 1, *x.shape[-2:])  # [B, T, N, C]
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weights = weights_of(self.maps())
        if weights is None:
            out = self._call_maps(steps, operator)
            out = out if bias is None else out + bias
            out = out if residual is None else out + steps @ residual
        else:
            weights = [weight.to(x.dtype) for weight in weights]
            if residual is not None:
                weights[0] = weights[0] + residual.t()
            out = cheb_filter(operator, steps, weights, bias, self.first)
        return out if x.dim() == 4 else out.view(*lead, *out.shape[2:])  # [*, N, C']

    def _call_maps(self, x: Tensor, operator: GraphOperator) -> Tensor:
        """Filter by calling each map, which may have hooks or be of a class of the user's."""
        maps = list(self.maps())
        terms = cheb_terms(operator, x, len(maps) - 1)
        out: Tensor = maps[0](terms[0])
        for lin, term in zip(maps[1:], terms[1:], strict=True):
            out = out + lin(term)
        return out

    def _check(self, x: Any, edge_weight: Any = None) -> None:
        checks.floating("x", x)
        if edge_weight is not None:
            checks.instance("edge_weight", edge_weight, Tensor)
        width = self.in_channels
        if x.dim() < 2 or (width != -1 and width != x.size(-1)):
            shown = "C" if width == -1 else width
            raise ValueError(f"'x' must have shape [*, N, {shown}] (got {list(x.shape)})")

    def _fuses(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> bool:
        """Whether propagation is a product with one matrix here."""
        if isinstance(edge_index, GraphOperator):
            return True
        large = x.size(-2) > _MOST_WEIGHTED_NODES
        if edge_weight is not None and edge_weight.requires_grad and large:
            return False
        return self.is_own()

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        # States of version 0.1 have one tensor [K, C, C'], perhaps masked.
        for suffix in ("", "_orig", "_mask"):
            old = state.pop(f"{prefix}weight{suffix}", None)
            for name, weight in zip(self._names(), () if old is None else old, strict=False):
                state[f"{prefix}{name}.weight{suffix}"] = weight.t().contiguous()
        super()._load_from_state_dict(state, prefix, *args)  # type: ignore[misc]

    def _names(self) -> Iterable[str]:
        """Return the names of the maps."""
        raise NotImplementedError


def autocast(x: Tensor) -> Tensor:
    """Return features in the dtype that autocast wants."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def edges_for_pyg(x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> tuple[Any, Any]:
    """Return edges and weights as PyG's message passing takes them."""
    if isinstance(edge_index, GraphOperator):
        raise TypeError(
            "'edge_index' must hold edges where PyG's message passing runs (got a GraphOperator)"
        )
    if not isinstance(edge_index, Graph):
        return edge_index, edge_weight
    graph = Graph.of(edge_index, x.size(-2))
    return graph.edge_index, graph.value if edge_weight is None else edge_weight


def weights_of(maps: Iterable[nn.Module]) -> list[Tensor] | None:
    """Return the matrices of linear maps, None where one of them must be called."""
    weights: list[Tensor] = []
    for lin in maps:
        hooked = lin._forward_hooks or lin._backward_hooks or lin._backward_pre_hooks
        if type(lin) not in _LINEAR or hooked or "forward" in lin.__dict__ or lin.bias is not None:
            return None
        for hook in lin._forward_pre_hooks.values():  # masks of torch.nn.utils.prune
            if not isinstance(hook, BasePruningMethod):
                return None
            hook(lin, None)
        weights.append(lin.weight)
    return weights
