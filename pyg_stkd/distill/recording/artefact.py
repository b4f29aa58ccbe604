"""Teachers that are no plain modules: exported programs, functions, tables of outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.distill.recording.reading.parts import first_tensor, map_tensors

__all__ = ["Artefact", "Table", "as_model", "may_teach"]


class Artefact(nn.Module):
    r"""A model of which nothing but the output is seen.

    Args:
        run (callable): The model: a :class:`torch.jit.ScriptModule`, the module of an exported
            program, a function, or a session of onnxruntime, whose inputs are given by place.

    Example:
        >>> Artefact(torch.sin)(torch.tensor([0.0]))
        tensor([0.])
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        # Past nn.Module's registration: hooks cannot be set on its parts, nor its mode be changed.
        self.run: Callable[..., Any]
        object.__setattr__(self, "run", run)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model says."""
        if _is_session(self.run):
            return _run_session(self.run, args, kwargs)
        return self.run(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if isinstance(self.run, nn.Module):
            self.run._apply(fn)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return getattr(self.run, "__name__", type(self.run).__name__)


class Table(nn.Module):
    r"""Saved outputs of a model, by row.

    Args:
        outputs (Any): A tensor of outputs, or a tuple or dictionary of them.

    Example:
        >>> table = Table(torch.tensor([[0.0], [1.0], [2.0]]))
        >>> table(torch.tensor([2, 0]))
        tensor([[2.],
                [0.]])
    """

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        object.__setattr__(self, "outputs", map_tensors(Tensor.detach, outputs))

    def forward(self, index: Tensor | None = None) -> Any:
        """Return the outputs of rows, all of them by default."""
        if index is None:
            return self.outputs
        return map_tensors(lambda x: x[index], self.outputs)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        object.__setattr__(self, "outputs", map_tensors(fn, self.outputs))
        return super()._apply(fn, recurse)


def as_model(teacher: Any) -> nn.Module:
    """Return a teacher as a module: itself, if it is a plain one, of which layers can be seen.

    Raises:
        TypeError: If it is none, nor anything that says what a teacher would say.

    Example:
        >>> as_model(torch.sin), as_model(torch.ones(3, 2))
        (Artefact(sin), Table())
    """
    if isinstance(teacher, torch.export.ExportedProgram):
        teacher = teacher.module()
    if isinstance(teacher, torch.jit.ScriptModule):
        return Artefact(teacher.eval())
    if isinstance(teacher, torch.fx.GraphModule):
        try:
            teacher.eval()
        except NotImplementedError:  # an exported program cannot change its mode
            return Artefact(teacher)
    if isinstance(teacher, nn.Module):
        return teacher
    if not may_teach(teacher):
        raise TypeError(
            f"'teacher' must be a Module, or another thing that says what a teacher would: an "
            f"exported program, a function, a session of onnxruntime, a table of outputs "
            f"(got {teacher!r})"
        )
    return Table(teacher) if _is_table(teacher) else Artefact(teacher)


def may_teach(teacher: Any) -> bool:
    """Whether something is a model, or says what one would say.

    Example:
        >>> may_teach(nn.ReLU()), may_teach(nn.ReLU), may_teach("relu")
        (True, False, False)
    """
    if isinstance(teacher, type):
        return False
    return _is_table(teacher) or _is_session(teacher) or callable(teacher)


def _is_table(teacher: Any) -> bool:
    return isinstance(teacher, (Tensor, Mapping, tuple)) and first_tensor(teacher) is not None


def _is_session(teacher: Any) -> bool:
    return type(teacher).__module__.split(".")[0] == "onnxruntime" and hasattr(teacher, "run")


def _run_session(session: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    names = [given.name for given in session.get_inputs()]
    if len(args) > len(names) or not set(kwargs) <= set(names):
        raise ValueError(
            f"'teacher' must be given what its session takes, which is {names} "
            f"(got {len(args)} arguments by place and {list(kwargs)}): give teacher_args="
        )
    inputs = {**dict(zip(names, args, strict=False)), **kwargs}
    device = torch.device("cpu")
    feed = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            device, value = value.device, value.detach().cpu().numpy()
        feed[name] = value
    named = [given.name for given in session.get_outputs()]
    found = (torch.from_numpy(value.copy()).to(device) for value in session.run(None, feed))
    outputs = dict(zip(named, found, strict=True))
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
