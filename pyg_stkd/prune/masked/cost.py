"""What a model costs to run: operations, and seconds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import pyg_stkd.functional.sparse.primitives  # noqa: F401 - registers the operator that is counted
from pyg_stkd.modes import eval_mode
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.timing import interleave

__all__ = ["Budget", "Cost", "check_cost", "count_flops", "find_cost", "latency"]

Cost: TypeAlias = Callable[[nn.Module], float]
Budget: TypeAlias = Literal["parameters", "flops", "latency"] | Cost


def count_flops(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> int:
    """Return the operations of a forward in eval mode: matrix products, convolutions, propagation.

    Those of the form in which a model trains: what inference saves or adds does not count.

    Example:
        >>> count_flops(nn.Linear(3, 4), (torch.ones(2, 3),))
        48
    """
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.pyg_stkd.spmm: _propagation_flops}
    )
    with eval_mode(model), torch.enable_grad(), counter:
        model(*args, **(kwargs or {}))
    return int(counter.get_total_flops())


@torch.no_grad()
def latency(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    repeats: int = 7,
) -> float:
    """Return the median seconds of a forward in eval mode, after one that is not counted.

    CPU time of this process on CPU, wall time elsewhere.
    """
    device = next(model.parameters()).device
    with eval_mode(model):
        times = interleave({"": lambda: model(*args, **(kwargs or {}))}, repeats, 1, device)
    return statistics.median(times[""]["cpu" if device.type == "cpu" else "wall"])


def find_cost(budget: Budget, example: Example | None) -> Cost | None:
    """Return what measures a model, :obj:`None` for the number of parameters.

    Raises:
        ValueError: If the budget is unknown, or needs inputs and gets none.
    """
    if budget == "parameters":
        return None
    if callable(budget):
        return budget
    if budget not in ("flops", "latency"):
        raise ValueError(
            "'budget' must be 'parameters', 'flops', 'latency' or a function of a model "
            f"(got {budget!r})"
        )
    if example is None:
        raise ValueError(f"'example' must be inputs of the model for budget={budget!r} (got None)")
    measure = count_flops if budget == "flops" else latency
    return lambda model: measure(_Called(model, example), ())


class _Called(nn.Module):
    """A model that is called on its example."""

    def __init__(self, model: nn.Module, example: Example) -> None:
        super().__init__()
        self.model = model
        self.example = example

    def forward(self) -> Any:
        return self.example.run(self.model)


def _propagation_flops(
    index: Any, weight: Any, x: Any, transpose: Any, *args: Any, **kwargs: Any
) -> int:
    """A product and a sum for each edge and channel."""
    entries = 1
    for size in (weight[0], *x[1:]):
        entries *= size
    return 2 * entries


def check_cost(value: float | Tensor) -> float:
    """Return a cost as a number; it must be finite and positive.

    Example:
        >>> check_cost(2)
        2.0
    """
    cost = float(value)
    if not 0 < cost < float("inf"):
        raise ValueError(f"'budget' must give a finite cost above 0 (got {cost})")
    return cost
