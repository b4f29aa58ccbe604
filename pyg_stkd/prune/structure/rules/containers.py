"""Chains of modules, and what joins the outputs of several."""

from __future__ import annotations

from typing import Any

import torch_geometric.nn
from torch import nn

from pyg_stkd.prune.structure.ports import Ports, Several
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.units import Channels

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
        first, *rest = [values[name] for name in child.param_names]
        if module in _POOLS:
            out = first
        elif isinstance(module, nn.Module) or not rest:
            ports.freeze(rest)  # such as features of edges
            out = ports(module, first)
        elif first is None or None in rest:  # perhaps the input of the model, or a batch vector
            ports.freeze([first, *rest])
            out = None
        else:
            out = Several([first, *rest])  # such as lambda x1, x2: [x1, x2]
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
    ports: Ports, jk: torch_geometric.nn.JumpingKnowledge, xs: list[Channels | None]
) -> Channels | None:
    """The layers side by side, or the maximum over them."""
    known = [x for x in xs if x is not None]
    # The recurrent weights of an LSTM see all channels, and have no rule.
    if jk.mode == "lstm" or len(known) < len(xs):
        ports.freeze(known)
        return None
    if jk.mode == "cat":
        return tuple(unit for x in known for unit in x)
    out: Channels | None = known[0]
    for x in known[1:]:
        out = ports.tie(out, x)
    return out
