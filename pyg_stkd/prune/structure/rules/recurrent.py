"""Recurrent layers and cells: a hidden unit goes with all its gates."""

from __future__ import annotations

from typing import Any

import torch_geometric.nn
from torch import nn

from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.units import Channels

__all__ = ["recurrent", "recurrent_cell", "set2set"]


@register(nn.RNN, nn.GRU, nn.LSTM)
def recurrent(ports: Ports, module: nn.RNNBase, x: Channels | None) -> Channels:
    """Rows of each gate, one block after the other. All layers and directions share their units.

    Returns those of the states; the outputs of two directions are side by side.
    """
    if module.proj_size:
        raise ValueError("projections of hidden states are kept")
    x = ports.sized(x, module.input_size)
    out = ports.fresh(module.hidden_size)
    _states(ports, module, x, out)
    return out


@register(torch_geometric.nn.Set2Set)
def set2set(ports: Ports, module: torch_geometric.nn.Set2Set, x: Channels | None) -> Channels:
    """Queries that are compared with features, so of their channels, beside what they read."""
    lstm = module.lstm
    if lstm.proj_size or lstm.bidirectional:
        raise ValueError("queries of other widths than the features are kept")
    x = ports.sized(x, module.in_channels)
    _states(ports, lstm, x + x, x)
    ports.attribute(module, "in_channels", x)
    ports.attribute(module, "out_channels", x + x)
    return x + x


def _states(ports: Ports, module: nn.RNNBase, x: Channels, out: Channels) -> None:
    ways = 1 + module.bidirectional
    gates = _gates(module.weight_hh_l0, module.hidden_size)
    for layer in range(module.num_layers):
        for suffix in ("", "_reverse")[:ways]:
            end = f"l{layer}{suffix}"
            ports.own(module, f"weight_ih_{end}", 0, out * gates)
            ports.own(module, f"weight_ih_{end}", 1, x if layer == 0 else out * ways)
            ports.own(module, f"weight_hh_{end}", 0, out * gates)
            ports.own(module, f"weight_hh_{end}", 1, out)
            if module.bias:
                ports.own(module, f"bias_ih_{end}", 0, out * gates)
                ports.own(module, f"bias_hh_{end}", 0, out * gates)
    ports.attribute(module, "input_size", x)
    ports.attribute(module, "hidden_size", out)
    ports.rescale(module, x + out, _flatten)


@register(nn.RNNCell, nn.GRUCell, nn.LSTMCell)
def recurrent_cell(ports: Ports, module: nn.RNNCellBase, x: Channels | None) -> Channels:
    """The same for one step."""
    x = ports.sized(x, module.input_size)
    out = ports.fresh(module.hidden_size)
    gates = _gates(module.weight_hh, module.hidden_size)
    for name in ("ih", "hh"):
        ports.own(module, f"weight_{name}", 0, out * gates)
        ports.own(module, f"bias_{name}", 0, out * gates)
    ports.own(module, "weight_ih", 1, x)
    ports.own(module, "weight_hh", 1, out)
    ports.attribute(module, "input_size", x)
    ports.attribute(module, "hidden_size", out)
    return out


def _gates(weight: Any, width: int) -> int:
    return int(weight.size(0)) // width


def _flatten(module: nn.RNNBase, share: float) -> None:
    """Tell the module of its new parameters, which it also keeps in a list."""
    module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
    module.flatten_parameters()
