"""Batches without end, labelled and unlabelled ones in turns."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data.data import BaseData

__all__ = ["Stream", "check_batches", "interleave", "on_unlabelled", "random_state", "set_random"]

T = TypeVar("T")


def check_batches(name: str, batches: Any) -> None:
    """Raise for what gives no batches, or gives them only once.

    Example:
        >>> check_batches("labelled", iter([1, 2]))
        Traceback (most recent call last):
        TypeError: 'labelled' must give its batches again each time that it is run through, as a
        list or a DataLoader does (got list_iterator)
    """
    one = (Iterator, Tensor, BaseData, str, dict)  # iterable, but a batch or gone after one pass
    if not isinstance(batches, Iterable) or isinstance(batches, one):
        raise TypeError(
            f"'{name}' must give its batches again each time that it is run through, as a list or "
            f"a DataLoader does (got {type(batches).__name__})"
        )


def on_unlabelled(step: int, share: float) -> bool:
    """Return whether a step is one on unlabelled inputs, evenly a share of all.

    Example:
        >>> [on_unlabelled(step, 0.5) for step in range(4)]
        [False, True, False, True]
        >>> sum(on_unlabelled(step, 0.3) for step in range(100))
        30
    """
    return int((step + 1) * share + 1e-9) > int(step * share + 1e-9)


class Stream:
    r"""The batches of a loader, pass after pass, and the place in it to come back to.

    A list or tuple is gone through in a new random order each time, and its batches have numbers
    that stay (keys of a :class:`~pyg_stkd.distill.TeacherCache`); other loaders decide their own
    order, and their batches have no number.

    Args:
        batches (iterable): What gives batches each time that it is run through.
        name (str): The argument that it came as, for errors. (default: :obj:`"batches"`)

    Example:
        >>> stream = Stream(["a", "b"])
        >>> sorted(stream.next() for _ in range(2))
        [(0, 'a'), (1, 'b')]
    """

    def __init__(self, batches: Iterable[Any], name: str = "batches") -> None:
        check_batches(name, batches)
        self.name = name
        self._batches = batches
        self.listed = isinstance(batches, (list, tuple))
        self._iterator: Iterator[tuple[int | None, Any]] = iter(())
        self._taken = 0  # of this pass
        self._start: dict[str, Any] | None = None  # random numbers at the start of this pass

    def first(self) -> Any:
        """Return a batch to look at; the stream and all random numbers stay as they were."""
        before = self._random()
        try:
            return next(iter(self._batches))
        except StopIteration:
            raise ValueError(f"'{self.name}' must give at least one batch (got none)") from None
        finally:
            self._set_random(before)

    def next(self) -> tuple[int | None, Any]:
        """Return the number of the next batch, if it has one, and the batch."""
        for _ in range(2):
            for item in self._iterator:
                self._taken += 1
                return item
            self._start, self._taken = self._random(), 0
            self._iterator = self._run()
        raise ValueError(f"'{self.name}' must give batches in every pass (got none)")

    def state(self) -> dict[str, Any]:
        """Return the place in the loader."""
        return {"start": self._start, "taken": self._taken}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a place: begin its pass again and skip what was taken of it."""
        self._start, self._taken = state["start"], state["taken"]
        if self._start is None:
            return
        now = self._random()
        self._set_random(self._start)
        self._iterator = self._run()
        for _ in range(self._taken):
            next(self._iterator)
        set_random(now)  # a generator of the loader's own is where the pass has left it

    def _run(self) -> Iterator[tuple[int | None, Any]]:
        if isinstance(self._batches, (list, tuple)):
            order = torch.randperm(len(self._batches)).tolist()
            return iter([(i, self._batches[i]) for i in order])
        return ((None, batch) for batch in self._batches)

    def _random(self) -> dict[str, Any]:
        state = random_state()
        generator = getattr(self._batches, "generator", None)
        if isinstance(generator, torch.Generator):
            state["generator"] = generator.get_state()
        return state

    def _set_random(self, state: dict[str, Any]) -> None:
        set_random(state)
        if "generator" in state:
            self._batches.generator.set_state(state["generator"])  # type: ignore[attr-defined]


def interleave(
    labelled: Iterable[T], unlabelled: Stream, share: float = 0.5
) -> Iterator[tuple[T | Any, bool]]:
    """Yield each labelled batch once, unlabelled ones in between, and whether it is labelled.

    Args:
        labelled (iterable): The labelled batches of an epoch.
        unlabelled (Stream): The unlabelled batches, which go on in the next epoch.
        share (float): The share of steps on unlabelled batches, below 1. (default: :obj:`0.5`)

    Example:
        >>> [kind for _, kind in interleave([1, 2], Stream([9]), share=0.5)]
        [True, False, True, False]
    """
    step = 0
    for batch in labelled:
        yield batch, True
        step += 1
        while on_unlabelled(step, share):
            yield unlabelled.next()[1], False
            step += 1


def random_state() -> dict[str, Any]:
    """Return the state of the global random numbers of torch, NumPy and Python.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(1)
        >>> set_random(state)
        >>> bool(torch.rand(1) == first)
        True
    """
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - that of others' code
    kind, keys, *rest = state
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def set_random(state: dict[str, Any]) -> None:
    """Set what :func:`random_state` returned, of the CUDA devices those that there are here."""
    torch.set_rng_state(state["torch"])
    for device, own in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(own, device)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
