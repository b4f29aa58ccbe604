"""Masks of :mod:`torch.nn.utils.prune` without their faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

__all__ = [
    "MaskContainer",
    "Refresh",
    "mask_of",
    "masked_names",
    "original_of",
    "refresh",
    "remove_masks",
    "set_mask",
]


class _Masked(Tensor):
    """The product of a parameter and its mask. It can be copied, as a parameter can."""

    # As in torch.nn.Parameter: results are plain tensors.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone()
        memo[id(self)] = copied
        return copied


class _Kept(prune.BasePruningMethod):
    """One stage: the mask is in the module's buffer already."""

    PRUNING_TYPE = "global"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class MaskContainer(prune.PruningContainer):
    """The hook that multiplies a parameter with its mask before each forward.

    A :class:`torch.nn.utils.prune.PruningContainer`, so that further methods of that module may
    be applied on top.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._tensor_name = name

    def apply_mask(self, module: nn.Module) -> Tensor:
        """Return the masked parameter."""
        masked = super().apply_mask(module)
        return masked if torch.compiler.is_compiling() else masked.as_subclass(_Masked)


class Refresh:
    """A hook for the whole model: masks hold for those who read a parameter without a forward."""

    def __call__(self, module: nn.Module, args: Any) -> None:
        refresh(module)


def masked_names(module: nn.Module) -> list[str]:
    """Return the names of the masked parameters of one module.

    Example:
        >>> lin = nn.Linear(2, 2)
        >>> set_mask(lin, "weight", torch.eye(2))
        >>> masked_names(lin)
        ['weight']
    """
    return [hook._tensor_name for hook in _pruning_hooks(module)]


def set_mask(module: nn.Module, name: str, mask: Tensor) -> None:
    """Mask a parameter, in addition to the mask that it has.

    Example:
        >>> lin = nn.Linear(2, 2)
        >>> set_mask(lin, "weight", torch.tensor([[1, 1], [0, 1]]))
        >>> set_mask(lin, "weight", torch.tensor([[1, 0], [1, 1]]))
        >>> lin.weight_mask
        tensor([[1., 0.],
                [0., 1.]])
    """
    original = original_of(module, name)
    mask = mask.to(original)
    if mask.shape != original.shape:
        raise ValueError(
            f"'mask' of {name!r} must have shape {list(original.shape)} (got {list(mask.shape)})"
        )
    hook = _own_hook(module, name)
    if hook is None:
        hook = MaskContainer(name)
        _rename(module._parameters, name, f"{name}_orig")
        module.register_buffer(f"{name}_mask", torch.ones_like(original, requires_grad=False))
        module.register_forward_pre_hook(hook)
    if _save_masks not in module._state_dict_hooks.values():
        module.register_state_dict_post_hook(_save_masks)
    method = _Kept()
    method._tensor_name = name
    hook.add_pruning_method(method)
    with torch.no_grad():
        module._buffers[f"{name}_mask"] *= mask  # type: ignore[operator]
    hook(module, None)


def original_of(module: nn.Module, name: str) -> Tensor:
    """Return the parameter itself, masked or not."""
    parameter = module._parameters.get(f"{name}_orig", module._parameters.get(name))
    assert parameter is not None
    return parameter


def mask_of(module: nn.Module, name: str) -> Tensor | None:
    """Return the mask of a parameter, if it has one."""
    return module._buffers[f"{name}_mask"] if name in masked_names(module) else None


def refresh(model: nn.Module) -> None:
    """Multiply all parameters with their masks again, after an optimizer's step for example."""
    for module in model.modules():
        for hook in _pruning_hooks(module):
            hook(module, None)


def remove_masks(model: nn.Module) -> None:
    """Make the zeros permanent and leave plain parameters, in their first order."""
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, Refresh):
                del module._forward_pre_hooks[key]
            if not isinstance(hook, prune.BasePruningMethod):
                continue
            name = hook._tensor_name
            with torch.no_grad():
                value = hook.apply_mask(module).as_subclass(Tensor)
                original = original_of(module, name)
                original.grad = None
                original.data = value
            del module._forward_pre_hooks[key], module._buffers[f"{name}_mask"]
            module.__dict__.pop(name, None)
            _rename(module._parameters, f"{name}_orig", name)
        for key, save in list(module._state_dict_hooks.items()):
            if save is _save_masks:
                del module._state_dict_hooks[key]


def _own_hook(module: nn.Module, name: str) -> MaskContainer | None:
    """Return the hook of a masked parameter, made ours if it is that of torch's own pruning."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, MaskContainer) and hook._tensor_name == name:
            return hook
        if isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == name:
            own = MaskContainer(name)
            for method in hook if isinstance(hook, prune.PruningContainer) else (hook,):
                own.add_pruning_method(method)
            module._forward_pre_hooks[key] = own
            return own
    return None


def _pruning_hooks(module: nn.Module) -> Iterator[Any]:
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            yield hook


def _save_masks(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Save what torch_geometric.nn.Linear leaves out of its state."""
    for name in masked_names(module):
        state.pop(f"{prefix}{name}", None)
        for key, tensor in (
            (f"{name}_orig", module._parameters[f"{name}_orig"]),
            (f"{name}_mask", module._buffers[f"{name}_mask"]),
        ):
            assert tensor is not None
            state.setdefault(f"{prefix}{key}", tensor.detach())


def _rename(parameters: dict[str, Any], old: str, new: str) -> None:
    items = [(new if key == old else key, value) for key, value in parameters.items()]
    parameters.clear()
    parameters.update(items)
