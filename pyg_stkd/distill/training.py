"""What training a distiller needs: batches, the full loss, and what of a batch is the models'."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.distill.distiller import Distiller

__all__ = ["Batch", "Criterion", "Unpack", "batches_of", "of_models", "total_loss", "unpack"]

# Arguments, keyword arguments, target.
Batch: TypeAlias = tuple[Sequence[Any], Mapping[str, Any], Any]
Unpack: TypeAlias = Callable[[Any], Batch]
# The task loss, of output and target.
Criterion: TypeAlias = Callable[[Any, Any], Tensor]

# What a model or a loss may need: nodes of a mask, or those sampled for others, are not to learn.
_MORE = ("edge_weight", "edge_attr", "train_mask", "input_id")


def unpack(batch: Any) -> Batch:
    r"""Return the model's arguments and the target of a batch.

    A :class:`~torch_geometric.data.Data` gives :obj:`x`, :obj:`edge_index` and :obj:`y`; a tuple
    all but its last entry, and that. No weights, features of edges or masks are left out unsaid.

    Raises:
        TypeError: If a batch is neither.
        ValueError: If there is more in it that counts.

    Example:
        >>> unpack((1, 2, 3))
        ((1, 2), {}, 3)
    """
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return batch[:-1], {}, batch[-1]
    if all(hasattr(batch, name) for name in ("x", "edge_index", "y")):
        more = [name for name in _MORE if getattr(batch, name, None) is not None]
        if more:
            raise ValueError(
                "'loader' must give Data with x, edge_index and y alone, or unpack=batch -> (args, "
                f"kwargs, target) must be given (got {', '.join(more)} too)"
            )
        return (batch.x, batch.edge_index), {}, batch.y
    raise TypeError(
        "'loader' must give tuples (*inputs, target) or Data with x, edge_index and y; else give "
        f"unpack=batch -> (args, kwargs, target) (got {type(batch).__name__})"
    )


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
    args, kwargs, target = batch
    out, losses = distiller(*args, target=target, **kwargs)
    taught = sum(losses.values())
    if criterion is None or alpha == 1:
        if not isinstance(taught, Tensor):
            raise ValueError("'losses' of the distiller must not be empty without labels (got {})")
        return taught if alpha is None else alpha * taught, dict(losses)
    task = criterion(out, target)
    if not isinstance(task, Tensor):
        raise TypeError(f"'criterion' must return a tensor (got {type(task).__name__})")
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
