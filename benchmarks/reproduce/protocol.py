"""How every table here comes about: tuning, seeds, what is stored, and what may be said of it.

* Every method is tuned in the same way and by as many trials: along each of its axes, one after the
  other and once, on seeds that are not reported, by the mean of validation. A grid whose best value
  is at an edge is extended until it is inside, and all other methods of the table are given as many
  trials, the student alone as a distilled one.
* Final seeds have a teacher each. All students take the same number of steps and keep the weights
  that are best on validation.
* Tables print where the best weights were and, where all runs tell it, what validation won in the
  last tenth of the steps. Much of it says that runs are too short; little, under a rate that falls
  to zero, says nothing.
* Differences are paired by seed, with 95 % intervals; p-values are corrected by Holm's procedure
  for the number of methods. A share of the gap to the teacher has its interval.
* Every run is stored as it ends, with commit, date, machine, seed and whether it was a trial. A
  command that was interrupted goes on where it was.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))  # what experiments share
from experiment import Run
from presentation import spread

from pyg_stkd.distill import Epoch
from pyg_stkd.report import gap, holm, interval, p_value

TUNING = (1000, 1001)  # seeds that no table reports
FURTHEST = 6  # values beyond a grid, after which a best one at an edge is told as such
ALONE = "alone"
Config = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """What is tuned: a name, values that rise, and the factor to the next one beyond them.

    After these, so many more are tried as is asked for: the next one beyond the best where that is
    at an edge, else the one between the best and its better neighbour. A value of 0 is a natural
    end, and comes next below :obj:`least` where that is given; nothing is tried above :obj:`most`.
    """

    name: str
    values: tuple[float, ...]
    factor: float
    least: float = 0.0
    most: float = math.inf

    def __post_init__(self) -> None:
        if len(self.values) < 2 or list(self.values) != sorted(set(self.values)):
            raise ValueError(f"'values' must be two or more that rise (got {self.values})")

    def search(self, score: Callable[[float], float], more: int = 1) -> tuple[float, bool]:
        """Return the value of the best score, and whether it is inside of what was tried."""
        tried = {value: score(value) for value in self.values}
        for _ in range(more):
            value = self._beyond(tried)
            value = self._between(tried) if value is None else value
            tried[value] = score(value)
        return max(tried, key=tried.__getitem__), self._beyond(tried) is None

    def _beyond(self, tried: Mapping[float, float]) -> float | None:
        best = max(tried, key=tried.__getitem__)
        if best == max(tried):
            return best * self.factor if best * self.factor <= self.most else None
        if best > min(tried) or best == 0:
            return None
        return best / self.factor if best > self.least else 0.0

    def _between(self, tried: Mapping[float, float]) -> float:
        best, places = max(tried, key=tried.__getitem__), sorted(tried)
        at = places.index(best)
        neighbour = max(
            places[max(at - 1, 0) : at] + places[at + 1 : at + 2], key=tried.__getitem__
        )
        return math.sqrt(best * neighbour) if best and neighbour else (best + neighbour) / 2


@dataclass(frozen=True)
class Method:
    """A row of a table: its name, what is fixed, where the search starts, and along what."""

    name: str
    fixed: Config
    start: Config
    axes: tuple[Axis, ...]


class Trials:
    """The search of one method, axis by axis; no setting is tried twice."""

    def __init__(self, method: Method, go: Callable[[Run], dict[str, Any]]) -> None:
        self.method, self.go = method, go
        self.config, self.inside = dict(method.start), True
        self.runs: list[dict[str, Any]] = []
        self._known: dict[str, float] = {}

    def search(self, axis: Axis, more: int) -> tuple[float, bool]:
        """Return the best value along an axis, and whether it is inside of what was tried."""
        return axis.search(lambda value: self._score(self.config | {axis.name: value}), more)

    def _score(self, config: Config) -> float:
        key = repr(sorted(config.items()))
        if key not in self._known:
            method = self.method
            runs = [self.go(Run(method.name, seed, method.fixed | config)) for seed in TUNING]
            self.runs += [run | {"trial": True} for run in runs]
            self._known[key] = statistics.fmean(
                run["val"] if math.isfinite(run["val"]) else -1e9 for run in runs
            )
        return self._known[key]


def tune(
    methods: Sequence[Method], go: Callable[[Run], dict[str, Any]], trials: int = 0
) -> dict[str, Trials]:
    """Tune methods axis by axis, all by as many values as the one that needs most of them.

    Each has at least as many runs as :obj:`trials`, those of another search beside it.
    """
    found = {method.name: Trials(method, go) for method in methods}
    places = {len(method.axes) for method in methods}
    if len(places) > 1:
        raise ValueError(f"'methods' must have as many axes each (got {sorted(places)})")
    for place in range(max(places, default=0)):
        axes = {name: t.method.axes[place] for name, t in found.items()}
        last = place + 1 == max(places)
        for more in range(1, FURTHEST + 1):
            best = {name: found[name].search(axis, more) for name, axis in axes.items()}
            enough = not last or min(len(t.runs) for t in found.values()) >= trials
            if enough and all(inside for _, inside in best.values()):
                break
        for name, (value, inside) in best.items():
            found[name].config[axes[name].name] = value
            found[name].inside &= inside
    return found


def collect(
    methods: Sequence[Method], seeds: int, go: Callable[[Run], dict[str, Any]], trials: int = 0
) -> dict[str, Any]:
    """Tune each method and run it from every seed; return all results and what was chosen."""
    runs: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    for name, tuned in tune(methods, go, trials).items():
        config = tuned.config
        chosen[name] = {"config": config, "trials": len(tuned.runs), "inside": tuned.inside}
        runs += tuned.runs
        runs += [go(Run(name, seed, tuned.method.fixed | config)) for seed in range(seeds)]
    return {"runs": [{k: v for k, v in run.items() if k != "history"} for run in runs],
            "chosen": chosen}  # fmt: skip


def late_gain(epochs: Sequence[Epoch], steps: float) -> float:
    """Return by how much the best error on validation falls in the last tenth of the steps.

    Example:
        >>> epochs = [Epoch(i, 10 * i, {}, {}, 1 / i, True, 0.01) for i in (5, 8, 9, 10)]
        >>> round(late_gain(epochs, 100), 4)
        0.0111
    """
    errors = {e.step: e.metric for e in epochs if e.metric is not None and math.isfinite(e.metric)}
    early = [error for step, error in errors.items() if step <= 0.9 * steps]
    return min(early or list(errors.values())[:1]) - min(errors.values()) if errors else math.nan


def settled(
    methods: list[Method],
    chosen: dict[str, Any],
    seeds: int,
    go: Callable[[Run], dict[str, Any]],
) -> dict[str, Any]:
    """Run each method from every seed with settings that are given."""
    runs = [
        go(Run(method.name, seed, method.fixed | chosen[method.name]["config"]))
        for method in methods
        for seed in range(seeds)
    ]
    return {
        "runs": [{k: v for k, v in run.items() if k != "history"} for run in runs],
        "chosen": {method.name: chosen[method.name] | {"trials": 0} for method in methods},
    }


def together(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of two searches as those of one table.

    Example:
        >>> together({"runs": [1], "chosen": {"a": 2}}, {"runs": [3], "chosen": {"b": 4}})
        {'runs': [1, 3], 'chosen': {'a': 2, 'b': 4}}
    """
    return {
        "runs": first["runs"] + second["runs"],
        "chosen": first["chosen"] | second["chosen"],
    }


@lru_cache
def commit() -> str:
    """Return the commit that runs, marked if files differ from it."""
    here = Path(__file__).parent
    told = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    found = subprocess.run(told, cwd=here, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def rows(
    found: Mapping[str, Any],
    teachers: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    score: str,
    *,
    scale: float = 100.0,
    larger: bool = True,
    digits: int = 2,
    alone: str = ALONE,
) -> list[dict[str, str]]:
    """Return a table: scores, validation, paired gains with intervals, shares of the gap, tuning.

    Args:
        found (dict): What :func:`collect` returned.
        teachers (list of dict): Results of the teachers, by seed.
        names (dict): The words of a table for each method; others are left out.
        score (str): The key of the test score.
        scale (float): What scores are multiplied by. (default: :obj:`100.0`)
        larger (bool): Whether a larger score is better. (default: :obj:`True`)
        digits (int): Digits of what validation won late. (default: :obj:`2`)
        alone (str): The method that others are compared with. (default: the student alone)
    """
    final: dict[str, list[dict[str, Any]]] = {}
    for run in found["runs"]:
        if "trial" not in run:
            final.setdefault(run["method"], []).append(run)
    values = {name: [scale * run[score] for run in runs] for name, runs in final.items()}
    said = [scale * run[score] for run in teachers]
    others = [name for name in names if name in final and name != alone]
    sign = 1 if larger else -1
    gains = {
        m: [sign * (a - b) for a, b in zip(values[m], values[alone], strict=True)] for m in others
    }
    corrected = dict(zip(others, holm([p_value(gains[m]) for m in others]), strict=True))
    told = all("late_gain" in run for name in [alone, *others] for run in final[name])
    late = {"won in the last tenth": ""} if told else {}
    table = [{"model": names.get("teacher", "teacher"), "test": spread(said, scale=1),
              "validation": spread([scale * run["val"] for run in teachers], scale=1),
              "gain over alone": "", "p (Holm)": "", "gap closed": "", "best weights at": "",
              **late, "tuned": "", "trials": ""}]  # fmt: skip
    for name in [alone, *others]:
        runs, chosen = final[name], found["chosen"][name]
        row = {
            "model": names[name],
            "test": spread(values[name], scale=1),
            "validation": spread([scale * run["val"] for run in runs], scale=1),
        }
        if name != alone:
            between = gap(
                *([sign * x for x in part] for part in (said, values[alone], values[name]))
            )
            sure = corrected[name] < 0.05
            row["gain over alone"] = f"{between.gain:.2f}"
            row["p (Holm)"] = (
                f"{corrected[name]:.3f}" if sure else f"{corrected[name]:.2f}, not sure"
            )
            lead = between.lead.excludes_zero
            row["gap closed"] = f"{between.closed:.0%}" if lead else "no clear gap"
        share = statistics.fmean(run["best_share"] for run in runs)
        row["best weights at"] = f"{share:.0%} of the steps"
        if told:
            won = scale * statistics.fmean(run["late_gain"] for run in runs)
            row["won in the last tenth"] = f"{won:.{digits}f}"
        row["tuned"] = ", ".join(f"{key} {value:g}" for key, value in chosen["config"].items())
        row["tuned"] += "" if chosen["inside"] else " (at the edge of its grid)"
        row["trials"] = str(chosen["trials"])
        table.append(row)
    return table


def differences(
    found: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    names: Mapping[str, str],
    score: str,
    *,
    scale: float = 100.0,
) -> list[dict[str, str]]:
    """Return a table of how far a method is above another one, paired by seed."""
    final: dict[str, dict[int, float]] = {}
    for run in found["runs"]:
        if "trial" not in run:
            final.setdefault(run["method"], {})[run["seed"]] = scale * run[score]
    leads = [[final[a][seed] - final[b][seed] for seed in sorted(final[a])] for a, b in pairs]
    corrected = holm([p_value(lead) for lead in leads])
    return [
        {
            "model": names[a],
            "above": names[b],
            "by": f"{interval(lead):.2f}",
            "p (Holm)": f"{p:.3f}" if p < 0.05 else f"{p:.2f}, not sure",
        }
        for (a, b), lead, p in zip(pairs, leads, corrected, strict=True)
    ]
