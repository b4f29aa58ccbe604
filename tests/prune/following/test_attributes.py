"""Numbers that classes of one's own remember: true in the small model, or left as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random, load_compact, save_compact

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Remembers its widths, and reads none of them."""

    def __init__(self, hidden: int = 12, last: int = 8) -> None:
        super().__init__()
        self.hidden, self.last, self.layers, self._hidden = hidden, last, 3, hidden
        self.widths, self.names = (6, hidden, last, 3), ["a", "b"]
        self.a, self.b, self.out = nn.Linear(6, hidden), nn.Linear(hidden, last), nn.Linear(last, 3)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.b(self.a(x).relu()).relu())


def pruned(model: nn.Module, **kwargs: Any) -> tuple[dict[str, int], Any]:
    torch.manual_seed(0)
    pruner = Pruner(model, Random(0), keep=0.5, example=(X,), **kwargs)
    pruner.step()
    small = pruner.compact()
    torch.testing.assert_close(small.eval()(X), model.eval()(X))
    return pruner.widths, small


def test_numbers_that_no_code_reads_follow_their_width() -> None:
    widths, small = pruned(Net())
    assert widths["a"] < 12
    assert widths["b"] < 8
    assert (small.hidden, small.last, small.layers) == (widths["a"], widths["b"], 3)
    assert small.widths == (6, widths["a"], widths["b"], 3)
    assert small._hidden == 12


def test_what_may_be_of_either_of_two_widths_stays() -> None:
    widths, small = pruned(Net(12, 12))
    assert widths["a"] != widths["b"] or widths["a"] < 12
    assert (small.hidden, small.last, small.widths) == (12, 12, (6, 12, 12, 3))


def test_what_is_as_wide_as_what_stays_does_too() -> None:
    widths, small = pruned(Net(6, 8))  # as many as there are inputs
    assert widths["a"] < 6
    assert (small.hidden, small.last) == (6, widths["b"])


class Scaled(Net):
    """Its outputs depend on a number, which is no size."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / float(f"{self.hidden}") + sum([0.1] * self.last)


def test_numbers_with_which_outputs_would_differ_stay() -> None:
    widths, small = pruned(Scaled())
    assert set(widths) == {"a", "b"}  # and nothing is kept for them
    assert (small.hidden, small.last) == (12, 8)
    assert small.widths == (6, widths["a"], widths["b"], 3)


class Asserting(Net):
    def forward(self, x: Tensor) -> Tensor:
        for width, layer in zip(self.widths, (self.a, self.b, self.out), strict=False):
            assert x.size(-1) == width
            x = layer(x).relu()
        return x


def test_lists_that_code_compares_with_sizes_free_their_channels() -> None:
    widths, small = pruned(Asserting())
    assert set(widths) == {"a", "b"}
    assert small.widths == (6, widths["a"], widths["b"], 3)


def test_without_a_comparison_nothing_is_guessed() -> None:
    _, small = pruned(Net(), verify=False)
    assert (small.hidden, small.widths) == (12, (6, 12, 8, 3))


def test_they_stay_true_while_the_model_is_shrunk_stage_by_stage() -> None:
    pruner = Pruner(Net(), Random(0), keep=(0.6, 0.3), example=(X,))
    for _ in range(2):
        pruner.step()
        pruner.shrink()
        assert (pruner.model.hidden, pruner.model.last) == tuple(pruner.widths.values())


@pytest.mark.parametrize("hidden", [12, 8])
def test_compact_files_hold_them(tmp_path: Path, hidden: int) -> None:
    pytest.importorskip("safetensors")
    _, small = pruned(Net(hidden))
    save_compact(small, tmp_path / "small.safetensors", example=(X,))
    again = load_compact(tmp_path / "small.safetensors", lambda: Net(hidden))
    for name in ("hidden", "last", "layers", "widths"):
        assert getattr(again, name) == getattr(small, name)
    torch.testing.assert_close(again.eval()(X), small.eval()(X))
