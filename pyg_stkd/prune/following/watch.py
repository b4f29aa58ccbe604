"""What is watched of the calls of a module while channels are followed."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.calls.labels import Labels
from pyg_stkd.prune.following.counts import Counts
from pyg_stkd.prune.following.leaves import Leaf, leaf_of
from pyg_stkd.prune.structure.ports import Ports

__all__ = ["Watch"]


class _Run(Protocol):
    """What a run says of itself: a :class:`~pyg_stkd.prune.following.follower.Follower`."""

    ports: Ports
    labels: Labels
    counts: Counts
    names: dict[int, str]
    modules: list[str]
    watches: dict[nn.Module, Watch]
    failed_rules: dict[str, str]
    quiet: int
    used: set[int]
    replaced: set[str]
    called: set[str]

    def owns(self, tensor: Tensor) -> bool: ...

    def meet(self, tensors: list[Tensor]) -> None: ...

    def keep_module(self, name: str, why: str, channels: Any) -> None: ...


class Watch:
    """The hooks of one module: they know its name while it runs, and apply its rule.

    Inside a module whose rule holds nothing is watched, so that it runs as ever.

    Args:
        run (Follower): The run.
        module (torch.nn.Module): The module.
    """

    def __init__(self, run: _Run, module: nn.Module) -> None:
        self.run = run
        self.module = module
        self.name = run.names[id(module)]
        self._is_leaf = leaf_of(module)
        self._pending: list[tuple[Leaf, Any] | None] = []
        self._handles: list[Any] = []

    def attach(self) -> None:
        """Watch the calls of the module."""
        before = self.module.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True)
        after = self.module.register_forward_hook(
            self._after, prepend=True, with_kwargs=True, always_call=True
        )
        self._handles = [before, after]

    def detach(self) -> None:
        """Watch them no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        run = self.run
        run.modules.append(self.name)
        run.called.add(self.name)
        self._pending.append(None)
        if not all(p is None or run.owns(p) for p in module._parameters.values()):
            run.replaced.add(self.name)
        if run.quiet:
            run.quiet += 1
            return
        if not self._is_leaf:
            return
        run.meet(tensors_of([args, kwargs]))
        leaf = Leaf(module, args, kwargs, run.labels)
        state = run.ports.snapshot()
        run.quiet += 1  # rules ask for sizes
        try:
            channels = run.ports.by_rule(self.name, leaf.channels())
        except ValueError as error:
            run.quiet -= 1
            run.ports.restore(state)
            run.failed_rules[self.name] = str(error)
            run.counts.tag(self.name, module)  # its own code is followed
            return
        self._pending[-1] = (leaf, channels)
        run.used.update(map(id, module.parameters()))
        for inner in self._inner():
            inner.detach()

    def _after(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        run = self.run
        run.modules.pop()
        pending = self._pending.pop()
        try:
            if pending is not None and out is not None:
                self._label(*pending, out)  # which may call the layer again, as it is without hooks
        finally:
            if pending is not None:
                for inner in self._inner():
                    inner.attach()
            if run.quiet:
                run.quiet -= 1

    def _inner(self) -> list[Watch]:
        return [self.run.watches[m] for m in self.module.modules() if m is not self.module]

    def _label(self, leaf: Leaf, channels: Any, out: Any) -> None:
        try:
            leaf.label(out, channels)
        except ValueError as error:
            for tensor in tensors_of(out):
                self.run.labels.put(tensor, {})
            self.run.keep_module(self.name, str(error), channels)
