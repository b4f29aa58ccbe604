from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch.autograd import gradcheck

from pyg_stkd import kernels
from pyg_stkd.distill import Capture, LSPLoss, TeacherCaptures
from pyg_stkd.functional import lsp
from pyg_stkd.graph import Graph

# Small random features are nearly alike to these kernels, which is not the point here.
pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

EDGES = torch.tensor([[1, 2, 3, 0, 2, 0, 1, 1, 2], [0, 0, 0, 1, 1, 2, 2, 3, 3]])
N = 4


def rbf(a, b):
    return math.exp(-((a - b) ** 2).sum().item() / 2)


def laplacian(a, b):
    return math.exp(-(a - b).abs().sum().item() / 100)


def cosine(a, b):
    return (a @ b / a.norm() / b.norm()).item()


def squared_cosine(a, b):
    return cosine(a, b) ** 2


def distance(a, b):
    return (a - b).norm().item()


def naive_lsp(s, t, edges, sim, direction="student", reduction="node", nodes=None):
    total, count = 0.0, 0
    for i in range(len(s)) if nodes is None else nodes:
        sources = [j for j, target in edges.t().tolist() if target == i]
        exps = [[math.exp(sim(z[i], z[j])) for j in sources] for z in (s, t)]
        p, q = [[e / sum(row) for e in row] for row in exps]
        if direction == "teacher":
            p, q = q, p
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        count += 1 if reduction == "node" else len(sources)
    return total / count


@pytest.fixture
def features():
    return torch.randn(N, 3).double(), torch.randn(N, 5).double()


def captures(s, t, edges=EDGES, teacher_edges=None, nodes=None):
    student = Capture(s, {"edge_index": edges}, layer="b", nodes=nodes)
    teacher_edges = edges if teacher_edges is None else teacher_edges
    teacher = Capture(t, {"edge_index": teacher_edges}, layer="a", owner="teacher")
    return student, teacher


def test_paper(features):
    expected = naive_lsp(*features, EDGES, rbf)
    for loss in (LSPLoss("a", "b"), LSPLoss.paper("a", "b")):
        assert loss.name == "lsp"
        assert loss(*captures(*features)).item() == pytest.approx(expected, rel=1e-6)


def test_official(features):
    s, t = features[0] * 40, features[1] * 40
    loss = LSPLoss.official("a", "b", weight=100.0)
    expected = naive_lsp(s, t, EDGES, laplacian, "teacher")
    assert loss(*captures(s, t)).item() == pytest.approx(expected, rel=1e-6)
    assert [loss.factor(epoch) for epoch in (0, 29, 30)] == [100.0, 100.0, 0.0]


@pytest.mark.parametrize(
    ("kernel", "sim"),
    [
        (None, cosine),
        (kernels.Polynomial(2, cosine=True), squared_cosine),
        (kernels.Euclidean(), distance),
        (kernels.RBF(), rbf),
    ],
)
@pytest.mark.parametrize("nodes", [None, torch.tensor([0, 3])])
def test_efficient_gnns(features, kernel, sim, nodes):
    kwargs = {} if kernel is None else {"kernel": kernel}
    loss = LSPLoss.efficient_gnns("a", "b", **kwargs)
    index = None if nodes is None else nodes.tolist()
    expected = naive_lsp(*features, EDGES, sim, "teacher", "edge", index)
    value = loss(*captures(*features, nodes=nodes))
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_gradient(features):
    s, t = features
    loss = LSPLoss("a", "b", kernels.Cosine(), direction="teacher")
    assert gradcheck(lambda s: loss(*captures(s, t)), s.requires_grad_())


def test_union_where_the_graphs_differ(features):
    other = torch.tensor([[3, 0, 3], [1, 3, 2]])
    union = torch.cat([EDGES, other], dim=1).unique(dim=1)
    for graph, edges in [(None, union), ("union", union), ("student", EDGES), ("teacher", other)]:
        value = LSPLoss("a", "b", graph=graph)(*captures(*features, EDGES, other))
        assert value.item() == pytest.approx(naive_lsp(*features, edges, rbf), rel=1e-6)


def test_shared_graph_keeps_its_duplicates(features):
    edges = torch.cat([EDGES, EDGES[:, :1]], dim=1)
    same = captures(*features, edges, edges.clone())
    expected = naive_lsp(*features, edges, rbf)
    assert LSPLoss("a", "b")(*same).item() == pytest.approx(expected, rel=1e-6)
    united = LSPLoss("a", "b", graph="union")(*same).item()
    assert united == pytest.approx(naive_lsp(*features, EDGES, rbf), rel=1e-6)


def test_shared_graph_keeps_its_duplicates_in_any_order(features):
    edges = torch.cat([EDGES, EDGES[:, :1]], dim=1)
    turned = edges.flip(1)  # the same multigraph: nothing to unite
    value = LSPLoss("a", "b")(*captures(*features, edges, turned)).item()
    assert value == pytest.approx(naive_lsp(*features, edges, rbf), rel=1e-6)
    other = torch.cat([EDGES, EDGES[:, 1:2]], dim=1)  # the same set, other duplicates
    value = LSPLoss("a", "b")(*captures(*features, edges, other)).item()
    assert value == pytest.approx(naive_lsp(*features, EDGES, rbf), rel=1e-6)


def test_added_self_loops_leave_duplicates(features):
    loops = torch.tensor([[0, 2, 0], [0, 2, 0]])
    edges = torch.cat([EDGES, loops], dim=1)
    used = torch.cat([edges, torch.tensor([[1, 3], [1, 3]])], dim=1)
    value = LSPLoss("a", "b", self_loops="add")(*captures(*features, edges))
    assert value.item() == pytest.approx(naive_lsp(*features, used, rbf), rel=1e-6)


def test_one_graph_is_enough(features):
    expected = naive_lsp(*features, EDGES, rbf)
    student, teacher = captures(*features)
    bare = Capture(features[1], owner="teacher"), Capture(features[0])
    for pair in ((student, bare[0]), (bare[1], teacher)):
        assert LSPLoss("a", "b")(*pair).item() == pytest.approx(expected, rel=1e-6)
    fixed = LSPLoss("a", "b", graph=EDGES)(bare[1], bare[0])
    assert fixed.item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="No graph was found for the student"):
        LSPLoss("a", "b")(bare[1], bare[0])


@pytest.mark.parametrize("mode", ["keep", "drop", "add"])
def test_self_loops(features, mode):
    loops = torch.tensor([[0, 2], [0, 2]])
    edges = torch.cat([EDGES, loops], dim=1)
    every = torch.arange(N).expand(2, N)
    used = {"keep": edges, "drop": EDGES, "add": torch.cat([EDGES, every], dim=1)}[mode]
    value = LSPLoss("a", "b", self_loops=mode)(*captures(*features, edges))
    assert value.item() == pytest.approx(naive_lsp(*features, used, rbf), rel=1e-6)


@pytest.mark.parametrize("normalize", ["l2", "layer"])
def test_normalisation(features, normalize):
    s, t = features
    if normalize == "l2":
        scaled = [z / z.norm(dim=1, keepdim=True) for z in (s, t)]
    else:
        scaled = [
            (z - z.mean(1, keepdim=True)) / z.var(1, False, keepdim=True).sqrt() for z in (s, t)
        ]
    value = LSPLoss("a", "b", normalize=normalize)(*captures(s, t))
    assert value.item() == pytest.approx(naive_lsp(*scaled, EDGES, rbf), rel=1e-6)


def test_only_the_chosen_centres_count(features):
    nodes = torch.tensor([False, True, False, True])
    value = LSPLoss("a", "b")(*captures(*features, nodes=nodes))
    assert value.item() == pytest.approx(naive_lsp(*features, EDGES, rbf, nodes=[1, 3]), rel=1e-6)


def test_frozen_teacher_is_measured_once(features, monkeypatch):
    import pyg_stkd.distill.losses.structure as module

    calls, structure = [], module.local_structure
    monkeypatch.setattr(
        module, "local_structure", lambda *args: calls.append(1) or structure(*args)
    )
    loss, (student, teacher) = LSPLoss("a", "b", self_loops="add"), captures(*features)
    live = loss(student, teacher)
    assert not calls
    known = TeacherCaptures({"a": (teacher.freeze(),)})
    for _ in range(3):
        fresh = Capture(features[0], {"edge_index": EDGES.clone()})  # a new tensor each step
        value = loss(fresh.at(None, known.graphs), known["a"][0].at(None, known.graphs))
        torch.testing.assert_close(value, live, rtol=1e-12, atol=0)
    assert len(calls) == 1
    loss.kernel = kernels.Cosine()
    cosines = loss(student.at(None, known.graphs), known["a"][0])
    assert len(calls) == 2
    torch.testing.assert_close(cosines, loss(student, teacher))
    restored = pickle.loads(pickle.dumps(known["a"][0]))
    assert restored.memo == {}


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"'kernel' must be a Kernel \(got 'rbf'\)"):
        LSPLoss("a", "b", kernel="rbf")
    with pytest.raises(TypeError, match=r"'graph' must be.*\(got list\)"):
        LSPLoss("a", "b", graph=[0, 1])
    for option in ("graph", "self_loops", "direction", "normalize", "reduction"):
        with pytest.raises(ValueError, match=rf"'{option}' must be one of .* \(got 'both'\)"):
            LSPLoss("a", "b", **{option: "both"})


def test_bad_features(features):
    s, t = features
    with pytest.raises(ValueError, match=r"same nodes.*\[4, 3\] and \[3, 5\]"):
        LSPLoss("a", "b")(*captures(s, t[:3]))
    with pytest.raises(ValueError, match=r"must be \[N, F\] or.*\(got \[1, 1, 4, 3\]\).*Spatial"):
        LSPLoss("a", "b")(*captures(s[None, None], t[None, None]))
    with pytest.raises(ValueError, match="'z_student' must be finite"):
        LSPLoss("a", "b")(*captures(s * math.nan, t))
    with pytest.raises(IndexError, match="'edge_index'"):
        LSPLoss("a", "b")(*captures(s[:3], t[:3]))


def test_graph_object_of_another_size(features):
    with pytest.raises(ValueError, match=r"must be \(4, 4\)"):
        LSPLoss("a", "b", graph=Graph(EDGES, 9))(*captures(*features))


@pytest.mark.parametrize("reduction", ["node", "edge"])
@pytest.mark.parametrize("nodes", [None, [0, 2], [True, False, True, False]])
def test_batches_of_features_on_one_graph(reduction, nodes):
    edges = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
    s, t = torch.randn(3, 4, 2, requires_grad=True), torch.randn(3, 4, 5)
    given = {"edge_index": edges}
    chosen = None if nodes is None else torch.tensor(nodes)
    loss = LSPLoss("a", "b", kernels.Linear(), reduction=reduction)
    teacher = Capture(t, given).freeze()
    for _ in range(3):
        student = Capture(s, given, nodes=chosen)
        value = loss(student, teacher.at(chosen))
        each = [
            lsp(a, b, edges, kernels.Linear(), reduction=reduction, nodes=chosen)
            for a, b in zip(s, t, strict=True)
        ]
        torch.testing.assert_close(value, sum(each) / 3)
    value.backward()
    assert s.grad.any()
