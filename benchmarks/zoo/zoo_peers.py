"""Prune the models of the zoo by Torch-Pruning, where it is installed, and check what it made.

Each model is tried twice: with Torch-Pruning as it comes, and with PyG's linear layer taught by a
pruner of its own, as its documentation says. It is told which layers make the outputs (which are
to stay), how the model is called, and how many heads each attention has. The reference is the
model with zeros in place of what was cut; norms over channels leave those out, as they do in the
smaller model. Which entries were cut is read from the gradients, which it cuts along with the
parameters: each entry starts with its own number.
"""

from __future__ import annotations

import copy
import importlib
import signal
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from torch_geometric.nn.dense.linear import Linear
from zoo_graphs import HIDDEN, Model

from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.mask_hooks.skipping import skip_channels
from pyg_stkd.prune.structure.example import Example, unwrap
from pyg_stkd.prune.structure.registry import find_rule
from pyg_stkd.prune.structure.rules import norms

__all__ = ["gap", "peer_cells", "peer_rows", "peer_summary", "peers"]

TOLERANCE, SECONDS = 1e-5, 5.0
_OVER_CHANNELS = (norms.layer_norm, norms.pyg_layer_norm)


def peers() -> Any:
    """Torch-Pruning, or None where it is not installed."""
    try:
        return importlib.import_module("torch_pruning")
    except ImportError:
        return None


def gap(a: Any, b: Any) -> float:
    """The largest difference of outputs, relative to the largest entry."""
    worst = 0.0
    for x, y in zip(tensors_of(a), tensors_of(b), strict=True):
        if x.shape != y.shape:
            return float("inf")
        if x.numel() and x.is_floating_point():
            scale = max(1.0, float(x.abs().max().nan_to_num()))
            worst = max(worst, float((x - y).abs().max().nan_to_num()) / scale)
    return worst


def peer_rows(
    tp: Any, model: Model, outputs: Sequence[str] | None, hidden: int = HIDDEN
) -> dict[str, dict[str, Any]]:
    """What became of a model by itself ('plain') and with PyG's layers taught ('taught').

    Args:
        tp: The module torch_pruning.
        model: A model of the zoo that runs.
        outputs: The layers that make its outputs, by name; the last one called where not known.
        hidden: Its hidden channels.
    """
    return {
        name: _tried(tp, model, outputs, hidden, taught)
        for name, taught in (("plain", False), ("taught", True))
    }


def peer_cells(rows: dict[str, dict[str, Any]] | None) -> list[str]:
    """The cells of a row of the table; its heads for None."""
    if rows is None:
        return ["Torch-Pruning", "taught PyG's linear layer"]
    cells = []
    for name in ("plain", "taught"):
        row = rows.get(name, {})
        left = f", {row['share']:.0%}" if row.get("state") == "equal" else ""
        cells.append(row.get("state", "") + left)
    return cells


def peer_summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The lines that compare, as Markdown: none where nothing was compared."""
    rows = [row for row in rows if "peers" in row]
    if not rows:
        return []
    heads = [
        "",
        "equal, smaller",
        "not the model with zeros",
        "broken (does not run, or other shapes)",
        "raises",
        "nothing pruned",
        "left, median",
        "seconds, median",
    ]
    ours = [
        {**row, "state": _state(row), "share": row.get("share"), "seconds": row.get("seconds")}
        for row in rows
    ]
    every = {
        "this package": ours,
        f"Torch-Pruning {version('torch-pruning')}": [row["peers"]["plain"] for row in rows],
        "the same, taught PyG's linear layer": [row["peers"]["taught"] for row in rows],
    }
    lines = [
        f"The same {len(rows)} models by Torch-Pruning, in the same run (how it was helped: "
        "`zoo_peers.py`; half of the channels; at most 5 s of CPU time a model):",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for name, found in every.items():
        counts = Counter(row["state"] for row in found)
        broken = counts["does not run"] + counts["other outputs"]
        equal = [row for row in found if row["state"] == "equal"]
        numbers = [counts["equal"], counts["differs"], broken, counts["fails"]]
        cells = [name, *map(str, [*numbers, counts["nothing pruned"]])]
        if equal:
            cells.append(f"{statistics.median(row['share'] for row in equal):.0%}")
            cells.append(f"{statistics.median(row['seconds'] for row in equal):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "*Not the model with zeros*: that is promised here, not by Torch-Pruning, which gives a "
        "smaller model; behind a softmax or a `GroupNorm` it is another function by nature. Two "
        "more that were looked into are other functions as well: where hidden channels stand "
        "behind the model's inputs in a concatenation (own MessagePassing), columns are cut as if "
        "they came first; where a residual is added to the first channels of a wider output (STGCN "
        "with a head), what is left of it is added to others.",
    ]
    return [*lines, ""]


def _state(row: dict[str, Any]) -> str:
    """The state of a model that this package pruned, in the same words."""
    if "error" not in row:
        refused = "must have channels that can be pruned" in row["reason"]
        return "nothing pruned" if refused else "fails"
    if row["error"] > TOLERANCE:
        return "differs"
    return "equal" if row["pruned"] else "nothing pruned"


def _tried(tp: Any, model: Model, outputs: Sequence[str] | None, *how: Any) -> dict[str, Any]:
    """What became of a model; where its outputs changed, with the last layer called kept too."""
    row = _row(tp, model, outputs, False, *how)
    return _row(tp, model, outputs, True, *how) if row["state"] == "other outputs" else row


def _row(
    tp: Any, model: Model, outputs: Sequence[str] | None, last: bool, hidden: int, taught: bool
) -> dict[str, Any]:
    torch.manual_seed(0)
    net, example = unwrap(model.build(hidden)), Example(model.example(), model.call)
    with torch.no_grad():
        example.run(net.eval())  # lazy parameters get their sizes
    net.requires_grad_()
    whole, before = copy.deepcopy(net), sum(p.numel() for p in net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.arange(parameter.numel()).view_as(parameter).to(parameter)
    kept = _named(net, outputs)
    kept += _last_called(net, example) if last or not kept else []
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _limited(SECONDS):
                tp.pruner.BasePruner(net, **_options(tp, net, example, kept, taught)).step()
        except Exception as error:
            return {"state": "fails", "why": _first_line(error)}
    row: dict[str, Any] = {"seconds": round(time.process_time() - start, 2)}
    row["share"] = round(sum(p.numel() for p in net.parameters()) / before, 3)
    return row | _judged(whole, net, example)


def _options(
    tp: Any, net: nn.Module, example: Example, kept: list[Any], taught: bool
) -> dict[str, Any]:
    """The arguments that its documentation names for such a model."""
    attentions = [m for m in net.modules() if isinstance(m, nn.MultiheadAttention)]
    options: dict[str, Any] = {
        "example_inputs": example.inputs,
        "forward_fn": lambda net, _: example.run(net),
        "output_transform": lambda out: [t for t in tensors_of(out) if t.grad_fn is not None],
        "importance": tp.importance.RandomImportance(),
        "pruning_ratio": 0.5,
        "ignored_layers": kept,
        "num_heads": {m: m.num_heads for m in attentions},
        "in_channel_groups": {},
        "out_channel_groups": {},
        "channel_groups": {},
    }
    if taught:
        roots = [tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, tp.ops.TORCH_LSTM, Linear]
        options |= {"customized_pruners": {Linear: _linear(tp)}, "root_module_types": roots}
    return options


def _linear(tp: Any) -> Any:
    """The pruner of PyG's linear layer."""

    class OfPyG(tp.pruner.BasePruningFunc):  # type: ignore[misc, name-defined]
        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            left = sorted(set(range(layer.weight.size(0))) - set(idxs))
            layer.weight = self._prune_parameter_and_grad(layer.weight, left, 0)
            if layer.bias is not None:
                layer.bias = self._prune_parameter_and_grad(layer.bias, left, 0)
            layer.out_channels = len(left)
            return layer

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            left = sorted(set(range(layer.weight.size(1))) - set(idxs))
            layer.weight = self._prune_parameter_and_grad(layer.weight, left, 1)
            layer.in_channels = len(left)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.weight.size(0))

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.weight.size(1))

    return OfPyG()


@torch.no_grad()
def _judged(whole: nn.Module, small: nn.Module, example: Example) -> dict[str, Any]:
    """Whether the smaller model runs, and is what the whole one is with zeros."""
    try:
        torch.manual_seed(0)
        found = example.run(small.eval())
    except Exception as error:
        return {"state": "does not run", "why": _first_line(error)}
    if all(p.shape == q.shape for p, q in zip(small.parameters(), whole.parameters(), strict=True)):
        return {"state": "nothing pruned", "why": ""}
    _mask(whole, dict(small.named_parameters()))
    torch.manual_seed(0)
    error = gap(example.run(whole.eval()), found)
    if error == float("inf"):
        return {"state": "other outputs", "why": "shapes of the outputs differ"}
    if error > TOLERANCE:
        return {"state": "differs", "why": f"outputs differ by {error:.1e}", "error": error}
    return {"state": "equal", "why": "", "error": error}


def _mask(whole: nn.Module, left: dict[str, nn.Parameter]) -> None:
    """Set to 0 what is not left, and leave it out of norms over channels."""
    for name, parameter in whole.named_parameters():
        assert left[name].grad is not None
        mask = torch.zeros(parameter.numel(), dtype=torch.bool)
        mask[left[name].grad.flatten().long()] = True
        prefix, _, key = name.rpartition(".")
        module = whole.get_submodule(prefix)
        mask = mask.view_as(parameter)
        if find_rule(type(module)) in _OVER_CHANNELS and key == "weight" and not bool(mask.all()):
            skip_channels(module, mask.view(-1, mask.size(-1)).any(dim=0))
        parameter.mul_(mask)


def _named(net: nn.Module, names: Sequence[str] | None) -> list[Any]:
    known = {**dict(net.named_parameters()), **dict(net.named_modules())}
    return [known[name] for name in names or () if known.get(name, net) is not net]


def _last_called(net: nn.Module, example: Example) -> list[nn.Module]:
    """The module with parameters of its own that is called last, if one is called at all."""
    called: list[nn.Module] = []

    def hook(module: nn.Module, *_: Any) -> None:
        called.append(module)

    owners = [m for m in net.modules() if any(True for _ in m.parameters(recurse=False))]
    leaves = [m for m in owners if not any(True for _ in m.children())]
    hooks = [m.register_forward_hook(hook) for m in leaves or owners]
    with torch.no_grad():
        example.run(net)
    for handle in hooks:
        handle.remove()
    return called[-1:]


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise after so many seconds of CPU time."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
