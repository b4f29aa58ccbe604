"""Forward hooks that note what chosen modules of a model do while they are asked to."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch_geometric.nn import Aggregation, MessagePassing
from torch_geometric.nn.dense import Linear

from pyg_stkd.distill.recording.reading.choices import Choice, choice_of, chooses
from pyg_stkd.distill.recording.reading.inputs import is_edge_index
from pyg_stkd.distill.recording.reading.parts import copied, tensors_of, versions_of
from pyg_stkd.distill.recording.reading.signature import Signatures

__all__ = ["named_layers", "Record", "Recorder", "unknown_layer"]

# Modules that build no graph: they are called all the time, and a hook costs each time.
_OF_FEATURES = (nn.Linear, Linear, Aggregation, nn.Dropout, nn.ReLU)
_LAYERS = ("torch_geometric.nn.conv.", "torch_geometric.nn.pool.", "torch_geometric.nn.dense.")


@dataclass
class Record:
    """One call of one module, as its hook saw it.

    :obj:`versions` holds how often each tensor of the output had been written to when the module
    returned it, by the tensor's id, and nothing where that is not to be checked.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    versions: dict[int, int] = field(default_factory=dict)
    grad: bool = True
    built: Any = None
    choices: tuple[Choice, ...] = ()
    main: bool = False  # whether what comes first in a tuple is the output, all else by the way
    of_edges: bool = False  # whether a message-passing layer called it on its edges


class Recorder:
    r"""Forward hooks on modules of a model, set once and quiet until :meth:`start`.

    Hooks are objects without a reference to the model, so that a model with hooks can be copied
    and pickled; the copy has hooks of its own. They know nothing of the recorder either, and are
    removed with it. Only what the thread that started does is noted: others may run the model at
    the same time.

    Args:
        model (torch.nn.Module): The model that is watched.
        layers (list of str): Names of modules of the model. :obj:`""`, the model itself, has no
            hook: whoever calls it has its output.

    Raises:
        ValueError: If the model has no module of a name.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> recorder = Recorder(model, ["0"])
        >>> recorder.start()
        >>> _ = model(torch.ones(4, 2))
        >>> [record.output.shape for record in recorder.stop()["0"]]
        [torch.Size([4, 3])]
    """

    def __init__(self, model: nn.Module, layers: Iterable[str]) -> None:
        modules = named_layers(model)
        layers = dict.fromkeys(layers)
        for layer in layers:
            if layer not in modules:
                raise ValueError(f"'layers' {unknown_layer(layer, modules)}")
        self.layers = list(layers)
        self.modules = {layer: modules[layer] for layer in ("", *layers)}
        self.signatures = Signatures()
        self.removed = False
        self._notes = _Notes(layer for layer in layers if layer)
        self._handles: list[RemovableHandle] = []
        self._remove_with_self()
        for module in model.modules():
            if chooses(module):
                self._handles.append(module.register_forward_hook(_ChoiceHook(self._notes)))
        for layer in self._notes.records:
            hook = _CallHook(self._notes, layer, _says_more(modules[layer]))
            self._handles.append(modules[layer].register_forward_hook(hook, with_kwargs=True))
            for child in modules[layer].modules():  # a layer may build its graph in a sub-module
                if child is not modules[layer] and not isinstance(child, _OF_FEATURES):
                    graph_hook = _GraphHook(self._notes, layer)
                    self._handles.append(child.register_forward_hook(graph_hook))
            self._handles += _watch_messages(self._notes, layer, modules)

    def start(self) -> None:
        """Forget what was noted and take notes, of this thread, from now on."""
        self._notes.clear()
        self._notes.active = True
        self._notes.thread = None if torch.compiler.is_compiling() else threading.get_ident()

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What pools of the model have chosen since :meth:`start`."""
        return self._notes.choices

    def stop(self) -> dict[str, list[Record]]:
        """Take no more notes; hand over, and forget, the calls of each layer."""
        self._notes.settle()
        records = self._notes.records
        self._notes.clear()  # which takes new lists
        self._notes.active = False
        return records

    def remove(self) -> None:
        """Remove the hooks from the model, for good."""
        _remove(self._handles)
        self.removed = True

    def _remove_with_self(self) -> None:
        weakref.finalize(self, _remove, self._handles).atexit = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remove_with_self()


class _Notes:
    """What hooks write down, and whether they do.

    A copy of a model has copies of its hooks: they find this object, also when its recorder is
    gone, and write nothing.
    """

    def __init__(self, layers: Iterable[str]) -> None:
        # Whether a layer's output is rewritten in place by what follows it, in either mode.
        self.rewritten: dict[tuple[str, bool], bool] = {}
        self.originals: list[tuple[tuple[str, bool], Record, Any, dict[int, int]]] = []
        self.choices: tuple[Choice, ...] = ()
        self.messages = 0  # in how many layers that make messages of their edges the run is now
        self.active = False
        self.thread: int | None = None
        self.records: dict[str, list[Record]] = {layer: [] for layer in layers}
        self.built: dict[str, Any] = {}  # the graph that a layer built last, until it returns

    def clear(self) -> None:
        self.records = {layer: [] for layer in self.records}
        self.built = {}
        self.originals = []
        self.choices = ()
        self.messages = 0

    def kept(
        self, layer: str, mode: bool, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Record:
        """Return a record of a call: of the output itself where nothing rewrites it, else, or
        where nobody knows yet, of a copy.
        """
        key = layer, mode
        record = Record(args, kwargs, output, versions_of(output), torch.is_grad_enabled())
        self.originals.append((key, record, output, record.versions))
        if self.rewritten.get(key, True):
            record.output = copied(output)
            record.versions = versions_of(record.output)
        return record

    def settle(self) -> None:
        """Look at what became of the outputs, and take those that are as they were for the copies.

        What is rewritten for the first time in a later call is copied from the next one on.
        """
        for key, record, output, versions in self.originals:
            if _is_rewritten(output, versions):
                self.rewritten[key] = True
            elif versions and not self.rewritten.setdefault(key, False):  # {}: nobody counts them
                record.output, record.versions = output, versions
        self.originals = []

    @property
    def taken(self) -> bool:
        """Whether the running thread is the one whose calls are noted."""
        if not self.active or torch.compiler.is_compiling():  # which cannot tell one from another
            return self.active
        return self.thread is None or self.thread == threading.get_ident()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self.records),)


class _CallHook:
    def __init__(self, notes: _Notes, layer: str, main: bool) -> None:
        self.notes = notes
        self.layer = layer
        self.main = main

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        notes = self.notes
        if not notes.taken:
            return
        if torch.compiler.is_compiling():
            # Versions are not counted in a compiled graph: keep the value itself. The copy is
            # dropped by the compiler where nothing rewrites the original.
            record = Record(args, kwargs, copied(output), grad=torch.is_grad_enabled())
        else:
            record = notes.kept(self.layer, module.training, args, kwargs, output)
        record.main, record.choices = self.main, notes.choices
        record.of_edges = notes.messages > 0
        record.built = notes.built.pop(self.layer, None)
        notes.records[self.layer].append(record)


class _ChoiceHook:
    def __init__(self, notes: _Notes) -> None:
        self.notes = notes

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.notes.taken:
            self.notes.choices = (*self.notes.choices, choice_of(output))


class _MessageHook:
    def __init__(self, notes: _Notes, step: int) -> None:
        self.notes = notes
        self.step = step

    def __call__(self, *_: Any) -> None:
        if self.notes.taken:
            self.notes.messages += self.step


class _GraphHook:
    graphs_only = True  # a layer whose parts have no other hooks may still fuse them

    def __init__(self, notes: _Notes, layer: str) -> None:
        self.notes = notes
        self.layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if is_edge_index(output) and self.notes.taken:
            self.notes.built[self.layer] = output


def _watch_messages(
    notes: _Notes, layer: str, modules: Mapping[str, nn.Module]
) -> Iterator[RemovableHandle]:
    """Set hooks on the layers around one, so that it is known when they call it on edges."""
    names = layer.split(".")
    for i in range(1, len(names)):
        around = modules.get(".".join(names[:i]))
        if isinstance(around, MessagePassing):
            before, after = _MessageHook(notes, 1), _MessageHook(notes, -1)
            yield around.register_message_forward_pre_hook(before)
            yield around.register_message_forward_hook(after)
            yield around.register_edge_update_forward_pre_hook(before)
            yield around.register_edge_update_forward_hook(after)


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by name, those of a compiled model under the names they had before."""
    modules = model.named_modules(remove_duplicate=False)
    layers = {name.replace("_orig_mod.", ""): module for name, module in modules}
    layers.pop("_orig_mod", None)
    return layers


def unknown_layer(layer: str, valid: Mapping[str, nn.Module]) -> str:
    """Say that a name is unknown and list the valid ones, close matches first."""
    names = [name for name in valid if name]
    close = get_close_matches(layer, names, n=3, cutoff=0.4) if isinstance(layer, str) else []
    rest = [name for name in names if name not in close]
    listed = ", ".join(repr(name) for name in [*close, *rest]) or "none"
    return (
        f"must name a module of the model, '' for its output; valid names: {listed} (got {layer!r})"
    )


def _is_rewritten(output: Any, versions: dict[int, int]) -> bool:
    """Whether a tensor was written to since, or its memory was given back, as invertible layers do
    with what they can compute again.
    """
    for value in (output,) if isinstance(output, Tensor) else tensors_of(output):
        version = versions.get(id(value))
        if version is not None and version != value._version:
            return True
        has_memory = value.layout == torch.strided and not value.is_meta
        if has_memory and value.numel() > 0 and value.untyped_storage().size() == 0:
            return True
    return False


def _says_more(module: nn.Module) -> bool:
    """Whether a layer returns a tuple whose first entry are its features: attention weights, the
    nodes that a pool took, or the last hidden state of a sequence are said by the way.
    """
    place = type(module).__module__
    return isinstance(module, nn.RNNBase) or place.startswith(_LAYERS)


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()
