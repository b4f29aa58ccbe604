from __future__ import annotations

import torch
from torch import nn

from pyg_stkd.prune.following.calls.labels import Axis, Labels
from pyg_stkd.prune.structure.ports import Ports


def test_only_axes_that_may_go_are_told() -> None:
    ports = Ports(nn.Linear(1, 1))
    free, kept = ports.new(3), ports.kept(4)
    labels, x = Labels(ports), torch.zeros(3, 4)
    assert not labels.knows(x)
    labels.put(x, {0: Axis(free, True), 1: Axis(kept, False)})
    assert labels.knows(x)
    assert labels.of(x) == {0: Axis(free, True)}
    ports.freeze(free)
    assert labels.of(x) == {}


def test_the_only_channel_of_a_dimension_is_kept() -> None:
    ports = Ports(nn.Linear(1, 1))
    (one,), two = ports.new(1), ports.new(2)
    labels, x = Labels(ports), torch.zeros(2, 1)
    labels.put(x, {0: Axis(two, True), 1: Axis((one,), True)})
    assert labels.of(x) == {0: Axis(two, True)}
    assert ports.is_frozen(one)
    assert not ports.is_frozen(two[0])


def test_tensors_are_told_by_identity_and_live_on() -> None:
    ports = Ports(nn.Linear(1, 1))
    labels = Labels(ports)
    channels = [ports.new(2) for _ in range(50)]
    for some in channels:  # without a reference, an id would be used twice
        labels.put(torch.zeros(2), {0: Axis(some, True)})
    assert len(labels._alive) == 50
    x = torch.zeros(2)
    assert not labels.knows(x)
    assert labels.of(x) == {}
