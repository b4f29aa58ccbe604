"""The batches of a fit, read: what the models take, the labels, and what the teacher says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from pyg_stkd.distill.cache import TeacherCache
from pyg_stkd.distill.streams import Stream
from pyg_stkd.distill.training import Batch, Criterion, Unpack, of_models

__all__ = ["Batches", "Item"]


@dataclass(frozen=True)
class Item:
    """A batch, and the rows of its output that the task's loss counts (default: all)."""

    batch: Batch
    rows: Tensor | None = None

    def task(self, criterion: Criterion) -> Criterion:
        """Return the task's loss on the rows that count.

        Example:
            >>> item = Item(((), {}, None), rows=torch.tensor([1]))
            >>> item.task(lambda out, y: (out - y).sum())(torch.ones(3), torch.zeros(3)).item()
            1.0
        """
        if self.rows is None:
            return criterion

        def on_rows(out: Any, target: Any) -> Tensor:
            if not isinstance(out, Tensor):
                raise TypeError(
                    "'distiller' must have a student that returns a tensor, or unpack=batch -> "
                    f"(args, kwargs, target) must be given (got {type(out).__name__})"
                )
            return criterion(out[self.rows], target[self.rows])

        return on_rows


class Batches:
    r"""Two streams of batches, read alike.

    Args:
        labelled (iterable): Batches with labels.
        unlabelled (iterable, optional): Batches without.
        unpack (callable, optional): Returns :obj:`(args, kwargs, target)` of a batch.
        cache (TeacherCache, optional): Keeps what the teacher says of the batches of lists.
        labels (bool): Whether labels are looked at: else Data may come without.
            (default: :obj:`True`)

    Raises:
        TypeError: If a batch cannot be read, or a loader gives its batches only once.
        ValueError: If a loader is empty, or the two give batches of other kinds.

    Example:
        >>> batches = Batches([(1, 2, 3)], [(4, 5)], None, None)
        >>> batches.next(True).batch, batches.next(False).batch
        (((1, 2), {}, 3), ((4, 5), {}, None))
    """

    def __init__(
        self,
        labelled: Iterable[Any],
        unlabelled: Iterable[Any] | None,
        unpack: Unpack | None,
        cache: TeacherCache | None,
        labels: bool = True,
    ) -> None:
        self._labels = labels
        self._streams = {True: Stream(labelled, "labelled")}
        self._unpack = unpack
        self._cache = cache
        self._inputs: int | None = None  # of a tuple
        first = self._streams[True].first()
        if unpack is None and isinstance(first, (tuple, list)):
            self._inputs = len(first) - 1
        self._firsts = {True: self.read(first, True)}
        if unlabelled is not None:
            self._streams[False] = Stream(unlabelled, "unlabelled")
            other = self._streams[False].first()
            if _kind(other) != _kind(first):
                raise ValueError(
                    "'labelled' and 'unlabelled' must give batches of one kind "
                    f"(got {_kind(first)} and {_kind(other)})"
                )
            self._firsts[False] = self.read(other, False)
            _check_alike(*(self._firsts[labelled].batch for labelled in (True, False)))

    @property
    def listed(self) -> bool:
        """Whether any batches are in a list, so that what is said of them can be kept."""
        return any(stream.listed for stream in self._streams.values())

    @property
    def is_read_by_default(self) -> bool:
        """Whether batches are Data of which the models take :obj:`x` and :obj:`edge_index`."""
        return self._unpack is None and self._inputs is None

    def first(self, labelled: bool) -> Item:
        """Return a batch to look at, which the teacher has not been asked about."""
        return self._firsts[labelled]

    def next(self, labelled: bool) -> Item:
        """Return the next batch, with what the teacher says of it if that is kept."""
        number, batch = self._streams[labelled].next()
        item = self.read(batch, labelled)
        if self._cache is None or number is None:
            return item
        args, kwargs, target = item.batch
        if "teacher" in kwargs:
            return item
        own = {"teacher_args": kwargs["teacher_args"]} if "teacher_args" in kwargs else {}
        known = self._cache((labelled, number), *args, **own, **of_models(kwargs))
        more = {name: kwargs[name] for name in kwargs if name != "teacher_args"}
        return Item((args, {**more, "teacher": known}, target), item.rows)

    def state(self) -> list[dict[str, Any]]:
        """Return the places in the loaders."""
        return [stream.state() for stream in self._streams.values()]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Go back to places in the loaders."""
        for stream, place in zip(self._streams.values(), state, strict=True):
            stream.restore(place)

    def read(self, batch: Any, labelled: bool) -> Item:
        """Return a batch of a loader, read."""
        name = "labelled" if labelled else "unlabelled"
        if self._unpack is not None:
            read = self._unpack(batch)
            kinds = [type(part).__name__ for part in read] if isinstance(read, tuple) else []
            if (
                len(kinds) != 3
                or not isinstance(read[0], (tuple, list))
                or not isinstance(read[1], dict)
            ):
                got = f"({', '.join(kinds)})" if kinds else type(read).__name__
                raise TypeError(
                    "'unpack' must return (args, kwargs, target), a tuple, a dict and the labels "
                    f"(got {got})"
                )
            args, kwargs, target = read
            return Item((args, kwargs, target if labelled else None))
        if self._inputs is not None and isinstance(batch, (tuple, list)):
            return Item(_of_tuple(name, batch, self._inputs, labelled))
        if isinstance(batch, Data):
            return _of_data(name, batch, labelled, self._labels)
        raise TypeError(
            f"'{name}' must give tuples (*inputs, target) or Data with x, edge_index and y; else "
            f"give unpack=batch -> (args, kwargs, target) (got {type(batch).__name__})"
        )


def _of_tuple(name: str, batch: Any, inputs: int, labelled: bool) -> Batch:
    sizes = (inputs + 1,) if labelled else (inputs, inputs + 1)
    if inputs < 1 or len(batch) not in sizes:
        rule = f"{max(inputs, 1)} inputs and the target"
        rule += "" if labelled else ", which may be left out, as 'labelled' does"
        raise ValueError(f"'{name}' must give tuples of {rule} (got {len(batch)} entries)")
    return tuple(batch[:inputs]), {}, batch[-1] if labelled else None


# What a model may need, or what says that rows of the output are not those of nodes.
_MORE = ("edge_weight", "edge_attr", "edge_label_index")


def _of_data(name: str, batch: Data, labelled: bool, labels: bool) -> Item:
    needed = ("x", "edge_index", *(("y",) if labelled and labels else ()))
    missing = [key for key in needed if getattr(batch, key, None) is None]
    more = [key for key in _MORE if getattr(batch, key, None) is not None]
    if missing or more:
        got = f"no {', '.join(missing)}" if missing else f"{', '.join(more)} too"
        raise ValueError(
            f"'{name}' must give Data with {', '.join(needed)}, the only inputs of the models, or "
            f"unpack=batch -> (args, kwargs, target) must be given (got {got})"
        )
    rows: Tensor | None = None
    kwargs: dict[str, Any] = {}
    if getattr(batch, "input_id", None) is not None:  # the seeds of a sampled neighbourhood
        rows = kwargs["nodes"] = torch.arange(batch.batch_size, device=batch.x.device)
    elif labelled and getattr(batch, "train_mask", None) is not None:
        rows = batch.train_mask
        if rows.dtype != torch.bool or rows.shape != (batch.num_nodes,) or not bool(rows.any()):
            raise ValueError(
                f"'{name}' must give Data with a train_mask [N] of at least one node (got "
                f"{int(rows.sum())} of shape {list(rows.shape)} and {rows.dtype} for "
                f"{batch.num_nodes} nodes)"
            )
    target = getattr(batch, "y", None) if labelled else None
    return Item(((batch.x, batch.edge_index), kwargs, target), rows)


def _kind(batch: Any) -> str:
    for kind in (Data, HeteroData):
        if isinstance(batch, kind):  # or a batch of these
            return kind.__name__
    return "tuple" if isinstance(batch, (tuple, list)) else type(batch).__name__


def _check_alike(labelled: Batch, unlabelled: Batch) -> None:
    """Raise where inputs differ in more than their numbers of rows."""
    for i, (a, b) in enumerate(zip(labelled[0], unlabelled[0], strict=False)):
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        if both and (a.dim() != b.dim() or a.is_floating_point() != b.is_floating_point()):
            raise ValueError(
                f"'labelled' and 'unlabelled' must give the same inputs (got {list(a.shape)} of "
                f"{a.dtype} and {list(b.shape)} of {b.dtype} as number {i + 1})"
            )
