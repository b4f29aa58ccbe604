"""What a pruner is told: checks, and the kind of masks that follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from torch import nn

from pyg_stkd import checks
from pyg_stkd.prune.masked.channels import MaskedChannels
from pyg_stkd.prune.masked.cost import Cost
from pyg_stkd.prune.masked.importance import Importance
from pyg_stkd.prune.masked.model import MaskedModel
from pyg_stkd.prune.masked.weights import MaskedWeights
from pyg_stkd.prune.structure.example import Example

__all__ = ["Granularity", "check_options", "masked_model"]

Granularity: TypeAlias = Literal["weight", "channel", "head"]


def check_options(
    model: Any, importance: Any, granularity: Any, rho: float, min_width: int, ignore: Any
) -> None:
    """Raise for options that no pruner takes."""
    checks.instance("model", model, nn.Module)
    checks.instance("importance", importance, Importance)
    checks.choice("granularity", granularity, ("weight", "channel", "head"))
    checks.number("rho", rho, least=0, most=1)
    checks.count("min_width", min_width)
    if isinstance(ignore, str):
        raise TypeError(f"'ignore' must be a list of names (got {ignore!r})")


def masked_model(
    model: nn.Module,
    granularity: Granularity,
    ignore: Iterable[str],
    cost: Cost | None,
    example: Example | None = None,
    verify: bool = True,
) -> MaskedModel:
    """Return the masks of a granularity.

    Raises:
        ValueError: If single weights shall save what they cannot, or nothing can be pruned.
    """
    if granularity != "weight":
        return MaskedChannels(model, ignore, granularity == "head", cost, example, verify)
    if cost is not None:
        raise ValueError("'budget' must be 'parameters' for single weights, which save no time")
    return MaskedWeights(model, ignore)
