"""Distil every model of the zoo, unedited: what is compared rightly, refused, or wrong.

    python benchmarks/zoo_distil.py [--only NAME] [--layers]

A model has passed if the losses between its outputs are finite and reach the student, the teacher
is as it was, and the student's output is bit for bit what it is alone under the same seed. Each
layer is then compared with a teacher that is a copy of the student: whatever loss has no parameters
must be 0, or refuse the layer.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from zoo_graphs import HIDDEN, Model

from pyg_stkd import Distiller
from pyg_stkd.distill import (
    AttentionTransferLoss,
    DistillationLoss,
    GSPLoss,
    HintLoss,
    LSPLoss,
    OutputLoss,
    SpatialCorrelationLoss,
    TemporalCorrelationLoss,
)
from pyg_stkd.distill.recording.reading.parts import tensors_of
from pyg_stkd.prune.structure.example import Example

Refused = (TypeError, ValueError, IndexError, RuntimeError)


def distil_row(model: Model, hidden: int = HIDDEN, layers: bool = True) -> dict[str, Any]:
    """Distil one model from a wider one, and its layers from a copy of itself."""
    row: dict[str, Any] = {"model": model.name, "family": model.family, "distilled": False}
    example = Example(model.example(), model.call)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _built(model, hidden)
        except Exception as error:
            return row | {"why": f"does not run: {type(error).__name__}: {str(error)[:120]}"}
        try:
            torch.manual_seed(0)
            teacher, student = _built(model, 2 * hidden), _built(model, hidden)
            if _widths(teacher, example) != _widths(student, example):  # which are to be compared
                teacher = _built(model, hidden)
            row |= _whole(teacher, student, example, model)
        except Exception as error:
            return row | {"why": f"{type(error).__name__}: {str(error)[:300]}"}
        wrong = [name for name in ("finite", "learns", "unchanged", "equal") if not row[name]]
        row["distilled"], row["why"] = not wrong, f"not {', '.join(wrong)}" if wrong else ""
        if layers:
            row |= _layers(student, _built(model, hidden), example, model)
    return row


def _built(model: Model, hidden: int) -> nn.Module:
    """Return a model whose lazily sized parameters have their sizes."""
    net = model.build(hidden)
    with torch.no_grad():
        Example(model.example(), model.call).run(net.eval())
    return net.train()


def _widths(net: nn.Module, example: Example) -> list[int]:
    with torch.no_grad():
        return [x.size(-1) for x in tensors_of(example.run(net)) if x.dim() > 0]


def _whole(
    teacher: nn.Module, student: nn.Module, example: Example, model: Model
) -> dict[str, Any]:
    before = copy.deepcopy(teacher.state_dict())
    torch.manual_seed(1)
    state = copy.deepcopy(student.state_dict())  # running means change with a run
    expected = list(tensors_of(example.run(student)))
    student.load_state_dict(state)
    distiller = Distiller(teacher, student, [OutputLoss()], call=model.call)
    args, kwargs = example.arguments(student)
    torch.manual_seed(1)
    out, losses = distiller(*args, **kwargs)
    after = teacher.state_dict()
    equal = all(torch.equal(a, b) for a, b in zip(tensors_of(out), expected, strict=True))
    sum(losses.values()).backward()
    return {
        "finite": all(bool(value.isfinite()) for value in losses.values()),
        "learns": any(p.grad is not None and bool(p.grad.any()) for p in student.parameters()),
        "unchanged": all(torch.equal(before[name], value) for name, value in after.items()),
        "equal": equal,
    }


def _losses(layer: str) -> Iterator[DistillationLoss]:
    yield HintLoss(layer, layer, projection=False)
    yield AttentionTransferLoss(layer, layer)
    yield GSPLoss(layer, layer)
    yield LSPLoss(layer, layer)
    yield SpatialCorrelationLoss(layer, layer)
    yield TemporalCorrelationLoss(layer, layer)


def _layers(
    student: nn.Module, teacher: nn.Module, example: Example, model: Model
) -> dict[str, Any]:
    """Compare each layer with itself: 0, or refused."""
    student.eval()
    teacher.load_state_dict(student.state_dict())
    layers = [
        name for name, module in student.named_modules() if any(True for _ in module.parameters())
    ]
    right = refused = 0
    wrong: list[str] = []
    for layer in layers:
        for loss in _losses(layer):
            try:
                distiller = Distiller(teacher, student, [loss], call=model.call).eval()
                args, kwargs = example.arguments(student)
                torch.manual_seed(2)
                value = next(iter(distiller(*args, **kwargs)[1].values()))
            except Refused:
                refused += 1
                continue
            finally:
                distiller.remove_hooks()
            if abs(float(value)) <= 1e-5:
                right += 1
            else:
                wrong.append(f"{type(loss).__name__} at {layer}: {float(value):.2g}")
    return {"layers": len(layers), "right": right, "refused": refused, "wrong": wrong}


def distil_table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as lines of Markdown."""
    ran = [row for row in rows if not row["why"].startswith("does not run")]
    done = sum(row["distilled"] for row in ran)
    total = {key: sum(row.get(key, 0) for row in rows) for key in ("layers", "right", "refused")}
    wrong = sum(len(row.get("wrong", ())) for row in rows)
    lines = [
        "## Distilled",
        "",
        f"{len(ran)} models ran, {done} of them were distilled from a wider one of their class: "
        "the losses finite, the student reached by gradients, the teacher unchanged, the student's "
        "output bit for bit that of the student alone under the same seed. "
        f"{total['layers']} layers of them were compared with themselves by six losses: "
        f"{total['right']} times 0 (1e-5), as it must be, {total['refused']} times refused, "
        f"{wrong} times wrong.",
        "",
        "| model | from | distilled | layers | right | refused | wrong | why not |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = [str(row.get(key, "")) for key in ("layers", "right", "refused")]
        bad = "; ".join(row.get("wrong", ()))
        cells = [row["model"], row["family"], "yes" if row["distilled"] else "no", *counts, bad]
        cells.append(row["why"].replace("|", "/").replace("<", "&lt;").replace("\n", " "))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    from zoo_models import MODELS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--layers", action="store_true", help="each layer against itself, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for model in MODELS:
        if options.only.lower() in f"{model.family}/{model.name}".lower():
            row = distil_row(model, layers=options.layers)
            rows.append(row)
            more = f"{row.get('right', '')} {row.get('refused', '')} {row.get('wrong', '')}"
            print(f"{row['model']:28} {row['distilled']!s:6} {row['why'][:250]} {more}", flush=True)
    print(len(rows), "models,", sum(row["distilled"] for row in rows), "distilled")


if __name__ == "__main__":
    main()
