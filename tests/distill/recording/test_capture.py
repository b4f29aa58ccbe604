from __future__ import annotations

import copy
import pickle

import pytest
import torch

from pyg_stkd.distill import Capture
from pyg_stkd.distill.recording.graph_cache import GraphCache
from pyg_stkd.graph import Graph

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


def test_value_is_the_first_tensor_of_the_output():
    out = torch.ones(3, 2)
    assert Capture((out, (EDGES, torch.ones(3)))).value is out


def test_value_needs_a_tensor():
    with pytest.raises(TypeError, match=r"student layer 'a' must return a tensor.*got NoneType"):
        _ = Capture(None, layer="a").value


@pytest.mark.parametrize("grad", [True, False])
def test_in_place_rewrite_is_refused_by_name(grad):
    x = torch.ones(3, 2, requires_grad=grad) * 1
    capture = Capture(x, layer="convs.1", owner="teacher")
    assert capture.value is x
    x.relu_()
    with pytest.raises(RuntimeError, match=r"teacher layer 'convs.1' was rewritten in place"):
        _ = capture.value


def test_rewrite_of_a_view_is_seen():
    x = torch.ones(3, 2)
    capture = Capture(x)
    x[0] = 7
    with pytest.raises(RuntimeError, match="student output was rewritten in place"):
        _ = capture.features


def test_restricting_does_not_forgive_a_rewrite():
    x = torch.ones(3, 2)
    capture = Capture(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="rewritten in place"):
        _ = capture.at(None, GraphCache()).value


def test_inference_tensors_have_no_version():
    with torch.inference_mode():
        assert Capture(torch.ones(2, 1)).value.sum() == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_features_are_at_least_single_precision(dtype):
    features = Capture(torch.full((2, 1), 0.5, dtype=dtype)).features
    assert features.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert features.tolist() == [[0.5], [0.5]]


def test_features_must_be_floating():
    with pytest.raises(TypeError, match=r"floating point type \(got torch.int64\)"):
        _ = Capture(EDGES).features
    with pytest.raises(ValueError, match="one row a node"):
        _ = Capture(torch.tensor(1.0)).features


@pytest.mark.parametrize(
    "nodes", [torch.tensor([2, 0]), torch.tensor([True, False, True]), torch.tensor([2, 0]).int()]
)
def test_rows_are_the_chosen_nodes(nodes):
    x = torch.arange(6.0).view(3, 2)
    assert torch.equal(Capture(x, nodes=nodes).rows, x[nodes])
    stacked = torch.stack([x, x + 1])
    assert torch.equal(Capture(stacked, nodes=nodes).rows, stacked[:, nodes])
    assert torch.equal(Capture(x[:, 0], nodes=nodes).rows, x[nodes, 0])


def test_nodes_must_fit():
    with pytest.raises(ValueError, match=r"for each of the 3 rows.*\(got 2\)"):
        _ = Capture(torch.ones(3, 2), nodes=torch.tensor([True, False])).rows
    with pytest.raises(IndexError, match=r"below the 3 rows.*\(got 3\)"):
        _ = Capture(torch.ones(3, 2), nodes=torch.tensor([3])).rows


def test_graph_comes_from_the_call_then_from_inside_then_from_the_model():
    x, own, built, outer = torch.ones(3, 2), EDGES, EDGES.flip(0), EDGES[:, :1]
    context = {"edge_index": outer, "edge_weight": torch.ones(1), "batch": torch.zeros(3).long()}
    capture = Capture(x, {"edge_index": own}, built=built, context=context)
    assert capture.edge_index is own
    assert capture.edge_weight is None  # that of the model belongs to another graph
    assert capture.batch is context["batch"]
    assert Capture(x, {}, built=built, context=context).edge_index is built
    outside = Capture(x, {}, context=context)
    assert outside.edge_index is outer
    assert outside.edge_weight is context["edge_weight"]


def test_graph_has_the_nodes_of_the_value():
    graph = Capture(torch.ones(5, 2), {"edge_index": EDGES}).graph
    assert (graph.num_nodes, graph.num_edges) == (5, 3)
    given = Graph(EDGES, 3)
    assert Capture(torch.ones(3, 2), {"edge_index": given}).graph is given


def test_missing_graph_says_where_it_was_sought():
    capture = Capture(torch.ones(3, 2), {"x": None}, layer="lin", context={"x": None, "y": None})
    match = r"student layer 'lin': neither its inputs \(x\) nor those of the model \(x, y\)"
    with pytest.raises(ValueError, match=match):
        _ = capture.graph


def test_frozen_capture_keeps_no_inputs_and_no_gradients():
    x = torch.ones(3, 2, requires_grad=True)
    live = Capture(x * 2, {"x": x, "edge_index": EDGES}, layer="a", owner="teacher", call=1)
    frozen = live.freeze()
    assert not frozen.value.requires_grad
    assert set(frozen.inputs) == {"edge_index", "edge_weight", "batch"}
    assert frozen.edge_index is EDGES
    assert (frozen.layer, frozen.owner, frozen.call) == ("a", "teacher", 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_start_anew(copied):
    x = torch.ones(3, 2)
    x.add_(1)  # version 1, while the copied tensor starts at 0
    capture = copied(Capture(x, {"edge_index": EDGES}))
    assert torch.equal(capture.value, x)
    assert torch.equal(capture.edge_index, EDGES)


def test_hyperedges_of_a_layer_are_no_graph_of_its_model():
    x, inputs = torch.ones(3, 2), {"hyperedge_index": EDGES}
    assert Capture(x, inputs, context={"edge_index": EDGES}).edge_index is None
    assert Capture(x, inputs, context={"e": EDGES}).edge_index is None
    other = EDGES.flip(0)
    assert Capture(x, inputs, context={"e": EDGES, "edge_index": other}).edge_index is other
    with pytest.raises(ValueError, match=r"No graph was found.*\(hyperedge_index\).*\(edge_index"):
        _ = Capture(x, inputs, context={"edge_index": EDGES}).graph


def test_two_sets_of_nodes_have_no_graph():
    x, one = torch.ones(5, 2), torch.tensor([[4, 1], [2, 0]])
    for inputs in (
        {"x": (x, x[:3]), "edge_index": one},
        {"x": [x, None], "edge_index": one},
        {"x": (x, None), "edge_index": one, "size": (5, 3)},
    ):
        capture = Capture(torch.ones(3, 4), inputs, layer="a")
        for seen in (capture, capture.freeze()):
            assert seen.features.shape == (3, 4)  # what needs no graph goes on
            with pytest.raises(ValueError, match=r"student layer 'a'.*\(got 5 sources and 3 targ"):
                _ = seen.graph
    for inputs in (
        {"x": (x, x), "edge_index": one},
        {"x": (x, None), "edge_index": one},
        {"x": x, "edge_index": one, "size": (5, 5)},
        {"x": x, "edge_index": one, "size": None},
    ):
        for seen in (capture := Capture(torch.ones(5, 4), inputs), capture.freeze()):
            assert seen.graph.edge_index.tolist() == [[1, 4], [0, 2]]


def test_frozen_in_inference_mode_serves_training():
    with torch.inference_mode():
        x, batch = torch.ones(3, 2), torch.zeros(3).long()
        frozen = Capture(x * 2, {"edge_index": EDGES.clone(), "batch": batch}).freeze()
        moved = Capture(x.clone()).to("cpu")
    for value in (frozen.value, frozen.edge_index, frozen.batch, moved.value):
        assert not value.is_inference()
    weight = torch.ones(3, 2, requires_grad=True)
    (weight * frozen.value).sum().backward()
    assert weight.grad.tolist() == [[2.0, 2.0]] * 3


def test_to_moves_the_graph_too():
    capture = Capture(torch.ones(3, 2), {"edge_index": EDGES}).freeze().to("meta")
    assert capture.value.is_meta
    assert capture.edge_index.is_meta


def test_repr():
    assert repr(Capture(torch.ones(3, 2), layer="a")) == (
        "Capture(student layer 'a', call=0, shape=[3, 2])"
    )
