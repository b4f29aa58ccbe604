"""Which channel owns what: a symbolic pass through a model, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import nn
from torch_geometric.nn import JumpingKnowledge

from pyg_stkd.prune.mask_hooks.hooks import masked_names
from pyg_stkd.prune.structure.parametrized import is_computed, parts_of
from pyg_stkd.prune.structure.prunable import (
    check_ignored,
    check_parameters,
    class_name,
    has_parameters,
    keeps_channels,
    shared_names,
)
from pyg_stkd.prune.structure.reasons import Reason
from pyg_stkd.prune.structure.registry import find_rule
from pyg_stkd.prune.structure.units import Channels, Shape, Units

__all__ = ["Ports", "Several"]


class Several(list[Channels | None]):
    """Channels side by side of which nothing says yet how they are joined."""


class Ports(Units):
    r"""The channels of a model: what the rules write and pruning reads.

    A *unit* is what is kept or dropped as a whole. :data:`Channels`, a tuple of units, says for
    each index of a dimension to which unit it belongs; tuples are cut, repeated and
    concatenated as the features are. :meth:`tie` makes units one where features are added.

    Args:
        model (torch.nn.Module): The model.
        ignore (list of str): Names of modules that are not to be pruned. (default: :obj:`()`)
        heads (bool): Whether attention heads are the units, not channels.
            (default: :obj:`False`)

    Attributes:
        owned: For each parameter and buffer by name, the channels of its dimensions.
        axes: The name and the channels of each output that a layer makes.
        attributes: Numbers of channels that modules remember.
        outputs: The channels that each visited module returned, by name.
        same: For each tensor of several names, by each of them, all of them.

    Raises:
        ValueError: If a name in :obj:`ignore` is unknown, a parameter is shared, lazy or
            re-parametrised, or a module with parameters has no rule.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> ports = Ports(model)
        >>> ports.owned["0.weight"][0] == ports.owned["0.bias"][0] == ports.owned["2.weight"][1]
        True
    """

    def __init__(
        self,
        model: nn.Module,
        ignore: Iterable[str] = (),
        heads: bool = False,
        follow: Callable[[Ports, nn.Module], Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self.is_followed = follow is not None
        self.owned: dict[str, dict[int, Channels]] = {}
        self.axes: list[tuple[str, Channels]] = []
        self.attributes: list[tuple[str, str, Shape]] = []
        self.outputs: dict[str, Channels] = {}
        self.skips: dict[str, Channels] = {}
        self.rescales: list[tuple[str, Channels, Callable[[Any, float], None]]] = []
        self._names = {module: name for name, module in model.named_modules()}
        self.same = shared_names(model)
        self._stack: list[str] = []
        self._visited: set[str] = set()
        self._unknown: list[str] = []
        self._ignored = check_ignored(self._names, ignore)
        self.reasons: list[Reason] = []
        self.told: list[str] = []  # modules that a rule of the user's speaks for
        self.in_training: set[str] = set()  # the axes that are kept for what train mode does alone
        if follow is None:
            check_parameters(model)
            out = self(model, None)
            self.freeze(out)
            self._check_visited()
            if out is None and self.reasons:  # what mixes the model's outputs
                self.reasons[-1] = replace(self.reasons[-1], kind="natural")
        else:
            self.reasons = follow(self, model)
        self._freeze_ignored()

    def __call__(self, module: Any, x: Any) -> Channels | None:
        """Pass channels through a module by the rule of its class; return those of its output."""
        if not isinstance(module, nn.Module):
            if not isinstance(x, Several) and keeps_channels(module):
                return x
            self.keep(x, f"what {_named(module)} makes of channels is not known by trial")
            return None
        name = self.name_of(module)
        rule = find_rule(type(module))
        if rule is None:
            self._see(module)
            kind = "natural" if self._is_ignored(name) else "rule"
            self.keep(x, f"no rule speaks for {class_name(module)}", kind)
            if not self._is_ignored(name) and any(map(has_parameters, module.modules())):
                self._unknown.append(f"{name or 'the model'} ({class_name(module)})")
            return None
        if isinstance(x, Several) and not isinstance(module, JumpingKnowledge):
            raise ValueError(
                f"No rule says what a function of several inputs, before {name!r}, makes of their "
                "channels: make it a module with a rule (pyg_stkd.prune.register), or give "
                "'example', inputs on which they are followed"
            )
        self._visited.add(name)
        if not rule.__module__.startswith("pyg_stkd."):
            self.told.append(name)
        self._stack.append(name)
        try:
            out = rule(self, module, x)
        except ValueError:
            if not self._is_ignored(name):
                raise
            self._see(module)  # what no rule fits stays as it is
            self.freeze(x)
            return None
        finally:
            self._stack.pop()
        if out is not None:
            self.outputs[name] = out
        return out

    def by_rule(self, name: str, x: Any) -> Any:
        """Pass channels through the module of this name by its rule alone.

        Raises:
            ValueError: If the rule does not hold, or says nothing of some parameters.
        """
        module = self.model.get_submodule(name)
        known, reasons = len(self._unknown), len(self.reasons)
        out = self(module, x)
        if len(self.reasons) > reasons:  # following may know more
            why = self.reasons[reasons].why
            del self.reasons[reasons:]
            raise ValueError(why)
        unseen = [
            self._names[child]
            for child in module.modules()
            if has_parameters(child)
            and self._names[child] not in self._visited
            and not self._is_ignored(self._names[child])
        ]
        if len(self._unknown) > known or unseen:
            raise ValueError(f"No rule speaks of {', '.join(unseen or self._unknown[known:])}")
        return out

    def fresh(self, width: int, kind: str = "channel") -> Channels:
        """Make an axis of new units, the output of the current layer.

        Args:
            width (int): The number of units.
            kind (str): :obj:`"channel"` or :obj:`"head"`. Units of the other kind than is
                pruned are kept. (default: :obj:`"channel"`)
        """
        units = self.new(width)
        if kind == "head" and self.heads:
            self.mark_heads(units)
        elif kind == "head" or (self.heads and not self.is_followed):
            self._frozen.update(units)
        self.axes.append((self._stack[-1] if self._stack else "", units))
        return units

    def keep_all_but_heads(self) -> None:
        """Keep what is tied to no head, where heads are the units."""
        heads = {self.find(unit) for unit in self._heads}
        channels = tuple(unit for unit in self.units if self.heads and unit not in heads)
        self.keep(channels, "channels are kept where heads are pruned", kind="natural")

    def kept(self, width: int) -> Channels:
        """Make units that are kept."""
        units = self.new(width)
        self._frozen.update(units)
        return units

    def sized(self, x: Channels | None, width: int) -> Channels:
        """Return channels that are :obj:`width` wide: those given, or frozen ones if unknown."""
        if x is None:
            x = self.kept(width)
        elif len(x) != width:
            raise ValueError(
                f"The rules disagree at {self._stack[-1]!r}: it takes {width} channels "
                f"(got {len(x)})"
            )
        return x

    def own(self, module: nn.Module, name: str, dim: int, channels: Channels) -> None:
        """Say that a dimension of a parameter or buffer (if it is there) belongs to channels."""
        tensor = getattr(module, name, None)
        if tensor is None:
            return
        prefix = self.name_of(module)
        known = name in module._parameters or name in module._buffers
        if not known and name not in masked_names(module):
            if self._is_ignored(prefix):
                self.freeze(channels)
                return
            if not is_computed(module, name):
                raise ValueError(
                    f"'{name}' of {prefix!r} must be a parameter or buffer; give "
                    f"ignore=[{prefix!r}] to leave it as it is"
                )
            for part in parts_of(module, name, dim):
                self.own(*part, channels)
            self._see(module)
            return
        dim = dim % tensor.dim()
        if tensor.size(dim) != len(channels):
            raise ValueError(
                f"Dimension {dim} of '{name}' of {prefix!r} must have {len(channels)} channels "
                f"(got {tensor.size(dim)})"
            )
        self.own_named(f"{prefix}.{name}" if prefix else name, dim, channels)

    def own_named(self, name: str, dim: int, channels: Channels) -> None:
        """The same, for a tensor by its name in the model."""
        dims = self.owned.setdefault(name, {})
        # A layer that is called again: the same weights, the same units.
        self.tie(dims.setdefault(dim, channels), channels)
        for other in self.same.get(name, ()):
            self.tie(self.owned.get(other, {}).get(dim, channels), channels)
        self._visited.add(name.rpartition(".")[0])

    def attribute(self, module: nn.Module, name: str, channels: Shape) -> None:
        """Say that an attribute (if it is there) is the number of channels, or a list of such."""
        if not hasattr(module, name):
            return
        prefix = self.name_of(module)
        for *key, old in self.attributes:  # a layer that is called again
            if key == [prefix, name] and isinstance(old, tuple) and isinstance(channels, tuple):
                self.tie(old, channels)
        self.attributes.append((prefix, name, channels))

    def keep(self, x: Any, why: str, kind: str = "mixes") -> None:
        """Keep channels, and note why."""
        units = tuple(_flat(x))
        self.freeze(units)
        if units:
            module = self._stack[-1] if self._stack else ""
            self.reasons.append(Reason(module, "", "", units, why, kind))

    def skip(self, norm: nn.Module, channels: Channels) -> None:
        """Say that a norm takes statistics over channels: masked ones must not count."""
        name = self.name_of(norm)
        self.tie(self.skips.setdefault(name, channels), channels)

    def rescale(
        self, module: nn.Module, channels: Channels, function: Callable[[Any, float], None]
    ) -> None:
        """Say what a smaller module needs beside its slices, as where it divides by its width.

        Args:
            module (torch.nn.Module): The module.
            channels (tuple of int): The channels whose share is asked for.
            function (callable): Takes the small module and the share of these that is left.
        """
        call = (self.name_of(module), channels, function)
        if not any(call[0] == name and call[2] is known for name, _, known in self.rescales):
            self.rescales.append(call)

    def snapshot(self) -> Any:
        """Return what :meth:`restore` goes back to."""
        return (
            list(self._parent),
            set(self._frozen),
            {name: dict(dims) for name, dims in self.owned.items()},
            list(self.axes),
            list(self.attributes),
            dict(self.outputs),
            dict(self.skips),
            set(self._visited),
            list(self._unknown),
            list(self.rescales),
            list(self.told),
            set(self._heads),
        )

    def restore(self, state: Any) -> None:
        """Forget what was said since a snapshot."""
        parent, frozen, owned, axes, attributes, outputs, skips, visited, unknown, *rest = state
        self.rescales, self.told, self._heads = list(rest[0]), list(rest[1]), set(rest[2])
        self._parent, self._frozen = list(parent), set(frozen)
        self.owned = {name: dict(dims) for name, dims in owned.items()}
        self.axes, self.attributes = list(axes), list(attributes)
        self.outputs, self.skips = dict(outputs), dict(skips)
        self._visited, self._unknown = set(visited), list(unknown)

    def without(self, gone: set[int]) -> None:
        """Forget units (representatives) that the model has lost."""

        def left(shape: Any) -> Any:
            if isinstance(shape, tuple) and (not shape or isinstance(shape[0], int)):
                return tuple(unit for unit in shape if self.find(unit) not in gone)
            return type(shape)(left(item) for item in shape)

        self._gone |= gone
        self.owned = {
            name: {dim: left(channels) for dim, channels in dims.items()}
            for name, dims in self.owned.items()
        }
        self.axes = [(name, left(channels)) for name, channels in self.axes]
        self.attributes = [(*key, left(shape)) for *key, shape in self.attributes]
        self.outputs = {name: left(channels) for name, channels in self.outputs.items()}
        self.skips = {name: left(channels) for name, channels in self.skips.items()}
        self.rescales = [(name, left(channels), f) for name, channels, f in self.rescales]

    def forget_model(self) -> None:
        """Let go of a model that was run to follow channels, when all is said."""
        self.model, self._names = nn.Module(), {}

    def name_of(self, module: nn.Module) -> str:
        """Return the name of a module in the model."""
        return self._names[module]

    def _is_ignored(self, name: str) -> bool:
        return any(name == other or name.startswith(f"{other}.") for other in self._ignored)

    def _see(self, module: nn.Module) -> None:
        self._visited.update(self._names[child] for child in module.modules())

    def _check_visited(self) -> None:
        for name, module in self.model.named_modules():
            if name not in self._visited and not self._is_ignored(name) and has_parameters(module):
                self._unknown.append(f"{name or 'the model'} ({class_name(module)})")
        if self._unknown:
            raise ValueError(
                "No rule says what belongs to which channel in: "
                f"{', '.join(dict.fromkeys(self._unknown))}. Either register a rule for the class "
                "(pyg_stkd.prune.register), or leave the module as it is (ignore=[name]), or give "
                "'example', inputs on which channels are followed"
            )

    def _freeze_ignored(self) -> None:
        for name, dims in self.owned.items():
            if self._is_ignored(name.rpartition(".")[0]):
                self.freeze(list(dims.values()))


def _flat(x: Any) -> list[int]:
    if x is None:
        return []
    return [x] if isinstance(x, int) else [unit for item in x for unit in _flat(item)]


def _named(function: Any) -> str:
    return getattr(function, "__name__", repr(function))
