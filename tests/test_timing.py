from __future__ import annotations

import time

import pytest

from pyg_stkd.timing import interleave


def test_calls_take_turns_and_the_first_do_not_count() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = interleave(calls, repeats=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert {name: {clock: len(x) for clock, x in each.items()} for name, each in times.items()} == {
        name: {"cpu": 3, "wall": 3} for name in calls
    }


def test_sleep_is_wall_time_and_work_is_both() -> None:
    def work() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    times = interleave({"sleep": lambda: time.sleep(0.02), "work": work}, repeats=1, warmup=0)
    assert times["sleep"]["wall"][0] >= 0.02 > times["sleep"]["cpu"][0]
    assert times["work"]["cpu"][0] >= 0.02
    assert times["work"]["wall"][0] >= 0.02


def test_garbage_is_collected_before_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("gc.collect", lambda: seen.append(1))
    interleave({"a": int}, repeats=2, warmup=1)
    assert seen == []
    interleave({"a": int}, repeats=2, warmup=1, collect=True)
    assert len(seen) == 3
