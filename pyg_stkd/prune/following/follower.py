"""A run of a model in which channels are followed from tensor to tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from pyg_stkd.prune.following.calls.call import Call, tensors_of
from pyg_stkd.prune.following.calls.function import FunctionTrial
from pyg_stkd.prune.following.calls.known import follow_known
from pyg_stkd.prune.following.calls.labels import Axis, Labels
from pyg_stkd.prune.following.counts import Counts
from pyg_stkd.prune.following.leaves import leaf_of
from pyg_stkd.prune.following.watch import Watch
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.reasons import Reason, caller
from pyg_stkd.prune.structure.units import Channels

__all__ = ["Follower"]

# What says nothing of values.
_QUIET = {
    "dim",
    "is_floating_point",
    "is_complex",
    "numel",
    "nelement",
    "element_size",
    "stride",
    "is_contiguous",
    "storage_offset",
    "data_ptr",
    "type",
    "has_names",
    "ndimension",
    "is_sparse",
}
_READS = {"item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__"}


class Follower(TorchFunctionMode):
    """Follows channels while a model runs, as a mode of torch's functions.

    Args:
        ports (Ports): The units, and what rules say of them.
        model (torch.nn.Module): The model; its integer attributes are replaced, so a copy.
    """

    def __init__(self, ports: Ports, model: nn.Module) -> None:
        super().__init__()
        self.ports = ports
        self.model = model
        self.labels = Labels(ports)
        self.counts = Counts(self.labels, self.keep)
        self.reasons: list[Reason] = []
        self.names: dict[int, str] = {id(m): name for name, m in model.named_modules()}
        self.watches: dict[nn.Module, Watch] = {}
        self._owners: dict[int, tuple[str, str]] = {}
        self._buffers: set[int] = set()
        self._used_in: dict[int, set[str]] = {}  # of tensors of several names, the modules
        self.modules: list[str] = []  # that are running
        self.quiet = 0  # inside a module with a rule
        self.used: set[int] = set()
        self._asked: set[int] = set()
        # Of which kept channels a tensor is made, by their places among the reasons.
        self._made_of: dict[int, set[int]] = {}
        self.failed_rules: dict[str, str] = {}
        self.replaced: set[str] = set()  # modules that run with other parameters
        self.called: set[str] = set()
        self._early: set[str] = set()  # parameters that are read before masks are renewed
        for prefix, module in model.named_modules():
            for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    if id(tensor) in self._owners:
                        self._used_in[id(tensor)] = set()
                    self._owners.setdefault(id(tensor), (prefix, key))
                    if key in module._buffers:
                        self._buffers.add(id(tensor))
        for prefix, module in model.named_modules():
            if not leaf_of(module):
                self.counts.tag(prefix, module)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if self.quiet:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _QUIET:
            return func(*args, **kwargs)
        if name == "size" or (
            name == "__get__" and resolve_name(func) == "torch.Tensor.shape.__get__"
        ):
            return self._size(func, args, kwargs)
        given = tensors_of([args, kwargs])
        self.meet(given)
        self.used.update(id(tensor) for tensor in given)
        for tensor in given:
            if id(tensor) in self._used_in:
                self._used_in[id(tensor)].add(self.modules[-1] if self.modules else "")
            if "" not in self.called and id(tensor) in self._owners:
                prefix, name = self._owners[id(tensor)]
                if prefix not in self.called and isinstance(tensor, nn.Parameter):
                    self._early.add(f"{prefix}.{name}" if prefix else name)
        known = follow_known(func, args, kwargs, self.labels)
        if known is not None:
            return known.out
        call = Call(func, args, kwargs)
        if name in _READS:
            for tensor in call.tensors:
                for axis in self.labels.of(tensor).values():
                    self.keep(axis.channels, "its values are read as numbers", func)
        if not call.outputs:
            return call.out
        if not any(self.labels.of(tensor) for tensor in call.tensors) and not call.widths:
            for tensor in call.outputs:
                self.labels.put(tensor, {})
            self._trace(call, len(self.reasons))
            return call.out
        trial = FunctionTrial(
            call,
            self.labels,
            self.counts.count,
            lambda channels, why, kind: self.keep(channels, why, func, kind),
        )
        known_reasons = len(self.reasons)
        trial.run(self.counts.claim)
        self._trace(call, known_reasons)
        return call.out

    def keep(
        self,
        channels: Channels,
        why: str,
        func: Callable[..., Any] | None = None,
        kind: str = "mixes",
        where: str | None = None,
    ) -> None:
        """Keep channels, and note why and where."""
        if not self.ports.is_free(channels):
            return
        self.ports.freeze(channels)
        name = "" if func is None else _name(func)
        module = self.modules[-1] if self.modules else ""
        if module in self.failed_rules:
            why = f"{why}; its rule does not hold: {self.failed_rules[module]}"
        if where is None:
            where = "" if func is None else caller()
        self.reasons.append(Reason(module, name, where, tuple(channels), why, kind))

    def mark_natural(self) -> None:
        """Say nothing of dimensions that are no channels, as of inputs, buffers and tables."""
        ports = self.ports
        outputs = {ports.find(unit) for _, channels in ports.axes for unit in channels}
        natural = self._of_no_parameter()
        for dims in ports.owned.values():
            if any(ports.is_free(channels) for channels in dims.values()):
                for channels in dims.values():
                    natural.update({ports.find(unit) for unit in channels} - outputs)
        for i, reason in enumerate(self.reasons):
            of_no_head = ports.heads and not ports.is_head(reason.channels)
            if (of_no_head and reason.module not in self.failed_rules) or all(
                ports.find(unit) in natural for unit in reason.channels
            ):
                self.reasons[i] = replace(reason, kind="natural")

    def returns(self, tensors: list[Tensor]) -> None:
        """Keep what the model returns, and what its last functions mix."""
        for tensor in tensors:
            for axis in self.labels.of(tensor).values():
                self.keep(axis.channels, "the model returns them", kind="natural")
            for i in self._made_of.get(id(tensor), ()):
                self.reasons[i] = replace(self.reasons[i], kind="natural")

    def _of_no_parameter(self) -> set[int]:
        """Return the units of buffers alone, as of the mean of the inputs."""
        ports = self.ports
        of_buffers: set[int] = set()
        of_parameters: set[int] = set()
        parameters = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        for name, dims in ports.owned.items():
            units = {ports.find(unit) for channels in dims.values() for unit in channels}
            (of_parameters if name in parameters else of_buffers).update(units)
        return of_buffers - of_parameters

    def free(self, returned: list[Tensor]) -> set[str]:
        """Return the names of the axes that may lose channels, if no more than this is returned."""
        ports = self.ports
        kept = {
            ports.find(unit)
            for tensor in returned
            for axis in self.labels.of(tensor).values()
            for unit in axis.channels
        }
        return {
            name
            for name, channels in ports.axes
            if any(not ports.is_frozen(u) and ports.find(u) not in kept for u in channels)
        }

    def _trace(self, call: Call, since: int) -> None:
        """Note of which kept channels results are made, unless parameters mix them again."""
        found = set(range(since, len(self.reasons)))
        if not any(isinstance(tensor, nn.Parameter) for tensor in call.tensors):
            for tensor in call.tensors:
                found |= self._made_of.get(id(tensor), set())
        if found:
            for tensor in call.outputs:
                self._made_of[id(tensor)] = found

    @contextmanager
    def module_hooks(self) -> Iterator[None]:
        """Watch the calls of modules, for names and rules."""
        self.watches = {module: Watch(self, module) for module in self.model.modules()}
        for watch in self.watches.values():
            watch.attach()
        try:
            yield
        finally:
            for watch in self.watches.values():
                watch.detach()

    def _size(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        self.meet([tensor])
        self._asked.add(id(tensor))
        axes = self.labels.of(tensor)
        out = func(*args, **kwargs)
        if not axes:
            return out
        sizes = list(tensor.shape)
        for dim, axis in axes.items():
            source = ("size", axis.channels, sizes[dim])
            sizes[dim] = self.counts.width(source)
        if isinstance(out, int):
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return sizes[dim]
        return torch.Size(sizes)

    def meet(self, tensors: list[Tensor]) -> None:
        """Give parameters and buffers units where they are first used."""
        for tensor in tensors:
            if self.labels.knows(tensor):
                continue
            owner = self._owners.get(id(tensor))
            if owner is None or not tensor.is_floating_point():
                self.labels.put(tensor, {})
                continue
            prefix, key = owner
            name = f"{prefix}.{key}" if prefix else key
            for other in self.ports.same.get(name, ()):
                if self.modules and other.rpartition(".")[0] == self.modules[-1]:
                    name = other  # by which it is used here
            axes = {}
            for dim in range(tensor.dim()):
                if tensor.size(dim) < 2:
                    continue
                known = self.ports.owned.get(name, {}).get(dim)
                channels = self.ports.new(tensor.size(dim)) if known is None else known
                self.ports.own_named(name, dim, channels)
                axes[dim] = Axis(
                    channels, isinstance(tensor, nn.Parameter), id(tensor) in self._buffers
                )
            self.labels.put(tensor, axes)

    def owns(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is a parameter or a buffer of the model."""
        return id(tensor) in self._owners

    def keep_module(self, name: str, why: str, channels: Any) -> None:
        """Keep all that a module owns."""
        for owned, dims in self.ports.owned.items():
            if owned.startswith(f"{name}."):
                for of_dim in dims.values():
                    self.keep(of_dim, why)
        self.ports.freeze(channels)

    def finish(self) -> None:
        """Write down attributes, and name the outputs of layers."""
        ports = self.ports
        self._join_names()
        for name, dims in ports.owned.items():
            if name.rpartition(".")[0] in self.replaced:  # masks would put its own ones back
                for channels in dims.values():
                    self.keep(channels, "its layer runs with other parameters in their place")
            if name in self._early:
                for channels in dims.values():
                    self.keep(channels, "it is read before its module is called", kind="early")
        for key, (prefix, name) in self._owners.items():  # whose sizes alone were asked for
            dims = ports.owned.get(f"{prefix}.{name}" if prefix else name, {})
            if key not in self.used and key in self._asked:
                ports.freeze(list(dims.values()))
        for (module, name), channels in self.counts.attributes.items():
            ports.attributes.append((module, name, channels))
        named = {ports.find(unit) for _, channels in ports.axes for unit in channels}
        for name, dims in ports.owned.items():
            for channels in dims.values():
                units = {ports.find(unit) for unit in channels}
                if not units <= named:
                    ports.axes.append(
                        (name.removesuffix(".weight").removesuffix(".bias"), channels)
                    )
                    named |= units
        for name, channels in ports.axes:
            if len(channels) > 1 and len(ports.classes(channels)[0]) == 1:
                self.keep(channels, f"all channels of {name} are tied to one another")

    def _join_names(self) -> None:
        """A tensor of several names loses the same by all of them, if all are used."""
        owned = self.ports.owned
        for key, modules in self._used_in.items():
            prefix, name = self._owners[key]
            names = self.ports.same[f"{prefix}.{name}" if prefix else name]
            known = [name for name in names if name in owned]
            holders = {name: name.rpartition(".")[0] for name in names}
            used = modules if modules <= set(holders.values()) else set(holders.values())
            unused = [name for name in names if name not in owned and holders[name] not in used]
            dims = {dim: of_dim for name in known for dim, of_dim in owned[name].items()}
            for dim, channels in dims.items():
                if unused or any(dim not in owned[name] for name in known):
                    also = " and ".join(unused or names)
                    self.keep(channels, f"their weights are {also} too", kind="shared")
            for name in names if known and not unused else ():
                owned[name] = dict(dims)


def _name(func: Callable[..., Any]) -> str:
    name = resolve_name(func) or getattr(func, "__name__", repr(func))
    return name.removeprefix("torch.nn.functional.").removeprefix("torch.")
