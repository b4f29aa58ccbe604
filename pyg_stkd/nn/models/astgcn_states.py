"""Weights of ASTGCN as two public codes name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_public"]

# Names of modules and parameters in the authors' PyTorch code and in PyTorch Geometric Temporal.
_MODULES = {
    "TAt": "temporal_attention",
    "SAt": "spatial_attention",
    "cheb_conv_SAt": "conv",
    "time_conv": "time_conv",
    "residual_conv": "residual",
    "ln": "norm",
    "_temporal_attention": "temporal_attention",
    "_spatial_attention": "spatial_attention",
    "_chebconv_attention": "conv",
    "_time_convolution": "time_conv",
    "_residual_convolution": "residual",
    "_layer_norm": "norm",
}
_PARAMETERS = {
    "U1": "w1", "U2": "w2", "U3": "w3", "be": "bias", "Ve": "scale",
    "W1": "w1", "W2": "w2", "W3": "w3", "bs": "bias", "Vs": "scale",
}  # fmt: skip
_BLOCK = re.compile(r"(?:BlockList|_blocklist)\.(\d+)\.(\w+)\.(.+)")
_FINAL = re.compile(r"_?final_conv\.(weight|bias)")
_STACK = "parts.recent."


def read_public(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the arguments of the model that weights belong to, and the weights by its names.

    Raises:
        ValueError: If a name belongs to neither code, or a block's widths differ.
    """
    own: dict[str, Tensor] = {}
    orders: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        if final := _FINAL.fullmatch(key):
            own[f"{_STACK}final.{final[1]}"] = value
            continue
        block = _BLOCK.fullmatch(key)
        if block is None or block[2] not in _MODULES:
            raise ValueError(
                "'state' must be that of the authors' 'ASTGCN_submodule' or of PyTorch Geometric "
                f"Temporal's 'ASTGCN' (got a tensor {key!r})"
            )
        module, name = _MODULES[block[2]], block[3].lstrip("_")
        name = _PARAMETERS.get(name, name)
        if name == "bias" and value.dim() == 3:
            value = value.squeeze(0)  # [1, T, T] -> [T, T]
        if module == "time_conv" and value.dim() == 4:
            value = value.transpose(2, 3)  # [C', C, 1, 3] -> [C', C, 3, 1]
        target = f"{_STACK}blocks.{block[1]}.{module}."
        if name.startswith("Theta."):
            orders.setdefault(target + "weight", {})[int(name[6:])] = value
        else:
            own[target + name] = value
    for key, terms in orders.items():
        own[key] = torch.stack([terms[k] for k in sorted(terms)])  # [K, C, C']
    return _options(own, elementwise=bool(orders)), own


def _options(own: Mapping[str, Tensor], elementwise: bool) -> dict[str, Any]:
    first = f"{_STACK}blocks.0."
    try:
        order, in_channels, hidden = own[first + "conv.weight"].shape
        num_steps = own[first + "temporal_attention.scale"].size(0)
        num_nodes = own[first + "spatial_attention.scale"].size(0)
        out_channels, steps_left, _, width = own[_STACK + "final.weight"].shape
    except KeyError as error:
        raise ValueError(f"'state' must hold all weights of the model (got no {error})") from None
    if width != hidden:
        raise ValueError(
            "'state' must have as many Chebyshev as time filters "
            f"(got {hidden} and {width}, which this model does not tell apart)"
        )
    return {
        "in_channels": in_channels,
        "hidden_channels": hidden,
        "out_channels": out_channels,
        "num_nodes": num_nodes,
        "num_steps": num_steps,
        "num_blocks": 1 + max(int(key.split(".")[3]) for key in own if ".blocks." in key),
        "K": order,
        "time_stride": num_steps // steps_left,
        "recursion": "elementwise" if elementwise else "propagated",
        "bias": first + "conv.bias" in own,
    }
