"""How sure teachers are of their outputs, and the weights that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_stkd.distill.recording.capture import Capture

__all__ = ["Error", "confidence", "error_of"]

Error: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_UNLABELLED = -100  # the class number that torch's cross entropy passes over


def confidence(errors: Tensor) -> Tensor:
    r"""Return the weights of teachers by their errors :math:`[K]`, from `"Confidence-Aware
    Multi-Teacher Knowledge Distillation" <https://arxiv.org/abs/2201.00007>`_.

    .. math::
        w_k = \frac{1}{K - 1} \left( 1 - \frac{\exp(e_k)}{\sum_j \exp(e_j)} \right)

    They sum to 1.

    Example:
        >>> confidence(torch.tensor([0.0, 0.0, 99.0]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    return (1 - errors.softmax(dim=0)) / (errors.numel() - 1)


def error_of(output: Capture, target: Any = None, error: Error | None = None) -> Tensor:
    r"""Return the error of a teacher's output, a scalar; its entropy where there is no target.

    Which error it is, :class:`~pyg_stkd.distill.Teachers` tells.

    Raises:
        TypeError: If :obj:`target` is no tensor, or :obj:`error` returns no scalar.
        ValueError: If the target tells of no error, or the output of no classes.

    Example:
        >>> logits = Capture(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
        >>> error_of(logits), error_of(logits, torch.tensor([1, 1]))
        (tensor(0.3472), tensor(4.8466))
    """
    if target is None:
        if error is not None:
            raise ValueError("'error' needs the labels: distiller(..., target=y) (got None)")
        return _entropy(output)
    if not isinstance(target, Tensor):
        raise TypeError(f"'target' must be a tensor of labels (got {type(target).__name__})")
    binary = _is_binary(target)
    rows, labels = _at_nodes(output, target, binary)
    if error is not None:
        value = error(rows, labels)
        if not isinstance(value, Tensor) or value.dim() > 0:
            raise TypeError(f"'error' must return a scalar (got {value!r})")
        return value
    if binary and labels.shape == rows.shape:
        known = ~labels.isnan()
        labels = labels.to(rows.dtype).nan_to_num()
        return _mean(F.binary_cross_entropy_with_logits(rows, labels, reduction="none"), known)
    if labels.is_floating_point() and labels.shape == rows.shape:
        known = ~labels.isnan()
        return _mean((rows - labels.to(rows.dtype).nan_to_num()).square(), known)
    whole = labels.dtype in (torch.int64, torch.int32, torch.uint8)
    if whole and labels.shape == rows.shape[:-1] and rows.size(-1) > 1:
        rows, labels = rows.flatten(0, -2), labels.flatten().long()
        each = F.cross_entropy(rows, labels, ignore_index=_UNLABELLED, reduction="none")
        return _mean(each, labels != _UNLABELLED)
    raise ValueError(
        f"weights='confidence' needs a 'target' of class numbers [*, N] for logits [*, N, C], or "
        f"of 0 and 1 or floating point values of the shape of the {output.where} (got shape "
        f"{list(target.shape)} of {target.dtype} for an output {list(output.value.shape)}): "
        f"else give Teachers the error, error=(output, target) -> scalar"
    )


def _entropy(output: Capture) -> Tensor:
    rows = output.rows
    if rows.dim() < 2 or rows.size(-1) < 2:
        raise ValueError(
            f"weights='confidence' needs labels, distiller(..., target=y), where the "
            f"{output.where} has less than two classes (got shape {list(rows.shape)})"
        )
    return torch.special.entr(rows.softmax(dim=-1)).sum(dim=-1).mean()


def _is_binary(target: Tensor) -> bool:
    """Whether labels are 0 and 1, or missing (NaN), and nothing else."""
    return bool(((target == 0) | (target == 1) | target.isnan()).all())


def _at_nodes(output: Capture, target: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    """Return both at the chosen nodes; a target of these nodes alone stays as it is."""
    value = output.features
    if output.nodes is None:
        return value, target
    axis, index = output.node_dim, output
    if value.dim() == target.dim() == 3 and target.is_floating_point() and not binary:
        # Forecasts [B, T, N]: their nodes are last, as for ResponseLoss.
        axis = 2
        index = Capture(value.mT, layer=output.layer, owner=output.owner, nodes=output.nodes)
    chosen = index.node_index
    assert chosen is not None
    if target.shape in (value.shape, value.shape[:-1]):
        target = target.index_select(axis, chosen.to(target.device))
    return value.index_select(axis, chosen), target


def _mean(value: Tensor, known: Tensor) -> Tensor:
    return value.where(known, 0.0).sum() / known.sum().clamp(min=1)
