"""What was seen of one module in one forward pass."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from pyg_stkd.checks import node_index
from pyg_stkd.distill.recording.graph_cache import GraphCache
from pyg_stkd.distill.recording.inputs import (
    find_edge_index,
    find_input,
    first_tensor,
    num_sources,
    tensor_version,
    usable,
)
from pyg_stkd.graph import Graph

__all__ = ["Call", "Capture"]

Owner: TypeAlias = Literal["teacher", "student"]
Call: TypeAlias = int | Literal["last", "all"]


class Capture:
    r"""The output, the inputs and the graph of one call of one module.

    Losses read :attr:`features` (or :attr:`rows`) and :attr:`graph`; everything is looked up when
    it is asked for. The output of a module is its first tensor, depth first through tuples, lists
    and dicts: of :obj:`(out, (edge_index, alpha))`, which PyG's attention layers return under
    :obj:`return_attention_weights=True`, it is :obj:`out`.

    The graph is that of the call: the argument named :obj:`edge_index`, :obj:`adj_t` or
    :obj:`adj`, or the first one that looks like a graph. Without one it is the graph that a
    sub-module built inside the call, and without that the graph given to the whole model.

    Args:
        output (Any): What the module returned.
        inputs (dict, optional): The arguments of the call by name. (default: :obj:`None`)
        layer (str): Name of the module, :obj:`""` for the model itself. (default: :obj:`""`)
        owner (str): The model it is part of, :obj:`"teacher"` or :obj:`"student"`.
            (default: :obj:`"student"`)
        context (dict, optional): The arguments of the call of the whole model by name.
            (default: :obj:`None`)
        built (Any): The graph that a sub-module built inside the call. (default: :obj:`None`)
        call (int): The number of the call, from 0. (default: :obj:`0`)
        nodes (Tensor, optional): The nodes, as index or mask, that :attr:`rows` is restricted to.
            (default: :obj:`None`)
        graphs (GraphCache, optional): Where built graphs are kept. (default: a new one)
        version (int, optional): The version of the output tensor when the module returned it;
            a negative one switches the check for later in-place operations off.
            (default: the version of now)
        grad (bool): Whether gradients were enabled in the call. (default: :obj:`True`)

    Raises:
        TypeError: When it is read, if the output holds no tensor or :attr:`features` are not of a
            floating point type.
        ValueError: When it is read, if there is no graph, or :attr:`nodes` do not fit.
        IndexError: When it is read, if :attr:`nodes` refer to a row that is not there.
        RuntimeError: When it is read, if the output was rewritten in place after the call.

    Example:
        >>> capture = Capture(torch.ones(3, 2), {"edge_index": torch.tensor([[0, 1], [1, 2]])})
        >>> capture.features.shape, capture.graph
        (torch.Size([3, 2]), Graph(num_nodes=3, num_edges=2))
    """

    def __init__(
        self,
        output: Any,
        inputs: dict[str, Any] | None = None,
        *,
        layer: str = "",
        owner: Owner = "student",
        context: dict[str, Any] | None = None,
        built: Any = None,
        call: int = 0,
        nodes: Tensor | None = None,
        graphs: GraphCache | None = None,
        version: int | None = None,
        grad: bool = True,
    ) -> None:
        self.output = output
        self.inputs = {} if inputs is None else inputs
        self.layer = layer
        self.owner = owner
        self.context = {} if context is None else context
        self.built = built
        self.call = call
        self.nodes = nodes
        self.grad = grad
        self.frozen = False
        self.memo: dict[Any, Any] = {}
        self._graphs = GraphCache() if graphs is None else graphs
        self._version = tensor_version(first_tensor(output)) if version is None else version

    @property
    def where(self) -> str:
        """The tap in words, for error messages."""
        layer = f"layer {self.layer!r}" if self.layer else "output"
        return f"{self.owner} {layer}"

    @property
    def value(self) -> Tensor:
        """The first tensor of the output, as the module returned it."""
        value = first_tensor(self.output)
        if value is None:
            raise TypeError(
                f"The {self.where} must return a tensor, or a tuple, list or dict of tensors "
                f"(got {type(self.output).__name__})"
            )
        if self._version >= 0 and tensor_version(value) != self._version:
            raise RuntimeError(
                f"The captured {self.where} was rewritten in place after the module returned it "
                f"(version {self._version}, now {tensor_version(value)}): make the operation that "
                f"follows it out-of-place (`relu` for `relu_`, `x = x + y` for `x += y`), or tap "
                f"the module that follows"
            )
        return value

    @property
    def features(self) -> Tensor:
        """The value in at least single precision."""
        value = self.value
        if not value.is_floating_point():
            raise TypeError(
                f"The captured {self.where} must be of a floating point type (got {value.dtype})"
            )
        if value.dim() == 0:
            raise ValueError(f"The captured {self.where} must have one row a node (got a scalar)")
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    @property
    def node_dim(self) -> int:
        """The axis of the nodes: the second to last, or the only one."""
        return max(self.value.dim() - 2, 0)

    @property
    def num_nodes(self) -> int:
        """The number of nodes of the value."""
        return self.value.size(self.node_dim)

    @property
    def node_index(self) -> Tensor | None:
        """The index of the nodes that the losses of this forward are restricted to, if any."""
        if self.nodes is None:
            return None
        return node_index("nodes", self.nodes, self.num_nodes, of=f"rows of the {self.where}")

    @property
    def rows(self) -> Tensor:
        """The features of the nodes that the losses of this forward are restricted to."""
        index = self.node_index
        if index is None:
            return self.features
        return self.features.index_select(self.node_dim, index)

    @property
    def edge_index(self) -> Any | None:
        """The graph as the module was given it (or built it), :obj:`None` if there is none."""
        own = find_edge_index(self.inputs)
        found = self.built if own is None else own
        return find_edge_index(self.context, self.inputs) if found is None else found

    @property
    def graph(self) -> Graph:
        """The graph, sorted and ready for the sparse primitives."""
        edge_index = self.edge_index
        if edge_index is None:
            raise ValueError(
                f"No graph was found for the {self.where}: neither its inputs "
                f"({', '.join(self.inputs) or 'none'}) nor those of the model "
                f"({', '.join(self.context) or 'none'}) hold an edge_index or adj_t; give the loss "
                f"one (graph=...)"
            )
        sources = num_sources(self.inputs)
        if sources not in (None, self.num_nodes):
            raise ValueError(
                f"The {self.where} must be called on one set of nodes, its graph is bipartite (got "
                f"{sources} sources and {self.num_nodes} targets); give the loss one (graph=...)"
            )
        return self._graphs.get(edge_index, self.num_nodes)

    @property
    def graphs(self) -> GraphCache:
        """Where built graphs are kept."""
        return self._graphs

    @property
    def edge_weight(self) -> Tensor | None:
        """The edge weights of the same call as :attr:`edge_index`, if any."""
        own = find_edge_index(self.inputs) is not None or self.built is not None
        return find_input(self.inputs if own else self.context, "edge_weight")

    @property
    def batch(self) -> Tensor | None:
        """The batch vector of the call, else that of the whole model, if any."""
        batch = find_input(self.inputs, "batch")
        return find_input(self.context, "batch") if batch is None else batch

    def at(self, nodes: Tensor | None, graphs: GraphCache) -> Capture:
        """Return the same capture restricted to other nodes."""
        out = self._copy()
        out.nodes, out._graphs = nodes, graphs
        return out

    def freeze(self) -> Capture:
        """Return a detached capture that keeps the value and the graph, and nothing else alive."""
        kept = {
            name: usable(getattr(self, name)) for name in ("edge_index", "edge_weight", "batch")
        }
        sources = num_sources(self.inputs)
        if sources is not None:
            kept["size"] = sources, self.num_nodes
        value = usable(self.value.detach())
        out = Capture(value, kept, layer=self.layer, owner=self.owner, call=self.call)
        out.frozen = True
        return out

    def to(self, device: torch.device | str) -> Capture:
        """Return the capture on another device."""
        out = self._copy()
        out.memo = {}
        out.output = usable(self.value.to(device))
        out.inputs = {
            name: usable(item.to(device)) if hasattr(item, "to") else item
            for name, item in self.inputs.items()
        }
        out._version = tensor_version(out.output)
        return out

    def _copy(self) -> Capture:
        out = Capture.__new__(Capture)  # copy.copy would take the version anew
        out.__dict__.update(self.__dict__)
        return out

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._version >= 0:  # a copied tensor starts at another version
            self._version = tensor_version(first_tensor(self.output))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "memo": {}}

    def __repr__(self) -> str:
        value = first_tensor(self.output)
        shape = None if value is None else list(value.shape)
        return f"{type(self).__name__}({self.where}, call={self.call}, shape={shape})"
