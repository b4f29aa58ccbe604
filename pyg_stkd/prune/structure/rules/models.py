"""How models join their layers.

Following finds the same groups in these models, on an example. These rules are what prunes them
without one.
"""

from __future__ import annotations

from typing import Any

from torch_geometric.nn.models.basic_gnn import BasicGNN

from pyg_stkd.nn import ASTGCN, DGCNN, GAT, STGCN
from pyg_stkd.nn.models.astgcn import ASTStack
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.units import Channels

__all__ = ["astgcn", "basic_gnn", "dgcnn", "gat", "stgcn"]


@register(BasicGNN)
def basic_gnn(ports: Ports, model: BasicGNN, x: Any) -> Channels | None:
    """Convolutions with norms and activations between, joined by jumping knowledge."""
    layers: list[Channels | None] = []
    hidden: list[Channels | None] = []
    for i, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        x = ports(conv, x)
        if i < model.num_layers - 1 or model.jk_mode is not None:
            hidden.append(x)
            for step in (model.act, norm) if model.act_first else (norm, model.act):
                x = x if step is None else ports(step, x)
            layers.append(x)
    widths = [channels for channels in hidden if channels is not None]
    if widths and model.jk_mode is None:
        ports.attribute(model, "hidden_channels", widths)
    if hasattr(model, "jk"):
        x = ports(model.jk, layers)
    return ports(model.lin, x) if hasattr(model, "lin") else x


@register(GAT)
def gat(ports: Ports, model: Any, x: Channels | None) -> None:
    """A chain; the heads of the last layer are averaged, and kept."""
    widths, heads = [], []
    for i, conv in enumerate(model.convs):
        x = ports(conv, x)
        if i < model.num_layers - 1 and x is not None:
            widths.append(x[: conv.out_channels])
            heads.append(x[:: conv.out_channels])
            x = ports(model.act, x)
    ports.freeze(x)
    if widths:
        ports.attribute(model, *(("heads", heads) if ports.heads else ("hidden_channels", widths)))


@register(DGCNN)
def dgcnn(ports: Ports, model: Any, x: Channels | None) -> Channels | None:
    """The features of all convolutions side by side, embedded, then pooled in two ways."""
    features: list[Channels] = []
    for conv in model.convs:
        x = ports(conv, x)
        assert x is not None
        features.append(x)
    embedding = ports(model.embedding, tuple(unit for x in features for unit in x))
    assert embedding is not None
    out = ports(model.mlp, embedding + embedding)
    hidden = [ports.outputs[ports.name_of(lin)] for lin in model.mlp.lins[:-1]]
    ports.attribute(model, "channels", [*features, embedding])
    ports.attribute(model, "mlp_channels", hidden)
    return out


@register(STGCN)
def stgcn(ports: Ports, model: Any, x: Channels | None) -> Channels | None:
    """Blocks, then a convolution, a norm and two linear layers."""
    blocks = []
    for block in model.blocks:
        x = ports(block, x)
        seen = (block.temporal1, block.conv, block.temporal2)
        blocks.append([ports.outputs[ports.name_of(layer)] for layer in seen])
    conv = ports(model.head_conv, x)
    hidden = ports(model.lin1, ports(model.head_norm, conv))
    ports.attribute(model, "hidden_channels", blocks)
    ports.attribute(model, "head_channels", [conv, hidden])
    return ports(model.lin2, hidden)


@register(ASTGCN)
def astgcn(ports: Ports, model: Any, x: Channels | None) -> None:
    """A stack of blocks for each input; the last convolution takes all channels at once."""
    widths: list[Channels] = []
    for part in model.parts.values():
        ports(part, x)
        widths += [ports.outputs[ports.name_of(block.conv)] for block in part.blocks]
        widths += [ports.outputs[ports.name_of(block)] for block in part.blocks]
    ports.attribute(model, "hidden_channels", widths)


@register(ASTStack)
def astgcn_stack(ports: Ports, stack: Any, x: Channels | None) -> None:
    """Blocks, then a convolution over the channels, whose maps are horizons."""
    for block in stack.blocks:
        x = ports(block, x)
    x = ports.sized(x, stack.final.weight.size(3))
    ports.own(stack.final, "weight", 3, x)
    ports.attribute(stack.final, "kernel_size", [ports.sized(None, 1), x])
