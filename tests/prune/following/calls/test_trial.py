"""Which channels the entries of a result notice, by poison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune.following.calls.call import Call
from pyg_stkd.prune.following.calls.labels import Axis
from pyg_stkd.prune.following.calls.trial import Noticed, Place, Poison, dependence, spread
from pyg_stkd.prune.structure.ports import Ports


def noticed(function: Callable[..., Any], *tensors: Tensor, dim: int = -1) -> tuple[Noticed, Any]:
    ports = Ports(nn.Linear(1, 1))
    x = tensors[0]
    channels = ports.new(x.size(dim))
    place = Place(0, dim % x.dim(), Axis(channels, True))
    call = Call(function, tensors, {})
    return dependence(call, place, ports)[0], channels


@pytest.mark.parametrize("width", [2, 7, 64])
def test_moved_channels_are_found_where_they_are(width: int) -> None:
    x = torch.randn(5, width, dtype=torch.float64)
    order = torch.randperm(width)
    for function in (lambda t: t[:, order], lambda t: t[:, order].t(), lambda t: t[:, order] > 0):
        found, channels = noticed(function, x)
        assert not found.mixes
        dim, line, ties = spread(found, heads=False)
        assert dim == (0 if function(x).size(0) == width and width != 5 else 1)
        assert line.tolist() == [channels[i] for i in order]
        assert ties == []


def test_each_pair_of_channels_that_meet_is_seen() -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    for i in range(6):
        for j in set(range(6)) - {i}:

            def leak(t: Tensor, i: int = i, j: int = j) -> Tensor:
                out = t.clone()
                out[:, i] += t[:, j]
                return out

            assert noticed(leak, x)[0].mixes
    assert noticed(lambda t: t.softmax(-1), x)[0].mixes
    assert noticed(lambda t: t.argmax(-1), x)[0].mixes  # NaN would not show in integers


def test_heads_side_by_side_are_tied() -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    found, channels = noticed(lambda t: t.view(-1, 2, 3), x)
    dim, line, ties = spread(found, heads=False)
    assert (dim, line.tolist()) == (2, list(channels[:3]))
    assert sorted(map(sorted, ties)) == [[channels[c], channels[c + 3]] for c in range(3)]
    dim, line, ties = spread(found, heads=True)
    assert (dim, line.tolist()) == (1, [channels[0], channels[3]])


def test_what_looks_at_sizes_alone_is_tried_three_times() -> None:
    calls = []

    def ones(t: Tensor) -> Tensor:
        calls.append(t)
        return torch.ones(t.shape)

    assert not noticed(ones, torch.randn(3, 300))[0].any
    assert len(calls) == 1 + 3  # NaN, large and small; not the codes of 300 channels


def test_poison_is_of_the_type_of_the_tensor() -> None:
    flags = torch.tensor([True, False])
    assert Poison(torch.tensor([[True, True]]), 1)(flags, 1).tolist() == [[False, True]]
    assert Poison(torch.tensor([[3, 9]]), 1)(flags, 1).tolist() == [[9, 9]]
    large = Poison(torch.tensor([[2.0, 1.0]]), 1)(flags, -1)
    assert large[0, 0] < -1e3
    assert large[0, 1] == 1.0


def test_last_bits_are_no_change() -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    calls = []

    def product(t: Tensor) -> Tensor:  # as of matrices that are elsewhere in the memory
        calls.append(t)
        return t * (1.0 + 1e-16 * len(calls)) + 1e-15 * len(calls)

    found, channels = noticed(product, x)
    dim, line, _ = spread(found, heads=False)
    assert (dim, line.tolist()) == (1, list(channels))
