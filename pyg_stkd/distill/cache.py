"""What need not be computed again: sorted graphs, and the outputs of a fixed teacher."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyg_stkd.graph import Graph

if TYPE_CHECKING:
    from pyg_stkd.distill.capture import Capture
    from pyg_stkd.distill.distiller import Distiller

__all__ = ["GraphCache", "TeacherCache", "TeacherCaptures"]


class GraphCache:
    r"""The graphs built last, so that a fixed :obj:`edge_index` is sorted once.

    A graph is found again by the object it was built from, or by equal edges. Copies and pickles
    of a cache are empty.

    Args:
        size (int): The number of graphs that are kept. (default: :obj:`4`)

    Example:
        >>> cache, edge_index = GraphCache(), torch.tensor([[0, 1], [1, 0]])
        >>> cache.get(edge_index, 2) is cache.get(edge_index.clone(), 2)
        True
    """

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self._graphs: list[tuple[Any, int, int, Graph]] = []
        self._derived: OrderedDict[Hashable, tuple[tuple[Graph, ...], Graph]] = OrderedDict()

    def get(self, edge_index: Any, num_nodes: int) -> Graph:
        """Return the graph of :obj:`edge_index`, built if need be."""
        if isinstance(edge_index, Graph):
            return Graph.of(edge_index, num_nodes)
        for i, (given, version, size, graph) in enumerate(self._graphs):
            if size == num_nodes and _same(given, version, edge_index):
                self._graphs.append(self._graphs.pop(i))
                return graph
        graph = Graph.of(edge_index, num_nodes)
        self._graphs = [*self._graphs, (edge_index, _version(edge_index), num_nodes, graph)]
        self._graphs = self._graphs[-self.size :]
        return graph

    def derive(self, name: str, build: Callable[..., Graph], *graphs: Graph) -> Graph:
        """Return :obj:`build(*graphs)`, kept for as long as these very graphs are used."""
        key = (name, *(id(graph) for graph in graphs))
        if key not in self._derived:
            # The sources are kept too: an id is taken again once its object is gone.
            self._derived[key] = graphs, build(*graphs)
        self._derived.move_to_end(key)
        while len(self._derived) > self.size:
            self._derived.popitem(last=False)
        return self._derived[key][1]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size,)


class TeacherCaptures(Mapping[str, "tuple[Capture, ...]"]):
    r"""The captures of a teacher for one input, by layer, to be used instead of running it.

    Made by :meth:`Distiller.capture_teacher`, given back as :obj:`distiller(..., teacher=...)`.

    Args:
        captures (dict): The calls of each layer, in order; :obj:`""` is the output of the model.

    Attributes:
        graphs: The graphs of this input, which stay sorted for as long as the captures are kept.

    Example:
        >>> from pyg_stkd.distill import Capture
        >>> TeacherCaptures({"": (Capture(torch.ones(3, 2)),)})
        TeacherCaptures('': [3, 2])
    """

    def __init__(self, captures: Mapping[str, tuple[Capture, ...]]) -> None:
        self.graphs = GraphCache()
        self._captures = {
            layer: tuple(capture.at(None, self.graphs) for capture in calls)
            for layer, calls in captures.items()
        }

    def __getitem__(self, layer: str) -> tuple[Capture, ...]:
        return self._captures[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._captures)

    def __len__(self) -> int:
        return len(self._captures)

    def to(self, device: torch.device | str) -> TeacherCaptures:
        """Return the captures on another device."""
        return TeacherCaptures(
            {layer: tuple(c.to(device) for c in calls) for layer, calls in self.items()}
        )

    def __repr__(self) -> str:
        items = (
            f"{k!r}: {', '.join(str(list(c.value.shape)) for c in v)}" for k, v in self.items()
        )
        return f"{type(self).__name__}({', '.join(items)})"


class TeacherCache:
    r"""The captures of a fixed teacher for each of a fixed set of inputs.

    A frozen teacher says the same of the same graph in every epoch: run it once.

    Args:
        distiller (Distiller): The distiller whose teacher is asked.

    Example:
        >>> from pyg_stkd.distill import Distiller, SoftTargetLoss
        >>> teacher, student = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        >>> distiller = Distiller(teacher, student, [SoftTargetLoss()])
        >>> cache, x = TeacherCache(distiller), torch.ones(4, 2)
        >>> for epoch in range(2):
        ...     out, losses = distiller(x, teacher=cache("train", x))
        >>> len(cache)
        1
    """

    def __init__(self, distiller: Distiller) -> None:
        self._distiller = distiller
        self._captures: dict[Hashable, TeacherCaptures] = {}

    def __call__(self, key: Hashable, *args: Any, **kwargs: Any) -> TeacherCaptures:
        """Return the captures of the input named :obj:`key`; the first call runs the teacher."""
        if key not in self._captures:
            self._captures[key] = self._distiller.capture_teacher(*args, **kwargs)
        return self._captures[key]

    def clear(self) -> None:
        """Forget all captures, for example after the teacher's weights were changed."""
        self._captures.clear()

    def __len__(self) -> int:
        return len(self._captures)


def _version(edge_index: Any) -> int:
    counted = isinstance(edge_index, Tensor) and not edge_index.is_inference()
    return edge_index._version if counted else 0


def _same(given: Any, version: int, edge_index: Any) -> bool:
    if version != _version(given):
        return False  # rewritten in place since
    if given is edge_index:
        return True
    if type(given) is not Tensor or type(edge_index) is not Tensor:
        return False
    if given.layout != torch.strided or edge_index.layout != torch.strided:
        return False
    if given.device != edge_index.device or given.shape != edge_index.shape:
        return False
    return given.dtype == edge_index.dtype and torch.equal(given, edge_index)
