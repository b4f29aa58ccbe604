"""What the examples share: runs that resume, raw results as JSON, and a table of them."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from schedule import default_workers
from torch import Tensor, nn
from tqdm import tqdm

from pyg_stkd import Distiller
from pyg_stkd.distill import fit
from pyg_stkd.report import machine, write_atomic
from pyg_stkd.timing import interleave

_SAVE_EVERY = 30.0  # seconds between two checkpoints of a run


@dataclass(frozen=True)
class Run:
    """One training: what it trains, how, and from which seed."""

    method: str
    seed: int
    config: dict[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """Unique to every setting, so that a changed setting never reads an old result."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.method}-s{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class Store:
    """A folder of raw results and checkpoints; finished runs are not run again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, run: Run) -> dict[str, Any] | None:
        path = self.folder / "raw" / f"{run.name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def finish(self, run: Run, result: dict[str, Any]) -> dict[str, Any]:
        result = {**asdict(run), **result, "machine": machine()}
        write_atomic(self.folder / "raw" / f"{run.name}.json", json.dumps(result).encode())
        self.checkpoint(run).unlink(missing_ok=True)
        return result

    def save_state(self, run: Run, state: dict[str, Any]) -> None:
        _save(self.checkpoint(run), state)

    def load_state(self, run: Run) -> dict[str, Any] | None:
        path = self.checkpoint(run)
        return torch.load(path, weights_only=True) if path.exists() else None

    def save_weights(self, run: Run, weights: dict[str, Tensor]) -> None:
        _save(self.folder / "models" / f"{run.name}.pt", weights)

    def load_weights(self, run: Run) -> dict[str, Tensor]:
        return torch.load(self.folder / "models" / f"{run.name}.pt", weights_only=True)

    def checkpoint(self, run: Run) -> Path:
        return self.folder / "checkpoints" / f"{run.name}.pt"


def train(
    run: Run,
    store: Store,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Callable[[int], float],
    validate: Callable[[], float],
    epochs: int,
    patience: int,
) -> dict[str, Any]:
    """Train with early stopping on validation, from the last checkpoint if there is one.

    Afterwards :obj:`module` holds the weights of its best epoch.
    """
    first, best, best_epoch, history = 0, -math.inf, 0, []
    best_state = {k: v.clone() for k, v in module.state_dict().items()}
    seconds, cuda = 0.0, torch.cuda.is_available()
    if (state := store.load_state(run)) is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if cuda:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        first, best, best_epoch = state["epoch"] + 1, state["best"], state["best_epoch"]
        best_state, history, seconds = state["best_state"], state["history"], state["seconds"]
    saved = start = time.monotonic()
    bar = _bar(run, range(first, epochs), initial=first, total=epochs)
    for epoch in bar:
        if epoch - best_epoch > patience:
            break
        loss = step(epoch)
        score = validate()
        history.append([loss, score])
        if score > best:
            best, best_epoch = score, epoch
            best_state = {k: v.clone() for k, v in module.state_dict().items()}
        bar.set_postfix(loss=f"{loss:.4f}", val=f"{score:.4f}", best=f"{best:.4f}")
        if time.monotonic() - saved > _SAVE_EVERY:
            saved = time.monotonic()
            store.save_state(
                run,
                {
                    "module": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rng": torch.get_rng_state(),
                    "cuda_rng": torch.cuda.get_rng_state_all() if cuda else [],
                    "epoch": epoch,
                    "best": best,
                    "best_epoch": best_epoch,
                    "best_state": best_state,
                    "history": history,
                    "seconds": seconds + saved - start,
                },
            )
    module.load_state_dict(best_state)
    seconds += time.monotonic() - start
    return {"val": best, "best_epoch": best_epoch, "history": history, "seconds": seconds}


def train_by_recipe(
    run: Run,
    store: Store,
    distiller: Distiller,
    labelled: Sequence[Any],
    unlabelled: Iterable[Any] | None,
    *,
    validate: Callable[[], float],
    per_epoch: int,
    epochs: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train as :func:`train` does, by the library's :func:`fit`, of which the options are.

    Half of the steps are on the unlabelled batches, if there are any.
    """
    path, start, best_epoch = store.checkpoint(run), time.monotonic(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    history, best, rate = [], -math.inf, run.config["lr"]
    epochs = run.config["epochs"] if epochs is None else epochs
    bar = _bar(run, total=epochs)
    for epoch in fit(
        distiller, labelled, unlabelled or None, mode="max", validate=lambda _: validate(),
        steps=epochs * per_epoch, every=per_epoch,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=rate),
        checkpoint=path, **options,
    ):  # fmt: skip
        assert epoch.metric is not None
        history.append([(epoch.losses or epoch.unlabelled)["loss"], epoch.metric])
        if epoch.best:
            best, best_epoch = epoch.metric, epoch.epoch - 1
        bar.update()
        bar.set_postfix(loss=f"{history[-1][0]:.4f}", val=f"{epoch.metric:.4f}")
        if epoch.epoch - 1 - best_epoch > run.config.get("patience", epochs):
            break
    bar.close()
    seconds = time.monotonic() - start  # of this sitting
    return {"val": best, "best_epoch": best_epoch, "history": history, "seconds": seconds}


def passes(count: int, steps: int) -> list[int]:
    """Return the batches of so many steps, in as many passes as they take, each in its order."""
    order = [torch.randperm(count) for _ in range(-(-steps // count))]
    return torch.cat(order)[:steps].tolist()


def fall(optimizer: torch.optim.Optimizer, rate: float, done: float, least: float = 0.02) -> None:
    """Set the rate where half a cosine has it after a share of the training, not below a floor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * max(0.5 * (1 + math.cos(math.pi * done)), least)


def under(autocast: Callable[[], torch.autocast]) -> Callable[..., Tensor]:
    """Return how a distiller is to run models in mixed precision."""

    def call(model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        with autocast():
            out = model(*args, **kwargs)
        return out.float()

    return call


class _Help(argparse.RawTextHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The text as it is written, and each option's default where its help does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        if silent or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def argument_parser(doc: str | None, datasets: Sequence[str], out: str) -> argparse.ArgumentParser:
    """Return a parser of the options that every experiment has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=_Help)
    parser.add_argument("--dataset", choices=datasets, default="synthetic", help="what to train on")
    parser.add_argument("--root", type=Path, help="folder of the data set's files")
    parser.add_argument("--epochs", type=at_least_one, default=50, help="at most")
    parser.add_argument("--patience", type=int, default=20, help="epochs without a better score")
    parser.add_argument("--seeds", type=at_least_one, default=1, help="runs of each method")
    parser.add_argument(
        "--trials", type=int, choices=range(1, 5), default=1, help="tuning runs of each method"
    )
    parser.add_argument(
        "--workers", type=at_least_one, default=default_workers(),
        help="runs at a time, each in a process of one thread; on a GPU use 1",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda:0")
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--out", type=Path, default=Path(out), help="finished runs are kept here")
    parser.add_argument("--redraw", type=Path, help="only draw these stored results (JSON) again")
    return parser


def at_least_one(text: str) -> int:
    """Convert an option that counts something."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {text})")
    return value


def latency(call: Callable[[], Any], repeats: int = 15) -> float:
    """Return the median time of a call in milliseconds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return 1e3 * statistics.median(interleave({"": call}, repeats, 3, device)[""]["wall"])


def _bar(run: Run, *args: Any, **kwargs: Any) -> tqdm:
    """Return a bar of the epochs of a run, which is silent where several runs are beside it."""
    beside = multiprocessing.parent_process() is not None
    return tqdm(*args, desc=run.name[:28], leave=False, disable=beside, **kwargs)


def _save(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())
