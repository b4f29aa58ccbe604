"""Files of small models: their weights and widths, enough to build them anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.files import safetensors, write_atomic
from pyg_stkd.prune.compaction.compact import plain_copy
from pyg_stkd.prune.following.attributes import remembered
from pyg_stkd.prune.following.find import find_ports
from pyg_stkd.prune.following.sharpened import Sharpened
from pyg_stkd.prune.mask_hooks.hooks import masked_names
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.widths import Width, check_widths, widths_of

__all__ = ["load_compact", "save_compact"]

_FORMAT = "pyg_stkd.compact.1"


def save_compact(
    model: nn.Module,
    path: str | Path,
    ignore: Iterable[str] = (),
    example: Any = None,
    call: Callable[..., Any] | None = None,
) -> None:
    r"""Save a compacted model in one file of the safetensors format.

    The tensors are those of its :obj:`state_dict`, shared ones by their first names, and buffers
    that are not in it; the recipe, the class and all widths, is JSON in the file's metadata.
    Nothing in it is code. Needs the package safetensors (the extra :obj:`safe`).

    Args:
        model (torch.nn.Module): What :meth:`Pruner.compact` returned.
        path (str): The file.
        ignore (list of str): Names of modules without rules. (default: :obj:`()`)
        example (Any, optional): Inputs, to follow channels where rules do not suffice, as for
            :class:`~pyg_stkd.prune.Pruner`.
        call (callable, optional): A function of the model and the inputs.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If a module has no rule and there is no example, the model has masks, or its
            state cannot be written.

    Example:
        >>> import pytest, tempfile
        >>> _ = pytest.importorskip("safetensors")
        >>> small = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_compact(small, f"{folder}/small.safetensors")
        ...     again = load_compact(
        ...         f"{folder}/small.safetensors",
        ...         build=lambda: nn.Sequential(nn.Linear(2, 64), nn.Linear(64, 1)),
        ...     )
        >>> again[0]
        Linear(in_features=2, out_features=3, bias=True)
    """
    library, broken = safetensors("save_compact")
    if any(masked_names(module) for module in model.modules()):
        raise ValueError("'model' must be compacted before it is saved (got one with masks)")
    ignore = tuple(ignore)
    modules = dict(model.named_modules())
    sharp = None
    if example is not None:
        sharp = Sharpened(lambda: plain_copy(model), Example(example, call))
    ports = find_ports(model, ignore, sharp=sharp)
    if ports.is_followed:
        ports.attributes += remembered(ports, model, first=True)
    attributes = [
        [prefix, name, getattr(modules[prefix], name)] for prefix, name, _ in ports.attributes
    ]
    recipe = {
        "format": _FORMAT,
        "class": _class_name(model),
        "attributes": attributes,
        "ignore": ignore,
    }
    if ports.is_followed:  # nothing can be run when it is loaded
        recipe["widths"] = widths_of(ports)
    # The library refuses what shares memory: views of one tensor are written one by one.
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in _tensors(model).items()
    }
    try:
        content = library.save(state, {"recipe": json.dumps(recipe)})
    except (KeyError, ValueError, broken) as error:
        kinds = sorted({str(tensor.dtype) for tensor in state.values()})
        raise ValueError(
            f"'model' must have tensors of types that safetensors knows (got {', '.join(kinds)})"
        ) from error
    write_atomic(path, content)


def load_compact(path: str | Path, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a compacted model anew from its file.

    Args:
        path (str): A file of :func:`save_compact`.
        build (callable): Makes the model as it was before pruning, of a class of the same name,
            in whichever module that is now. It is called on the meta device: no memory is used
            for its weights, and none are drawn.

    Raises:
        ImportError: If safetensors is not installed.
        TypeError: If :obj:`build` is no function, or a model.
        ValueError: If the file is damaged, another one, of another model, or its widths contradict
            each other.
    """
    if isinstance(build, nn.Module) or not callable(build):
        raise TypeError(
            "'build' must be a function that makes the model as it was before pruning, such as "
            f"lambda: Net(64) (got {type(build).__name__})"
        )
    path = Path(path)
    recipe, state = _read(path)
    with torch.device("meta"):
        model = build()
    # By name: a class of a script is one of __main__ there, and of a module where it is imported.
    if type(model).__name__ != recipe["class"].rpartition(".")[2]:
        raise ValueError(
            f"'build' must make a {recipe['class']}, as {path.name!r} has "
            f"(got {_class_name(model)})"
        )
    expected = _tensors(model)
    if expected.keys() != state.keys():
        differing = sorted(expected.keys() ^ state.keys())
        raise ValueError(f"'build' must make the model of {path.name!r} (got others: {differing})")
    try:
        widths = _widths(model, recipe)
        check_widths(model, widths, expected, state, recipe["attributes"])
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"'path' must be a file of the model that 'build' makes (got {path.name!r}: {error})"
        ) from error
    loaded: dict[Any, Any] = {None: None}
    for name, old in expected.items():
        trained = isinstance(old, nn.Parameter)
        loaded[old] = nn.Parameter(state[name], old.requires_grad) if trained else state[name]
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({key: loaded[old] for key, old in tensors.items()})
    modules = dict(model.named_modules())
    for prefix, name, value in recipe["attributes"]:
        old = getattr(modules[prefix], name)
        setattr(modules[prefix], name, _in_form_of(old, value))
    return model


def _widths(model: nn.Module, recipe: Mapping[str, Any]) -> list[Width] | None:
    """Return what the widths count: as the file has it, or by the rules of the model."""
    if "widths" in recipe:
        return [(where, parts, int(kept)) for where, parts, kept in recipe["widths"]]
    try:
        return widths_of(Ports(model, recipe["ignore"]))
    except ValueError:  # an older file does not name the modules without rules
        return None


def _class_name(model: nn.Module) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers, each once, by its first name."""
    named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    named.update(model.named_buffers(remove_duplicate=False))
    other = model.state_dict().keys() - named.keys()
    if other:
        raise ValueError(
            f"'model' must have no state but parameters and buffers (got {sorted(other)})"
        )
    first: dict[Tensor, str] = {}
    for name, tensor in named.items():
        first.setdefault(tensor, name)
    return {name: tensor for tensor, name in first.items()}


def _in_form_of(old: Any, value: Any) -> Any:
    """Return lists of JSON as the tuples that they were."""
    if not isinstance(value, list):
        return value
    olds = old if isinstance(old, (list, tuple)) and len(old) == len(value) else [None] * len(value)
    items = [_in_form_of(o, v) for o, v in zip(olds, value, strict=True)]
    return tuple(items) if isinstance(old, tuple) else items


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the recipe and the tensors of a file."""
    library, broken = safetensors("load_compact")
    refusal = f"'path' must be a file of save_compact (got {path.name!r}"
    if not path.is_file():
        raise FileNotFoundError(f"'path' must be a file (got {str(path)!r})")
    try:
        with library.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: memory of their own, aligned for the same sums in the same order.
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (broken, ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"{refusal}: {error})") from error
    try:
        recipe = json.loads(metadata["recipe"])
        known = recipe["format"] == _FORMAT and isinstance(recipe["class"], str)
        for prefix, name, _ in recipe["attributes"]:
            known = known and isinstance(prefix, str) and isinstance(name, str)
        recipe.setdefault("ignore", [])  # files of the first version do not name them
        known = known and all(isinstance(name, str) for name in recipe["ignore"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        known = False
    if not known:
        raise ValueError(f"{refusal})")
    return recipe, state
