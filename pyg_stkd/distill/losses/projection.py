"""Projections of features to another width, trained along with the student."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.graph.order import usable_in_training

__all__ = ["Projection", "project"]


class Projection(nn.LazyLinear):
    r"""A linear layer that takes its widths when it first sees features.

    Example:
        >>> projection = Projection()
        >>> projection.fit(torch.ones(3, 2), 5)
        >>> projection
        Linear(in_features=2, out_features=5, bias=True)
    """

    def __init__(self) -> None:
        super().__init__(out_features=0)

    def fit(self, x: Tensor, width: int) -> None:
        """Take the width, device and precision of the features, or those of loaded weights."""
        fresh = self.has_uninitialized_params()
        with usable_in_training(), torch.no_grad():
            if fresh:
                shape, like = (width, x.size(-1)), (x.device, x.dtype)
                self.weight.materialize(shape, *like)
                self.bias.materialize(shape[:1], *like)
            self.out_features, self.in_features = self.weight.shape
            if fresh:
                self.reset_parameters()
        self._infer_parameters(self, (x,))  # a plain Linear from here on


def project(projection: nn.Module, x: Tensor, capture: Capture, loss: str) -> Tensor:
    """Return the projected features of a capture, computed in the precision of the projection.

    Raises:
        ValueError: If the projection was made for another width.

    Example:
        >>> project(nn.Linear(2, 5), torch.ones(3, 2), Capture(torch.ones(3, 2)), "hint").shape
        torch.Size([3, 5])
    """
    if type(projection) is nn.Linear:  # as most are: to look for parameters takes longer
        weight = projection.weight
        if weight.dtype == x.dtype and weight.size(-1) == x.size(-1):
            return projection(x)
    parameter = next(projection.parameters(), x)
    try:
        return projection(x.to(parameter.dtype)).to(x.dtype)
    except RuntimeError as error:
        linear = (part for part in projection.modules() if isinstance(part, nn.Linear))
        width = next((part.in_features for part in linear), x.size(-1))
        if width == x.size(-1):
            raise
        raise ValueError(
            f"The {capture.where} must have the {width} channels that the projection of loss "
            f"{loss!r} was made for (got shape {list(x.shape)})"
        ) from error
