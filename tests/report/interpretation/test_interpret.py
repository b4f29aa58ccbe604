"""The whole of it: what is asked for, refused, and shown."""

from __future__ import annotations

import copy
import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import ASTGCN, STGCN
from pyg_stkd.prune import Magnitude, Pruner
from pyg_stkd.report import Interpretation, interpret
from pyg_stkd.report.interpretation.structures import local_agreement

EDGES = torch.tensor([[0, 1, 2, 0, 3, 1], [1, 2, 0, 2, 1, 3]])
LAYERS = ("blocks.1", "blocks.1")


@pytest.fixture(scope="module")
def models() -> tuple[STGCN, STGCN]:
    torch.manual_seed(0)
    sizes = {"temporal_channels": 8, "head_channels": 8}
    return STGCN(1, 4, 3, **sizes), STGCN(1, 2, 3, temporal_channels=4, head_channels=4)


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, 12, 4, 1, generator=draw), EDGES, torch.rand(6, generator=draw)


@pytest.fixture(scope="module")
def found(models: tuple[STGCN, STGCN], inputs: tuple[Tensor, Tensor, Tensor]) -> Interpretation:
    pruner = Pruner(copy.deepcopy(models[0]), Magnitude(), keep=0.4)
    pruner.step()
    return interpret(*models, inputs, LAYERS, pruner=pruner, names=["a", "b", "c", "d"])


def test_a_model_is_alike_itself(
    models: tuple[STGCN, STGCN], inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    teacher, _ = models
    same = interpret(teacher, copy.deepcopy(teacher), inputs, LAYERS)
    assert list(same.agreement().values()) == pytest.approx([1.0] * 5)
    assert [row["agreement"] for row in same.summary()] == ["1.00"] * 5
    assert same.channels == ()
    assert same.names == ("0", "1", "2", "3")


def test_structures_are_those_of_the_layers_and_edges_keep_their_weights(
    models: tuple[STGCN, STGCN], inputs: tuple[Tensor, Tensor, Tensor], found: Interpretation
) -> None:
    x, edges, weight = inputs
    hidden = []
    for model in models:
        seen: list[Tensor] = []
        handle = model.blocks[1].register_forward_hook(lambda m, a, out, s=seen: s.append(out))
        with torch.no_grad():
            model.eval()(x, edges, weight)
        handle.remove()
        hidden.append(seen[0])
    expected = local_agreement(*hidden, Graph(EDGES, 4), RBF(sigma="median"))
    assert found.spatial.total == pytest.approx(expected.total, abs=1e-5)
    graph = Graph(EDGES, 4)
    given = interpret(*models, (x, graph, graph.sort_edges(weight)), LAYERS)
    torch.testing.assert_close(given.teacher.edges, found.teacher.edges)


def test_modes_and_hooks_are_as_before(
    models: tuple[STGCN, STGCN], inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    teacher, student = copy.deepcopy(models[0]).train(), copy.deepcopy(models[1]).eval()
    interpret(teacher, student, inputs[:2], LAYERS)
    assert teacher.training
    assert not student.training
    assert not teacher.blocks[1]._forward_hooks


def test_models_may_be_of_different_classes(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    teacher, student = ASTGCN(1, 4, 3, 4), STGCN(1, 2, 3, temporal_channels=4, head_channels=4)
    found = interpret(teacher, student, inputs, ("parts.recent.blocks.1", "blocks.1"))
    assert found.spatial.steps.shape == (4,)  # the steps that both have


def test_the_most_unlike_edges_come_first(found: Interpretation) -> None:
    rows = found.edges()
    apart = [abs(float(row["teacher"]) - float(row["student"])) for row in rows]
    assert len(rows) == 6
    assert all(a >= b - 0.011 for a, b in pairwise(apart))  # of rounded values
    assert all(re.fullmatch("[a-d] to [a-d]", row["edge"]) for row in rows)


def test_sensors_are_in_the_order_of_what_is_kept(found: Interpretation) -> None:
    kept = [float(row["local structure kept"]) for row in found.sensors()]
    assert kept == sorted(kept)
    assert len(kept) == 2  # a and d have one neighbour: nothing to weigh


def test_layers_that_lost_channels_are_told(found: Interpretation) -> None:
    rows = {row["layer"]: row for row in found.layers()}
    assert {each.layer for each in found.channels} == set(rows)
    assert all(0 < int(row["kept"]) < int(row["channels"]) for row in rows.values())


def test_the_page_holds_all_of_it(found: Interpretation) -> None:
    pytest.importorskip("matplotlib")
    html = found.report("Title <1>").html()
    assert html.count("<img") == 4
    assert html.count("data:image/png;base64,") == 4
    assert html.count("<table>") == 4
    assert "Title &lt;1&gt;" in html
    assert "http" not in html  # it needs nothing else


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"inputs": (torch.ones(1, 12, 4, 1),)}, r"'inputs' must be .* \(got 1\)"),
        ({"layers": ("blocks.7", "blocks.1")}, "'layers' .*blocks.7"),
        ({"layers": ("lin2", "blocks.1")}, r"'layers' must return sequences .* of 'lin2'"),
        ({"names": ["a"]}, r"'names' must be one for each of 4 nodes \(got 1\)"),
        ({"inputs": (torch.ones(1, 12, 4), EDGES)}, "'inputs' must have shape"),
    ],
    ids=["inputs", "unknown", "no sequence", "names", "axes"],
)
def test_what_does_not_fit_is_refused(
    models: tuple[STGCN, STGCN],
    inputs: tuple[Tensor, Tensor, Tensor],
    change: dict[str, object],
    text: str,
) -> None:
    options = {"inputs": inputs, "layers": LAYERS} | change
    with pytest.raises(ValueError, match=text):
        interpret(*models, **options)  # type: ignore[arg-type]
