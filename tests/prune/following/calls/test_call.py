from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_stkd.prune.following.calls.call import Call, rebuild, tensors_of
from pyg_stkd.prune.following.calls.widths import Width


class Pair(NamedTuple):
    a: Any
    b: Any


def test_nested_values_keep_their_types() -> None:
    value = [Pair(1, (2, [3])), {"k": slice(4, None)}, torch.Size([5])]
    out = rebuild(value, lambda x: x if x is None else x + 1)
    assert out == [Pair(2, (3, [4])), {"k": slice(5, None)}, torch.Size([6])]
    assert isinstance(out[0], Pair)
    assert isinstance(out[2], torch.Size)


def test_tensors_are_found_in_order() -> None:
    a, b, c = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    found = tensors_of({"x": [a, (b, "text")], "y": {"z": c}})
    assert [t.numel() for t in found] == [1, 2, 3]
    assert tensors_of(torch.Size([2, 3])) == []


def test_a_call_is_replayed_with_other_tensors_and_widths() -> None:
    def function(x: Tensor, shape: Any, scale: float = 1.0) -> Tensor:
        return (x * scale).view(*shape)

    x = torch.arange(6.0)
    call = Call(function, (x, (2, Width(3, "hidden"))), {"scale": 2.0})
    torch.testing.assert_close(call.results[0], (2 * x).view(2, 3))
    assert [width.source for width in call.widths] == ["hidden"]
    assert call.sizes() == [2, 3]
    (again,) = call.replay({0: x[:4]}, lambda source: {"hidden": 2}[source])
    torch.testing.assert_close(again, (2 * x[:4]).view(2, 2))


def test_what_is_changed_in_place_is_a_result_and_replayed_from_before() -> None:
    x = torch.ones(3)

    def function(t: Tensor) -> None:
        t.mul_(2).add_(1)

    call = Call(function, (x,), {})
    assert call.changed == [0]
    assert x.tolist() == [3, 3, 3]
    assert call.before[0].tolist() == [1, 1, 1]
    for _ in range(2):  # nothing adds up
        assert [t.tolist() for t in call.replay({})] == [[3, 3, 3]]
    assert x.tolist() == [3, 3, 3]


def test_drawn_numbers_are_drawn_again_and_nobody_elses() -> None:
    x = torch.ones(50)
    call = Call(torch.dropout, (x, 0.5, True), {})
    assert call.is_random
    state = torch.get_rng_state()
    torch.testing.assert_close(call.replay({})[0], call.results[0])
    assert torch.equal(state, torch.get_rng_state())
    assert not Call(torch.relu, (x,), {}).is_random
