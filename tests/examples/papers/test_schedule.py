from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FORKED = """
import os
from pathlib import Path
from schedule import tune_and_run

def go(method, seed, config):
    path = Path(f"{method}-{seed}-{config['lr']}")  # the store
    if not path.exists():
        path.write_text(str(os.getpid()))
    if method == "broken":
        raise ValueError("of a run")
    return {"method": method, "val": -config["lr"], "seed": seed, "pid": int(path.read_text())}

def configs(method, student):
    return [{"lr": 0.2}, {"lr": 0.1}]

for trials in (1, 2):
    results = tune_and_run(configs, go, ("student", "KD"), 2, trials, workers=2)
    final = [(r["method"], r["seed"], r["val"]) for r in results if "trial" not in r]
    best = -0.1 if trials == 2 else -0.2
    assert final == [(m, s, best) for m in ("student", "KD") for s in (0, 1)]
    assert os.getpid() not in {r["pid"] for r in results}
assert len({r["pid"] for r in results}) > 1
try:
    tune_and_run(configs, go, ("broken",), 2, 1, workers=2)
except ValueError as error:
    assert str(error) == "of a run"
else:
    raise AssertionError
print("right")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_several_processes_give_the_results_of_one(tmp_path: Path, examples: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(examples)!r})\n{FORKED}")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "right", done.stderr


def test_tunes_every_method_by_the_same_number_of_trials() -> None:
    import schedule

    calls = []

    def configs(method: str, student: dict[str, float] | None) -> list[dict[str, float]]:
        if student is not None:
            return [student | {"weight": w} for w in (1.0, 2.0, 3.0)]
        return [{"lr": lr} for lr in (0.1, 0.2, 0.3)]

    def go(method: str, seed: int, config: dict[str, float]) -> dict[str, object]:
        calls.append((method, seed, config))
        score = {0.1: 0, 0.2: 1, 0.3: 9}[config["lr"]] - config.get("weight", 0)
        return {"method": method, "val": score, "history": [[0, 0]]}

    results = schedule.tune_and_run(configs, go, ("teacher", "student", "KD"), seeds=2, trials=2)
    tuned = [call for call in calls if call[0] == "KD"]
    best = {"lr": 0.2, "weight": 1.0}  # the third rate, better still, is beyond the budget
    assert tuned == [("KD", 0, best), ("KD", 0, best | {"weight": 2.0}), ("KD", 0, best),
                     ("KD", 1, best)]  # fmt: skip
    assert [r.get("trial", False) for r in results] == 3 * [True, True, False, False]
    assert all(("history" in r) is ("trial" not in r) for r in results)

    calls.clear()
    schedule.tune_and_run(configs, go, ("student", "KD"), seeds=1, trials=1)
    first = {"lr": 0.1}
    assert calls == [("student", 0, first), ("KD", 0, first | {"weight": 1.0})]
