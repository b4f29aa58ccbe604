"""Which channels a pruner took, and what these did in the teacher."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.prune import Magnitude, Pruner
from pyg_stkd.report.interpretation.watching import Run, outputs_of

__all__ = ["Channels", "channels_taken"]


@dataclass(frozen=True)
class Channels:
    r"""The channels of one layer of the teacher.

    Args:
        layer (str): The layer's name.
        kept (Tensor): Which channels are left, boolean, :math:`(C)`.
        effect (Tensor): How much the output changes, as a mean absolute difference, when the
            channel shows nothing but its mean, :math:`(C)`.
        twin (Tensor): The largest absolute correlation with another channel that was kept,
            :math:`(C)`: near 1, that one says the same. 0 of a channel that is constant.
    """

    layer: str
    kept: Tensor
    effect: Tensor
    twin: Tensor


@torch.no_grad()
def channels_taken(teacher: nn.Module, pruner: Pruner, run: Run, example: Any) -> list[Channels]:
    """Return what became of the teacher's channels, layer by layer.

    Layers are those whose output has the channels last, all of them, and lost some; of modules
    within one another, with the same channels, the outer one.

    Args:
        teacher (torch.nn.Module): The teacher, of which the pruner's model was a copy.
        pruner (Pruner): The pruner, whether its model was shrunk or not.
        run (callable): Returns the output of a model.
        example (Any): Inputs of the teacher, as the pruner takes them.
    """
    twin = copy.deepcopy(teacher)
    with warnings.catch_warnings():  # what cannot be pruned was said when the pruner was made
        warnings.simplefilter("ignore", UserWarning)
        again = Pruner(twin, Magnitude(), pruner.granularity, keep=1.0, example=example)
    again.load_state_dict(pruner.state_dict())
    masks = {}
    for name, _ in teacher.named_modules():
        channels = again.channels_of(name)
        if name and channels.known and not bool(channels.kept.all()):
            masks[name] = channels.kept
    before, seen = outputs_of(teacher, masks, run)
    found: list[Channels] = []
    for name, kept in masks.items():
        output = seen.get(name)
        inner = any(
            name.startswith(f"{other}.") and torch.equal(kept, mask)
            for other, mask in masks.items()
        )
        if not isinstance(output, Tensor) or output.size(-1) != len(kept) or inner:
            continue
        rows = output.flatten(0, -2)
        effect = [_effect(teacher, name, c, run, before) for c in range(len(kept))]
        found.append(Channels(name, kept, torch.stack(effect), _twins(rows, kept)))
    return found


def _effect(model: nn.Module, name: str, channel: int, run: Run, before: Tensor) -> Tensor:
    """Return the change of the output when a channel of a layer is replaced by its mean."""

    def replace(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[..., channel] = output[..., channel].mean()
        return output

    handle = model.get_submodule(name).register_forward_hook(replace)
    try:
        return (run(model) - before).abs().mean()
    finally:
        handle.remove()


def _twins(rows: Tensor, kept: Tensor) -> Tensor:
    """Return each channel's largest absolute correlation with another one that was kept."""
    centred = rows.double() - rows.double().mean(0)
    norm = centred.norm(dim=0)
    unit = torch.where(norm > 1e-9, centred / norm.clamp(min=1e-9), 0.0)
    alike = (unit.T @ unit).abs().fill_diagonal_(0.0)
    return alike[:, kept].amax(1).clamp(max=1.0)
