"""The forecaster that keeps a window, with models written by hand in place of exported ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SERVING = Path(__file__).parents[3] / "examples" / "serving"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SERVING))
    monkeypatch.delitem(sys.modules, "forecaster", raising=False)
    import forecaster

    return forecaster


def meta(module: ModuleType, **kwargs: object) -> object:
    given = {
        "sensors": ["a", "b"], "input_steps": 3, "output_steps": 2, "step_minutes": 5,
        "mean": 50.0, "std": 10.0, "unit": "mph", "highest": 120.0,
    }  # fmt: skip
    return module.Meta(**(given | kwargs))


def last_and_mean(x: np.ndarray) -> np.ndarray:
    """Forecast the last reading, then the mean of the window: [1, T, N, 1] to [1, 2, N]."""
    return np.stack([x[:, -1, :, 0], x[:, :, :, 0].mean(axis=1)], axis=1)


def test_forecasts_in_the_unit_of_the_readings(module: ModuleType) -> None:
    forecaster = module.Forecaster(last_and_mean, meta(module))
    for i, row in enumerate([[40, 60], [50, None], [70, 80]]):
        assert forecaster.update(f"2024-01-01T00:{5 * i:02d}", row) == i + 1
    out = forecaster.forecast()
    # Scaled: a = -1, 0, 2; b = 1, missing and so 0, 3.
    np.testing.assert_allclose(out.values, [[70, 80], [50 + 10 / 3, 50 + 40 / 3]], rtol=1e-6)
    assert (out.made_at, out.minutes, out.silent) == ("2024-01-01T00:10", [5, 10], [])


def test_rows_that_were_left_out_are_missing(module: ModuleType) -> None:
    forecaster = module.Forecaster(last_and_mean, meta(module))
    forecaster.update("2024-01-01T00:00", [40, 60])
    assert forecaster.update("2024-01-01T00:10", [70, None]) == 3
    np.testing.assert_array_equal(forecaster.rows, [[40, 60], [np.nan, np.nan], [70, np.nan]])
    # After a gap of a whole window nothing is left of it.
    assert forecaster.update("2024-01-01T00:25", [55, None]) == 1
    with pytest.raises(module.NotReadyError, match=r"3 steps are needed \(got 1\)"):
        forecaster.forecast()
    forecaster.update("2024-01-01T00:35", [55, None])
    assert forecaster.forecast().silent == ["b"]


def test_a_whole_history(module: ModuleType) -> None:
    forecaster = module.Forecaster(last_and_mean, meta(module))
    forecaster.history("2024-01-01T00:10", [[40, 60], [50, 50], [70, 80]])
    np.testing.assert_allclose(forecaster.forecast().values[0], [70, 80])
    with pytest.raises(ValueError, match=r"'rows' must have 3 steps \(got 1\)"):
        forecaster.history("2024-01-01T00:10", [[40, 60]])


@pytest.mark.parametrize(
    ("time", "values", "text"),
    [
        ("2024-01-01T00:05", [1, 2], "'time' must be a whole number of 5-minute steps after"),
        ("2024-01-01T00:12", [1, 2], "'time' must be a whole number of 5-minute steps after"),
        ("2024-01-01T00:05:30", [1, 2], "'time' must be a whole number of 5-minute steps after"),
        ("yesterday", [1, 2], "'time' must be like 2024-01-31T07:35"),
        ("2024-01-01T00:10+01:00", [1, 2], "'time' must be local"),
        ("2024-01-01T00:10", [1], r"one reading for each of 2 sensors \(got 1\)"),
        ("2024-01-01T00:10", [1, -1], "between 0 and 120 mph, or missing .got -1 of sensor b"),
        ("2024-01-01T00:10", [float("inf"), 1], "got inf of sensor a"),
    ],
)
def test_refuses_and_changes_nothing(
    module: ModuleType, time: str, values: list[float], text: str
) -> None:
    forecaster = module.Forecaster(last_and_mean, meta(module))
    forecaster.update("2024-01-01T00:05", [40, 60])
    before = forecaster.rows.copy()
    with pytest.raises(ValueError, match=text):
        forecaster.update(time, values)
    np.testing.assert_array_equal(forecaster.rows, before)
    assert forecaster.time == np.datetime64("2024-01-01T00:05", "m")


def test_restarts_from_its_last_row(module: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / "window.npz"
    first = module.Forecaster(last_and_mean, meta(module), state)
    for i, row in enumerate([[40, 60], [50, None], [70, 80]]):
        first.update(f"2024-01-01T00:{5 * i:02d}", row)
    second = module.Forecaster(last_and_mean, meta(module), state)
    np.testing.assert_array_equal(second.forecast().values, first.forecast().values)
    assert [path.name for path in tmp_path.iterdir()] == ["window.npz"]
    with pytest.raises(ValueError, match=r"must hold a window \(4, 2\) \(got \(3, 2\)\)"):
        module.Forecaster(last_and_mean, meta(module, input_steps=4), state)
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"window.npz must be a window that a forecaster kept"):
        module.Forecaster(last_and_mean, meta(module), state)


def test_folders_without_models(module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold meta\.json"):
        module.read_meta(tmp_path)
    with pytest.raises(FileNotFoundError, match="must be an exported model"):
        module.load_model(tmp_path / "student.onnx")
    kept = meta(module)
    (tmp_path / "meta.json").write_text(json.dumps(kept._asdict()))
    assert module.read_meta(tmp_path) == kept


def test_needs_no_torch(module: ModuleType) -> None:
    source = (SERVING / "forecaster.py").read_text()
    assert "\nimport torch" not in source
    assert "pyg_stkd" not in source
