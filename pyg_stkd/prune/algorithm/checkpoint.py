"""Saves and loads the stages of Algorithm 1."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.files import remove_parts, write_atomic
from pyg_stkd.prune.algorithm.adapters import StudentMaps, narrow_adapters
from pyg_stkd.prune.algorithm.random_numbers import RandomNumbers
from pyg_stkd.prune.algorithm.rehearsal import copied
from pyg_stkd.prune.algorithm.stage import Stage
from pyg_stkd.prune.masked.processes import first, gathered, rank, together
from pyg_stkd.prune.pruner import Pruner

__all__ = ["check_path", "load_stages", "save_stages"]


def check_path(path: Path) -> None:
    """Raise where a file cannot be written, before there is anything to lose.

    Parts of it that a process which was killed has left are removed.

    Raises:
        ValueError: If the path is a folder, or its folder cannot be made or written to.
    """
    with together():
        try:
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
            if rank() == 0:
                remove_parts(path)
        except OSError as error:
            raise ValueError(
                f"'checkpoint' must be a file that can be written (got {str(path)!r}: {error})"
            ) from error


def save_stages(
    path: Path,
    distiller: Distiller,
    pruner: Pruner,
    reports: list[Stage],
    numbers: RandomNumbers,
) -> None:
    """Write what is needed to go on after the last stage; an interrupted write leaves the old.

    Of several processes the first writes, with the random numbers of all.
    """
    content = {
        "pruner": pruner.state_dict(),
        "keep": list(pruner.keep),
        "distiller": distiller.state_dict(),
        "stages": [asdict(report) for report in reports],
        "random": gathered(numbers.state()),
    }
    with together():
        if rank() == 0:
            write_atomic(path, lambda file: torch.save(content, file))


def load_stages(
    path: Path,
    distiller: Distiller,
    pruner: Pruner,
    maps: StudentMaps,
    numbers: RandomNumbers,
) -> tuple[list[Stage], dict[str, Any] | None]:
    """Bring a distiller and a pruner, as they were at first, to the last stage of a file.

    Returns the reports of the stages, and the states of the random numbers after the last one
    (:obj:`None` in files that have none of as many processes).

    Raises:
        ValueError: If the file is damaged, or of another model, schedule, granularity or other
            losses, or stages were done already. All is left as it was.
    """
    with together():
        found = _read(path, pruner) if rank() == 0 else {}
    content = first(found)
    if pruner.stage:
        raise ValueError(
            f"'pruner' must be at its start to resume from {path.name!r} (got stage {pruner.stage})"
        )
    done = content["pruner"]["stage"]
    if tuple(content["keep"][:done]) != pruner.keep[:done]:
        raise ValueError(
            f"'checkpoint' must have the first shares of 'keep' {pruner.keep} "
            f"(got {content['keep'][:done]} in {path.name!r})"
        )
    states = content.get("random") or []
    state = states[rank()] if len(states) == len(gathered(None)) else None
    # On copies first, since a shrunk student has no way back.
    try:
        reports = [Stage(**report) for report in content["stages"]]
        if state is not None:
            now = numbers.state()
            numbers.restore(state)
            numbers.restore(now)
        _apply(content, *copied(distiller, pruner, maps))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"'checkpoint' must be of this distiller's student and losses (got {path.name!r}: "
            f"{error})"
        ) from error
    _apply(content, distiller, pruner, maps)
    return reports, state


def _read(path: Path, pruner: Pruner) -> dict[str, Any]:
    """Return the content of a file that is whole and says what it must."""
    refusal = f"'checkpoint' must be a file of distill_and_prune (got {path.name!r}"
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch have many for a damaged file
        reason = next(iter(str(error).splitlines()), "empty")
        raise ValueError(f"{refusal}: {reason})") from error
    parts = {"pruner": dict, "keep": list, "distiller": dict, "stages": list}
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in parts.items()
    ):
        raise ValueError(f"{refusal})")
    stage, reports = content["pruner"].get("stage"), content["stages"]
    if type(stage) is not int or not 1 <= stage <= len(pruner.keep) or stage != len(reports):
        raise ValueError(f"{refusal} at stage {stage!r} of {len(pruner.keep)})")
    return content


def _apply(
    content: Mapping[str, Any], distiller: Distiller, pruner: Pruner, maps: StudentMaps
) -> None:
    pruner.load_state_dict(content["pruner"])
    narrow_adapters(distiller, pruner, maps)
    pruner.shrink()
    distiller.load_state_dict(content["distiller"])
