"""What a served forecaster costs: latency, memory and error of each format, and over HTTP.

    python benchmarks/deployed.py                 # trains and exports first, minutes
    python benchmarks/deployed.py --write         # stores

Runs the commands of ``examples/serve_traffic.py``: ``export`` once, ``measure`` (each model in a
process of its own, from a new row of readings to the forecast of the next hour), and ``load`` (500
rows and forecasts through HTTP on this machine, one after the other). Needs the extras ``export``
and ``serve``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from scale import store

SERVE = Path(__file__).parents[1] / "examples" / "serve_traffic.py"
ANSWERS = re.compile(r"/(\w+): p50 ([\d.]+) ms, p99 ([\d.]+) ms of (\d+) requests")


def run(command: str, out: Path, *more: str) -> str:
    """Run one of the example's commands and return what it prints."""
    line = [sys.executable, str(SERVE), command, "--out", str(out), *more]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Export if need be, measure, print and, with --write, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/deployed"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--aoti", action="store_true", help="also compile with AOTInductor")
    parser.add_argument("--only", choices=["export", "measure"], help="stop before the next part")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    if not (args.out / "pruned.int8.onnx").exists():  # the last that is written
        print(run("export", args.out, *(["--aoti"] if args.aoti else [])))
    if args.only == "export":
        return
    print(run("measure", args.out, "--rounds", str(args.rounds)))
    measured = json.loads((args.out / "serving.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = [
        {name: str(value) for name, value in row.items()} for row in measured["rows"]
    ]
    raw = {"models": measured["runs"], "http": {}}
    for model in ("teacher.onnx", "pruned.onnx") if args.only is None else ():
        said = run("load", args.out, "--model", model)
        print(said)
        for path, p50, p99, count in ANSWERS.findall(said):
            raw["http"][f"{model} {path}"] = [float(p50), float(p99), int(count)]
            rows.append({"model": f"{model}, HTTP /{path}", "p50 ms": p50, "p99 ms": p99})
    if args.write:
        note = "A row of 64 sensors in, an hour of forecasts out; medians of the rounds, wall time."
        command = f"python benchmarks/deployed.py{' --aoti' if args.aoti else ''} --write"
        store("served", rows, command, note, raw)


if __name__ == "__main__":
    main()
