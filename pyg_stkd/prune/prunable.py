"""Whether a model can be pruned as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["check_ignored", "check_parameters", "class_name", "has_parameters"]


def check_ignored(names: dict[nn.Module, str], ignore: Iterable[str]) -> tuple[str, ...]:
    """Return the names of modules to leave alone; the model must have them."""
    ignored = tuple(ignore)
    for name in ignored:
        if not name or name not in names.values():
            valid = ", ".join(repr(valid) for valid in names.values() if valid)
            raise ValueError(f"'ignore' must name modules of the model: {valid} (got {name!r})")
    return ignored


def check_parameters(model: nn.Module) -> None:
    """Raise for parameters that are lazy or shared."""
    seen: dict[Tensor, str] = {}
    for name, parameter in _direct_parameters(model):
        if is_lazy(parameter):
            raise ValueError(f"'model' must have been run once: {name!r} has no shape yet")
        if parameter in seen:
            raise ValueError(
                f"'model' must not share parameters (got {seen[parameter]!r} and {name!r})"
            )
        seen[parameter] = name


def _direct_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{prefix}.{name}" if prefix else name, parameter


def has_parameters(module: nn.Module) -> bool:
    """Tell whether a module has parameters of its own."""
    return any(parameter is not None for parameter in module._parameters.values())


def class_name(module: nn.Module) -> str:
    """Return the full name of the class of a module."""
    return f"{type(module).__module__}.{type(module).__qualname__}"
