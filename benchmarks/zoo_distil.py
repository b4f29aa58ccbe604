"""Distil every model of the zoo, unedited: what is compared rightly, refused, or wrong.

    python benchmarks/zoo_distil.py [--only NAME]

A model has passed if the losses between its outputs are finite and reach the student, the teacher
is as it was, and the student's output is bit for bit what it is alone under the same seed. What is
asked of the layers is told in zoo_taps.py.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch_geometric import seed_everything
from zoo_graphs import HIDDEN, Model
from zoo_models import asked

from pyg_stkd import Distiller
from pyg_stkd.distill import OutputLoss
from pyg_stkd.distill.recording.reading.parts import tensors_of
from pyg_stkd.prune.structure.example import Example


def distil_row(model: Model, hidden: int = HIDDEN) -> dict[str, Any]:
    """Distil one model from a wider one."""
    row: dict[str, Any] = {"model": model.name, "family": model.family, "distilled": False}
    example = Example(model.example(), model.call)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            built(model, hidden)
        except Exception as error:
            return row | {"why": f"does not run: {type(error).__name__}: {str(error)[:120]}"}
        try:
            torch.manual_seed(0)
            teacher, student = built(model, 2 * hidden), built(model, hidden)
            if _widths(teacher, example) != _widths(student, example):  # which are to be compared
                teacher = built(model, hidden)
            row |= _whole(teacher, student, example, model)
        except Exception as error:
            return row | {"why": f"{type(error).__name__}: {str(error)[:300]}"}
        wrong = [name for name in ("finite", "learns", "unchanged", "equal") if not row[name]]
        row["distilled"], row["why"] = not wrong, f"not {', '.join(wrong)}" if wrong else ""
    return row


def built(model: Model, hidden: int) -> nn.Module:
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
    seed_everything(1)  # negative edges are drawn by Python
    state = copy.deepcopy(student.state_dict())  # running means change with a run
    expected = list(tensors_of(example.run(student)))
    student.load_state_dict(state)
    distiller = Distiller(teacher, student, [OutputLoss()], call=model.call)
    args, kwargs = example.arguments(student)
    seed_everything(1)  # negative edges are drawn by Python
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


def distil_table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as lines of Markdown."""
    ran = [row for row in rows if not row["why"].startswith("does not run")]
    done = sum(row["distilled"] for row in ran)
    lines = [
        "## Distilled",
        "",
        f"{len(ran)} models ran, {done} of them were distilled from a wider one of their class: "
        "the losses finite, the student reached by gradients, the teacher unchanged, the student's "
        "output bit for bit that of the student alone under the same seed. What became of each of "
        "their layers is in [a table of its own](zoo_taps.md).",
        "",
        "| model | from | distilled | why not |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["model"], row["family"], "yes" if row["distilled"] else "no"]
        cells.append(row["why"].replace("|", "/").replace("<", "&lt;").replace("\n", " "))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    models, _ = asked(__doc__)
    rows = []
    for model in models:
        row = distil_row(model)
        rows.append(row)
        print(f"{row['model']:28} {row['distilled']!s:6} {row['why'][:250]}", flush=True)
    print(len(rows), "models,", sum(row["distilled"] for row in rows), "distilled")


if __name__ == "__main__":
    main()
