"""What a served forecaster costs: latency, memory and error of each format, and over HTTP.

    python benchmarks/deployed.py                 # trains and exports first, minutes
    python benchmarks/deployed.py --write         # stores

Runs the commands of ``examples/serve_traffic.py``: ``export`` once, ``measure`` (each model in a
process of its own, from a new row of readings to the forecast of the next hour, all in turn), and
``load`` (500 rows and forecasts through HTTP on this machine, one after the other). A model is
there as it was trained (``safetensors``: built anew, eager), as a program of ``torch.export``
(``pt2``), as a package of AOTInductor where there is a C++ compiler (``aoti.pt2``), and for
onnxruntime. Needs the extras ``export``, ``safe`` and ``serve``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
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
    parser.add_argument(
        "--export", nargs=argparse.REMAINDER, default=[], help="options of the export, the last"
    )
    parser.add_argument("--only", choices=["export", "measure"], help="stop before the next part")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    compiler = any(map(shutil.which, ("c++", "g++", "clang++")))
    last = args.out / ("pruned.aoti.pt2" if compiler else "pruned.pt2")  # that is written
    if not last.exists():
        print(run("export", args.out, *(["--aoti"] if compiler else []), *args.export))
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
        command = f"python benchmarks/deployed.py --rounds {args.rounds} --write"
        store("served", rows, command, note, raw)


if __name__ == "__main__":
    main()
