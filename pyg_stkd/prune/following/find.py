"""The ports of a model: by its rules, or by running it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from pyg_stkd.prune.following import follow
from pyg_stkd.prune.following.leaves import joins_layers
from pyg_stkd.prune.following.sharpened import Sharpened
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.prunable import class_name
from pyg_stkd.prune.structure.registry import find_rule

__all__ = ["find_ports"]


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
                "'example' must be given for a model class without a rule, so that its channels "
                "are found by running it: what its forward takes, such as example=(x, edge_index) "
                f"(got None and {class_name(model)})"
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
    ignore = tuple(ignore)

    def followed(run: nn.Module, inputs: Example, finite: bool) -> Ports:
        return Ports(run, ignore, heads, lambda ports, _: follow(ports, run, inputs, finite))

    ports = sharp.tried(followed)
    ports.forget_model()
    return ports
