"""What training a distiller needs: batches, the full loss, and what of a batch is the models'."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stkd import checks
from pyg_stkd.distill.distiller import Distiller

__all__ = [
    "Batch",
    "Criterion",
    "OnRows",
    "Unpack",
    "batches_of",
    "losses_of",
    "of_data",
    "of_models",
    "task_loss",
    "total_loss",
    "unpack",
]

# Arguments, keyword arguments, target.
Batch: TypeAlias = tuple[Sequence[Any], Mapping[str, Any], Any]
Unpack: TypeAlias = Callable[[Any], Batch]
# The task loss, of output and target.
Criterion: TypeAlias = Callable[[Any, Any], Tensor]

# What a model may need, or what says that rows of the output are not those of nodes.
_MORE = ("edge_weight", "edge_attr", "edge_label_index")


@dataclass(frozen=True)
class OnRows:
    """A target of which the task's loss counts some rows alone."""

    target: Any
    rows: Tensor


def unpack(batch: Any) -> Batch:
    r"""Return the model's arguments and the target of a batch.

    A tuple gives all but its last entry, and that; :class:`~torch_geometric.data.Data` what
    :func:`of_data` reads.

    Raises:
        TypeError: If a batch is neither.
        ValueError: If there is more in it that counts.

    Example:
        >>> unpack((1, 2, 3))
        ((1, 2), {}, 3)
    """
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return batch[:-1], {}, batch[-1]
    if isinstance(batch, Data):
        return of_data("loader", batch)
    raise TypeError(
        "'loader' must give tuples (*inputs, target) or Data with x, edge_index and y; else give "
        f"unpack=batch -> (args, kwargs, target) (got {type(batch).__name__})"
    )


def of_data(name: str, batch: Data, labelled: bool = True, needs_labels: bool = False) -> Batch:
    r"""Return :obj:`x`, :obj:`edge_index` and the target :obj:`y` of a graph.

    With :obj:`train_mask` its nodes alone count in the task's loss; of a sampled neighbourhood
    (:obj:`input_id`) the seeds, its first nodes, count alone in all losses. No weights or features
    of edges are left out unsaid.

    Args:
        name (str): The argument that the batch came as, for errors.
        batch (Data): The graph, or a batch of graphs.
        labelled (bool): Whether there are labels to read. (default: :obj:`True`)
        needs_labels (bool): Whether a graph without is refused. (default: :obj:`False`)

    Raises:
        ValueError: If something is missing, or there is more that counts, or a mask is none, or
            nodes that count have no label.

    Example:
        >>> data = Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0], [1]]),
        ...             y=torch.tensor([4, 5]), train_mask=torch.tensor([False, True]))
        >>> (x, edge_index), _, target = of_data("loader", data)
        >>> target.target[target.rows]
        tensor([5])
    """
    needed = ("x", "edge_index", *(("y",) if labelled and needs_labels else ()))
    missing = [key for key in needed if getattr(batch, key, None) is None]
    more = [key for key in _MORE if getattr(batch, key, None) is not None]
    if missing or more:
        got = f"no {', '.join(missing)}" if missing else f"{', '.join(more)} too"
        raise ValueError(
            f"'{name}' must give Data with {', '.join(needed)}, the only inputs of the models, or "
            f"unpack=batch -> (args, kwargs, target) must be given (got {got})"
        )
    rows: Tensor | None = None
    kwargs: dict[str, Any] = {}
    if getattr(batch, "input_id", None) is not None:
        rows = kwargs["nodes"] = torch.arange(batch.batch_size, device=batch.x.device)
    elif labelled and getattr(batch, "train_mask", None) is not None:
        rows, num_nodes = batch.train_mask, batch.x.size(0)
        if rows.dtype != torch.bool or rows.shape != (num_nodes,) or not bool(rows.any()):
            raise ValueError(
                f"'{name}' must give Data with a train_mask [N] of at least one node (got "
                f"{int(rows.sum())} of shape {list(rows.shape)} and {rows.dtype} for "
                f"{num_nodes} nodes)"
            )
    target = getattr(batch, "y", None) if labelled else None
    if rows is not None and target is not None:
        if not _has_rows(target, rows):
            shape = list(target.shape) if isinstance(target, Tensor) else type(target).__name__
            raise ValueError(f"'{name}' must give Data with a y of {_rule(rows)} (got {shape})")
        target = OnRows(target, rows)
    return (batch.x, batch.edge_index), kwargs, target


def _has_rows(value: Any, rows: Tensor) -> bool:
    """Tell whether there is a row for each entry of a mask, or for each of the first rows."""
    count = value.size(0) if isinstance(value, Tensor) and value.dim() > 0 else -1
    return count == rows.numel() if rows.dtype == torch.bool else count >= rows.numel()


def _rule(rows: Tensor) -> str:
    of = "nodes, as its train_mask has" if rows.dtype == torch.bool else "sampled seeds"
    return f"one row for each of the {rows.numel()} {of}"


def task_loss(criterion: Criterion, out: Any, target: Any) -> Tensor:
    """Return the task's loss, on the rows that count.

    Raises:
        TypeError: If the criterion is a class, some rows count and the output is no tensor, or no
            tensor is returned.
        ValueError: If rows count that the output has not.

    Example:
        >>> target = OnRows(torch.zeros(3), torch.tensor([1]))
        >>> task_loss(lambda out, y: (out - y).sum(), torch.ones(3), target).item()
        1.0
    """
    if isinstance(criterion, type):  # it would take output and target for options of its own
        raise TypeError(
            f"'criterion' must be an object, {criterion.__name__}() (got {criterion.__name__})"
        )
    if isinstance(target, OnRows):
        if not isinstance(out, Tensor):
            raise TypeError(
                "'distiller' must have a student that returns a tensor, or unpack=batch -> "
                f"(args, kwargs, target) must be given (got {type(out).__name__})"
            )
        if not _has_rows(out, target.rows):
            raise ValueError(
                f"'distiller' must have a student that returns {_rule(target.rows)}, or unpack="
                f"batch -> (args, kwargs, target) must be given (got {list(out.shape)})"
            )
        out, target = out[target.rows], target.target[target.rows]
    task = criterion(out, target)
    if not isinstance(task, Tensor):
        raise TypeError(f"'criterion' must return a tensor (got {type(task).__name__})")
    return task


def batches_of(loader: Iterable[Any], unpack: Unpack, count: int | None = None) -> Iterator[Batch]:
    """Return the batches of a loader, unpacked, at most :obj:`count` of them.

    Example:
        >>> list(batches_of([(1, 2), (3, 4)], unpack, count=1))
        [((1,), {}, 2)]
    """
    for i, batch in enumerate(loader):
        if count is not None and i >= count:
            return
        yield unpack(batch)


def losses_of(distiller: nn.Module, batch: Batch) -> tuple[Any, dict[str, Tensor]]:
    """Return what a distiller returns of a batch: the student's output and the weighted losses."""
    args, kwargs, target = batch
    labels = target.target if isinstance(target, OnRows) else target
    out, losses = distiller(*args, target=labels, **kwargs)
    return out, losses


def total_loss(
    distiller: nn.Module, batch: Batch, criterion: Criterion | None, alpha: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return the full loss of a batch and its terms by name, the task's first.

    With a task loss :math:`\mathcal{L}_y` and distillation losses :math:`\mathcal{L}_k`, already
    weighted, it is

    .. math::
        \mathcal{L}_y + \sum_k \mathcal{L}_k, \qquad \text{or} \qquad
        (1 - \alpha) \, \mathcal{L}_y + \alpha \sum_k \mathcal{L}_k
        \quad \text{given } \alpha.

    Args:
        distiller (torch.nn.Module): A :class:`~pyg_stkd.distill.Distiller`, or what is called as
            one: compiled, or in :class:`~torch.nn.parallel.DistributedDataParallel`.
        batch (tuple): What :func:`unpack` returned.
        criterion (callable, optional): The task loss, of output and target; :obj:`None` for inputs
            without labels, where the teacher alone teaches.
        alpha (float, optional): The share :math:`\alpha` of the teacher, from 0 to 1. At 1 the
            labels are not looked at. (default: the plain sum)

    Raises:
        TypeError: If :obj:`criterion` returns no tensor.
        ValueError: If :obj:`alpha` is below 0 or above 1, or nothing is left to learn from.
    """
    if alpha is not None:
        checks.number("alpha", alpha, least=0, most=1)
    out, losses = losses_of(distiller, batch)
    target = batch[-1]
    taught = sum(losses.values())
    if criterion is None or alpha == 1:
        if not isinstance(taught, Tensor):
            raise ValueError("'losses' of the distiller must not be empty without labels (got {})")
        return taught if alpha is None else alpha * taught, dict(losses)
    task = task_loss(criterion, out, target)
    total = task + taught if alpha is None else (1 - alpha) * task + alpha * taught
    return total, {"task": task, **losses}


def of_models(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments without those that :class:`Distiller` keeps for itself.

    Example:
        >>> of_models({"edge_weight": 1, "nodes": [0], "teacher": {}})
        {'edge_weight': 1}
    """
    parameters = inspect.signature(Distiller.forward).parameters
    return {
        name: value
        for name, value in kwargs.items()
        if name not in parameters or parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
    }
