"""An HTTP front of a forecaster: ``/readings``, ``/forecast``, ``/health``."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from forecaster import Forecaster, NotReadyError  # beside this file
from pydantic import BaseModel, Field

LARGEST_BODY = 4 << 20  # bytes: a window of 12 steps of 20,000 sensors


class Row(BaseModel):
    """The readings of one step."""

    time: str = Field(max_length=40)
    values: list[float | None]


class History(BaseModel):
    """A whole window of readings."""

    time: str = Field(max_length=40)
    rows: list[list[float | None]]


def make_app(forecaster: Forecaster) -> FastAPI:
    """Make the application; it holds one forecaster, and answers one request after the other."""
    app = FastAPI(title="Traffic forecasts")

    @app.middleware("http")
    async def limit(request: Request, call_next: Any) -> Any:
        length = request.headers.get("content-length")
        if request.method == "POST" and (length is None or not length.isdigit()):
            return JSONResponse({"detail": "Content-Length is needed"}, 411)
        if length is not None and int(length) > LARGEST_BODY:
            return JSONResponse({"detail": f"at most {LARGEST_BODY} bytes (got {length})"}, 413)
        return await call_next(request)

    @app.exception_handler(ValueError)
    async def refuse(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(NotReadyError)
    async def wait(request: Request, error: NotReadyError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    # Coroutines without a pause in them: no two requests change the window at once.
    @app.post("/readings")
    async def readings(row: Row) -> dict[str, int]:
        return {"steps": forecaster.update(row.time, row.values)}

    @app.get("/forecast")
    async def forecast() -> dict[str, Any]:
        return answer(forecaster)

    @app.post("/forecast")
    async def forecast_from(history: History) -> dict[str, Any]:
        once = Forecaster(forecaster.model, forecaster.meta)  # the kept window stays as it is
        once.history(history.time, history.rows)
        return answer(once)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        meta = forecaster.meta
        time = None if forecaster.time is None else str(forecaster.time)
        ready = forecaster.filled >= meta.input_steps
        return {"ready": ready, "last": time, "steps": forecaster.filled, "unit": meta.unit}

    return app


def answer(forecaster: Forecaster) -> dict[str, Any]:
    """Write a forecast as JSON."""
    out = forecaster.forecast()
    values = [[round(float(v), 3) for v in row] for row in out.values]
    return {
        "made_at": out.made_at,
        "minutes": out.minutes,
        "sensors": forecaster.meta.sensors,
        "unit": forecaster.meta.unit,
        "values": values,
        "silent": out.silent,
    }
