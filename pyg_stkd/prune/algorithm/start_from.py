"""A student that starts as the pruned teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import Any, TypeVar, cast

from torch import nn

from pyg_stkd import checks
from pyg_stkd.distill.training import Criterion, Unpack, batches_of, of_models, task_loss, unpack
from pyg_stkd.prune.algorithm.compensate import add_means
from pyg_stkd.prune.algorithm.steps import check_calibration, recalibrate
from pyg_stkd.prune.compaction.compact import plain_copy
from pyg_stkd.prune.masked.importance import KDIS, Importance, Magnitude
from pyg_stkd.prune.pruner import Pruner
from pyg_stkd.prune.structure.example import unwrap

__all__ = ["start_from"]

M = TypeVar("M", bound=nn.Module)  # the teacher's class, which a wrapper around it is not


def start_from(
    teacher: M,
    keep: float | Iterable[float] = 0.05,
    *,
    example: Any = None,
    importance: Importance | None = None,
    calibration: Iterable[Any] | None = None,
    criterion: Criterion | None = None,
    unpack: Unpack = unpack,
    call: Callable[..., Any] | None = None,
    **options: Any,
) -> M:
    r"""Return a student that starts as the pruned teacher, in place of random weights.

    The channels of the teacher that matter least go, by :obj:`importance`, until a share of the
    parameters is left. With :obj:`calibration` batches, biases then take over what the dropped
    channels were on average, and batch norms are estimated anew. The student is of the teacher's
    class, trainable and in train mode; the teacher stays as it is. Train the student next, best
    with :func:`~pyg_stkd.distill.fit`: before that it is worth little.

    Args:
        teacher (torch.nn.Module): The trained teacher.
        keep (float or list of float): The share of the teacher's parameters to keep; of several,
            each is pruned to and scored again before the next. (default: :obj:`0.05`)
        example (tuple, optional): Inputs of the teacher, to find its channels by running it.
            (default: those of the first calibration batch, if there are any)
        importance (Importance, optional): The score. (default: :class:`KDIS` where there are
            :obj:`calibration` batches and a :obj:`criterion`, else :class:`Magnitude`)
        calibration (iterable, optional): Batches, of tuples :obj:`(*inputs, target)` or
            :class:`~torch_geometric.data.Data`, that can be run through more than once.
        criterion (callable, optional): The task loss, of output and target, that scores such as
            :class:`KDIS` differentiate.
        unpack (callable, optional): Returns :obj:`(args, kwargs, target)` of a batch.
        call (callable, optional): A function of the model and its inputs, for a model without a
            :obj:`forward`. (default: the model itself)
        **options (Any): Further arguments of :class:`Pruner`: :obj:`granularity` and others.

    Raises:
        TypeError: If the teacher is no module, or :obj:`calibration` gives its batches only once.
        ValueError: If the score needs a loss and :obj:`calibration` or :obj:`criterion` is missing,
            or :class:`Pruner` refuses the teacher or an option.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> teacher = GCN(4, 64, num_layers=3, out_channels=2)
        >>> student = start_from(teacher, keep=0.1)
        >>> sum(p.numel() for p in student.parameters()) / sum(
        ...     p.numel() for p in teacher.parameters()) <= 0.1
        True
    """
    checks.instance("teacher", teacher, nn.Module)
    check_calibration(calibration)
    if isinstance(calibration, Integral):
        raise TypeError(f"'calibration' must be batches, not their number (got {calibration})")
    batches = None if calibration is None else [*batches_of(calibration, unpack, 1)]
    if batches == []:
        raise ValueError("'calibration' must give at least one batch (got none)")
    if example is None and batches and not of_models(batches[0][1]):
        example = tuple(batches[0][0])
    scored = calibration is not None and criterion is not None
    if importance is None:
        importance = KDIS() if scored else Magnitude()
    if isinstance(importance, KDIS) and not scored:
        raise ValueError(
            "'calibration' and 'criterion' must be given for KDIS, which differentiates a loss "
            f"(got {'no calibration' if calibration is None else 'no criterion'})"
        )
    student = plain_copy(unwrap(teacher)).requires_grad_()
    pruner = Pruner(student, importance, keep=keep, example=example, call=call, **options)

    def outputs(model: nn.Module) -> Iterator[tuple[Any, Any]]:
        for args, kwargs, target in batches_of(calibration or (), unpack):
            inputs = of_models(kwargs)
            out = model(*args, **inputs) if call is None else call(model, *args, **inputs)
            yield out, target

    def run(model: nn.Module) -> None:
        for _ in outputs(model):
            pass

    for _ in pruner.keep:
        if calibration is None:
            pruner.step()
            continue
        whole = plain_copy(student)
        pruner.step(criterion and (task_loss(criterion, out, y) for out, y in outputs(student)))
        add_means(student, whole, run)
        recalibrate(student, lambda: run(student))
    return cast("M", pruner.compact().train())
