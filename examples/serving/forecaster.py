"""A forecaster that keeps the last readings and runs an exported model; needs no torch.

A folder that ``examples/serve_traffic.py export`` wrote holds the models (``student.onnx``, ...)
and ``meta.json``: sensors, time steps, minutes a step, and the scale of the readings.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Model = Callable[[np.ndarray], np.ndarray]  # [1, T, N, 1] -> [1, T_out, N], both scaled


class Meta(NamedTuple):
    """What the models of a folder were trained on."""

    sensors: list[str]
    input_steps: int
    output_steps: int
    step_minutes: int
    mean: float  # of the readings, in their unit
    std: float
    unit: str
    highest: float  # the largest reading that is taken for real


class Forecast(NamedTuple):
    """The next steps of all sensors."""

    made_at: str  # time of the last reading
    minutes: list[int]  # from then on
    values: np.ndarray  # [T_out, N]
    silent: list[str]  # sensors without any reading in the window: their values are a guess


class NotReadyError(RuntimeError):
    """There are not enough readings yet."""


def read_meta(folder: str | Path) -> Meta:
    """Read what the models of a folder were trained on."""
    if not (Path(folder) / "meta.json").is_file():
        raise FileNotFoundError(f"{folder} must hold meta.json: export the models first")
    return Meta(**json.loads((Path(folder) / "meta.json").read_text(encoding="utf-8")))


def load_model(path: str | Path) -> Model:
    """Open an exported model, for one thread: ONNX in onnxruntime, others in torch.

    ``*.aoti.pt2`` is a compiled package of AOTInductor, ``*.pt2`` a program of ``torch.export``.
    ``*.safetensors`` holds weights of a model that ``eager.py`` builds anew.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be an exported model (got no such file)")
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda x: session.run(None, {name: x})[0]
    import torch

    torch.set_num_threads(1)
    if path.name.endswith(".aoti.pt2"):
        program: Any = torch._inductor.aoti_load_package(str(path))
    elif path.suffix == ".safetensors":
        from eager import load

        program = load(path, read_meta(path.parent).output_steps)
    else:
        program = torch.export.load(path).module()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return program(torch.from_numpy(x)).numpy()

    return run


class Forecaster:
    """Keeps a window of readings, a row each step, and forecasts from it.

    Args:
        model: Maps scaled readings [1, T, N, 1] to scaled forecasts [1, T_out, N].
        meta: What it was trained on.
        state: A file that keeps the window, so that a restart goes on from the last row.
    """

    def __init__(self, model: Model, meta: Meta, state: str | Path | None = None) -> None:
        self.model, self.meta = model, meta
        self.state = None if state is None else Path(state)
        self.step = np.timedelta64(meta.step_minutes, "m")
        self.rows = np.full((meta.input_steps, len(meta.sensors)), np.nan, np.float32)  # [T, N]
        self.time: np.datetime64 | None = None  # of the last row
        self.filled = 0  # steps since the first row, or since a gap longer than the window
        if self.state is not None and self.state.exists():
            self._restore(self.state)

    def update(self, time: str, values: Sequence[float | None]) -> int:
        """Take the readings of one step; ``None`` is missing. Returns the steps that are held.

        Steps that were left out since the last row are missing rows. A step that is not after
        the last row, or a row that does not fit, raises ``ValueError`` and changes nothing.
        """
        now, row = self._time(time), self._row(values)
        if self.time is None:
            passed = self.meta.input_steps
            self.filled = 0
        else:
            passed, rest = divmod(now - self.time, self.step)
            if passed < 1 or rest:
                raise ValueError(
                    f"'time' must be a whole number of {self.meta.step_minutes}-minute steps after "
                    f"{self.time} (got {time})"
                )
        passed = int(min(passed, self.meta.input_steps))
        rows = np.roll(self.rows, -passed, axis=0)
        rows[len(rows) - passed :] = np.nan
        rows[-1] = row
        gap = passed == self.meta.input_steps
        self.rows, self.time = rows, now
        self.filled = 1 if gap else min(self.filled + passed, self.meta.input_steps)
        if self.state is not None:
            self._store(self.state)
        return self.filled

    def history(self, time: str, rows: Sequence[Sequence[float | None]]) -> None:
        """Take a whole window [T, N] at once, the last row at ``time``."""
        steps = self.meta.input_steps
        if len(rows) != steps:
            raise ValueError(f"'rows' must have {steps} steps (got {len(rows)})")
        now, window = self._time(time), np.stack([self._row(row) for row in rows])
        self.rows, self.time, self.filled = window, now, steps
        if self.state is not None:
            self._store(self.state)

    def forecast(self) -> Forecast:
        """Forecast from the window; a missing reading counts as the mean, as in training."""
        meta = self.meta
        if self.filled < meta.input_steps:
            raise NotReadyError(f"{meta.input_steps} steps are needed (got {self.filled})")
        missing = np.isnan(self.rows)  # [T, N]
        scaled = np.where(missing, 0.0, (self.rows - meta.mean) / meta.std)
        out = self.model(scaled.astype(np.float32)[None, :, :, None])[0]  # [T_out, N]
        minutes = [meta.step_minutes * (i + 1) for i in range(meta.output_steps)]
        silent = [meta.sensors[i] for i in np.flatnonzero(missing.all(axis=0))]
        return Forecast(str(self.time), minutes, out * meta.std + meta.mean, silent)

    def _time(self, time: str) -> np.datetime64:
        try:
            parsed = datetime.fromisoformat(time)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'time' must be like 2024-01-31T07:35 (got {time!r})") from error
        if parsed.tzinfo is not None:
            raise ValueError(f"'time' must be local, without an offset (got {time!r})")
        return np.datetime64(parsed, "m")

    def _row(self, values: Sequence[float | None]) -> np.ndarray:
        meta = self.meta
        if len(values) != len(meta.sensors):
            raise ValueError(
                f"'values' must have one reading for each of {len(meta.sensors)} sensors "
                f"(got {len(values)})"
            )
        row = np.array([np.nan if v is None else v for v in values], np.float32)
        wrong = np.flatnonzero(np.isinf(row) | (row < 0) | (row > meta.highest))
        if len(wrong):
            raise ValueError(
                f"'values' must be between 0 and {meta.highest:g} {meta.unit}, or missing (got "
                f"{row[wrong[0]]:g} of sensor {meta.sensors[wrong[0]]})"
            )
        return row

    def _store(self, path: Path) -> None:
        """Write the window to a file of its own, then put it in the place of the last one."""
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, rows=self.rows, time=self.time, filled=self.filled)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _restore(self, path: Path) -> None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                state: dict[str, Any] = {key: kept[key] for key in ("rows", "time", "filled")}
        except Exception as error:  # whatever a damaged archive makes NumPy raise
            raise ValueError(f"{path} must be a window that a forecaster kept: {error}") from error
        if state["rows"].shape != self.rows.shape:
            raise ValueError(
                f"{path} must hold a window {self.rows.shape} (got {state['rows'].shape})"
            )
        self.rows = state["rows"].astype(np.float32)
        self.time = np.datetime64(state["time"].item(), "m")
        self.filled = int(state["filled"])
