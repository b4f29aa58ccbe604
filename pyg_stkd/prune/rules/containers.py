"""Chains of modules, and what joins the outputs of several."""

from __future__ import annotations

from typing import Any

import torch_geometric.nn
from torch import nn

from pyg_stkd.prune.ports import Channels, Ports
from pyg_stkd.prune.registry import register

__all__ = ["jumping_knowledge", "mlp", "pyg_sequential", "sequential"]

# Functions that pool over nodes treat each channel by itself.
_POOLS = (
    torch_geometric.nn.global_add_pool,
    torch_geometric.nn.global_mean_pool,
    torch_geometric.nn.global_max_pool,
)


@register(nn.Sequential)
def sequential(ports: Ports, chain: nn.Sequential, x: Channels | None) -> Channels | None:
    """One module after the other."""
    for module in chain:
        x = ports(module, x)
    return x


@register(torch_geometric.nn.Sequential)
def pyg_sequential(
    ports: Ports, chain: torch_geometric.nn.Sequential, x: Channels | None
) -> Channels | None:
    """Modules by the names of their inputs and outputs; the features are the first input."""
    values: dict[str, Any] = dict.fromkeys(chain.signature.param_dict)
    values[next(iter(values))] = x
    out: Any = x
    for child in chain._children:
        module = getattr(chain, child.name)
        inputs = [values[name] for name in child.param_names]
        if isinstance(module, nn.Module):
            out = ports(module, inputs[0])
        elif module in _POOLS:
            out = inputs[0]
        elif len(child.param_names) > 1 and all(inputs):
            out = inputs  # such as lambda x1, x2: [x1, x2], for JumpingKnowledge
        else:
            out = inputs[0]
        values.update(dict.fromkeys(child.return_names, out))
    return out


@register(torch_geometric.nn.MLP)
def mlp(ports: Ports, module: torch_geometric.nn.MLP, x: Channels | None) -> Channels | None:
    """Linear layers with norms and activations between."""
    widths: list[Channels] = [ports.sized(x, module.channel_list[0])]
    out: Channels | None = widths[0]
    norms = [*module.norms, *[None] * module.plain_last]
    for lin, norm in zip(module.lins, norms, strict=True):
        out = ports(lin, out)
        assert out is not None
        widths.append(out)
        if norm is not None:
            steps = (module.act, norm) if module.act_first else (norm, module.act)
            for step in steps:
                out = out if step is None else ports(step, out)
    ports.attribute(module, "channel_list", widths)
    return out


@register(torch_geometric.nn.JumpingKnowledge)
def jumping_knowledge(
    ports: Ports, jk: torch_geometric.nn.JumpingKnowledge, xs: list[Channels]
) -> Channels | None:
    """The layers side by side, or the maximum over them."""
    if jk.mode == "cat":
        return tuple(unit for x in xs for unit in x)
    if jk.mode == "lstm":  # its recurrent weights see all channels, and have no rule
        ports.freeze(xs)
        return None
    out: Channels | None = xs[0]
    for x in xs[1:]:
        out = ports.tie(out, x)
    return out
