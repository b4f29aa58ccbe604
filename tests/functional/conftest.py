"""Fixtures of the tests of functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd


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


@pytest.fixture
def compiled_calls() -> Iterator[Callable[..., tuple[set[str], list[Tensor]]]]:
    """Returns a function that compiles a call, derives its sum, and tells what a compiler saw.

    That is the operators of this package of both passes, by name; and the value and gradients.
    """

    def call(
        function: Callable[..., Tensor], *inputs: Tensor, **options: Any
    ) -> tuple[set[str], list[Tensor]]:
        seen: set[str] = set()

        def note(graph: torch.fx.GraphModule, _: object) -> Any:
            targets = (str(node.target) for node in graph.graph.nodes if "call" in node.op)
            seen.update(name.split(".")[1] for name in targets if name.startswith("pyg_stkd"))
            return make_boxed_func(graph.forward)

        torch._dynamo.reset()
        backend = aot_autograd(fw_compiler=note, bw_compiler=note)
        out = torch.compile(function, backend=backend, fullgraph=True, **options)(*inputs)
        wanted = [x for x in inputs if x.requires_grad]
        return seen, [out.detach(), *torch.autograd.grad(out.sum(), wanted)]

    yield call
    torch._dynamo.reset()
