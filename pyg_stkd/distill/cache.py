"""What need not be computed again: the outputs of a fixed teacher."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data.data import BaseData

from pyg_stkd import checks
from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.recording.capture_file import load_captures, save_captures
from pyg_stkd.distill.recording.disk.beside import Beside
from pyg_stkd.distill.recording.fingerprint import Seen, fingerprint
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures
from pyg_stkd.files import read_json, write_atomic

__all__ = ["TeacherCache"]

_FORMAT = "pyg_stkd.teacher.2"
_STRUCTURES = "structures"  # the folder beside the captures


class TeacherCache:
    r"""The captures of a fixed teacher for each of a fixed set of inputs.

    A frozen teacher says the same of the same graph in every epoch: run it once. With :obj:`path`
    once for all runs and processes: each input is a file of its own, which whoever comes first
    writes, and so are the structures that losses make of it, beside which features need not be
    read. A teacher whose weights changed, other layers, and another input under a known key are
    refused.

    Args:
        distiller (Distiller): The distiller whose teacher is asked.
        path (str or Path, optional): A folder, made where it is missing. Needs safetensors (the
            extra :obj:`safe`). (default: :obj:`None`, in memory)
        dtype (torch.dtype, optional): What floating point tensors are kept in on disk, such as
            :obj:`torch.float16`. (default: as they are)
        memory (int, optional): How many inputs stay in memory, those that were used last; others
            are read again. (default: all without :obj:`path`, else none)
        check_inputs (bool): Whether an input must be the one that its key was first used for.
            Without it the captures are those of the first, whatever random augmentation makes of
            the others. (default: :obj:`True`)

    Raises:
        ImportError: If :obj:`path` is given and safetensors is not installed.
        ValueError: If the folder is of another teacher or of other layers, and when it is used, if
            the teacher or an input changed, or a file is damaged.

    Example:
        >>> from pyg_stkd.distill import Distiller, SoftTargetLoss
        >>> teacher, student = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        >>> distiller = Distiller(teacher, student, [SoftTargetLoss()])
        >>> cache, x = TeacherCache(distiller), torch.ones(4, 2)
        >>> for epoch in range(2):
        ...     out, losses = distiller(x, teacher=cache("train", x))
        >>> len(cache)
        1
    """

    def __init__(
        self,
        distiller: Distiller,
        path: str | Path | None = None,
        *,
        dtype: torch.dtype | None = None,
        memory: int | None = None,
        check_inputs: bool = True,
    ) -> None:
        if path is None and (dtype is not None or memory is not None):
            raise ValueError("'dtype' and 'memory' must be given with a 'path' only (got none)")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"'dtype' must be a floating point type (got {dtype!r})")
        checks.instance("check_inputs", check_inputs, bool)
        self._distiller = distiller
        self._path = None if path is None else Path(path)
        self._dtype = dtype
        self._most = None if path is None else 0
        if memory is not None:
            self._most = checks.count("memory", memory, least=0)
        self._check_inputs = check_inputs
        self._captures: OrderedDict[Hashable, TeacherCaptures] = OrderedDict()
        self._inputs: dict[Hashable, tuple[Seen, str]] = {}
        self._teacher: tuple[Seen, str] | None = None
        self._checked: set[Path] = set()
        if self._path is not None:
            self._open(self._path)

    def __call__(self, key: Hashable, *args: Any, **kwargs: Any) -> TeacherCaptures:
        """Return the captures of the input named :obj:`key`; the first call runs the teacher.

        On disk, a key is a string, a number, or a tuple of such.
        """
        self._check_teacher()
        inputs = [*args, *kwargs.values()]
        given = self._check_input(key, inputs)
        known = self._captures.pop(key, None)
        if known is None:
            known = self._found(key, given, inputs)
        if known is None:
            if not self._check_inputs:  # no one asks whether these were written to meanwhile
                args, kwargs = _copied(args), _copied(kwargs)
            known = self._distiller.capture_teacher(*args, **kwargs)
            if self._path is not None:
                name = secrets.token_hex(16)
                about = {"format": _FORMAT, "key": repr(key), "input": given, "name": name}
                save_captures(known, self._file(key), about, self._dtype, inputs)
                self._remember(known, name)
        self._captures[key] = known
        while self._most is not None and len(self._captures) > self._most:
            self._captures.popitem(last=False)
        return known

    def serves(self, distiller: Distiller) -> bool:
        """Return whether it keeps what a distiller asks of its teacher, which may be another one.

        Distillers of several students can share a cache if they have one teacher, the same object,
        and look at no layer of it that the cache's own distiller does not.
        """
        asked = [
            {str(loss.teacher_layer) for loss in each.losses.values()}
            | ({""} if each._teachers.gated else set())
            for each in (distiller, self._distiller)
        ]
        theirs, ours = distiller._teachers, self._distiller._teachers
        same = len(theirs) == len(ours) and all(a is b for a, b in zip(theirs, ours, strict=True))
        return same and asked[0] <= asked[1]

    def clear(self) -> None:
        """Forget all captures, on disk too, for example after the teacher's weights changed."""
        self._captures.clear()
        self._inputs.clear()
        self._teacher = None
        self._checked.clear()
        if self._path is not None:
            for folder in (self._path, self._path / _STRUCTURES):  # no one else's
                for file in folder.glob("*.safetensors"):
                    file.unlink(missing_ok=True)
            (self._path / "teacher.json").unlink(missing_ok=True)
            self._open(self._path)

    def __len__(self) -> int:
        if self._path is None:
            return len(self._captures)
        return sum(1 for _ in self._path.glob("*.safetensors"))

    def _open(self, path: Path) -> None:
        """Compare the folder's teacher and layers with ours, or say whose it is."""
        about = path / "teacher.json"
        layers = sorted({str(loss.teacher_layer) for loss in self._distiller.losses.values()})
        ours = {"format": _FORMAT, "teacher": self._hash(), "layers": layers}
        if not about.exists():
            write_atomic(about, json.dumps(ours).encode())
            return
        theirs = read_json(about)
        for name, what in (("format", "a cache"), ("teacher", "a teacher"), ("layers", "layers")):
            if theirs.get(name) != ours[name]:
                raise ValueError(
                    f"{path} must hold {what} of this distiller: {ours[name]!r} "
                    f"(got {theirs.get(name)!r}); take another folder"
                )

    def _hash(self) -> str:
        state = self._weights()
        self._teacher = Seen(*self._held()), fingerprint(*state)
        return self._teacher[1]

    def _weights(self) -> list[Tensor]:
        teachers = self._distiller._teachers
        return [*teachers.parameters(), *teachers.buffers()]

    def _held(self) -> list[Tensor]:
        """Return the same tensors, some more than once, without a look at names: at each call."""
        found: list[Tensor] = []
        for module in _with_children(self._distiller._teachers, set()):
            if isinstance(module, torch.jit.ScriptModule):
                return self._weights()
            for tensors in (module._parameters, module._buffers):
                found += [x for x in tensors.values() if x is not None]
        return found

    def _check_teacher(self) -> None:
        if self._teacher is None:
            self._hash()
        elif not self._teacher[0].same(*self._held()):
            before = self._teacher[1]
            if self._hash() != before:
                self._teacher = None
                raise ValueError(
                    "'teacher' must stay as it is while its captures are kept (got other weights): "
                    "call clear()"
                )

    def _check_input(self, key: Hashable, values: list[Any]) -> str:
        """Return the fingerprint of an input, the same as before."""
        if not self._check_inputs:
            return ""
        known = self._inputs.get(key)
        if known is not None and known[0].same(*values):
            return known[1]
        now = fingerprint(*values)
        if known is not None and known[1] != now:
            raise ValueError(self._other_input(key))
        self._inputs[key] = Seen(*values), now
        return now

    def _other_input(self, key: Hashable) -> str:
        return (
            f"'key' must name the same input each time (got another one for {key!r}): give each a "
            f"key of its own, or, where inputs are augmented, check_inputs=False"
        )

    def _found(self, key: Hashable, given: str, inputs: list[Any]) -> TeacherCaptures | None:
        """Return the captures of an input on disk, if they are there."""
        if self._path is None or not self._file(key).exists():
            return None
        captures, about = load_captures(self._file(key), inputs, given)
        if about.get("key") != repr(key):
            raise ValueError(
                f"{self._file(key)} must be of the input {key!r} (got {about.get('key')})"
            )
        if self._check_inputs and about.get("input") not in ("", given):
            raise ValueError(self._other_input(key))
        student = next(self._distiller.student.parameters(), None)
        if student is not None and student.device.type != "cpu":
            captures = captures.to(student.device)
        self._remember(captures, about.get("name", ""))
        return captures

    def _remember(self, captures: TeacherCaptures, name: str) -> None:
        """Keep what losses make of captures beside their file."""
        assert self._path is not None
        for layer, calls in captures.items():
            for i, capture in enumerate(calls):
                folder, named = self._path / _STRUCTURES, f"{name} {layer} {i}"
                capture.beside = Beside(folder, named, self._checked)

    def _file(self, key: Hashable) -> Path:
        if self._path is None:
            raise RuntimeError("This cache is in memory")
        if not _is_lasting(key):
            raise TypeError(
                "'key' must be a string, a number or a tuple of them, to be found on disk "
                f"(got {type(key).__name__})"
            )
        return (
            self._path
            / f"{hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()}.safetensors"
        )


def _with_children(module: nn.Module, seen: set[int]) -> Iterator[nn.Module]:
    seen.add(id(module))
    yield module
    for child in module._modules.values():
        if child is not None and id(child) not in seen:
            yield from _with_children(child, seen)


def _copied(value: Any) -> Any:
    """Return arguments with tensors of their own."""
    if isinstance(value, (Tensor, BaseData)):
        return value.clone()
    if type(value) in (tuple, list):
        return type(value)(_copied(item) for item in value)
    return {k: _copied(v) for k, v in value.items()} if type(value) is dict else value


def _is_lasting(key: Any) -> bool:
    """Whether a key is written alike in every process."""
    if isinstance(key, tuple):
        return all(_is_lasting(item) for item in key)
    return type(key) in (str, int, float, bool)
