from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch_geometric.nn import GATConv, Sequential

from pyg_stkd.distill.recording.reading.inputs import find_edge_index
from pyg_stkd.distill.recording.reading.signature import bind_inputs

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


def test_arguments_get_the_names_of_the_signature():
    conv, x = GATConv(2, 3), torch.ones(3, 2)
    for args, kwargs in [((x, EDGES), {}), ((x,), {"edge_index": EDGES})]:
        bound = bind_inputs(conv, args, kwargs)
        assert list(bound) == ["x", "edge_index"]
        assert bound["x"] is x
        assert bound["edge_index"] is EDGES


def test_starred_arguments_keep_their_place():
    class Starred(nn.Module):
        def forward(self, x, *rest, **options):
            return x

    assert bind_inputs(Starred(), (5, 6, 7), {"a": 8}) == {"x": 5, "1": 6, "2": 7, "a": 8}


def test_unbindable_calls_keep_their_values():
    class Odd(nn.Module):
        def forward(self, x):
            return x

    assert bind_inputs(Odd(), (5, 6), {"a": 8}) == {"0": 5, "1": 6, "a": 8}


class Named(nn.Module):
    def forward(self, x, edge_index, batch=None):
        return x


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        nn.DataParallel,
        AveragedModel,
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    ],
)
def test_wrappers_have_the_names_of_what_they_wrap(wrap):
    assert bind_inputs(wrap(Named()), (5, 6), {"batch": 7}) == {"x": 5, "edge_index": 6, "batch": 7}
    assert bind_inputs(wrap(Named()), (5, 6, 7), {}) == {"x": 5, "edge_index": 6, "batch": 7}


def test_own_names_come_before_those_of_a_part_named_module():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = Named()

        def forward(self, h, *rest):
            return self.module(h, *rest)

    assert bind_inputs(Own(), (5, 6), {}) == {"h": 5, "1": 6}


def test_sequential_of_pyg_is_searched_by_type():
    model = Sequential("x, edge_index", [(GATConv(2, 3), "x, edge_index -> x")])
    bound = bind_inputs(model, (torch.ones(3, 2), EDGES), {})
    assert find_edge_index(bound) is EDGES
