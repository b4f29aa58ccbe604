"""What the processes of torch.distributed must agree on; nothing where there is only one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["average", "check_same", "first", "gathered", "rank", "several", "summed", "together"]

T = TypeVar("T")


def several() -> bool:
    """Tell whether there is more than one process.

    Example:
        >>> several()
        False
    """
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the number of this process, 0 where there is only one.

    Example:
        >>> rank()
        0
    """
    return dist.get_rank() if several() else 0


def summed(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes.

    Example:
        >>> summed(torch.ones(2))
        tensor([1., 1.])
    """
    if not several():
        return tensor
    total = tensor.to(_device(), torch.promote_types(tensor.dtype, torch.float32), copy=True)
    dist.all_reduce(total)
    return total.to(tensor)


def average(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the means of tensors over the processes."""
    if not several():
        return dict(tensors)
    return {name: summed(tensor) / dist.get_world_size() for name, tensor in tensors.items()}


def first(value: T) -> T:
    """Return what the first process has.

    Example:
        >>> first({"a": 1})
        {'a': 1}
    """
    if not several():
        return value
    if isinstance(value, Tensor):
        sent = value.to(_device(), copy=True)
        dist.broadcast(sent, src=0)
        return sent.to(value)  # type: ignore[return-value]
    values = [value]
    dist.broadcast_object_list(values, src=0, device=_device())
    return values[0]


def gathered(value: T) -> list[T]:
    """Return what each process has, in their order.

    Example:
        >>> gathered(5)
        [5]
    """
    if not several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check_same(what: str, content: Callable[[], Any]) -> None:
    """Raise, in all processes, unless all of them have the same content, told by its hash.

    Example:
        >>> check_same("channels", lambda: {"lin": torch.ones(3)})
    """
    if not several():
        return
    hashes = gathered(_hash(content()))
    if len(set(hashes)) > 1:
        raise RuntimeError(
            f"All processes must have the same {what} (got the hashes "
            f"{', '.join(value[:8] for value in hashes)})"
        )


@contextmanager
def together() -> Iterator[None]:
    """Run a block that may fail in one process: then it fails in all, and none waits for ever."""
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    failed = [i for i, bad in enumerate(gathered(error is not None)) if bad]
    if error is not None:
        raise error
    if failed:
        raise RuntimeError(f"Process {failed[0]} has failed, and no other can go on without it")


def _device() -> torch.device:
    """Return where the backend takes tensors from."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _hash(content: Any) -> str:
    found = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, Mapping):
            for key in sorted(item):
                add(key)
                add(item[key])
        elif isinstance(item, (list, tuple)):
            for part in item:
                add(part)
        elif isinstance(item, Tensor):
            found.update(repr((item.dtype, tuple(item.shape))).encode())
            found.update(item.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        else:
            found.update(repr(item).encode())

    add(content)
    return found.hexdigest()
