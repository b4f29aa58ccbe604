"""What a dropped channel was on average goes into the biases of those that took it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_geometric.nn
from torch import Tensor, nn

from pyg_stkd.prune.masks import masked_names, original_of, refresh

__all__ = ["add_means", "mean_inputs"]

# For each module by name: the mean of its input, and its weights on it at that time.
Means = dict[str, tuple[Tensor, Tensor]]

_LAYERS = (nn.Linear, torch_geometric.nn.Linear)


@torch.no_grad()
def mean_inputs(model: nn.Module, run: Callable[[], None]) -> Means:
    """Return the mean over nodes (and batches) of the inputs of linear layers with a bias.

    Args:
        model (torch.nn.Module): The model, which is run in eval mode.
        run (callable): Runs it on some batches.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS) and module.bias is not None
    }
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def record(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            rows = args[0].flatten(0, -2)
            sums[name] = sums.get(name, 0.0) + rows.sum(0)
            counts[name] = counts.get(name, 0) + rows.size(0)

        return hook

    modes = {module: module.training for module in model.modules()}
    handles = [m.register_forward_pre_hook(record(name)) for name, m in layers.items()]
    try:
        model.eval()
        run()
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return {
        name: (total / max(counts[name], 1), layers[name].weight.detach().clone())
        for name, total in sums.items()
    }


@torch.no_grad()
def add_means(model: nn.Module, means: Means) -> None:
    r"""Add :math:`\mathbf{W}_{\text{dropped}} \bar{\mathbf{x}}_{\text{dropped}}` to the biases.

    Only columns that are masked as a whole count. Rows that are masked stay 0.
    """
    modules = dict(model.named_modules())
    for name, (mean, weight) in means.items():
        module = modules[name]
        if "weight" not in masked_names(module):
            continue
        mask = module._buffers["weight_mask"]
        assert mask is not None
        rows = mask.any(1)
        gone = ~mask[rows].any(0) if bool(rows.any()) else torch.zeros_like(mask[0]).bool()
        original_of(module, "bias").add_(weight @ (mean * gone))
    refresh(model)
