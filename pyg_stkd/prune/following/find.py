"""The ports of a model: by its rules, or by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

import torch
from torch import Tensor, nn

from pyg_stkd.prune.following import follow
from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.leaves import joins_layers
from pyg_stkd.prune.structure.copies import with_its_parameters
from pyg_stkd.prune.structure.example import Example, evaluating
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.prunable import class_name
from pyg_stkd.prune.structure.registry import find_rule

__all__ = ["Sharpened", "find_ports"]

_NOISE = 65521  # random numbers, over and over: a prime, so that no two rows get the same ones


class Sharpened:
    """A model and inputs that tell more: float64, and weights that are not 0 or alike.

    They are made when they are first asked for, and are as they were where the model does not run
    so.

    Args:
        plain (callable): Makes a copy of the model without masks.
        example (Example): Inputs.
    """

    def __init__(self, plain: Callable[[], nn.Module], example: Example) -> None:
        self._plain = plain
        self._example = example

    @cached_property
    def _pair(self) -> tuple[nn.Module, Example]:
        return _sharpened(self._plain, self._example)

    @property
    def model(self) -> nn.Module:
        """The model, in eval mode."""
        return self._pair[0]

    @property
    def example(self) -> Example:
        """The inputs."""
        return self._pair[1]


def find_ports(
    model: nn.Module,
    ignore: Iterable[str] = (),
    heads: bool = False,
    sharp: Sharpened | None = None,
) -> Ports:
    """Return the ports of a model.

    Where a rule speaks for the class of the model and for all that is in it, nothing is run.

    Args:
        model (torch.nn.Module): The model.
        ignore (list of str): Names of modules that stay as they are.
        heads (bool): Whether attention heads are the units, not channels.
        sharp (Sharpened, optional): What is run to follow channels, where rules do not suffice.

    Raises:
        ValueError: If rules do not suffice and there is no example.
    """
    rule = find_rule(type(model))
    if sharp is None:
        if rule is None:
            raise ValueError(
                f"'example' must be given for a model class without a rule, so that its channels "
                f"are found by running it: Pruner(model, example=(x, edge_index)) (got None and "
                f"{class_name(model)})"
            )
        return Ports(model, ignore, heads)
    if rule is not None and not joins_layers(rule):
        try:
            ports = Ports(model, ignore, heads)
        except ValueError:
            pass
        else:
            free = any(ports.is_free(channels) for _, channels in ports.axes)
            if free and all(reason.is_natural for reason in ports.reasons):
                return ports
    run = with_its_parameters(sharp.model)  # whose attributes are changed
    ports = Ports(run, ignore, heads, follow=lambda ports, _: follow(ports, run, sharp.example))
    ports.forget_model()
    return ports


def _sharpened(plain: Callable[[], nn.Module], example: Example) -> tuple[nn.Module, Example]:
    for change in (_shaken, None):
        for dtype in (torch.float64, None):
            other = plain().eval()
            if change is not None:
                change(other)
            inputs = example
            if dtype is not None:
                other, inputs = other.to(dtype), example.to(dtype)
            try:
                with evaluating():
                    out = inputs.run(with_its_parameters(other))
            except Exception:  # whatever a model of other numbers raises
                continue
            if all(bool(t.isfinite().all()) for t in tensors_of(out) if t.is_floating_point()):
                return other, inputs
    return plain().eval(), example


@torch.no_grad()
def _shaken(model: nn.Module) -> None:
    noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0))
    start = 0
    for parameter in model.parameters():
        if parameter.is_floating_point():
            size, count = _size(parameter), parameter.numel()
            more = noise.roll(-start).repeat(-(-count // _NOISE))[:count].view(parameter.shape)
            parameter.add_(more.to(parameter), alpha=0.3 * size)
            start = (start + count + 1) % _NOISE


def _size(parameter: Tensor) -> float:
    size = float(parameter.std(correction=0)) if parameter.numel() > 1 else 0.0
    return size if size > 0 else 0.1
