"""Saves and loads a fit that goes on later as if it had not been interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pyg_stkd.distill.fitting.run import Run
from pyg_stkd.distill.fitting.streams import random_state, set_random
from pyg_stkd.files import write_atomic

__all__ = ["load_fit", "save_fit"]

_PLAN = ("steps", "every", "alpha", "share", "mode")


def save_fit(path: Path, run: Run) -> None:
    """Write all that decides what comes next; an interrupted write leaves the old file."""
    content = {
        "plan": {name: getattr(run, name) for name in _PLAN},
        "distiller": run.distiller.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "best": {"metric": run.best_metric, "state": run.best_state},
        "step": run.step,
        "reports": run.reports,
        "batches": run.batches.state(),
        "random": random_state(),
    }
    write_atomic(path, lambda file: torch.save(content, file))


def load_fit(path: Path, run: Run) -> None:
    """Bring a run, as it is before its first step, to the place in a file.

    Raises:
        ValueError: If the file is no such file, or one of another plan, student or losses.
    """
    device = next(run.distiller.student.parameters()).device
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"'checkpoint' must be a file of fit (got {path.name!r})") from error
    if not isinstance(content, dict) or not {"plan", "best", "batches"} <= content.keys():
        raise ValueError(f"'checkpoint' must be a file of fit (got {path.name!r})")
    plan = {name: getattr(run, name) for name in _PLAN}
    if content["plan"] != plan:
        raise ValueError(
            f"'checkpoint' must be of the same plan {plan} (got {content['plan']} in {path.name!r})"
        )
    try:
        run.distiller.load_state_dict(content["distiller"])
        run.optimizer.load_state_dict(content["optimizer"])
        run.scheduler.load_state_dict(content["scheduler"])
        run.batches.restore(content["batches"])
    except (RuntimeError, ValueError, StopIteration) as error:
        raise ValueError(
            f"'checkpoint' must be of this student, optimizer and loaders (got {path.name!r}: "
            f"{error})"
        ) from error
    run.best_metric = content["best"]["metric"]
    run.best_state = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in content["best"]["state"].items()
    }
    run.step, run.reports = content["step"], content["reports"]
    set_random(content["random"])
