"""Models that are called step by step, run over a whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Unrolled"]


class Unrolled:
    r"""How a model is run over a sequence, step by step, from no state on: for
    :obj:`Distiller(..., call=Unrolled(step))`.

    What :meth:`Distiller.unroll <pyg_stkd.distill.Distiller.unroll>` does by itself; as
    :obj:`call=` the distiller is called on the sequence, which
    :class:`~torch.nn.parallel.DistributedDataParallel` needs.

    Args:
        step (callable): One step, :obj:`step(model, x, state) -> (output, state)`; the first state
            is :obj:`None`.

    Returns:
        The outputs of all steps: tensors of one shape stacked along a new first axis, others as a
        list.

    Raises:
        TypeError: If :obj:`step` cannot be called.

    Example:
        >>> unrolled = Unrolled(lambda model, x, state: (model(x), None))
        >>> unrolled(nn.ReLU(), [torch.ones(2), torch.ones(2)]).shape
        torch.Size([2, 2])
    """

    def __init__(self, step: Callable[[nn.Module, Any, Any], tuple[Any, Any]]) -> None:
        if not callable(step):
            raise TypeError(f"'step' must be a function (model, x, state) (got {step!r})")
        self.step = step

    def __call__(self, model: nn.Module, sequence: Iterable[Any]) -> Any:
        outputs, state = [], None
        for x in sequence:
            output, state = self.step(model, x, state)
            outputs.append(output)
        alike = all(isinstance(x, Tensor) and x.shape == outputs[0].shape for x in outputs)
        return torch.stack(outputs) if outputs and alike else outputs  # [T, *]
