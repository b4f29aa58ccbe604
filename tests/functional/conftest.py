"""Fixtures of the tests of functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch


@pytest.fixture
def allocations() -> Callable[[Callable[[], object]], list[int]]:
    """Returns a function that lists the bytes that a call takes from the allocator, or frees."""

    def measure(call: Callable[[], object]) -> list[int]:
        call()  # lazily built, lasting state is not part of it
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            call()
        events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]

    return measure
