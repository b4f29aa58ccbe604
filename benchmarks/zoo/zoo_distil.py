"""Distil every model of the zoo, unedited: what is compared rightly, refused, or wrong.

    python benchmarks/zoo/zoo_distil.py [--only NAME]

A model has passed if the losses between its outputs are finite and reach the student, the teacher
is as it was, and the student's output is bit for bit what it is alone under the same seed. What is
asked of the layers is told in zoo_taps.py.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import seed_everything
from zoo_graphs import HIDDEN, Model
from zoo_models import asked, resumed

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
            teacher, student = _wider(model, hidden), built(model, hidden)
            if _widths(teacher, example) != _widths(student, example):  # which are to be compared
                teacher = built(model, hidden)
            try:
                row |= _whole(teacher, student, example, model)
            except ValueError as error:
                if "select=0" not in str(error):
                    raise
                row |= {"select": 0} | _whole(teacher, student, example, model, 0)
        except Exception as error:
            return row | {"why": f"{type(error).__name__}: {str(error)[:300]}"}
        wrong = [name for name in ("finite", "learns", "unchanged", "equal") if not row[name]]
        row["distilled"], row["why"] = not wrong, f"not {', '.join(wrong)}" if wrong else ""
    return row


def _wider(model: Model, hidden: int) -> nn.Module:
    """Return a wider model of its class, or one as wide where a wider one does not run."""
    try:
        return built(model, 2 * hidden)
    except RuntimeError:
        return built(model, hidden)


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
    teacher: nn.Module, student: nn.Module, example: Example, model: Model, select: Any = None
) -> dict[str, Any]:
    before = copy.deepcopy(teacher.state_dict())
    state = copy.deepcopy(student.state_dict())  # running means change with a run
    alone = []
    for _ in range(2):
        seed_everything(1)  # negative edges are drawn by Python
        alone.append([x.detach() for x in tensors_of(example.run(student))])
        student.load_state_dict(state)
    losses = [OutputLoss(select=select)]
    distiller = Distiller(teacher, student, losses, call=model.call)
    args, kwargs = example.arguments(student)
    seed_everything(1)  # negative edges are drawn by Python
    out, losses = distiller(*args, **kwargs)
    after = teacher.state_dict()
    varies = not _same(*alone, 0.0)  # by itself, such as with the start of an eigensolver
    equal = _same(list(tensors_of(out)), alone[0], 1e-4 if varies else 0.0)
    sum(losses.values()).backward()
    return {
        "finite": all(bool(value.isfinite()) for value in losses.values()),
        "learns": any(p.grad is not None and bool(p.grad.any()) for p in student.parameters()),
        "unchanged": all(torch.equal(before[name], value) for name, value in after.items()),
        "equal": equal,
        "varies": varies,
    }


def _same(a: list[Tensor], b: list[Tensor], gap: float) -> bool:
    """Whether two outputs are equal bit for bit, or up to a gap."""
    pairs = list(zip(a, b, strict=True))
    return all(torch.equal(x, y) or (gap > 0 and torch.allclose(x, y, gap, gap)) for x, y in pairs)


def distil_table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as lines of Markdown."""
    ran = [row for row in rows if not row["why"].startswith("does not run")]
    done = sum(row["distilled"] for row in ran)
    lines = [
        "## Distilled",
        "",
        f"{len(ran)} models ran, {done} of them were distilled from a wider one of their class: "
        "the losses finite, the student reached by gradients, the teacher unchanged, the student's "
        "output bit for bit that of the student alone under the same seed (up to 1e-4 for "
        f"{sum(row.get('varies', False) for row in ran)} models that differ from run to run by "
        "themselves). What became of each of their layers is in [a table of its own](zoo_taps.md).",
        "",
        "| model | from | distilled | why not |",
        "|---|---|---|---|",
    ]
    for row in rows:
        done = "by its part 0" if "select" in row else "yes"
        cells = [row["model"], row["family"], done if row["distilled"] else "no"]
        cells.append(row["why"].replace("|", "/").replace("<", "&lt;").replace("\n", " "))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    models, options = asked(__doc__)
    rows = []
    for row in resumed("zoo_distil", models, distil_row, options.again):
        rows.append(row)
        print(f"{row['model']:28} {row['distilled']!s:6} {row['why'][:250]}", flush=True)
    print(len(rows), "models,", sum(row["distilled"] for row in rows), "distilled")


if __name__ == "__main__":
    main()
