"""The distiller: a frozen teacher, a student, and the losses between their layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd.distill.cache import TeacherCaptures
from pyg_stkd.distill.check import CheckReport, report_losses, report_taps
from pyg_stkd.distill.graph_cache import GraphCache
from pyg_stkd.distill.inputs import first_tensor
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.matching import Calls, Run, as_captures, as_nodes, compare, run
from pyg_stkd.distill.recorder import Recorder, named_layers
from pyg_stkd.distill.validate import check_loss, check_models, name_losses

__all__ = ["Distiller"]

Self = TypeVar("Self", bound="Distiller")


class Distiller(nn.Module):
    r"""A student that learns from a frozen teacher through losses between layers of both.

    Works on any models unedited: the outputs and graphs of the layers that the losses name are
    captured by forward hooks. The teacher is frozen, stays in eval mode, runs without gradients,
    and is in neither :meth:`parameters` nor :meth:`state_dict`; it still follows :meth:`to`.
    Parameters of the losses (adapters) are trained and saved with the student.

    The arguments of :meth:`forward` and :meth:`check` named :obj:`target`, :obj:`nodes`,
    :obj:`teacher_args` and :obj:`teacher` are the distiller's, all others go to the models.

    Args:
        teacher (torch.nn.Module): The trained teacher. It is frozen where it is, not copied.
        student (torch.nn.Module): The student.
        losses (list or dict): The losses, by name in a dictionary.

    Attributes:
        losses: The losses by name.

    Raises:
        TypeError: If an argument is of another type, or the :obj:`forward` of a loss does not
            take :obj:`(student, teacher, target)`.
        ValueError: If two losses have one name, a layer is unknown, or the models share
            parameters.

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

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        losses: Sequence[DistillationLoss] | Mapping[str, DistillationLoss],
    ) -> None:
        super().__init__()
        check_models(teacher, student)
        named = name_losses(losses)
        for name, loss in named.items():
            check_loss(name, loss, teacher, student)
        # Past nn.Module's registration: the teacher is no part of the state of the distiller.
        object.__setattr__(self, "_teacher", teacher.requires_grad_(False).eval())
        self.student = student
        self.losses = nn.ModuleDict(named)
        self.epoch = 0
        self._graphs = GraphCache()
        self._teacher_recorder = Recorder(teacher, (x.teacher_layer for x in named.values()))
        self._student_recorder = Recorder(student, (x.student_layer for x in named.values()))

    @property
    def teacher(self) -> nn.Module:
        """The frozen teacher."""
        return self._teacher  # type: ignore[return-value]

    def forward(
        self,
        *args: Any,
        target: Any = None,
        nodes: Tensor | Sequence[int] | None = None,
        teacher_args: tuple[Any, ...] | Mapping[str, Any] | None = None,
        teacher: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, dict[str, Tensor]]:
        """Run both models and return the student's output and the weighted losses by name.

        Args:
            *args (Any): Arguments of the student, and of the teacher.
            target (Any): Labels for the losses that need them. (default: :obj:`None`)
            nodes (Tensor, optional): Index or mask of the nodes that node-level losses are
                restricted to, such as the seeds of a
                :class:`~torch_geometric.loader.NeighborLoader`. (default: all)
            teacher_args (tuple or dict, optional): The teacher's own arguments, by place or by
                name. (default: those of the student)
            teacher (TeacherCaptures, optional): What the teacher is known to say, from
                :meth:`capture_teacher`, or a dictionary of tensors by layer. The teacher does
                not run. (default: :obj:`None`)
            **kwargs (Any): Keyword arguments of both models.
        """
        runs_teacher = self._prepare(teacher, teacher_args)
        theirs = self._run_teacher(args, kwargs, teacher_args) if runs_teacher else None
        ours = run("student", self.student, self._student_recorder, args, kwargs)
        return ours.output, self._weigh(ours, theirs, teacher, target, nodes)

    def capture_teacher(self, *args: Any, **kwargs: Any) -> TeacherCaptures:
        """Run the teacher alone and return what the losses need of it, for ``teacher=``.

        On a fixed graph these are constants: with them, the teacher does not run again, and
        structural losses compute the teacher's side once.
        :class:`~pyg_stkd.distill.TeacherCache` keeps them for many inputs.
        """
        self._prepare(None, None)
        calls = self._run_teacher(args, kwargs, None).captures(named_layers(self.teacher))
        return TeacherCaptures(
            {layer: tuple(capture.freeze() for capture in seen) for layer, seen in calls.items()}
        )

    def check(
        self,
        *args: Any,
        target: Any = None,
        nodes: Tensor | Sequence[int] | None = None,
        teacher_args: tuple[Any, ...] | Mapping[str, Any] | None = None,
        teacher: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> CheckReport:
        """Run both models on one batch, as :meth:`forward` does, and report what was captured.

        Nothing is trained: eval mode, no gradients, random numbers as before; lazily sized
        parameters of the losses get their sizes. Every loss is computed, whatever its schedule.
        """
        modes = {module: module.training for module in self.modules()}
        cuda = {p.device.index for p in self.parameters() if p.is_cuda}
        self._prepare(teacher, teacher_args)
        try:
            self.eval()
            with torch.random.fork_rng(sorted(cuda)), torch.no_grad():
                theirs = None
                if teacher is None:
                    theirs = self._run_teacher(args, kwargs, teacher_args)
                ours = run("student", self.student, self._student_recorder, args, kwargs)
                values, *calls = self._compare(
                    ours, theirs, teacher, target, nodes, self._named_losses()
                )
            return self._report(values, *calls)
        finally:
            for module, mode in modes.items():
                module.training = mode

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, that the schedules of the losses go by."""
        if epoch < 0:
            raise ValueError(f"'epoch' must not be negative (got {epoch})")
        self.epoch = epoch

    def remove_hooks(self) -> None:
        """Leave both models as they were, without hooks; the distiller is of no use afterwards."""
        self._teacher_recorder.remove()
        self._student_recorder.remove()

    def train(self: Self, mode: bool = True) -> Self:
        """Set the mode of the student and the losses; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "teacher":  # nn.Module would register it, parameters and all
            raise AttributeError("'teacher' cannot be replaced: build a new Distiller")
        super().__setattr__(name, value)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.teacher._apply(fn, recurse)  # to(), cuda(), half(): the teacher goes along
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"teacher={type(self.teacher).__name__}, frozen"

    def _named_losses(self) -> dict[str, DistillationLoss]:
        return dict(self.losses.items())  # type: ignore[arg-type]

    @torch.compiler.disable
    def _prepare(self, teacher: Any, teacher_args: Any) -> bool:
        """Return whether the teacher must run. Not compiled: the epoch is no constant."""
        if self._student_recorder.removed or self._teacher_recorder.removed:
            raise RuntimeError("The hooks of this distiller were removed: build a new one")
        if teacher is not None and teacher_args is not None:
            raise ValueError("'teacher_args' must not be given with 'teacher', which needs no run")
        if any(module.training for module in self.teacher.modules()):
            self.teacher.eval()  # someone called teacher.train()
        return teacher is None and any(
            loss.factor(self.epoch) != 0 for loss in self._named_losses().values()
        )

    def _run_teacher(self, args: tuple[Any, ...], kwargs: dict[str, Any], own: Any) -> Run:
        if isinstance(own, Mapping):
            args, kwargs = (), dict(own)
        elif own is not None:
            args, kwargs = tuple(own), {}
        with torch.no_grad():
            return run("teacher", self.teacher, self._teacher_recorder, args, kwargs)

    # The models compile; what looks at graphs, versions and epochs stays eager.
    @torch.compiler.disable
    def _weigh(
        self, ours: Run, theirs: Run | None, known: Any, target: Any, nodes: Any
    ) -> dict[str, Tensor]:
        losses = self._named_losses()
        factors = {name: loss.factor(self.epoch) for name, loss in losses.items()}
        active = {name: loss for name, loss in losses.items() if factors[name] != 0}
        values: Mapping[str, Tensor] = {}
        if active:
            values, _, _ = self._compare(ours, theirs, known, target, nodes, active)
        return {
            name: values[name] * factors[name] if name in active else _zero(loss, ours.output)
            for name, loss in losses.items()
        }

    def _compare(
        self,
        ours: Run,
        theirs: Run | None,
        known: Any,
        target: Any,
        nodes: Any,
        losses: Mapping[str, DistillationLoss],
    ) -> tuple[dict[str, Tensor], Calls, Calls]:
        student = ours.captures(named_layers(self.student))
        teacher: Calls
        if theirs is not None:
            teacher, graphs = theirs.captures(named_layers(self.teacher)), self._graphs
        else:
            teacher = captures = as_captures(known)
            graphs = captures.graphs
        device = _device(ours.output)
        nodes = as_nodes(nodes, device)
        with torch.autocast(device.type, enabled=False):
            values = {
                name: compare(name, loss, student, teacher, target, nodes, graphs)
                for name, loss in losses.items()
            }
        return values, student, teacher

    def _report(self, values: Mapping[str, Tensor], student: Calls, teacher: Calls) -> CheckReport:
        losses = self._named_losses()
        taps = [
            *report_taps("teacher", teacher, {n: x.teacher_layer for n, x in losses.items()}),
            *report_taps("student", student, {n: x.student_layer for n, x in losses.items()}),
        ]
        return CheckReport(tuple(taps), tuple(report_losses(losses, values, self.epoch)))


def _device(output: Any) -> torch.device:
    tensor = first_tensor(output)
    return torch.device("cpu") if tensor is None else tensor.device


def _zero(loss: nn.Module, output: Any) -> Tensor:
    """Return 0 with gradients 0 for the loss's own parameters, which DDP waits for."""
    zero = torch.zeros((), device=_device(output))
    own = (parameter for parameter in loss.parameters() if not is_lazy(parameter))
    return sum((parameter.sum() * 0 for parameter in own), start=zero)
