"""Runs many inputs of what ``TARGETS`` of the modules beside it hold, and counts how they end.

    python tests/fuzz/drive.py --inputs 100000 readers functions
    python tests/fuzz/drive.py --guided --seconds 600 readers     # by coverage, with atheris

An input is made from a seed and its number: ``--only 'PeMSD7' --first 17 --inputs 1`` runs one
again. What raises is a failure, printed with its number; so is what takes more than a minute of the
processor.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any

Pick = Callable[[int], int]
Target = Callable[[Pick], str]


class TooSlowError(Exception):
    """An input takes longer than it may."""


def stop(number: int, frame: FrameType | None) -> None:
    raise TooSlowError if number == signal.SIGPROF else KeyboardInterrupt


def run(targets: dict[str, Target], args: argparse.Namespace) -> dict[str, Any]:
    """Run inputs in turn and return how many ended how."""
    ends: dict[str, Counter[str]] = {name: Counter() for name in targets}
    failures: Counter[str] = Counter()
    start, done = time.process_time(), 0
    deadline = time.monotonic() + args.seconds if args.seconds else float("inf")
    signal.signal(signal.SIGPROF, stop)
    signal.signal(signal.SIGTERM, stop)
    last = args.first + -(-args.inputs // len(targets))
    with contextlib.suppress(KeyboardInterrupt):  # told to stop: the figures so far
        for number, (name, target) in product(range(args.first, last), targets.items()):
            source = random.Random(f"{args.seed} {name} {number}")
            signal.setitimer(signal.ITIMER_PROF, 60)
            try:
                end = target(source.randrange)
            except Exception as error:  # whatever it is, it is what is looked for
                end = "failed"
                where = traceback.extract_tb(error.__traceback__)[-1]
                cause = (
                    f"{name}: {type(error).__name__} in {Path(where.filename).name}:{where.lineno}"
                )
                failures[cause] += 1
                if failures[cause] == 1:
                    print(f"input {number} of {name}:", file=sys.stderr)
                    traceback.print_exc()
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            ends[name][end] += 1
            done += 1
            if time.monotonic() > deadline:
                break
    return {
        "inputs": done,
        "cpu_seconds": round(time.process_time() - start),
        "seed": args.seed,
        "ends": {name: dict(sorted(counter.items())) for name, counter in ends.items()},
        "failures": dict(failures),
    }


def guide(targets: dict[str, Target], args: argparse.Namespace) -> None:
    """Let atheris choose the inputs, by what parts of the package they reach."""
    atheris = importlib.import_module("atheris")
    names = sorted(targets)

    def one(data: bytes) -> None:
        source = atheris.FuzzedDataProvider(data)
        name = names[source.ConsumeIntInRange(0, len(names) - 1)]
        targets[name](lambda n: source.ConsumeIntInRange(0, n - 1))

    options = [f"-max_total_time={args.seconds}", "-timeout=60"]
    options.append(f"-artifact_prefix={tempfile.gettempdir()}/")  # where a failing input is kept
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def main() -> int:
    """Read the arguments, run, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="+", help="modules of this folder that hold TARGETS")
    parser.add_argument("--inputs", type=int, default=100_000, help="how many, of all targets")
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--only", help="the targets whose names hold this text")
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    parser.add_argument("--out", type=Path, help="a file for the figures")
    args = parser.parse_args()

    sys.path.insert(0, str(Path(__file__).parent))
    if args.guided:
        importlib.import_module("torch_geometric")  # not of interest, and slow to instrument
        with importlib.import_module("atheris").instrument_imports(include=["pyg_stkd"]):
            modules = [importlib.import_module(name) for name in args.modules]
    else:
        modules = [importlib.import_module(name) for name in args.modules]
    warnings.simplefilter("error")
    targets: dict[str, Target] = {}
    for module in modules:
        targets |= {k: v for k, v in module.TARGETS.items() if not args.only or args.only in k}
    if args.guided:
        guide(targets, args)
        return 0
    figures = run(targets, args)
    print(json.dumps(figures, indent=1))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return bool(figures["failures"])


if __name__ == "__main__":
    sys.exit(main())
