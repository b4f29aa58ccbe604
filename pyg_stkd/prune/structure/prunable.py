"""Whether a model can be pruned as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = [
    "check_as_written",
    "check_example",
    "check_ignored",
    "check_parameters",
    "class_name",
    "has_parameters",
    "keeps_channels",
    "shared_names",
]


def check_ignored(names: dict[nn.Module, str], ignore: Iterable[str]) -> tuple[str, ...]:
    """Return the names of modules to leave alone; the model must have them."""
    ignored = tuple(ignore)
    for name in ignored:
        if not name or name not in names.values():
            valid = ", ".join(repr(valid) for valid in names.values() if valid)
            raise ValueError(f"'ignore' must name modules of the model: {valid} (got {name!r})")
    return ignored


def check_example(model: nn.Module, run: Callable[[nn.Module], Any]) -> None:
    """Raise if a model, a copy that may change, does not run on its example."""
    _check_shapes(model)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            run(model.eval())
    except Exception as error:
        how = (
            "as a tuple of arguments, such as (data.x, data.edge_index), or a mapping of keyword "
            "arguments"
        )
        if isinstance(error, NotImplementedError):
            how += ", with 'call' for a model without a forward"
        raise ValueError(
            f"'example' must be inputs that the model runs on, {how} "
            f"(got {type(error).__name__}: {error})"
        ) from error


def check_as_written(model: nn.Module) -> None:
    """Raise where no rule can hold: for hooks that may change outputs, and a set forward."""
    for name, module in model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        strange = [hook for hook in hooks if not _is_known(hook)]
        own = vars(module).get("forward")
        if strange or not (own is None or type(own).__module__.startswith("pyg_stkd.")):
            what = "hooks" if strange else "a forward of its own"
            raise ValueError(
                f"'example' must be given where a module has {what}, so that outputs are compared "
                f"with those of a copy without (got None and {name or 'the model'!r})"
            )


def _is_known(hook: Any) -> bool:
    """Tell whether a hook is of this package or of torch's masks and norms."""
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return module.startswith(("pyg_stkd.", "torch.nn.utils."))


def check_parameters(model: nn.Module) -> None:
    """Raise for parameters that are lazy or shared."""
    _check_shapes(model)
    seen: dict[Tensor, str] = {}
    for name, parameter in _direct_parameters(model):
        if parameter in seen:
            raise ValueError(
                f"'model' must not share parameters (got {seen[parameter]!r} and {name!r})"
            )
        seen[parameter] = name


def shared_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return for each parameter and buffer of several names, by each of them, all of them.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
        >>> model[1].weight = model[0].weight
        >>> shared_names(model)["1.weight"]
        ('0.weight', '1.weight')
    """
    names: dict[int, list[str]] = {}
    for prefix, module in model.named_modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                names.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    return {name: tuple(all_) for all_ in names.values() if len(all_) > 1 for name in all_}


def _check_shapes(model: nn.Module) -> None:
    for name, parameter in _direct_parameters(model):
        if is_lazy(parameter):
            raise ValueError(f"'model' must have been run once: {name!r} has no shape yet")


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


def keeps_channels(function: Callable[..., Any]) -> bool:
    """Tell by trial whether a function of features treats each channel, the last dimension, alone.

    Example:
        >>> keeps_channels(torch.relu), keeps_channels(lambda x: x.softmax(-1))
        (True, False)
    """

    def call(x: Tensor) -> Any:
        torch.manual_seed(0)  # the same dropout twice
        return function(x.clone())

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        x = torch.randn(3, 5)
        try:
            first, second = call(x), call(x.index_fill(1, torch.tensor([2]), 0.5))
            others = torch.tensor([0, 1, 3, 4])
            return first.shape == x.shape and torch.equal(first[:, others], second[:, others])
        except Exception:  # whatever a function of other inputs raises
            return False
