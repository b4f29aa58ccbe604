"""What every rule is held to: the masked model equals the compacted one, whatever happens to it."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.testing import assert_masked_equals_compacted, assert_round_trips

Build = Callable[[], nn.Module]
Run = Callable[[nn.Module], Any]


def trainable(model: nn.Module) -> None:
    """Gives every parameter and statistic a value that is neither 0 nor 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)


def prune(model: nn.Module, seed: int, share: float, **kwargs: Any) -> Pruner:
    kwargs = {"rho": 0.0, "min_width": 1, **kwargs}
    pruner = Pruner(model, Random(seed), keep=1.0, **kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The floors")
        pruner.step(share=share)
    return pruner


def check_rule(
    build: Build,
    run: Run,
    seed: int,
    share: float,
    dtype: torch.dtype = torch.float64,
    **kwargs: Any,
) -> Pruner:
    """Masks at random (down to one channel a layer) and compares with the compacted model."""
    torch.manual_seed(seed)
    model = build().to(dtype)
    trainable(model)
    full = sum(p.numel() for p in model.parameters())
    pruner = prune(model, seed, share, **kwargs)
    assert min(pruner.widths.values()) >= 1
    small = assert_masked_equals_compacted(
        pruner, run=run, training=True, tolerance=1e-12 if dtype == torch.float64 else 1e-6
    )
    assert sum(p.numel() for p in small.parameters()) < full
    return pruner


def check_round_trips(build: Build, run: Run, seed: int = 0, **kwargs: Any) -> None:
    """Copies, pickles, saves and loads a masked model and its compacted twin."""
    torch.manual_seed(seed)
    model = build().double()
    trainable(model)
    pruner = prune(model, seed, 0.3, **kwargs)
    small = pruner.compact().eval()
    expected = run(model.eval())  # its graph stays alive
    for one in (model, small):
        assert_round_trips(one, run=run)
    other = build().double().eval()
    again = Pruner(other, Random(seed), keep=1.0, **kwargs)
    again.load_state_dict(pruner.state_dict())
    other.load_state_dict(model.state_dict())
    assert torch.equal(run(other), expected)
    again.shrink()
    other.load_state_dict(small.state_dict())
    assert torch.equal(run(other), run(small))
    assert repr(other) == repr(small)
    assert again.state_dict()["kept"].keys() == pruner.state_dict()["kept"].keys()
    for name, kept in again.state_dict()["kept"].items():
        assert torch.equal(kept, pruner.state_dict()["kept"][name])


@pytest.fixture(name="check_rule")
def _check_rule() -> Callable[..., Pruner]:
    return check_rule


@pytest.fixture(name="prune_at_random")
def _prune_at_random() -> Callable[..., Pruner]:
    return prune


@pytest.fixture(name="check_round_trips")
def _check_round_trips() -> Callable[..., None]:
    return check_round_trips


def _start(work: Callable[..., None], store: str, rank: int, count: int, errors: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, count), rank=rank, world_size=count)
    try:
        work(rank)
    except BaseException:
        errors.put(f"process {rank}: {traceback.format_exc()}")
        raise
    finally:
        time.sleep(0.1)  # torch 2.6 ends a group with Python's lock, for which gloo may still wait
        dist.destroy_process_group()


@pytest.fixture
def in_processes(
    tmp_path_factory: pytest.TempPathFactory, fork_context: Callable[[], Any]
) -> Callable[..., None]:
    """Runs a function of the rank in some processes of torch.distributed; any error is one here."""

    def run(count: int, work: Callable[..., None]) -> None:
        store = str(tmp_path_factory.mktemp("store") / "file")
        context = fork_context()
        errors = context.SimpleQueue()
        processes = [
            context.Process(target=_start, args=(work, store, rank, count, errors))
            for rank in range(count)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            process.kill()  # where it hangs
            process.join()
        failures = []
        while not errors.empty():
            failures.append(errors.get())
        assert [p.exitcode for p in processes] == [0] * count, "\n".join(failures)

    return run
