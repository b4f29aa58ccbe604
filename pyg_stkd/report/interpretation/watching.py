"""What layers return while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from pyg_stkd.distill.recording.recorder import named_layers, unknown_layer

__all__ = ["outputs_of", "Run"]

Run = Callable[[nn.Module], Tensor]


def outputs_of(model: nn.Module, layers: Iterable[str], run: Run) -> tuple[Tensor, dict[str, Any]]:
    """Run a model; return its output, and the last ones of some layers.

    Raises:
        ValueError: If the model has no layer of a name.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> out, seen = outputs_of(model, ["0"], lambda each: each(torch.ones(4, 2)))
        >>> bool((seen["0"].relu() == out).all())
        True
    """
    modules, seen = named_layers(model), {}
    handles = []

    def hook(name: str) -> Callable[..., None]:
        def watch(module: nn.Module, args: Any, output: Any) -> None:
            seen[name] = output

        return watch

    try:
        for name in layers:
            if name not in modules:
                raise ValueError(f"'layers' {unknown_layer(name, modules)}")
            handles.append(modules[name].register_forward_hook(hook(name)))
        return run(model), seen
    finally:
        for handle in handles:
            handle.remove()
