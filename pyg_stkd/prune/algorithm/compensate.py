"""What a dropped channel was on average goes into the biases of those that took it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.modes import eval_mode
from pyg_stkd.prune.mask_hooks.hooks import masked_names, original_of, refresh
from pyg_stkd.prune.masked.processes import summed, together

__all__ = ["add_means"]

Run = Callable[[nn.Module], None]


@torch.no_grad()
def add_means(model: nn.Module, before: nn.Module, run: Run) -> None:
    r"""Move the biases of a masked model, so that its layers' mean outputs are as before.

    For each layer with a bias, on the inputs :math:`x` that it had before,

    .. math::
        \mathbf{b} \leftarrow \mathbf{b} + \operatorname{mean}_x \left(
        f_{\text{before}}(x) - f_{\text{masked}}(x) \right),

    which is :math:`\mathbf{W}_{\text{dropped}} \bar{\mathbf{x}}_{\text{dropped}}` for a linear map,
    a convolution or a filter on the graph. A layer that applies a nonlinearity itself says by a
    method :obj:`before_gate` what the bias is added to. Norms are left alone, and layers whose
    weights are used without a call of theirs.

    Args:
        model (torch.nn.Module): The masked model.
        before (torch.nn.Module): A copy of it as it was, without masks.
        run (callable): Runs a model on some batches.
    """
    masked = dict(model.named_modules())
    shifts: dict[str, Tensor] = {}
    watched = {
        name: layer
        for name, layer in before.named_modules()
        if _adds_a_bias(layer) and _is_masked(masked[name])
    }
    counts = dict.fromkeys(watched, 0)

    def record(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
            first, second = (_output(each, args, kwargs) for each in (layer, masked[name]))
            dim = _channel_dim(layer, first)
            if dim is None:
                return
            rows = (first - second).movedim(dim, -1).flatten(0, -2)
            shifts[name] = shifts.get(name, 0.0) + rows.sum(0)
            counts[name] += rows.size(0)

        return hook

    handles = [
        layer.register_forward_hook(record(name), with_kwargs=True)
        for name, layer in watched.items()
    ]
    refresh(model)
    try:
        with eval_mode(model, before), together():
            run(before)
    finally:
        for handle in handles:
            handle.remove()
    for name, count in counts.items():
        bias = original_of(masked[name], "bias")
        total = float(summed(torch.tensor(count, dtype=torch.float64)))  # over all processes
        bias.add_(summed(shifts.get(name, torch.zeros_like(bias))) / max(total, 1.0))
    refresh(model)


def _adds_a_bias(layer: nn.Module) -> bool:
    names = ("weight", "bias")
    weight, bias = (layer._parameters.get(name) for name in names)
    scales = weight is not None and bias is not None and weight.shape == bias.shape
    return bias is not None and bias.dim() == 1 and not scales


def _is_masked(layer: nn.Module) -> bool:
    return any(masked_names(module) for module in layer.modules())


def _output(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what the bias was added to; hooks of the layer, this one too, stay out."""
    before_gate = getattr(layer, "before_gate", None)
    return layer.forward(*args, **kwargs) if before_gate is None else before_gate(args[0])


def _channel_dim(layer: nn.Module, output: Any) -> int | None:
    """Return the dimension of the output that the bias runs along, if there is one."""
    dim = 1 if type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d) else -1
    bias = layer._parameters["bias"]
    assert bias is not None
    fits = isinstance(output, Tensor) and output.dim() > 1 and output.size(dim) == bias.numel()
    return dim if fits else None
