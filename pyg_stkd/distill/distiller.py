"""The distiller: frozen teachers, a student, and the losses between their layers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.distill.check import CheckReport, dry, report
from pyg_stkd.distill.comparison import Comparison, as_captures
from pyg_stkd.distill.global_mean import several_processes
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.losses.copies import spread
from pyg_stkd.distill.losses.output import OutputLoss
from pyg_stkd.distill.recording.graph_cache import GraphCache
from pyg_stkd.distill.recording.reading.arguments import Turns
from pyg_stkd.distill.recording.recorder import Recorder
from pyg_stkd.distill.recording.runs import How, Run, TeacherArgs, calls_of, run, run_teachers
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures
from pyg_stkd.distill.teaching.teachers import Teachers
from pyg_stkd.distill.unrolled import Unrolled
from pyg_stkd.distill.validate import (
    Losses,
    check_calls,
    check_loss,
    check_models,
    name_losses,
)

__all__ = ["Distiller"]

Self = TypeVar("Self", bound="Distiller")


class Distiller(nn.Module):
    r"""A student that learns from a frozen teacher through losses between layers of both.

    Works on any models unedited: the outputs and graphs of the layers that the losses name are
    captured by forward hooks, which stay until :meth:`remove_hooks` or for the distiller's life.
    The teacher is frozen, stays in eval mode, runs without gradients, and is in neither
    ``parameters()`` nor ``state_dict()``; it still follows ``to()``. Parameters of the losses
    (adapters) are trained and saved with the student. A distiller is for one thread at a time;
    those of several threads may share a teacher.

    The arguments of :meth:`forward` and :meth:`check` named :obj:`target`, :obj:`nodes`,
    :obj:`teacher_args`, :obj:`teacher` and :obj:`return_teacher` are the distiller's, all others
    go to the models, which must call theirs otherwise.

    Where only outputs are compared, a teacher may be anything that says them: a
    :class:`torch.jit.ScriptModule`, the :obj:`module()` of an exported program, a function, a
    session of onnxruntime, or a table of saved outputs: a tensor, or a dictionary or tuple of
    tensors, of which :obj:`teacher_args=(index,)` takes rows.

    Args:
        teacher (torch.nn.Module): The trained teacher, or several as
            :class:`~pyg_stkd.distill.Teachers`. It is frozen where it is, not copied.
        student (torch.nn.Module): The student.
        losses (list or dict): The losses, by name in a dictionary. A list of them may be an entry,
            such as :class:`~pyg_stkd.distill.STCDLoss`: in a dictionary, its losses are named
            ``<name>_<own name>``. (default: one :class:`~pyg_stkd.distill.OutputLoss`, which
            compares outputs as numbers)

        call (callable, optional): How a model is run, :obj:`call(model, *args, **kwargs)`, where
            that is not its :obj:`forward`: such as :obj:`lambda model, x, e, pairs:
            model.decode(model.encode(x, e), pairs)`. A pair is for the teacher and for the
            student. (default: their :obj:`forward`)
        reduction (str): :obj:`"global"`: where several processes of :mod:`torch.distributed` train
            together, each loss is the mean over the nodes (edges, graphs, labels) of all of them,
            once their gradients are averaged; every process must then take every step, also one
            without nodes. :obj:`"process"`: over those of each process. Losses over pairs of nodes
            (:class:`GSPLoss`, :class:`ContrastiveLoss`) pair those of one process.
            (default: :obj:`"global"`)

    Attributes:
        losses: The losses by name.

    Raises:
        TypeError: If an argument is of another type, or the :obj:`forward` of a loss does not
            take :obj:`(student, teacher, target)`.
        ValueError: If two losses have one name, a layer is unknown, the teacher's parameters have
            no sizes yet, or models and losses share parameters.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GAT, GCN
        >>> from pyg_stkd.distill import Distiller, SoftTargetLoss, HintLoss
        >>> teacher, student = GAT(8, 32, 2, 3, heads=4), GCN(8, 16, 2, 3)
        >>> distiller = Distiller(teacher, student, [
        ...     SoftTargetLoss(temperature=2.0),
        ...     HintLoss("convs.0", "convs.0", weight=10.0),
        ... ])
        >>> x, edge_index = torch.randn(4, 8), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> out, losses = distiller(x, edge_index)
        >>> out.shape, list(losses)
        (torch.Size([4, 3]), ['soft_target', 'hint'])
        >>> sum(losses.values()).backward()
    """

    _teacher: Any
    _teachers: Teachers

    def __init__(
        self,
        teacher: Any,
        student: nn.Module,
        losses: Losses | None = None,
        call: How | tuple[How, How] = None,
        reduction: Literal["global", "process"] = "global",
    ) -> None:
        super().__init__()
        self.reduction = checks.choice("reduction", reduction, ("global", "process"))
        teachers = Teachers.of(teacher)
        calls = check_calls(call)
        check_models(list(teachers), student, calls, _own_names())
        named = name_losses([OutputLoss()] if losses is None else losses)
        teachers.check_layers(named)
        for name, loss in named.items():
            check_loss(name, loss, list(teachers), student)
        for loss in named.values():
            spread(loss, len(teachers))
        # Past nn.Module's registration: the teacher is no part of the state of the distiller.
        object.__setattr__(self, "_teacher", teacher)
        object.__setattr__(self, "_teachers", teachers.requires_grad_(False).eval())
        self._parts_of_teachers = tuple(teachers.modules())
        self.student = student
        self.losses = nn.ModuleDict(named)
        self.epoch = 0
        self._calls = calls
        self._turns = Turns(student)
        self._graphs = GraphCache(size=3 + len(teachers))
        layers = [loss.teacher_layer for loss in named.values()] + [""] * teachers.gated
        self._teacher_recorders = [Recorder(model, layers) for model in teachers]
        self._student_recorder = Recorder(student, (x.student_layer for x in named.values()))

    @property
    def teacher(self) -> Any:
        """The frozen teacher, as it was given."""
        return self._teacher

    def forward(
        self,
        *args: Any,
        target: Any = None,
        nodes: Tensor | Sequence[int] | None = None,
        teacher_args: TeacherArgs = None,
        teacher: Mapping[str, Any] | None = None,
        return_teacher: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Run both models and return the student's output and the weighted losses by name.

        Each model is given shallow copies of ``Data``, dictionaries and lists, and both draw from
        the same random state, the student as if it were alone: its output is bit for bit what it
        is without a teacher. Samples and corruptions are the same in both unless one of them has
        drawn before, such as for dropout, which only the student has; layers behind such samples
        are refused, but for a permutation of all nodes, which no number of rows tells.

        Args:
            *args (Any): Arguments of the student, and of the teacher.
            target (Any): Labels for the losses that need them. (default: :obj:`None`)
            nodes (Tensor, optional): Index or mask of the nodes that node-level losses are
                restricted to, such as the seeds of a
                :class:`~torch_geometric.loader.NeighborLoader`. (default: all)
            teacher_args (tuple or dict, optional): The teacher's own arguments, by place or by
                name; with several teachers, also a list of them. (default: those of the student)
            teacher (TeacherCaptures, optional): What the teacher is known to say, from
                :meth:`capture_teacher`, or a dictionary of tensors by layer. The teacher does
                not run. (default: :obj:`None`)
            return_teacher (bool): Whether to return the teacher's output too, in third place; of
                several teachers, a list. (default: :obj:`False`)
            **kwargs (Any): Keyword arguments of both models.
        """
        ours, known = self._run(args, kwargs, teacher_args, teacher, return_teacher)
        losses = self._weighted_losses(ours, known, target, nodes)
        if not return_teacher:
            return ours.output, losses
        return ours.output, losses, self._teacher_output(known)

    def unroll(
        self,
        step: Callable[[nn.Module, Any, Any], tuple[Any, Any]],
        sequence: Iterable[Any],
        *,
        target: Any = None,
        nodes: Any = None,
        return_teacher: bool = False,
    ) -> Any:
        """Run both models step by step over a sequence, each with a hidden state of its own.

        A layer is called once a step: :obj:`call="all"` compares all of them. Under
        :mod:`torch.distributed`, :class:`~pyg_stkd.distill.Unrolled` takes its place.

        Args:
            step (callable): One step, :obj:`step(model, x, state) -> (output, state)`; the first
                state is :obj:`None`.
            sequence (iterable): What each step is given, such as a tensor :obj:`[T, ...]`.
            target (Any): As in :meth:`forward`. (default: :obj:`None`)
            nodes (Tensor, optional): As in :meth:`forward`. (default: all)
            return_teacher (bool): As in :meth:`forward`. (default: :obj:`False`)

        Returns:
            The same as :meth:`forward`, of the outputs of all steps: tensors of one shape are
            stacked, along a new first axis.

        Raises:
            RuntimeError: If it is to train where several processes do so together.

        Example:
            >>> import torch
            >>> from pyg_stkd.distill import OutputLoss
            >>> cells = torch.nn.GRUCell(2, 3), torch.nn.GRUCell(2, 3)
            >>> def step(cell, x, state):
            ...     state = cell(x, state)
            ...     return state, state
            >>> out, losses = Distiller(*cells, [OutputLoss()]).unroll(step, torch.ones(5, 4, 2))
            >>> out.shape
            torch.Size([5, 4, 3])
        """
        if several_processes() and torch.is_grad_enabled():
            raise RuntimeError(
                "'unroll' must not train under torch.distributed, where what averages gradients "
                "sees only calls of itself: build Distiller(..., call=Unrolled(step)), wrap it and "
                "call that on the sequence"
            )
        unrolled = Unrolled(step)
        calls = (unrolled, unrolled)
        ours, known = self._run((list(sequence),), {}, None, None, return_teacher, calls)
        losses = self._weighted_losses(ours, known, target, nodes)
        if not return_teacher:
            return ours.output, losses
        return ours.output, losses, self._teacher_output(known)

    def call_student(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run a model as the student is run, :obj:`call` included, and take no notes."""
        call = self._calls[1]
        return model(*args, **kwargs) if call is None else call(model, *args, **kwargs)

    def capture_teacher(
        self, *args: Any, teacher_args: TeacherArgs = None, **kwargs: Any
    ) -> TeacherCaptures:
        """Run the teacher alone and return what the losses need of it, for ``teacher=``.

        On a fixed graph these are constants: with them, the teacher does not run again, and
        structural losses compute the teacher's side once.
        :class:`~pyg_stkd.distill.TeacherCache` keeps them for many inputs.
        """
        self._prepare(None, None, True)
        before = torch.get_rng_state()
        calls = calls_of(self._run_teachers(args, kwargs, teacher_args, self._calls[0]))
        if not torch.equal(before, torch.get_rng_state()):
            warnings.warn(
                "The teacher draws random numbers: what it says of an input is no constant, and a "
                "student that draws by itself may take other nodes. Run it along instead",
                stacklevel=2,
            )
        return TeacherCaptures(
            {layer: tuple(capture.freeze() for capture in seen) for layer, seen in calls.items()}
        )

    def check(
        self,
        *args: Any,
        target: Any = None,
        nodes: Tensor | Sequence[int] | None = None,
        teacher_args: TeacherArgs = None,
        teacher: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> CheckReport:
        """Run both models on one batch, as :meth:`forward` does, and report what was captured.

        Nothing is trained: eval mode, no gradients, random numbers as before; lazily sized
        parameters of the losses get their sizes. Every loss is computed, whatever its schedule.
        """
        with dry(self):
            ours, known = self._run(args, kwargs, teacher_args, teacher, teacher is None)
            losses = self._named_losses()
            seen = Comparison(ours, known, self._teachers, self._graphs, target, nodes)
            return report(seen.values(losses), losses, self._teachers, self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, that the schedules of the losses go by.

        Call it before each epoch: it stays 0 otherwise, and no schedule moves on.

        Args:
            epoch (int): The epoch, not negative.

        Raises:
            TypeError: If :obj:`epoch` is no integer.
            ValueError: If :obj:`epoch` is negative.
        """
        self.epoch = checks.count("epoch", epoch, least=0)

    def remove_hooks(self) -> None:
        """Leave both models as they were, without hooks; the distiller is of no use afterwards."""
        for recorder in (*self._teacher_recorders, self._student_recorder):
            recorder.remove()

    def train(self: Self, mode: bool = True) -> Self:
        """Set the mode of the student and the losses; the teacher stays in eval mode."""
        super().train(mode)
        self._teachers.eval()
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        fixed = name == "student" and name in self._modules
        if name == "teacher" or fixed:  # nn.Module would register a teacher, parameters and all
            raise AttributeError(f"'{name}' cannot be replaced: build a new Distiller")
        super().__setattr__(name, value)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._teachers._apply(fn, recurse)  # to(), cuda(), half(): the teacher goes along
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"teacher={', '.join(type(x).__name__ for x in self._teachers)}, frozen"

    def _named_losses(self) -> dict[str, DistillationLoss]:
        return dict(self.losses.items())  # type: ignore[arg-type]

    @torch.compiler.disable
    def _prepare(self, teacher: Any, teacher_args: Any, asked: bool, given: Any = None) -> bool:
        """Return whether the teacher must run. Not compiled: the epoch is no constant."""
        if self._student_recorder.removed:
            raise RuntimeError("The hooks of this distiller were removed: build a new one")
        if teacher is not None and teacher_args is not None:
            raise ValueError("'teacher_args' must not be given with 'teacher', which needs no run")
        for module in self._parts_of_teachers:
            if module.training:  # someone called teacher.train()
                self._teachers.eval()
                break
        runs = teacher is None and (
            asked or any(loss.factor(self.epoch) != 0 for loss in self._named_losses().values())
        )
        if runs and given is not None:
            self._turns.first(given, shared=teacher_args is None)
        return runs

    def _run(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        teacher_args: TeacherArgs,
        teacher: Any,
        asked: bool,
        calls: tuple[How, How] | None = None,
    ) -> tuple[Run, Any]:
        """Run the teachers, unless they are known or not needed, and then the student."""
        of_teacher, of_student = self._calls if calls is None else calls
        known: Any = teacher
        if self._prepare(teacher, teacher_args, asked, (*args, *kwargs.values())):
            known = self._run_teachers(args, kwargs, teacher_args, of_teacher)
            self._turns.second()
        recorder = self._student_recorder
        ours = run("student", self.student, recorder, args, kwargs, call=of_student)
        return ours, known

    def _run_teachers(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], given: TeacherArgs, call: How
    ) -> list[Run]:
        names = self._teachers.names  # not zipped, which torch 2.6 does not compile
        named = {names[i]: teacher for i, teacher in enumerate(self._teachers)}
        return run_teachers(named, self._teacher_recorders, args, kwargs, given, call)

    def _teacher_output(self, known: Any) -> Any:
        if isinstance(known, list):
            outputs = [seen.output for seen in known]
        else:
            captures = as_captures(known)
            outputs = [captures[name][-1].output for name in self._teachers.names]
        return outputs if len(self._teachers) > 1 else outputs[0]

    # The models compile; what looks at graphs, versions and epochs stays eager.
    @torch.compiler.disable
    def _weighted_losses(self, ours: Run, known: Any, target: Any, nodes: Any) -> dict[str, Tensor]:
        self._turns.over(ours.output, (*ours.args, *ours.kwargs.values()))
        everywhere = self.reduction == "global"
        seen = Comparison(ours, known, self._teachers, self._graphs, target, nodes, everywhere)
        return seen.weighted(self._named_losses(), self.epoch)


def _own_names() -> set[str]:
    """Return the names of the arguments that a distiller keeps for itself."""
    parameters = inspect.signature(Distiller.forward).parameters.values()
    return {x.name for x in parameters if x.kind is inspect.Parameter.KEYWORD_ONLY}
