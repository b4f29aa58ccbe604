from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import GCN

from pyg_stkd import Distiller
from pyg_stkd.distill import Capture, HintLoss, LSPLoss, SoftTargetLoss, TeacherCaptures

EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


def test_a_mapping_of_layers_to_calls() -> None:
    first, second = (Capture(torch.full((3, 2), float(i)), layer="a") for i in (1, 2))
    captures = TeacherCaptures({"a": (first, second), "": (Capture(torch.ones(4, 1)),)})
    assert list(captures) == ["a", ""]
    assert len(captures) == 2
    assert [seen.value.sum().item() for seen in captures["a"]] == [6.0, 12.0]
    assert repr(captures) == "TeacherCaptures('a': [3, 2], [3, 2], '': [4, 1])"
    with pytest.raises(KeyError):
        captures["b"]


def test_graphs_are_kept_with_the_captures_and_shared() -> None:
    inputs = {"edge_index": EDGES}
    captures = TeacherCaptures(
        {name: (Capture(torch.ones(4, 2), inputs, layer=name),) for name in "ab"}
    )
    graphs = [captures[name][0].graph for name in "ab"]
    assert graphs[0] is graphs[1]
    assert captures.graphs.holds(graphs[0])
    own = Capture(torch.ones(4, 2), inputs, layer="a")
    nodes = own.at(torch.tensor([1]))
    assert TeacherCaptures({"a": (nodes,)})["a"][0].nodes is None  # each forward has its own


def test_on_another_device_nothing_of_the_old_one_is_left() -> None:
    captures = TeacherCaptures({"a": (Capture(torch.ones(4, 2), {"edge_index": EDGES}),)})
    moved = captures.to("meta")["a"][0]
    assert moved.value.device.type == "meta"
    assert moved.edge_index.device.type == "meta"
    assert captures["a"][0].value.device.type == "cpu"


def test_they_take_the_place_of_the_teacher() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5)
    losses = [SoftTargetLoss(), HintLoss("convs.0", "convs.0", projection=False)]
    losses.append(LSPLoss("convs.1", "convs.1", normalize="layer"))
    distiller = Distiller(GCN(5, 6, 2, 3), GCN(5, 6, 2, 3), losses)
    known = distiller.capture_teacher(x, EDGES)
    assert isinstance(known, TeacherCaptures)
    assert all(not seen.value.requires_grad for calls in known.values() for seen in calls)
    expected = distiller(x, EDGES)[1]
    for _ in range(2):  # the second time the teacher's structure is remembered
        got = distiller(x, EDGES, teacher=known)[1]
        torch.testing.assert_close(dict(got), dict(expected))
