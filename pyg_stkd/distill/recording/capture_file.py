"""Captures of a teacher in a file: tensors, and what they were, in the safetensors format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.disk.checksum import checksum
from pyg_stkd.distill.recording.reading.choices import Choice
from pyg_stkd.distill.recording.reading.parts import tensors_of
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures
from pyg_stkd.files import safetensors, write_atomic
from pyg_stkd.graph import Graph

__all__ = ["load_captures", "save_captures"]

_PLAIN = (str, int, float, bool, type(None))
# What files raise that hold something else than was written.
_BROKEN = (AttributeError, IndexError, KeyError, RuntimeError, StopIteration, TypeError, ValueError)


def save_captures(
    captures: TeacherCaptures,
    path: Path,
    about: Mapping[str, str],
    dtype: torch.dtype | None,
    inputs: Sequence[Any] = (),
) -> None:
    """Write captures, and texts about them.

    Args:
        captures (TeacherCaptures): What a teacher said of one input.
        path (Path): The file.
        about (dict): Texts that are read back with them.
        dtype (torch.dtype, optional): What floating point tensors are kept in.
            (default: as they are)
        inputs (list): What the teacher was given. Which of it is in the captures is written down.
            (default: :obj:`()`)

    Raises:
        ValueError: If a capture holds what a file of tensors cannot keep.
    """
    library, _ = safetensors("TeacherCache(path=...)")
    writer = _Writer(dtype, inputs)
    tree = [[writer.encoded(capture) for capture in captures[name]] for name in captures]
    texts = {**about, "tree": json.dumps([list(captures), tree])}
    texts["sum"] = _sum_of(texts)
    write_atomic(path, library.save(writer.tensors, metadata=texts))


def load_captures(
    path: Path, inputs: Sequence[Any] = (), given: str = ""
) -> tuple[TeacherCaptures, dict[str, str]]:
    """Read captures, and the texts about them; arrays are mapped into memory, and read when used.

    Args:
        path (Path): The file.
        inputs (list): What the teacher would be given now. Where it is the same, it takes the place
            of what the file holds of it, so that a graph is not sorted again.
            (default: :obj:`()`)
        given (str): The text :obj:`"input"` of the file if it is the same. (default: :obj:`""`)

    Raises:
        ValueError: If the file is damaged or another one.
    """
    _, broken = safetensors("TeacherCache(path=...)")
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            texts = dict(file.metadata() or {})
            if texts.get("sum", _sum_of(texts)) != _sum_of(texts):  # which older files lack
                raise ValueError("other texts than were written")
            layers, tree = json.loads(texts["tree"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        reader = _Reader(tensors, inputs if given and texts.get("input") == given else ())
        found = {
            layer: tuple(reader.capture(each) for each in calls)
            for layer, calls in zip(layers, tree, strict=True)
        }
    except (broken, *_BROKEN) as error:
        raise ValueError(f"{path} must be a file of a teacher's captures (got {error})") from error
    return TeacherCaptures(found), texts


class _Writer:
    """Turns captures into what JSON holds, and tensors by number."""

    def __init__(self, dtype: torch.dtype | None, inputs: Sequence[Any]) -> None:
        self.dtype = dtype
        self.tensors: dict[str, Tensor] = {}
        self._inputs = _leaves(inputs)

    def encoded(self, capture: Capture) -> Any:
        given = {
            "output": capture.output,
            "inputs": dict(capture.inputs),
            "context": dict(capture.context),
            "choices": [tuple(choice) for choice in capture.choices],
            "bipartite": capture.bipartite,
            "of_edges": capture.of_edges,
            "named": [capture.layer, capture.owner, capture.call],
        }
        return self._tree(given, capture.where)

    def _tree(self, value: Any, where: str) -> Any:
        place = next((i for i, given in enumerate(self._inputs) if given is value), None)
        known = {} if place is None else {"input": place}
        if isinstance(value, Tensor) and value.layout == torch.strided:
            kept = value.detach().as_subclass(Tensor)
            dtype = str(kept.dtype).removeprefix("torch.")
            if self.dtype is not None and kept.is_floating_point():
                kept = self._narrow(kept, where)
            elif not kept.is_floating_point() and not kept.is_complex():
                # Edges and batches alone: of features that no loss needs, nothing is to be read.
                known["sum"] = checksum(kept)
            number = str(len(self.tensors))
            self.tensors[number] = kept.cpu().contiguous().clone()
            return {"tensor": number, "dtype": dtype, **known}
        if isinstance(value, Graph):
            size = list(value.size)
            return {"graph": self._tree(value.edge_index, where), "size": size, **known}
        if isinstance(value, _PLAIN):
            return {"plain": value}
        if isinstance(value, Mapping):
            pairs = [[k, v] for k, v in value.items()]
            return {"dict": [[self._tree(x, where) for x in pair] for pair in pairs]}
        if type(value) in (tuple, list):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self._tree(item, where) for item in value]}
        raise ValueError(
            f"The captures of the {where} must be tensors, or tuples, lists and dictionaries of "
            f"them, to be kept in a file (got {type(value).__name__}): keep them in memory "
            f"(path=None)"
        )

    def _narrow(self, value: Tensor, where: str) -> Tensor:
        assert self.dtype is not None
        kept = value.to(self.dtype)
        if bool((kept.isinf() & value.isfinite()).any()):
            raise ValueError(
                f"'dtype' must have room for the captures of the {where} (got {self.dtype}, and "
                f"numbers up to {float(value[value.isfinite()].abs().amax()):g})"
            )
        return kept


class _Reader:
    """Turns what JSON and tensors hold into captures."""

    def __init__(self, tensors: Mapping[str, Tensor], inputs: Sequence[Any]) -> None:
        self._tensors = tensors
        self._inputs = _leaves(inputs)

    def capture(self, tree: Any) -> Capture:
        given = self._value(tree)
        layer, owner, call = given["named"]
        out = Capture(
            given["output"],
            given["inputs"],
            layer=layer,
            owner=owner,
            call=call,
            context=given["context"],
            choices=tuple(Choice(*choice) for choice in given["choices"]),
            of_edges=given["of_edges"],
        )
        out.frozen = True
        out.__dict__["bipartite"] = given["bipartite"]
        return out

    def _value(self, tree: Any) -> Any:
        kind, content = next(iter(tree.items()))
        if "input" in tree and tree["input"] < len(self._inputs):
            given = self._inputs[tree["input"]]
            if isinstance(given, Graph if kind == "graph" else Tensor):
                return given
        if kind == "tensor":
            kept = self._tensors[content]
            if "sum" in tree and tree["sum"] != checksum(kept):
                raise ValueError(f"other numbers in tensor {content} than were written")
            return kept.to(getattr(torch, tree["dtype"]))
        if kind == "graph":
            return Graph(self._value(content), tuple(tree["size"]))
        if kind == "plain":
            return content
        if kind == "dict":
            return {self._value(k): self._value(v) for k, v in content}
        items = [self._value(item) for item in content]
        return tuple(items) if kind == "tuple" else items


def _sum_of(texts: Mapping[str, str]) -> str:
    """Return a hash of texts, but for the one in which it is kept."""
    others = sorted((name, text) for name, text in texts.items() if name != "sum")
    return hashlib.blake2b(json.dumps(others).encode(), digest_size=8).hexdigest()


def _leaves(values: Sequence[Any]) -> list[Any]:
    """Return the graphs and tensors of some values, in order."""
    leaves: list[Any] = []
    for value in values:
        leaves += [value] if isinstance(value, Graph) else list(tensors_of(value))
    return leaves
