"""Teacher and student that build their own graphs: the union of both is compared."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import pytest
import torch

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import LSPLoss, TeacherCache
from pyg_stkd.distill.recording.disk import graph_store
from pyg_stkd.functional import knn_graph, local_structure
from pyg_stkd.graph import union_edges
from pyg_stkd.nn import DGCNN


def model(k: int, width: int) -> DGCNN:
    return DGCNN(3, 4, channels=(width, width, 2 * width), mlp_channels=(8,), k=k)


@pytest.mark.filterwarnings("ignore:.*is blind here")
def test_the_union_of_two_knn_graphs_of_ragged_clouds() -> None:
    batch = torch.arange(3).repeat_interleave(torch.tensor([9, 5, 12]))
    pos = torch.randn(26, 3)
    teacher, student = model(k=5, width=8), model(k=3, width=4)
    loss = LSPLoss("convs.1", "convs.1", kernel=kernels.RBF(sigma="median"))
    distiller = Distiller(teacher, student, [loss])
    _, losses = distiller(pos, batch)
    losses["lsp"].backward()
    assert next(student.parameters()).grad is not None

    seen = {}
    for name, net in (("teacher", teacher.eval()), ("student", student)):
        net.convs[1].register_forward_hook(
            lambda _, args, out, name=name: seen.update({name: (args[0].detach(), out.detach())})
        )
    state = copy.deepcopy(student.state_dict())
    with torch.no_grad():
        teacher(pos, batch), student(pos, batch)
    student.load_state_dict(state)
    graph = union_edges(
        knn_graph(seen["teacher"][0], 5, batch, loop=True),
        knn_graph(seen["student"][0], 3, batch, loop=True),
    )
    t, s = (local_structure(seen[name][1], graph, loss.kernel) for name in ("teacher", "student"))
    expected = (s.exp() * (s - t)).sum() / 26
    torch.testing.assert_close(losses["lsp"], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.filterwarnings("ignore:.*is blind here")
def test_looking_for_graphs_leaves_the_fast_path_on(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = model(k=5, width=8), model(k=3, width=4)
    distiller = Distiller(teacher, student, [LSPLoss("convs.1", "convs.1")])
    monkeypatch.setattr(
        "torch_geometric.nn.EdgeConv.message", lambda *args, **kwargs: pytest.fail("edge path")
    )
    distiller(torch.randn(12, 3), torch.arange(2).repeat_interleave(6))


@pytest.mark.filterwarnings("ignore:.*is blind here")
def test_known_captures_keep_no_graph_of_the_student() -> None:
    batch = torch.arange(2).repeat_interleave(8)
    pos = torch.randn(16, 3)
    student = model(k=3, width=4)
    distiller = Distiller(model(k=5, width=8), student, [LSPLoss("convs.1", "convs.1")]).eval()
    known = distiller.capture_teacher(pos, batch)
    seen: set[int] = set()
    for _ in range(6):
        torch.nn.init.normal_(student.convs[0].nn.lins[0].weight)  # other neighbours each time
        losses = [distiller(pos, batch, teacher=t)[1]["lsp"] for t in (known, None)]
        torch.testing.assert_close(*losses)
        seen.add(len(known.graphs._graphs) + len(known.graphs._derived))
    assert seen == {1}
    assert not known["convs.1"][0].memo


@pytest.mark.filterwarnings("ignore:.*is blind here")
def test_the_teacher_is_measured_again_on_new_edges_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyg_stkd.distill.losses.structure as module

    batch = torch.arange(3).repeat_interleave(torch.tensor([9, 30, 12]))
    pos = torch.randn(51, 3)
    student = model(k=3, width=4)
    kernel = kernels.RBF(sigma="median")
    loss = LSPLoss("convs.1", "convs.1", kernel, "union", normalize="l2")
    distiller = Distiller(model(k=5, width=8), student, [loss]).eval()
    known = distiller.capture_teacher(pos, batch)
    made, seen = [], []
    measured, extended = module.measured, module.extended_structure
    monkeypatch.setattr(module, "measured", lambda *args: made.append(1) or measured(*args))
    monkeypatch.setattr(
        module, "extended_structure", lambda *args: seen.append(args[2]) or extended(*args)
    )
    for _ in range(4):
        torch.nn.init.normal_(student.convs[0].nn.lins[0].weight)  # other neighbours each time
        gradients = []
        for teacher in (known, None):
            value = distiller(pos, batch, teacher=teacher)[1]["lsp"]
            gradients.append((value, *torch.autograd.grad(value, student.convs[1].parameters())))
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert made == [1]
    assert len(seen) == 3  # the first time, features are looked at
    for graph in seen:
        assert graph.known is seen[0].known
        assert 0 < graph.more.num_edges < 51 * 3
        assert not graph.lasting
        assert not [key for key in graph._derived if key[0] in ("unordered", "both ways")]
    (memo,) = known["convs.1"][0].memo.values()
    assert memo[2].numel() == seen[0].known.num_edges + 51


@pytest.mark.parametrize("graph", ["union", "teacher"])
def test_nothing_of_the_teachers_graph_is_sorted_again_beside_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.setattr(graph_store, "_MANY", 0)
    batch = torch.arange(3).repeat_interleave(torch.tensor([90, 300, 120]))
    pos = torch.randn(510, 3)
    student = model(k=3, width=16)  # differences of few numbers need no pairs
    kernel = kernels.RBF(sigma="median")
    loss = LSPLoss("convs.1", "convs.1", kernel, graph, normalize="l2")
    distiller = Distiller(model(k=5, width=32), student, [loss]).eval()
    caches = [TeacherCache(distiller, path) for path in (None, tmp_path)]
    built: list[str] = []
    for name in ("unordered", "both_ways"):
        module = importlib.import_module(f"pyg_stkd.graph.{name}")
        plain = module._build
        monkeypatch.setattr(
            module, "_build", lambda *args, n=name, f=plain: built.append(n) or f(*args)
        )
    for epoch in range(4):
        torch.nn.init.normal_(student.convs[0].nn.lins[0].weight)  # other neighbours each time
        found = []
        for cache in caches:
            built.clear()
            known = cache("a", pos, batch)
            value = distiller(pos, batch, teacher=known)[1]["lsp"]
            found.append((value, *torch.autograd.grad(value, student.convs[1].parameters())))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        if epoch > 1:
            assert not built  # both, on disk, in the epochs before
    files = list((tmp_path / "structures").iterdir())
    assert len(files) == 2  # what was measured, and all that is sorted
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[:-4])
        with pytest.raises(ValueError, match=r"safetensors must be a file of"):
            distiller(pos, batch, teacher=caches[1]("a", pos, batch))[1]["lsp"].backward()
        file.write_bytes(whole)
