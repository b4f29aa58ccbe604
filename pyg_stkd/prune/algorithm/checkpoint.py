"""Saves and loads the stages of Algorithm 1."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.files import write_atomic
from pyg_stkd.prune.algorithm.adapters import narrow_adapters
from pyg_stkd.prune.pruner import Pruner

__all__ = ["load_stages", "save_stages"]


def save_stages(
    path: Path, distiller: Distiller, pruner: Pruner, reports: list[dict[str, Any]]
) -> None:
    """Write what is needed to go on after the last stage; an interrupted write leaves the old."""
    content = {
        "pruner": pruner.state_dict(),
        "keep": list(pruner.keep),
        "distiller": distiller.state_dict(),
        "stages": reports,
    }
    write_atomic(path, lambda file: torch.save(content, file))


def load_stages(path: Path, distiller: Distiller, pruner: Pruner) -> list[dict[str, Any]]:
    """Bring a distiller and a pruner, as they were at first, to the last stage of a file.

    Raises:
        ValueError: If the file is of another model, schedule, granularity or other losses, or
            stages were done already. Both are left as they were.
    """
    device = next(distiller.parameters()).device
    content = torch.load(path, map_location=device, weights_only=True)
    if not isinstance(content, dict) or not {"pruner", "keep", "distiller"} <= content.keys():
        raise ValueError(f"'checkpoint' must be a file of distill_and_prune (got {path.name!r})")
    done = content["pruner"]["stage"]
    if pruner.stage:
        raise ValueError(
            f"'pruner' must be at its start to resume from {path.name!r} (got stage {pruner.stage})"
        )
    if tuple(content["keep"][:done]) != pruner.keep[:done]:
        raise ValueError(
            f"'checkpoint' must have the first shares of 'keep' {pruner.keep} "
            f"(got {content['keep'][:done]})"
        )
    # On copies first, since a shrunk student has no way back; the teacher is not touched.
    teacher = distiller.teacher
    try:
        _apply(content, *copy.deepcopy((distiller, pruner), {id(teacher): teacher}))
    except RuntimeError as error:
        raise ValueError(
            f"'checkpoint' must be of this distiller's student and losses (got {path.name!r}: "
            f"{error})"
        ) from error
    _apply(content, distiller, pruner)
    return list(content["stages"])


def _apply(content: Mapping[str, Any], distiller: Distiller, pruner: Pruner) -> None:
    pruner.load_state_dict(content["pruner"])
    narrow_adapters(distiller, pruner)
    pruner.shrink()
    distiller.load_state_dict(content["distiller"])
