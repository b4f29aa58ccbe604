"""The HTTP front: what it answers, and what it refuses with which status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient", exc_type=Exception)

SERVING = Path(__file__).parents[3] / "examples" / "serving"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SERVING))
    for name in ("app", "forecaster"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import app
    import forecaster

    meta = forecaster.Meta(["a", "b"], 2, 1, 5, 50.0, 10.0, "mph", 120.0)
    model = lambda x: x[:, -1:, :, 0]  # noqa: E731 - the last reading
    return testclient.TestClient(app.make_app(forecaster.Forecaster(model, meta)))


def row(minute: int, *values: float | None) -> dict[str, Any]:
    return {"time": f"2024-01-01T00:{minute:02d}", "values": list(values)}


def test_readings_then_a_forecast(client: Any) -> None:
    assert client.get("/health").json()["ready"] is False
    assert client.get("/forecast").status_code == 409
    assert client.post("/readings", json=row(0, 40, 50)).json() == {"steps": 1}
    assert client.post("/readings", json=row(5, 45, None)).json() == {"steps": 2}
    answer = client.get("/forecast").json()
    assert answer["made_at"] == "2024-01-01T00:05"
    np.testing.assert_allclose(answer["values"], [[45, 50]])  # missing: the mean
    assert client.get("/health").json()["ready"] is True


def test_a_whole_history_leaves_the_window_as_it_is(client: Any) -> None:
    history = {"time": "2024-01-01T00:05", "rows": [[40, 50], [60, 70]]}
    answer = client.post("/forecast", json=history)
    np.testing.assert_allclose(answer.json()["values"], [[60, 70]])
    assert client.get("/health").json()["steps"] == 0


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (row(0, 40), 422, "one reading for each of 2 sensors"),
        (row(0, 40, 400), 422, "between 0 and 120 mph"),
        ({"time": "noon", "values": [1, 2]}, 422, "'time' must be like"),
        ({"values": [1, 2]}, 422, "Field required"),
        ({"time": "2024-01-01T00:00", "values": ["x", 2]}, 422, "valid number"),
    ],
)
def test_refuses_readings(client: Any, body: dict[str, Any], status: int, text: str) -> None:
    answer = client.post("/readings", json=body)
    assert answer.status_code == status
    assert text in answer.text


def test_refuses_large_and_unmeasured_bodies(client: Any) -> None:
    answer = client.post("/readings", content=b" " * (4 << 20 | 1))
    assert answer.status_code == 413
    answer = client.post("/readings", content=iter([b"{}"]))  # chunked, without a length
    assert answer.status_code == 411
    assert client.post("/readings", content=b"{nonsense").status_code == 422
