"""The batches of a fit, read: what the models take, the labels, and what the teacher says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch_geometric.data import Data, HeteroData

from pyg_stkd.distill.cache import TeacherCache
from pyg_stkd.distill.fitting.streams import Stream
from pyg_stkd.distill.training import Batch, Unpack, of_data, of_models

__all__ = ["Batches"]


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
        >>> batches.next(True), batches.next(False)
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
            _check_alike(*(self._firsts[labelled] for labelled in (True, False)))

    @property
    def listed(self) -> bool:
        """Whether any batches are in a list, so that what is said of them can be kept."""
        return any(stream.listed for stream in self._streams.values())

    @property
    def reading(self) -> str | None:
        """What the models take of a batch that is read by default, in words."""
        if self._unpack is not None:
            return None
        if self._inputs is None:
            return "x and edge_index of the Data"
        return f"the first {self._inputs} of the {self._inputs + 1} entries of a tuple"

    def first(self, labelled: bool) -> Batch:
        """Return a batch to look at, which the teacher has not been asked about."""
        return self._firsts[labelled]

    def next(self, labelled: bool) -> Batch:
        """Return the next batch, with what the teacher says of it if that is kept."""
        number, batch = self._streams[labelled].next()
        args, kwargs, target = self.read(batch, labelled)
        if self._cache is None or number is None or "teacher" in kwargs:
            return args, kwargs, target
        own = {"teacher_args": kwargs["teacher_args"]} if "teacher_args" in kwargs else {}
        known = self._cache((labelled, number), *args, **own, **of_models(kwargs))
        more = {name: kwargs[name] for name in kwargs if name != "teacher_args"}
        return args, {**more, "teacher": known}, target

    def state(self) -> list[dict[str, Any]]:
        """Return the places in the loaders."""
        return [stream.state() for stream in self._streams.values()]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Go back to places in the loaders."""
        for stream, place in zip(self._streams.values(), state, strict=True):
            stream.restore(place)

    def read(self, batch: Any, labelled: bool) -> Batch:
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
            return args, kwargs, target if labelled else None
        if self._inputs is not None and isinstance(batch, (tuple, list)):
            return _of_tuple(name, batch, self._inputs, labelled)
        if isinstance(batch, Data):
            return of_data(name, batch, labelled, self._labels)
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
