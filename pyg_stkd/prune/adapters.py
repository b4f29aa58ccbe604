"""Losses with weights of their own follow the student's layers when these get smaller."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from pyg_stkd.prune.masked_channels import MaskedChannels
from pyg_stkd.prune.pruner import Pruner

__all__ = ["narrow_adapters"]


def narrow_adapters(distiller: Any, pruner: Pruner) -> None:
    """Drop the columns of masked channels from the linear maps of a distiller's losses.

    Call it before the student is shrunk. Masked channels are 0 there, so that nothing changes.

    Raises:
        ValueError: If a loss has other weights, or the rules do not tell its layer's channels.
    """
    masked = pruner._masked
    if not isinstance(masked, MaskedChannels):
        return
    kept = masked.kept
    for name, loss in getattr(distiller, "losses", {}).items():
        layer = getattr(loss, "student_layer", None)
        channels = masked.ports.outputs.get(layer or "")
        for adapter in loss.modules():
            own = [p for p in adapter.parameters(recurse=False) if not is_lazy(p)]
            if not own or not layer:
                continue  # the output of the model keeps its width
            if channels is None or not isinstance(adapter, nn.Linear):
                raise ValueError(
                    f"No rule says how the weights of loss {name!r} ({type(adapter).__name__}) "
                    f"follow the channels of layer {layer!r}: only linear maps of a layer do"
                )
            if adapter.weight.size(1) != len(channels):
                continue  # a later map of several
            index = kept[masked.layout.places(channels)].nonzero().view(-1)
            columns = adapter.weight.detach().index_select(1, index.to(adapter.weight.device))
            adapter.weight = nn.Parameter(columns, adapter.weight.requires_grad)
            adapter.in_features = columns.size(1)
