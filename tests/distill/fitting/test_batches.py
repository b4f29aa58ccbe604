from __future__ import annotations

import torch
from torch import nn
from torch_geometric.data import Batch, Data

from pyg_stkd.distill import Distiller, TeacherCache
from pyg_stkd.distill.fitting.batches import Batches


def pair():
    return Distiller(nn.Linear(2, 3), nn.Linear(2, 3))


def test_what_the_teacher_says_is_asked_once_and_handed_over():
    distiller = pair()
    cache = TeacherCache(distiller)
    x, y = torch.randn(4, 2), torch.arange(4) % 3
    nodes = torch.tensor([1, 3])

    def unpack(batch):
        return (batch[0],), {"teacher_args": (2 * batch[0],), "nodes": nodes}, batch[1]

    batches = Batches([(x, y)], [(x + 1, y)], unpack, cache)
    for _ in range(3):
        for labelled in (True, False):
            args, kwargs, target = batches.next(labelled)
            assert sorted(kwargs) == ["nodes", "teacher"]
            assert kwargs["nodes"] is nodes
            out, losses = distiller(*args, **kwargs)
            expected = distiller.teacher(2 * args[0])[nodes]
            torch.testing.assert_close(losses["output"], (out[nodes] - expected).square().mean())
            assert (target is None) != labelled
    assert len(cache) == 2
    assert "teacher" not in batches.first(True)[1]


def test_what_is_known_already_is_not_asked():
    cache = TeacherCache(pair())
    known = {"": torch.zeros(4, 3)}
    batches = Batches(
        [(torch.ones(4, 2), None)], None, lambda b: ((b[0],), {"teacher": known}, b[1]), cache
    )
    assert batches.next(True)[1]["teacher"] is known
    assert len(cache) == 0


def test_batches_without_a_number_are_not_kept():
    class Loader:
        def __iter__(self):
            return iter([(torch.randn(4, 2), torch.zeros(4))])

    cache = TeacherCache(pair())
    batches = Batches(Loader(), None, None, cache)
    assert "teacher" not in batches.next(True)[1]
    assert len(cache) == 0


def test_places_are_found_again():
    items = [(i, i) for i in range(5)]
    batches = Batches(items, items[:3], None, None)
    for _ in range(4):
        batches.next(True), batches.next(False)
    state, random = batches.state(), torch.get_rng_state()
    expected = [batches.next(labelled) for labelled in (True, False) * 6]
    other = Batches(items, items[:3], None, None)
    other.restore(state)
    torch.set_rng_state(random)
    assert [other.next(labelled) for labelled in (True, False) * 6] == expected


def test_batches_of_graphs_are_of_one_kind_with_graphs():
    data = Data(x=torch.randn(3, 2), edge_index=torch.tensor([[0], [1]]), y=torch.zeros(3))
    batches = Batches([data], [Batch.from_data_list([data, data])], None, None)
    assert batches.next(False)[0][0].shape == (6, 2)
    assert batches.next(True)[2] is data.y
