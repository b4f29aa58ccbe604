"""From a model with masks to a small one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pyg_stkd.prune.following.find import find_ports
from pyg_stkd.prune.following.sharpened import Sharpened
from pyg_stkd.prune.mask_hooks.hooks import Refresh, remove_masks
from pyg_stkd.prune.mask_hooks.skipping import stop_skipping
from pyg_stkd.prune.structure.copies import copied
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.layout import Layout
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.prunable import shared_names

__all__ = ["compact", "narrow", "plain_copy", "unmask"]

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
# Without these a model would not compute the same; masks are taken off by unmask.
_PART_OF_IT = (BasePruningMethod, Refresh, SpectralNorm, WeightNorm)


def compact(
    model: nn.Module,
    ignore: Iterable[str] = (),
    example: Any = None,
    call: Callable[..., Any] | None = None,
) -> nn.Module:
    r"""Return a smaller copy of a model, without its masked channels (or heads) and their masks.

    The copy is a plain module of the same class with the same outputs, smaller tensors and true
    attributes. Channels of which only some slices are masked stay. Hooks are left behind.

    Args:
        model (torch.nn.Module): A model with masks of :class:`~pyg_stkd.prune.Pruner` or of
            :mod:`torch.nn.utils.prune`.
        ignore (list of str): Names of modules that stay as they are. (default: :obj:`()`)
        example (Any, optional): Inputs, to follow channels where rules do not suffice, as for
            :class:`~pyg_stkd.prune.Pruner`.
        call (callable, optional): A function of the model and the inputs.

    Raises:
        ValueError: If a module has no rule and there is no example.

    Example:
        >>> import torch
        >>> from torch.nn.utils import prune
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> keep = torch.tensor([1.0, 0.0, 1.0])
        >>> _ = prune.custom_from_mask(model[0], "weight", keep.view(3, 1).expand(3, 2))
        >>> _ = prune.custom_from_mask(model[0], "bias", keep)
        >>> _ = prune.custom_from_mask(model[2], "weight", keep.view(1, 3))
        >>> compact(model)
        Sequential(
          (0): Linear(in_features=2, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=1, bias=True)
        )
    """
    ignore = tuple(ignore)
    small = plain_copy(model)
    sharp = None
    if example is not None:
        sharp = Sharpened(lambda: plain_copy(model), Example(example, call))
    for heads in (False, True):
        ports = find_ports(model, ignore, heads, sharp)
        layout = Layout(model, ports)
        kept = layout.kept(model)
        if not bool(kept.all()):
            narrow(small, ports, layout, kept)
            break
    return small


def plain_copy(model: nn.Module, skipping: bool = False) -> nn.Module:
    """Return a copy without masks and hooks, the zeros made permanent.

    With :obj:`skipping` its norms still leave masked channels out of their statistics.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            # Masked or normalised weights are results of a product, which have no copy.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
        for name in _HOOKS:
            hooks = getattr(module, name)
            used = [(key, hook) for key, hook in hooks.items() if isinstance(hook, _PART_OF_IT)]
            memo[id(hooks)] = OrderedDict(used)
    other: nn.Module = copied(model, memo)
    remove_masks(other)
    if not skipping:
        stop_skipping(other)
    return other


def unmask(model: nn.Module) -> None:
    """Make the zeros of a model permanent and leave no trace of masks."""
    remove_masks(model)
    stop_skipping(model)


def narrow(model: nn.Module, ports: Ports, layout: Layout, kept: Tensor) -> None:
    """Drop all units but these from a plain model, in place."""
    modules = dict(model.named_modules())
    same = shared_names(model)
    made: dict[Tensor, Tensor] = {}
    for name, dims in layout.slices.items():
        prefix, _, key = name.rpartition(".")
        module = modules[prefix]
        tensor = getattr(module, key)
        if name in same and all(bool(kept[channels].all()) for channels in dims.values()):
            continue  # tied weights stay one
        value = tensor.detach()
        for dim, channels in dims.items():
            index = kept[channels].nonzero().view(-1).to(value.device)
            value = value.index_select(dim, index)
        if isinstance(tensor, nn.Parameter):
            new = nn.Parameter(value, tensor.requires_grad)
            module._parameters[key] = cast("nn.Parameter", made.setdefault(tensor, new))
        else:
            module._buffers[key] = made.setdefault(tensor, value)
    for prefix, name, shape in ports.attributes:
        module = modules[prefix]
        setattr(module, name, _count(layout, kept, shape, getattr(module, name)))
    for prefix, counted, rescale in ports.rescales:
        flags = kept[layout.places(counted)]
        if not bool(flags.all()):
            rescale(modules[prefix], int(flags.sum()) / flags.numel())


def _count(layout: Layout, kept: Tensor, channels: Any, old: Any) -> Any:
    """Return the number of kept channels, or a list of such, in the form of the old value."""
    if isinstance(channels, tuple):
        return int(kept[layout.places(channels)].sum())
    nested = isinstance(old, (list, tuple)) and len(old) == len(channels)
    counts = [
        _count(layout, kept, item, old[i] if nested else None) for i, item in enumerate(channels)
    ]
    if isinstance(old, (list, tuple)):
        return type(old)(counts)
    return counts[0] if old is not None and len(set(map(str, counts))) == 1 else counts
