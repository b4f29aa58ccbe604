"""All models of the zoo: each has ``build(hidden)``, ``example()`` and ``call``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from zoo_examples import EXAMPLES
from zoo_graphs import Model
from zoo_layers import LAYERS
from zoo_nets import NETS
from zoo_own import OWN
from zoo_special import SPECIAL
from zoo_temporal import TEMPORAL
from zoo_tsl import TSL

__all__ = ["MODELS", "asked", "resumed"]

MODELS = [*OWN, *EXAMPLES, *NETS, *LAYERS, *SPECIAL, *TEMPORAL, *TSL]


def asked(text: str | None) -> tuple[list[Model], argparse.Namespace]:
    """Return the models that a command asks for, on one thread, and whether to save and begin anew.

    Args:
        text: What the command does.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--again", action="store_true", help="begin anew")
    options = parser.parse_args()
    torch.set_num_threads(1)
    only = options.only.lower()
    return [x for x in MODELS if only in f"{x.family}/{x.name}".lower()], options


def resumed(
    name: str, models: Iterable[Model], make: Callable[[Model], dict[str, Any]], again: bool
) -> Iterator[dict[str, Any]]:
    """Yield the row of each model, kept in runs/NAME.jsonl: an interrupted command goes on there.

    Args:
        name: What the rows are of.
        models: The models.
        make: Makes the row of one.
        again: Whether to make all of them anew.
    """
    path = Path("runs") / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    if again:
        path.unlink(missing_ok=True)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    known = {(row["family"], row["model"]): row for row in map(json.loads, lines)}
    for model in models:
        row = known.get((model.family, model.name))
        if row is None:
            row = make(model)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        yield row
