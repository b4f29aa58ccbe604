"""Modules that a rule speaks for, where they are called."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from pyg_stkd.nn.sequence.time_conv import TimeConv
from pyg_stkd.prune.following.call import tensors_of
from pyg_stkd.prune.following.labels import Axis, Labels
from pyg_stkd.prune.structure.ports import Channels
from pyg_stkd.prune.structure.registry import find_rule
from pyg_stkd.prune.structure.rules import (
    attention,
    containers,
    convolutions,
    dense,
    models,
    norms,
    spatio_temporal,
)

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
    spatio_temporal.cheb_conv,
}


def _channel_dim(module: nn.Module) -> int:
    """Return the dimension of the channels in a layer's input and output, from the end."""
    for cls, dim in ((nn.Conv1d, -2), (nn.Conv2d, -3), (nn.Conv3d, -4), (TimeConv, -1)):
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
        self.labels = labels
        values = [*args, *kwargs.values()]
        self.features = values[0] if values else None
        self.others = values[1:]
        self.dim = _channel_dim(module)

    def channels(self) -> Any:
        """Return the channels of the features, as a rule takes them.

        Raises:
            ValueError: If they are not where the rule expects them, or other inputs have some.
        """
        if any(self.labels.of(tensor) for tensor in tensors_of(self.others)):
            raise ValueError("an input beside the features has channels")
        if isinstance(self.features, Tensor):
            return self._of(self.features)
        if isinstance(self.features, tuple) and len(self.features) == 2:
            return [None if x is None else self._of(x) for x in self.features]
        if any(self.labels.of(tensor) for tensor in tensors_of(self.features)):
            raise ValueError("its inputs are not features of nodes")
        return None

    def label(self, out: Any, channels: Any) -> None:
        """Label what the module returned.

        Raises:
            ValueError: If its channels are not those of the rule.
        """
        if channels is not None and not isinstance(out, Tensor):
            raise ValueError("it returns more than features")
        for tensor in tensors_of(out):
            self.labels.put(tensor, {})
        if channels is None:
            return
        if not (channels and all(isinstance(unit, int) for unit in channels)):
            raise ValueError("its rule returns more than the channels of one output")
        dim = self._place(out)
        if out.dim() < -self.dim or out.size(dim) != len(channels):
            raise ValueError(f"its output must have {len(channels)} channels")
        zero = find_rule(type(self.module)) in _OF_ROWS
        self.labels.put(out, {dim: Axis(channels, zero)})

    def _of(self, tensor: Tensor) -> Channels | None:
        axes = self.labels.of(tensor)
        dim = self._place(tensor)
        if set(axes) - {dim}:
            raise ValueError("its channels are not where its rule expects them")
        return axes[dim].channels if axes else None

    def _place(self, tensor: Tensor) -> int:
        if isinstance(self.module, (_BatchNorm, _InstanceNorm)):
            return 1
        return tensor.dim() + self.dim


def joins_layers(rule: Any) -> bool:
    """Tell whether a rule is one of those that following replaces."""
    return rule in _FOLLOWED


def leaf_of(module: nn.Module) -> bool:
    """Tell whether a rule holds for a module: that of its class, if nothing is set on top of it."""
    rule = find_rule(type(module))
    return rule is not None and rule not in _FOLLOWED and "forward" not in vars(module)
