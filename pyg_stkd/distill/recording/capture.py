"""What was seen of one module in one forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from pyg_stkd.checks import node_index
from pyg_stkd.distill.recording.disk.beside import Beside
from pyg_stkd.distill.recording.disk.graph_store import store_beside
from pyg_stkd.distill.recording.graph_cache import GraphCache
from pyg_stkd.distill.recording.reading.choices import Choice
from pyg_stkd.distill.recording.reading.counts import node_counts
from pyg_stkd.distill.recording.reading.inputs import (
    find_edge_index,
    find_input,
    has_two_sets,
    induced,
    is_plain,
    num_sources,
    usable,
)
from pyg_stkd.distill.recording.reading.layout import arrange
from pyg_stkd.distill.recording.reading.parts import (
    Select,
    first_tensor,
    map_tensors,
    parts_of,
    select_part,
    versions_of,
)
from pyg_stkd.distill.recording.reading.typed import edges_within, targets, typed_edges
from pyg_stkd.graph import Graph

__all__ = ["Call", "Capture", "Owner"]

Owner: TypeAlias = Literal["teacher", "student"]
Call: TypeAlias = int | Literal["last", "all"]
# Arguments by name, or what finds them when they are asked for.
Inputs: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None

# What is looked up once, and anew in a copy that is restricted to other nodes.
_OF_NODES = ("_node_index", "graph")


class Capture:
    r"""The output, the inputs and the graph of one call of one module.

    Losses read :attr:`features` (or :attr:`rows`) and :attr:`graph`; everything is looked up when
    it is asked for first. Where an output has several parts, such as features by type of node, the
    loss is given one capture for each of them; read alone, the value is the first tensor of the
    output, depth first through tuples, lists and dicts.

    The graph is that of the call: the argument named :obj:`edge_index`, :obj:`adj_t` or
    :obj:`adj`, or the first one that looks like a graph. Without one it is the graph that a
    sub-module built inside the call, and without that the graph given to the whole model.

    Args:
        output (Any): What the module returned.
        inputs (dict or callable, optional): The arguments of the call by name, or a function that
            returns them. (default: :obj:`None`)
        layer (str): Name of the module, :obj:`""` for the model itself. (default: :obj:`""`)
        owner (str): The model it is part of, :obj:`"teacher"` or :obj:`"student"`.
            (default: :obj:`"student"`)
        context (dict or callable, optional): The arguments of the call of the whole model by name.
            (default: :obj:`None`)
        built (Any): The graph that a sub-module built inside the call. (default: :obj:`None`)
        call (int): The number of the call, from 0. (default: :obj:`0`)
        nodes (Tensor, optional): The nodes, as index or mask, that :attr:`rows` is restricted to.
            (default: :obj:`None`)
        graphs (GraphCache, optional): Where built graphs are kept. (default: a new one)
        versions (dict, optional): The version of each tensor of the output, by its id, when the
            module returned it; those left out are not checked for later in-place operations.
            (default: the versions of now)
        grad (bool): Whether gradients were enabled in the call. (default: :obj:`True`)
        main (bool): Whether the output is a tuple of which only what comes first counts, as
            PyG's attention layers return under :obj:`return_attention_weights=True`.
            (default: :obj:`False`)
        choices (tuple): What pools of the model had chosen when the module returned.
            (default: :obj:`()`)
        of_edges (bool): Whether a message-passing layer around it called the module on its edges,
            so that rows are edges and no nodes. (default: :obj:`False`)

    Attributes:
        part: The key of the part that this is of the output, :obj:`""` for all of it.
        layout: The order of the axes of the value, before it is brought to that of this package.

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

    # What few captures have, of the class where they have not: they are made all the time.
    frozen = False
    restricted: Tensor | None = None
    centres: tuple[int, int] | None = None
    part: Hashable = ""
    layout = "BTNC"
    beside: Beside | None = None  # where what is in the memo is kept on disk

    def __init__(
        self,
        output: Any,
        inputs: Inputs = None,
        *,
        layer: str = "",
        owner: Owner = "student",
        context: Inputs = None,
        built: Any = None,
        call: int = 0,
        nodes: Tensor | None = None,
        graphs: GraphCache | None = None,
        versions: dict[int, int] | None = None,
        grad: bool = True,
        main: bool = False,
        choices: tuple[Choice, ...] = (),
        of_edges: bool = False,
    ) -> None:
        self.output = output
        self.layer = layer
        self.owner = owner
        self.built = built
        self.call = call
        self.nodes = nodes
        self.grad = grad
        self.main = main and isinstance(output, (tuple, list))
        self.choices = choices
        self.of_edges = of_edges
        self.memo: dict[Any, Any] = {}
        self._inputs = inputs
        self._context = context
        self._graphs = GraphCache() if graphs is None else graphs
        self._versions = versions_of(output) if versions is None else versions
        self._value = first_tensor(output)

    @cached_property
    def inputs(self) -> Mapping[str, Any]:
        """The arguments of the call by name."""
        return (self._inputs() if callable(self._inputs) else self._inputs) or {}

    @cached_property
    def context(self) -> Mapping[str, Any]:
        """The arguments of the call of the whole model by name."""
        return (self._context() if callable(self._context) else self._context) or {}

    @property
    def where(self) -> str:
        """The tap in words, for error messages."""
        layer = f"layer {self.layer!r}" if self.layer else "output"
        return f"{self.owner} {layer}" + ("" if self.part == "" else f", part {self.part!r}")

    @property
    def value(self) -> Tensor:
        """The tensor of this part of the output, its axes in the order B, T, N, C."""
        value = self._value
        if value is None:
            raise TypeError(
                f"The {self.where} must return a tensor, or a tuple, list or dict of tensors "
                f"(got {type(self.output).__name__})"
            )
        version = self._versions.get(id(value))
        if version is not None and version != value._version:
            raise RuntimeError(
                f"The captured {self.where} was rewritten in place after the module returned it "
                f"(version {version}, now {value._version}): make the operation that follows it "
                f"out-of-place (`relu` for `relu_`, `x = x + y` for `x += y`), or run it once "
                f"more: a copy is kept from now on"
            )
        return value if self.layout == "BTNC" else arrange(value, self.layout, self.where)

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
        axes = self.value.dim()
        return axes - 2 if axes > 1 else 0

    @property
    def num_nodes(self) -> int:
        """The number of nodes of the value."""
        value = self.value
        return value.size(-2 if value.dim() > 1 else 0)

    @property
    def node_index(self) -> Tensor | None:
        """The index of the nodes that the losses of this forward are restricted to, if any."""
        return None if self.nodes is None and self.centres is None else self._node_index

    @cached_property
    def _node_index(self) -> Tensor | None:
        if self.centres is not None:
            chosen = self.nodes
            if chosen is not None:
                of = f"targets of the {self.where}"
                chosen = node_index("nodes", chosen, self.centres[1], of=of)
            return targets(chosen, self.centres, self.value.device)
        if self.nodes is None:
            return None
        self.check_no_edges("'nodes' choose nodes")
        return node_index("nodes", self.nodes, self.num_nodes, of=f"rows of the {self.where}")

    @property
    def rows(self) -> Tensor:
        """The features of the nodes that the losses of this forward are restricted to."""
        features, index = self.features, self.node_index
        return features if index is None else features.index_select(self.node_dim, index)

    @cached_property
    def own_edge_index(self) -> Any | None:
        """The graph that the module itself was given or built, :obj:`None` if there is none."""
        own = find_edge_index(self.inputs)
        return self.built if own is None else own

    @cached_property
    def edge_index(self) -> Any | None:
        """The graph as the module was given it (or built it), :obj:`None` if there is none."""
        own = self.own_edge_index
        found = find_edge_index(self.context, self.inputs) if own is None else own
        if found is None:  # edges by type: those among the nodes of this type
            kind = self.part if self.part != "" else self.layer.split(".")[-1]
            among = edges_within(self.inputs, kind)
            found = edges_within(self.context, kind) if among is None else among
        return found

    @cached_property
    def graph(self) -> Graph:
        """The graph, sorted and ready for the sparse primitives."""
        edge_index = self.edge_index
        self.check_no_edges("a graph is of nodes")
        if edge_index is None:
            raise ValueError(
                f"No graph was found for the {self.where}: neither its inputs "
                f"({', '.join(self.inputs) or 'none'}) nor those of the model "
                f"({', '.join(self.context) or 'none'}) hold an edge_index or adj_t; give the loss "
                f"one (graph=...)"
            )
        # A graph that is built in each call is another one in the next.
        own = find_edge_index(self.inputs) is not None
        lasting = own or edge_index is not self.built
        whole = self.restricted is None and self.centres is None
        if own and whole and is_plain(self.inputs, self.value):
            return self._found(edge_index, lasting)
        sources = num_sources(self.inputs)
        if self.restricted is None and (self.bipartite or sources not in (None, self.num_nodes)):
            raise ValueError(
                f"The {self.where} must be called on one set of nodes, its graph is bipartite (got "
                f"{sources} sources and {self.num_nodes} targets); give the loss one (graph=...)"
            )
        if self.restricted is None and self.centres is None:
            self._check_nodes()
        return self._found(edge_index, lasting)

    def _found(self, edge_index: Any, lasting: bool) -> Graph:
        graph = self._graphs.get(edge_index, self.num_nodes, lasting)
        if self.beside is not None and graph is not edge_index:  # it is built for each use
            store_beside(graph, self.beside)
        return graph

    @cached_property
    def bipartite(self) -> bool:
        """Whether the module was called on two sets of nodes, be they as many."""
        return has_two_sets(self.inputs)

    def joined(
        self, part: Hashable, value: Tensor, edges: Any, centres: tuple[int, int] | None
    ) -> Capture:
        """Return a capture of the two ends of a type of edge: so many sources, then targets."""
        known = {"edge_index": edges, "own_edge_index": edges, "bipartite": False, "_value": value}
        memo = self.memo.setdefault(("of edges", part), {})
        known.update(memo=memo, beside=None)
        return self._copy(**known, part=part, layout="BTNC", centres=centres)

    def only(self, rows: Tensor, nodes: Tensor) -> Capture:
        """Return the same capture of some of its rows, which are these nodes of the model.

        Its graph is the one among them.
        """
        value = self.value.index_select(self.node_dim, rows)
        batch, edges = self._batch_of(rows, nodes), self.edge_index
        if edges is not None and self.own_edge_index is not None:
            edges = induced(edges, rows, self.num_nodes)
        elif edges is not None:  # that of the model
            edges = induced(edges, nodes, self.choices[0].sources if self.choices else None)
        chosen = self.nodes
        if chosen is not None:  # of the model's nodes, those that are here
            index = chosen.nonzero().view(-1) if chosen.dtype == torch.bool else chosen
            chosen = torch.isin(nodes, index).nonzero().view(-1)
        known = {"edge_index": edges, "batch": batch, "edge_weight": None, "_value": value}
        return self._copy(
            **known, layout="BTNC", nodes=chosen, restricted=nodes, memo={}, beside=None
        )

    def _batch_of(self, rows: Tensor, nodes: Tensor) -> Tensor | None:
        """Return the graphs of some rows, which are these nodes of the model."""
        own = find_input(self.inputs, "batch")
        if own is not None and own.numel() == self.num_nodes:
            return own.index_select(0, rows)
        batch = find_input(self.context, "batch") if own is None else own
        if batch is not None and self.choices and batch.numel() == self.choices[0].sources:
            return batch.index_select(0, nodes)
        return batch

    def check_no_edges(self, why: str) -> None:
        """Raise where the rows are edges; :obj:`why` says what needs nodes."""
        if self.of_edges:
            raise ValueError(
                f"The {self.where} must have one row for each node, {why} (got shape "
                f"{list(self.value.shape)}, a row for each edge, which the layer around it calls "
                f"it on): take that layer, or one before or behind it"
            )

    def _check_nodes(self) -> None:
        """Raise unless the rows are as many as the nodes of the call that the graph is of."""
        own = self.own_edge_index is not None
        counts = node_counts(self.inputs if own else self.context)
        if own and not counts and self.built is not None:
            counts = node_counts(self.context)
        if counts and self.num_nodes not in {*counts, 0}:  # of none, there is no structure
            listed = " or ".join(map(str, sorted(counts)))
            raise ValueError(
                f"The {self.where} must have one row for each of the {listed} nodes of its graph "
                f"(got shape {list(self.value.shape)}): take a layer of nodes, or give the loss "
                f"the graph of these rows (graph=...)"
            )
        if not own and self.layer and self.layout == "BTNC":
            self._look_for_edges(bool(counts))

    def _look_for_edges(self, known: bool) -> None:
        """Warn where a layer that was given no graph may have rows of nodes or of edges.

        Where the number of nodes is not known, raise.
        """
        edges: Any = self.edge_index
        listed = isinstance(edges, Tensor) and edges.layout == torch.strided and edges.dim() == 2
        if listed and edges.size(1) == self.num_nodes:
            if not known:
                raise ValueError(
                    f"The {self.where} must have one row for each node (got {self.num_nodes} rows, "
                    f"the number of edges, and nothing says how many nodes there are): take a "
                    f"layer of nodes, or if these are nodes say so by layout='NC'"
                )
            warnings.warn(
                f"The {self.where} has {self.num_nodes} rows, which is the number of nodes and "
                f"of edges: they are taken for nodes. Say so by layout='NC', or take another layer",
                stacklevel=2,
            )

    @property
    def graphs(self) -> GraphCache:
        """Where built graphs are kept."""
        return self._graphs

    @cached_property
    def edge_weight(self) -> Tensor | None:
        """The edge weights of the same call as :attr:`edge_index`, if any."""
        own = self.own_edge_index is not None
        return find_input(self.inputs if own else self.context, "edge_weight")

    @cached_property
    def batch(self) -> Tensor | None:
        """The batch vector of the call, else that of the whole model, if any."""
        batch = find_input(self.inputs, "batch")
        return find_input(self.context, "batch") if batch is None else batch

    def parts(self, select: Select = None, layout: str = "BTNC") -> dict[Hashable, Capture]:
        """Return a capture for each part of the output, or of what was selected of it.

        Raises:
            ValueError: If there is no such part.
        """
        if select is None and layout == self.layout and isinstance(self.output, Tensor):
            return {"": self}  # as nearly all are
        output = self.output[0] if self.main and select is None else self.output
        output = select_part(output, select)
        found = parts_of(output)
        if not found or (output is self.output and layout == self.layout and list(found) == [""]):
            return {"": self}
        if select is not None and not callable(select) and list(found) == [""]:
            found = {select: found[""]}
        return {
            key: self._copy(
                part=key,
                layout=layout,
                memo=self.memo.setdefault(("of part", key, layout), {}),
                beside=None,
                _value=value,
            )
            for key, value in found.items()
        }

    def at(self, nodes: Tensor | None, graphs: GraphCache | None = None) -> Capture:
        """Return the same capture restricted to other nodes."""
        return self._copy(nodes=nodes, _graphs=self._graphs if graphs is None else graphs)

    def freeze(self) -> Capture:
        """Return a detached capture that keeps the value and the graph, and nothing else alive."""
        kept = {
            name: usable(getattr(self, name)) for name in ("edge_index", "edge_weight", "batch")
        }
        typed = typed_edges(self.inputs) or typed_edges(self.context)
        if typed:
            kept["edge_index_dict"] = {kind: usable(edges) for kind, edges in typed.items()}
        sources = num_sources(self.inputs)
        if sources is not None:
            kept["size"] = sources, self.num_nodes
        for part in self.parts().values():
            _ = part.value  # as the module returned it, or an error
        output = self.output[0] if self.main else self.output
        output = map_tensors(lambda x: usable(x.detach()), output)
        named: Any = {"layer": self.layer, "owner": self.owner, "call": self.call}
        if self.own_edge_index is None:  # the graph is that of the model
            named["context"], kept = kept, {}
        out = Capture(output, kept, **named, choices=self.choices, of_edges=self.of_edges)
        out.frozen = True
        out.__dict__["bipartite"] = self.bipartite
        return out

    def to(self, device: torch.device | str) -> Capture:
        """Return the capture on another device."""
        output = map_tensors(lambda x: usable(x.to(device)), self.output)
        inputs, context = (
            {k: usable(x.to(device)) if hasattr(x, "to") else x for k, x in given.items()}
            for given in (self.inputs, self.context)
        )
        named: Any = {"layer": self.layer, "owner": self.owner, "call": self.call}
        out = Capture(output, inputs, context=context, of_edges=self.of_edges, **named)
        out.choices = tuple(
            Choice(n, None if nodes is None else nodes.to(device)) for n, nodes in self.choices
        )
        out.__dict__.update(nodes=self.nodes, grad=self.grad, frozen=self.frozen)
        if self.frozen:  # its inputs do not tell
            out.__dict__["bipartite"] = self.bipartite
        return out

    def _copy(self, **changes: Any) -> Capture:
        out = Capture.__new__(Capture)  # copy.copy would take the versions anew
        known = {k: v for k, v in self.__dict__.items() if k not in _OF_NODES}
        out.__dict__.update(known, **changes)
        return out

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._versions:  # copied tensors start at other versions
            self._versions = versions_of(self.output)

    def __getstate__(self) -> dict[str, Any]:
        # Bound functions hold the whole call: what they find is kept in their place.
        known = {"memo": {}, "beside": None, "_inputs": self.inputs, "_context": self.context}
        return {**self.__dict__, **known}

    def __repr__(self) -> str:
        value = first_tensor(self.output)
        shape = None if value is None else list(value.shape)
        return f"{type(self).__name__}({self.where}, call={self.call}, shape={shape})"
