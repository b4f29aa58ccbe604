"""Fixtures of the whole suite: seeds, devices, optional extensions, long tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any

import hypothesis
import pytest
import torch
import torch_geometric.typing as pyg_typing

FULL_TEST = os.environ.get("FULL_TEST") == "1"
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
EXTENSIONS = pyg_typing.WITH_TORCH_SCATTER or pyg_typing.WITH_TORCH_SPARSE

# One thread: small tensors gain nothing from more, and sums keep one order.
torch.set_num_threads(1)
# Autograd counts the devices once, at its first step. A torch built for CUDA stands in for one that
# is missing once fake tensors are made: counted too, it would keep forked processes from deriving.
torch.ones((), requires_grad=True).backward()


class _TorchRandom:
    """Lets hypothesis seed torch before each example, so that a failure repeats."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_TORCH_RANDOM = _TorchRandom()  # hypothesis keeps a weak reference only
hypothesis.register_random(_TORCH_RANDOM)
hypothesis.settings.register_profile(
    "fast", deadline=None, database=None, derandomize=True, max_examples=40
)
hypothesis.settings.register_profile("full", deadline=None, database=None, max_examples=500)
hypothesis.settings.load_profile("full" if FULL_TEST else "fast")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Takes test modules for what they are alone: as modules with doctests they would be skipped,
    tests and all, where an import fails.
    """
    found = yield
    return [collector for collector in found if type(collector) is pytest.Module]


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Starts every module from one state of torch's generators, whichever came before it."""
    if isinstance(collector, pytest.Module):
        torch.manual_seed(12345)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked ``full`` unless ``FULL_TEST=1``, and an example that needs torch 2.7."""
    if not hasattr(torch.compiler, "is_exporting"):
        for item in items:
            if item.name == "pyg_stkd.testing.assert_exports":
                item.add_marker(pytest.mark.skip(reason="needs torch 2.7"))
    if FULL_TEST:
        return
    skip = pytest.mark.skip(reason="a long test: set FULL_TEST=1")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Starts every test from the same state of torch's generators."""
    torch.manual_seed(12345)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device of this machine: the CPU, and a GPU where there is one."""
    return torch.device(request.param)


def _derives_in_a_copy() -> bool:
    child = os.fork()
    if child == 0:
        try:
            torch.ones((), requires_grad=True).backward()
        except RuntimeError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.fixture
def fork_context() -> Callable[[], Any]:
    """Returns what makes processes that are copies of this one.

    Skips where there are none, or torch derives nothing in them, since autograd has threads of its
    own: with a GPU.
    """

    def context() -> Any:
        if not hasattr(os, "fork"):
            pytest.skip("needs fork")
        if not _derives_in_a_copy():
            pytest.skip("autograd has threads of its own here, which a forked process lacks")
        return torch.multiprocessing.get_context("fork")

    return context


@pytest.fixture
def disable_extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes torch-scatter, torch-sparse and the like away from PyG and from us for one test."""
    kept = ("WITH_PT", "WITH_WINDOWS")
    for name in vars(pyg_typing).copy():
        if name.startswith("WITH_") and not name.startswith(kept):
            monkeypatch.setattr(pyg_typing, name, False)


@pytest.fixture(params=["extensions", "native"] if EXTENSIONS else ["native"])
def extensions(request: pytest.FixtureRequest) -> bool:
    """Runs a test on both paths (the native one only where the extensions are not installed)."""
    if request.param == "native":
        request.getfixturevalue("disable_extensions")
    return request.param == "extensions"
