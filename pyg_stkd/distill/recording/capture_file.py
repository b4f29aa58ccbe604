"""Captures of a teacher in a file: tensors, and what they were, in the safetensors format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.reading.choices import Choice
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures
from pyg_stkd.files import safetensors, write_atomic
from pyg_stkd.graph import Graph

__all__ = ["load_captures", "save_captures"]

_PLAIN = (str, int, float, bool, type(None))


def save_captures(
    captures: TeacherCaptures, path: Path, about: Mapping[str, str], dtype: torch.dtype | None
) -> None:
    """Write captures, and texts about them.

    Args:
        captures (TeacherCaptures): What a teacher said of one input.
        path (Path): The file.
        about (dict): Texts that are read back with them.
        dtype (torch.dtype, optional): What floating point tensors are kept in.
            (default: as they are)

    Raises:
        ValueError: If a capture holds what a file of tensors cannot keep.
    """
    library, _ = safetensors("TeacherCache(path=...)")
    tensors: dict[str, Tensor] = {}
    tree = [[_encoded(capture, tensors, dtype) for capture in captures[name]] for name in captures]
    texts = {**about, "tree": json.dumps([list(captures), tree])}
    write_atomic(path, library.save(tensors, metadata=texts))


def load_captures(path: Path) -> tuple[TeacherCaptures, dict[str, str]]:
    """Read captures, and the texts about them.

    Raises:
        ValueError: If the file is damaged or another one.
    """
    _, broken = safetensors("TeacherCache(path=...)")
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            texts = dict(file.metadata() or {})
            layers, tree = json.loads(texts["tree"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = {
            layer: tuple(_capture(each, tensors) for each in calls)
            for layer, calls in zip(layers, tree, strict=True)
        }
    except (broken, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a file of a teacher's captures (got {error})") from error
    return TeacherCaptures(found), texts


def _encoded(capture: Capture, tensors: dict[str, Tensor], dtype: torch.dtype | None) -> Any:
    given = {
        "output": capture.output,
        "inputs": dict(capture.inputs),
        "context": dict(capture.context),
        "choices": [tuple(choice) for choice in capture.choices],
        "bipartite": capture.bipartite,
        "named": [capture.layer, capture.owner, capture.call],
    }
    return _tree(given, capture.where, tensors, dtype)


def _capture(tree: Any, tensors: Mapping[str, Tensor]) -> Capture:
    given = _untree(tree, tensors)
    layer, owner, call = given["named"]
    out = Capture(
        given["output"],
        given["inputs"],
        layer=layer,
        owner=owner,
        call=call,
        context=given["context"],
        choices=tuple(Choice(*choice) for choice in given["choices"]),
    )
    out.frozen = True
    out.__dict__["bipartite"] = given["bipartite"]
    return out


def _tree(value: Any, where: str, tensors: dict[str, Tensor], dtype: torch.dtype | None) -> Any:
    """Return a value as JSON, with tensors by number."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        kept = value.detach().as_subclass(Tensor)
        narrow = dtype is not None and kept.is_floating_point()
        tensors[str(len(tensors))] = (kept.to(dtype) if narrow else kept).cpu().contiguous().clone()
        return {"tensor": str(len(tensors) - 1), "dtype": str(kept.dtype).removeprefix("torch.")}
    if isinstance(value, Graph):
        size = list(value.num_nodes) if isinstance(value.num_nodes, tuple) else value.num_nodes
        return {"graph": _tree(value.edge_index, where, tensors, None), "size": size}
    if isinstance(value, _PLAIN):
        return {"plain": value}
    if isinstance(value, Mapping):
        pairs = [[k, v] for k, v in value.items()]
        return {"dict": [[_tree(x, where, tensors, dtype) for x in pair] for pair in pairs]}
    if type(value) in (tuple, list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_tree(item, where, tensors, dtype) for item in value]}
    raise ValueError(
        f"The captures of the {where} must be tensors, or tuples, lists and dictionaries of them, "
        f"to be kept in a file (got {type(value).__name__}): keep them in memory (path=None)"
    )


def _untree(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    ((kind, content), *more) = tree.items()
    if kind == "tensor":
        return tensors[content].to(getattr(torch, more[0][1]))
    if kind == "graph":
        size = more[0][1]
        return Graph(_untree(content, tensors), tuple(size) if isinstance(size, list) else size)
    if kind == "plain":
        return content
    if kind == "dict":
        return {_untree(k, tensors): _untree(v, tensors) for k, v in content}
    items = [_untree(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
