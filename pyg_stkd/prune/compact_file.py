"""Files of small models: their weights and widths, enough to build them anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.files import write_atomic
from pyg_stkd.prune.masks.hooks import masked_names
from pyg_stkd.prune.structure.ports import Ports

__all__ = ["load_compact", "save_compact"]

_FORMAT = "pyg_stkd.compact.1"
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_compact(model: nn.Module, path: str | Path, ignore: Iterable[str] = ()) -> None:
    r"""Save a compacted model in one file of the safetensors format.

    The tensors are those of its :obj:`state_dict`, shared ones by their first names, and buffers
    that are not in it; the recipe, the class and all widths, is JSON in the file's metadata.
    Nothing in it is code.

    Args:
        model (torch.nn.Module): What :meth:`Pruner.compact` returned.
        path (str): The file.
        ignore (list of str): Names of modules without rules. (default: :obj:`()`)

    Raises:
        ValueError: If a module has no rule, the model has masks, or its state cannot be written.

    Example:
        >>> import tempfile
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
    if any(masked_names(module) for module in model.modules()):
        raise ValueError("'model' must be compacted before it is saved (got one with masks)")
    modules = dict(model.named_modules())
    attributes = [
        [prefix, name, getattr(modules[prefix], name)]
        for prefix, name, _ in Ports(model, ignore).attributes
    ]
    recipe = {"format": _FORMAT, "class": _class_name(model), "attributes": attributes}
    _write(Path(path), _tensors(model), {"recipe": json.dumps(recipe)})


def load_compact(path: str | Path, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a compacted model anew from its file.

    Args:
        path (str): A file of :func:`save_compact`.
        build (callable): Makes the model as it was before pruning. It is called on the meta
            device: no memory is used for its weights, and none are drawn.

    Raises:
        ValueError: If the file is another one, or of another model.
    """
    metadata, state = _read(Path(path))
    try:
        recipe = json.loads(metadata["recipe"])
        known = recipe["format"] == _FORMAT
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"'path' must be a file of save_compact (got {Path(path).name!r})")
    with torch.device("meta"):
        model = build()
    if _class_name(model) != recipe["class"]:
        raise ValueError(
            f"'build' must make a {recipe['class']}, as the file has (got {_class_name(model)})"
        )
    expected = _tensors(model)
    if expected.keys() != state.keys():
        differing = sorted(expected.keys() ^ state.keys())
        raise ValueError(f"'build' must make the model of the file (got others: {differing})")
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


def _write(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    header: dict[str, Any] = {"__metadata__": metadata}
    blobs, offset = [], 0
    for name, tensor in state.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(
                f"'model' must have tensors of the types {', '.join(map(str, _DTYPES))} "
                f"(got {tensor.dtype} for {name!r})"
            )
        blob = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    write_atomic(path, b"".join([len(text).to_bytes(8, "little"), text, *blobs]))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    dtypes = {code: dtype for dtype, code in _DTYPES.items()}
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        data = bytearray(content[8 + length :])
        state = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            blob = torch.frombuffer(data[start:end] or bytearray(1), dtype=torch.uint8)
            blob = blob[: end - start].clone()
            state[name] = blob.view(dtypes[entry["dtype"]]).reshape(entry["shape"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"'path' must be a safetensors file (got {path.name!r})") from error
    return metadata, state
