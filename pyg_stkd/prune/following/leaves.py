"""Modules that a rule speaks for, where they are called."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from pyg_stkd.nn import NodeLayerNorm, STConv
from pyg_stkd.nn.sequence.time_conv import TimeConv
from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.calls.labels import Axis, Labels
from pyg_stkd.prune.structure.registry import find_rule
from pyg_stkd.prune.structure.rules import (
    attention,
    containers,
    convolutions,
    dense,
    models,
    multihead,
    norms,
    recurrent,
    relational,
    spatio_temporal,
)
from pyg_stkd.prune.structure.units import Channels

__all__ = ["Leaf", "joins_layers", "leaf_of"]

# What joins layers or has no channels of its own is followed, by the code of the class; so are
# models whose outputs are not [..., channels].
_FOLLOWED = {
    containers.sequential,
    containers.pyg_sequential,
    containers.jumping_knowledge,
    dense.elementwise,
    dense.prelu,
    models.stgcn,
    models.astgcn,
}
_RECURRENT = {recurrent.recurrent, recurrent.recurrent_cell}
# Where a masked channel comes out as 0: weights and biases have a row for each.
_OF_ROWS = {
    dense.linear,
    dense.convolution,
    norms.batch_norm,
    norms.pyg_batch_norm,
    norms.layer_norm,
    norms.pyg_layer_norm,
    convolutions.gcn_conv,
    convolutions.cheb_conv,
    convolutions.sage_conv,
    convolutions.graph_conv,
    attention.gat_conv,
    attention.gatv2_conv,
    attention.transformer_conv,
    relational.rgcn_conv,
    multihead.multihead_attention,
    spatio_temporal.cheb_attention_conv,
    models.dgcnn,
}


def _channel_dim(module: nn.Module) -> int:
    """Return the dimension of the channels in a layer's input and output, from the end."""
    # A TimeConv is a Conv2d too, whose channels are last.
    for cls, dim in ((TimeConv, -1), (nn.Conv1d, -2), (nn.Conv2d, -3), (nn.Conv3d, -4)):
        if isinstance(module, cls):
            return dim
    return -1


class Leaf:
    """A call of a module with a rule.

    Args:
        module (torch.nn.Module): The module.
        args (tuple): Its arguments.
        kwargs (dict): Its keyword arguments.
        labels (Labels): The axes of all tensors.
    """

    def __init__(self, module: nn.Module, args: Any, kwargs: Any, labels: Labels) -> None:
        self.module = module
        self.args, self.kwargs = args, kwargs
        self.labels = labels
        values = [*args, *kwargs.values()]
        self.features: Any = values[0] if values else None
        self.others = values[1:]
        self.dim = _channel_dim(module)
        self.rule = find_rule(type(module))

    def channels(self) -> Any:
        """Return the channels of the features, as a rule takes them.

        Raises:
            ValueError: If they are not where the rule expects them, or other inputs have some.
        """
        if isinstance(self.module, nn.MultiheadAttention):
            others = [x for x in self.others[:2] if x is not self.features]
            for x in others:  # keys and values are as wide as queries
                self.labels.ports.tie(self._of(self.features), self._of(x))
        elif isinstance(self.module, TimeConv) and set(self.others) - {"linear", 0}:
            raise ValueError("its gate or its residual makes other channels")
        elif self.rule is convolutions.gcn2_conv:
            self.labels.ports.tie(self._of(self.features), self._of(self.others[0]))
        elif self.rule not in _RECURRENT and self._has_channels(self.others):
            raise ValueError("an input beside the features has channels")
        if isinstance(self.features, Tensor):
            return self._of(self.features)
        if isinstance(self.features, tuple) and len(self.features) == 2:
            return [None if x is None else self._of(x) for x in self.features]
        if self._has_channels(self.features):
            raise ValueError("its inputs are not features of nodes")
        return None

    def label(self, out: Any, channels: Any) -> None:
        """Label what the module returned.

        Raises:
            ValueError: If its channels are not those of the rule.
        """
        for tensor in tensors_of(out):
            self.labels.put(tensor, {})
        if channels is None:
            return
        if not (channels and all(isinstance(unit, int) for unit in channels)):
            raise ValueError("its rule returns more than the channels of one output")
        if self.rule in _RECURRENT:
            self._label_states(out, channels)
            return
        if isinstance(self.module, nn.MultiheadAttention):
            out = out[0]
        if not isinstance(out, Tensor):
            raise ValueError("it returns more than features")
        dim = self._place(out)
        if out.dim() < -self.dim or out.size(dim) != len(channels):
            raise ValueError(f"its output must have {len(channels)} channels")
        free = self.labels.ports.is_free(channels)
        zero = self._ends_in_rows() or (free and self._is_zero(out, dim, channels))
        self.labels.put(out, {dim: Axis(channels, zero)})

    def _ends_in_rows(self) -> bool:
        """Tell whether masked channels come out as 0 without a trial."""
        of_block = isinstance(self.module, STConv) and isinstance(self.module.norm, NodeLayerNorm)
        return of_block or self.rule in _OF_ROWS

    @torch.no_grad()
    def _is_zero(self, out: Tensor, dim: int, channels: Channels) -> bool:
        """Try whether masked channels come out as 0: half of them, with their slices at 0."""
        ports = self.labels.ports
        name = ports.name_of(self.module)
        units = list(dict.fromkeys(map(ports.find, channels)))
        gone = set(units[::2])
        saved = []
        for key, parameter in self.module.named_parameters():
            for of_dim, owned in ports.owned.get(f"{name}.{key}" if name else key, {}).items():
                index = torch.tensor([i for i, u in enumerate(owned) if ports.find(u) in gone])
                saved.append((parameter, parameter.detach().clone()))
                parameter.index_fill_(of_dim, index.long().to(parameter.device), 0)
        try:
            masked = self.module.forward(*self.args, **self.kwargs)
            index = torch.tensor([i for i, u in enumerate(channels) if ports.find(u) in gone])
            return bool((masked.index_select(dim, index.to(out.device)) == 0).all())
        except Exception:  # whatever a layer raises when it is called again
            return False
        finally:
            for parameter, values in reversed(saved):
                parameter.copy_(values)

    def _label_states(self, out: Any, channels: Channels) -> None:
        """Outputs and states; those of the start are of the same units."""
        zero = True
        for state in tensors_of(self.others):
            axis = self.labels.of(state).get(state.dim() - 1)
            zero = zero and axis is not None and axis.zero
            known = self._of(state)
            self.labels.ports.tie(channels, known) if known else None
        for tensor in tensors_of(out):
            ways = tensor.size(-1) // len(channels)
            self.labels.put(tensor, {tensor.dim() - 1: Axis(channels * ways, zero)})

    def _has_channels(self, value: Any) -> bool:
        return any(self.labels.of(tensor) for tensor in tensors_of(value))

    def _of(self, tensor: Tensor) -> Channels | None:
        axes = self.labels.of(tensor)
        dim = self._place(tensor)
        if set(axes) - {dim}:
            raise ValueError("its channels are not where its rule expects them")
        return axes[dim].channels if axes else None

    def _place(self, tensor: Tensor) -> int:
        if isinstance(self.module, (_BatchNorm, _InstanceNorm, nn.GroupNorm)):
            return 1
        return tensor.dim() + self.dim


def joins_layers(rule: Any) -> bool:
    """Tell whether a rule is of a chain, of which following knows more."""
    return rule in _FOLLOWED - {models.stgcn, models.astgcn}


def leaf_of(module: nn.Module) -> bool:
    """Tell whether a rule holds for a module: that of its class, if nothing is set on top of it."""
    rule = find_rule(type(module))
    return rule is not None and rule not in _FOLLOWED and "forward" not in vars(module)
