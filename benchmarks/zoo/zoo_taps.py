"""Every layer of every model of the zoo under six losses: compared rightly, refused, or wrong.

    python benchmarks/zoo/zoo_taps.py [--only NAME] [--save] [--again]

Models are as in use after training: in eval mode, in double precision where they run in it. Of each
layer that a model runs is asked:

* A teacher that is a copy of the student gives 0 for every loss, or refuses the layer.
* A teacher with other weights gives the same loss when the nodes of both are in another order
  (within their graphs), or refuses both times. Models that see an order of the nodes themselves
  are left out; those with weights of each node are given them in that order.
* The rows of a layer that is compared are nodes, which go along with the order, or edges or graphs,
  which stay where they are; others have no meaning that both models share, but for nodes that pools
  chose and that the distiller finds in both, and layers that both models give the same rows.

The row of each model is kept in runs/zoo_taps.jsonl as it ends: a command that was interrupted goes
on there; --again begins anew.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from zoo_distil import built
from zoo_graphs import HIDDEN, Model
from zoo_models import asked, resumed
from zoo_order import Order

from pyg_stkd import Distiller
from pyg_stkd.distill import (
    AttentionTransferLoss,
    DistillationLoss,
    GSPLoss,
    HintLoss,
    LSPLoss,
    SpatialCorrelationLoss,
    TemporalCorrelationLoss,
)
from pyg_stkd.distill.comparison import Comparison
from pyg_stkd.distill.recording.reading.parts import copied, tensors_of
from pyg_stkd.distill.recording.recorder import named_layers
from pyg_stkd.prune.structure.example import Example

__all__ = ["taps_of"]

RESULTS = Path(__file__).parents[1] / "results"
Refused = (TypeError, ValueError, IndexError, RuntimeError)
LOSSES: dict[str, Callable[..., DistillationLoss]] = {
    "hint": lambda layer: HintLoss(layer, layer, projection=False),
    "attention": lambda layer: AttentionTransferLoss(layer, layer),
    "gsp": lambda layer: GSPLoss(layer, layer),
    "lsp": lambda layer: LSPLoss(layer, layer),
    "spatial": lambda layer: SpatialCorrelationLoss(layer, layer),
    "temporal": lambda layer: TemporalCorrelationLoss(layer, layer),
}


def taps_of(model: Model, hidden: int = HIDDEN) -> dict[str, Any]:
    """Return the row of one model."""
    row: dict[str, Any] = {"model": model.name, "family": model.family, "why": ""}
    torch.manual_seed(0)
    try:
        student, teacher = built(model, hidden).eval(), built(model, hidden).eval()
        example = Example(model.example(), model.call)
        student, teacher, example = _in_double(student, teacher, example)
    except Exception as error:
        return row | {"why": f"does not run: {type(error).__name__}: {str(error)[:120]}"}
    order = Order(example)
    others = order.find(student, teacher)
    given, called = _calls(student, example)
    of_teacher, _ = _calls(teacher, example)
    moved = None if others is None else _calls(others[0], order.example)[1]
    runs = [(copy.deepcopy(student), student, example), (teacher, student, example)]
    runs += [] if others is None else [(others[1], others[0], order.example)]
    results = [_values(model, list(called), *run) for run in runs]
    counts = {"layers": len(called)} | dict.fromkeys(("right", "refused", "ordered", "common"), 0)
    wrong: list[str] = []
    row["order"] = "" if others is not None else order.why
    for (layer, name), alone in results[0].items():
        where = f"{name} at {layer or 'output'}"
        if isinstance(alone, str):
            counts["refused"] += 1
        elif abs(alone) <= 1e-5:
            counts["right"] += 1
        else:
            wrong.append(f"{where}: {alone:.2g} of a copy")
        if moved is None:
            continue
        apart, again = (found[layer, name] for found in results[1:])
        if isinstance(apart, str) or isinstance(again, str):
            if not (isinstance(apart, str) and isinstance(again, str)):
                wrong.append(f"{where}: {apart} became {again}")
        elif abs(apart - again) > order.tolerance * max(1.0, abs(apart)):
            wrong.append(f"{where}: {apart:.4g} became {again:.4g}")
        elif isinstance(apart, Common):
            counts["common"] += 1
        elif order.kind(called[layer], moved[layer]) == "unknown" and not _equal(
            given.get(layer), of_teacher.get(layer)
        ):
            wrong.append(f"{where}: rows of {_shapes(called[layer])}")
        else:
            counts["ordered"] += 1
    return row | counts | {"wrong": wrong}


class Common(float):
    """The value of a loss that was taken at the nodes that both models chose."""


def _in_double(
    student: nn.Module, teacher: nn.Module, example: Example
) -> tuple[nn.Module, nn.Module, Example]:
    """Return double precision of all three where the model runs in it, else what was given."""
    double = example.to(torch.float64)
    try:
        pair = copy.deepcopy(student).double(), copy.deepcopy(teacher).double()
        with torch.no_grad():
            double.run(pair[0])
    except Exception:
        return student, teacher, example
    return *pair, double


@torch.no_grad()
def _calls(model: nn.Module, example: Example) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what each module that the model calls was given, and what it returned, last."""
    given: dict[str, Any] = {}
    returned: dict[str, Any] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given[name], returned[name] = copied((args, kwargs)), copied(output)

        return hook

    layers = {name: module for name, module in named_layers(model).items() if name}
    handles = [
        module.register_forward_hook(note(name), with_kwargs=True)
        for name, module in layers.items()
    ]
    torch.manual_seed(2)
    output = example.run(model)
    for handle in handles:
        handle.remove()
    return given, {"": output} | {name: returned[name] for name in layers if name in returned}


def _equal(a: Any, b: Any) -> bool:
    """Whether two layers were given the same rows, such as the nodes of some degree."""
    pairs = zip(tensors_of(a), tensors_of(b), strict=False)
    return any(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)


def _values(
    model: Model, layers: list[str], teacher: nn.Module, student: nn.Module, example: Example
) -> dict[tuple[str, str], float | str]:
    """Return the value of each loss at each layer, or why it was refused, of one run of both."""
    losses = {(layer, name): make(layer) for layer in layers for name, make in LOSSES.items()}
    named = {str(i): loss for i, loss in enumerate(losses.values())}
    distiller = Distiller(teacher, student, named, call=model.call).eval()
    args, kwargs = example.arguments(student)
    torch.manual_seed(2)
    found: dict[tuple[str, str], float | str] = {}
    with torch.no_grad():
        # What a forward of the distiller does, but one loss after the other: many are refused.
        ours, known = distiller._run(args, kwargs, None, None, True)
        seen = Comparison(ours, known, distiller._teachers, distiller._graphs)
        for key, (name, loss) in zip(losses, named.items(), strict=True):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                try:
                    value = float(seen.values({name: loss}).of_loss[name])
                except Refused as error:
                    found[key] = f"{type(error).__name__}: {str(error)[:160]}"
                    continue
            common = any("those that both chose" in str(x.message) for x in told)
            found[key] = Common(value) if common else value
    distiller.remove_hooks()
    return found


def _shapes(output: Any) -> str:
    return ", ".join(str(list(x.shape)) for x in tensors_of(output))


def report(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    ran = [row for row in rows if not row["why"]]
    total = {
        key: sum(row[key] for row in ran)
        for key in ("layers", "right", "refused", "ordered", "common")
    }
    wrong = sum(len(row["wrong"]) for row in ran)
    unordered = sum(bool(row["order"]) for row in ran)
    lines = [
        f"{len(ran)} models ran, with {total['layers']} layers, each of them under "
        f"{len(LOSSES)} losses ({', '.join(LOSSES)}). Against a copy of the student: "
        f"{total['right']} times 0 (1e-5), as it must be, {total['refused']} times refused. "
        f"Against another teacher, with nodes in another order: {total['ordered']} times the same, "
        f"in the {len(ran) - unordered} models that see no order themselves, and {total['common']} "
        f"times at the nodes that pools of both models chose. Wrong: {wrong}. "
        f"By `python benchmarks/zoo/zoo_taps.py --save` with torch {torch.__version__}; what is "
        f"asked is told there.",
        "",
        "| model | from | layers | right | refused | same in another order | wrong | remark |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = [str(row.get(key, "")) for key in ("layers", "right", "refused", "ordered")]
        remark = row["why"] or row["order"]
        cells = [row["model"], row["family"], *counts, "; ".join(row.get("wrong", ())), remark]
        lines.append("| " + " | ".join(_plain(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").replace("<", "&lt;").split())


def row_of(model: Model) -> dict[str, Any]:
    """Return the row of one model, also where this command itself has a fault."""
    try:
        return taps_of(model)
    except Exception as error:
        why = f"was not looked at: {type(error).__name__}: {str(error)[:200]}"
        return {"model": model.name, "family": model.family, "why": why}


def main() -> None:
    models, options = asked(__doc__)
    rows = []
    for row in resumed("zoo_taps", models, row_of, options.again):
        rows.append(row)
        print(*row.values(), flush=True)
    if options.save:
        text = json.dumps(rows, indent=1) + "\n"
        (RESULTS / "zoo_taps.json").write_text(text, encoding="utf-8")
        (RESULTS / "zoo_taps.md").write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
