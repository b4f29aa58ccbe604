"""The parts of an output: tensors in tuples, lists, dictionaries, dataclasses and ``Data``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor
from torch_geometric.data.data import BaseData

__all__ = [
    "Select",
    "all_parts",
    "copied",
    "first_tensor",
    "map_tensors",
    "parts_of",
    "select_part",
    "tensors_of",
    "versions_of",
]

# A key, an index or a field of an output, or a function of it.
Select: TypeAlias = Hashable | Callable[[Any], Any] | None


def parts_of(output: Any) -> dict[Hashable, Tensor]:
    """Return what losses compare of an output, by key: tensors of numbers with an axis or more.

    The keys are those of a dictionary, the numbers of a tuple or list, the names of a named tuple
    or dataclass; of what lies deeper, joined by dots; of a single tensor, :obj:`""`. Integers,
    such as an :obj:`edge_index`, and scalars, such as a model's own auxiliary loss, are no parts.
    An output without any such tensor has its first one.

    Example:
        >>> import torch
        >>> x, edge_index = torch.ones(3, 2), torch.tensor([[0], [1]])
        >>> list(parts_of({"paper": x, "author": (x, edge_index)})), list(parts_of((x, x.sum())))
        (['paper', 'author.0'], [0])
    """
    if isinstance(output, Tensor):
        return {"": output}
    every = dict(_walk(output))
    parts = {key: value for key, value in every.items() if is_part(value)}
    return parts or dict(list(every.items())[:1])


def all_parts(output: Any) -> dict[Hashable, Tensor]:
    """Return all tensors of an output by key, compared or not.

    Example:
        >>> import torch
        >>> list(all_parts((torch.ones(3, 2), torch.tensor(1.0))))
        [0, 1]
    """
    return dict(_walk(output))


def select_part(output: Any, select: Select) -> Any:
    """Return a part of an output, by its key, its number, its name, or by a function.

    Raises:
        ValueError: If there is no such part.

    Example:
        >>> select_part({"paper": 1}, "author")
        Traceback (most recent call last):
        ValueError: 'select' must be one of the parts 'paper' (got 'author')
    """
    if select is None:
        return output
    if callable(select):
        return select(output)
    children = _children(output)
    if children is None:
        raise ValueError(
            f"'select' must choose among parts, or be a function (got {select!r} for an output of "
            f"{type(output).__name__}): for the teacher alone, give teacher_select="
        )
    found = dict(children)
    if select in found:
        return found[select]
    if isinstance(select, int) and isinstance(output, (tuple, list)):
        found.update({i - len(output): part for i, part in enumerate(output)})  # from the end
        found.update(enumerate(output))
        if select in found:
            return found[select]
    found = dict(_walk(output))
    if select not in found:
        keys = dict.fromkeys([*(key for key, _ in children), *found])
        raise ValueError(
            f"'select' must be one of the parts {', '.join(map(repr, keys))} (got {select!r})"
        )
    return found[select]


def is_part(value: Tensor) -> bool:
    """Whether losses can compare a tensor, row by row.

    Example:
        >>> import torch
        >>> is_part(torch.ones(2)), is_part(torch.tensor(1.0)), is_part(torch.tensor([1]))
        (True, False, False)
    """
    return value.is_floating_point() and value.dim() > 0


def tensors_of(output: Any) -> Iterator[Tensor]:
    """Yield all tensors of an output, depth first."""
    if isinstance(output, Tensor):
        yield output
        return
    if type(output) in (tuple, list) and all(type(value) is Tensor for value in output):
        yield from output
        return
    for _, value in _walk(output):
        yield value


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor of an output, depth first.

    Example:
        >>> import torch
        >>> first_tensor((torch.tensor(1), (torch.tensor(2), torch.tensor(3)))).item()
        1
    """
    if isinstance(output, Tensor):
        return output
    return next(tensors_of(output), None)


def versions_of(output: Any) -> dict[int, int]:
    """Return the number of in-place operations that each tensor has seen, by its id.

    Tensors of inference mode, where it is not counted, are left out.

    Example:
        >>> import torch
        >>> list(versions_of(torch.ones(2).add_(1)).values())
        [1]
    """
    if isinstance(output, Tensor):
        return {} if output.is_inference() else {id(output): output._version}
    return {id(value): value._version for value in tensors_of(output) if not value.is_inference()}


def map_tensors(fn: Callable[[Tensor], Any], output: Any) -> Any:
    """Return an output of the same keys with a function applied to each tensor.

    Example:
        >>> import torch
        >>> map_tensors(torch.Tensor.numel, {"a": (torch.ones(3), None)})
        {'a': (3, None)}
    """
    if isinstance(output, Tensor):
        return fn(output)
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(map_tensors(fn, value) for value in output))
    if isinstance(output, (tuple, list)):
        return type(output)([map_tensors(fn, value) for value in output])
    children = _children(output)
    if children is None:
        return output
    return {key: map_tensors(fn, value) for key, value in children}


def copied(output: Any) -> Any:
    """Return an output whose tensors of numbers are copies, through which gradients flow."""
    return map_tensors(lambda x: x.clone() if x.is_floating_point() else x, output)


def _children(output: Any) -> list[tuple[Hashable, Any]] | None:
    """Return what an output holds by key, None where it holds nothing of ours."""
    if isinstance(output, BaseData):
        output = output.to_dict()
    if isinstance(output, Mapping):
        return list(output.items())
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return [(name, getattr(output, name)) for name in output._fields]
    if isinstance(output, (tuple, list)):
        return list(enumerate(output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    return None


def _walk(output: Any, prefix: Hashable = "") -> Iterator[tuple[Hashable, Tensor]]:
    if isinstance(output, Tensor):
        yield prefix, output
        return
    for key, value in _children(output) or ():
        yield from _walk(value, key if prefix == "" else f"{prefix}.{key}")
