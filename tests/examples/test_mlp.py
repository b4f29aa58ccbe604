from __future__ import annotations

import json
import pickle
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import homophily

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # PyG's own tensors

METHODS = [
    "teacher",
    "student",
    "encodings",
    "labelled",
    "distilled",
    "distilled + encodings",
    "distilled + encodings + LSP",
]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["mlp.py", *args])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(folder / "mlp.py"), run_name="__main__")


def planetoid(root: Path, nodes: int = 620, classes: int = 3) -> None:
    """Write a tiny graph in the layout of Planetoid's files."""
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    y = np.eye(classes)[np.arange(nodes) % classes]
    x = sp.csr_matrix(((rng.random((nodes, 20)) < 0.2) | (y.repeat(7, axis=1)[:, :20] > 0)) * 1.0)
    links = {i: [(i + classes) % nodes, (i + 2 * classes) % nodes] for i in range(nodes)}
    train, known = 30, nodes - 40
    content = {
        "x": x[:train], "y": y[:train], "allx": x[:known], "ally": y[:known],
        "tx": x[known:], "ty": y[known:], "graph": links,
    }  # fmt: skip
    raw = root / "Cora" / "raw"
    raw.mkdir(parents=True)
    for name, value in content.items():
        (raw / f"ind.cora.{name}").write_bytes(pickle.dumps(value))
    (raw / "ind.cora.test.index").write_text("\n".join(map(str, range(known, nodes))))


@pytest.mark.full
def test_every_method_runs_resumes_and_is_drawn(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    planetoid(tmp_path / "root")
    before = sorted((tmp_path / "root").rglob("*"))
    args = ["--dataset", "cora", "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")]
    args += ["--seeds", "2", "--steps", "8", "--size", "4", "--trials", "2"]
    run(folder, monkeypatch, *args)
    first = capsys.readouterr().out
    stem = tmp_path / "out" / "cora"
    results = json.loads((stem / "results.json").read_text())
    final = [r for r in results if "trial" not in r]
    assert [(r["setting"], r["method"], r["seed"]) for r in final] == [
        (setting, method, seed)
        for setting in ("transductive", "inductive")
        for method in METHODS
        for seed in (0, 1)
    ]
    assert {r["seed"] for r in results if "trial" in r} == {1000, 1001}  # none that is reported
    assert len(results) == 2 * len(METHODS) * (2 + 2 * 2)
    for result in results:
        assert 0 <= result["val"] <= 1
        assert 0 <= result["accuracy"] <= 1
        assert result["latency_ms"] > 0
    assert sorted((tmp_path / "root").rglob("*")) == before  # nothing is written beside the data
    run(folder, monkeypatch, *args)  # everything is there: nothing is trained again
    assert capsys.readouterr().out == first
    run(folder, monkeypatch, "--redraw", str(stem / "results.json"))
    assert capsys.readouterr().out.strip() in first
    assert "data:image/png" in (stem / "results.html").read_text()


def test_a_missing_folder_is_said_plainly(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="--dataset cora needs --root"):
        run(folder, monkeypatch, "--dataset", "cora")
    with pytest.raises(SystemExit, match=r"--root must hold Cora/raw/ind\.cora\.x"):
        run(folder, monkeypatch, "--dataset", "cora", "--root", str(tmp_path))


def test_the_generated_graph_is_one_of_citations(folder: Path) -> None:
    from mlp_task import load

    data = load("synthetic", None)
    assert torch.equal(data.x, load("synthetic", None).x)
    assert torch.equal(data.edge_index, load("synthetic", None).edge_index)
    assert 0.4 < homophily(data.edge_index, data.y) < 0.9
    assert data.is_undirected()
    torch.testing.assert_close(data.x.sum(1), torch.ones(data.num_nodes))
    assert [int(data[f"{s}_mask"].sum()) for s in ("train", "val", "test")] == [140, 500, 1000]
    assert not (data.train_mask & (data.val_mask | data.test_mask)).any()


def test_what_is_unseen_is_in_no_edge_and_has_its_neighbours_encodings(folder: Path) -> None:
    from mlp_task import Task, load

    data = load("synthetic", None)
    task, other = (Task.of(data, "inductive", seed) for seed in (0, 1))
    assert (~task.seen).nonzero().numel() == 400
    assert not task.seen[task.val].any()
    assert not task.seen[task.test].any()
    assert data.test_mask[task.test].all()
    assert task.seen[task.edge_index].all()
    assert not torch.equal(task.seen, other.seen)
    assert Task.of(data, "transductive", 0).edge_index.size(1) == data.num_edges

    code = task.encodings("random-walk", 3)
    source, target = data.edge_index
    for node in task.test[:20].tolist():
        near = source[(target == node)]
        near = near[task.seen[near]]
        expected = code[near].mean(0) if len(near) else torch.zeros(3)
        torch.testing.assert_close(code[node], expected)
    assert task.encodings("laplacian", 3).shape == (data.num_nodes, 3)


def test_sparse_rows_are_dropped_as_dense_ones(folder: Path) -> None:
    from mlp_task import FeatureMLP, drop

    x = (torch.rand(200, 30) < 0.3).float()
    sparse = x.to_sparse_csr()
    model = FeatureMLP(30, 8, 3, dropout=0.5, encodings=2).eval()
    code = torch.randn(200, 2)
    torch.testing.assert_close(model(sparse, code), model(x, code))
    assert drop(sparse, 0.5, training=False) is sparse
    dropped = drop(sparse, 0.5, training=True).to_dense()
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped[x == 0] == 0).all()
    assert dropped.sum() == pytest.approx(float(x.sum()), rel=0.1)


def test_what_encodings_add_may_be_kept_in_their_stead(folder: Path) -> None:
    from mlp_task import FeatureMLP

    model = FeatureMLP(30, 8, 3, dropout=0.5, encodings=5).double().eval()
    x, code = torch.rand(20, 30).double(), torch.randn(20, 5).double()
    places = model.places(code)
    assert places.shape == (20, 8)
    torch.testing.assert_close(model(x, place=places), model(x, code), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(model(x, place=places), model(x, 0 * code))
    new = code[[2, 7, 9]].mean(0, keepdim=True)  # a node that comes later
    kept = places[[2, 7, 9]].mean(0, keepdim=True)
    torch.testing.assert_close(model(x[:1], place=kept), model(x[:1], new), rtol=1e-12, atol=1e-12)


def test_the_times_are_those_of_each_kind_of_model(folder: Path) -> None:
    from mlp import timed
    from mlp_task import latencies

    y = torch.tensor([0, 1, 2]).repeat(20)
    data = Data(x=torch.rand(60, 4), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), y=y)
    times = latencies(data, 3)
    assert list(times) == ["teacher", "MLP", "encodings"]
    assert all(0 < value < 1000 for pair in times.values() for value in pair)
    times = {"teacher": (5.0, 9.0), "MLP": (1.0, 2.0), "encodings": (1.5, 2.5)}
    runs = timed([{"method": method, "seed": 3} for method in METHODS], times)
    assert [run["latency_ms"] for run in runs] == [5.0, 1.0, 1.5, 1.0, 1.0, 1.5, 1.5]
    assert {run["latency_1000_ms"] for run in runs} == {9.0, 2.0, 2.5}
    assert {run["seed"] for run in runs} == {3}


def test_the_student_is_chosen_on_validation_of_the_trials(folder: Path) -> None:
    from mlp import choice

    def runs(method: str, *vals: float, **more: object) -> list[dict[str, object]]:
        return [{"method": method, "val": v, "accuracy": 1 - v, "config": {}} | more for v in vals]

    tried = runs("distilled", 0.6, 0.8, trial=True) + runs("teacher", 0.9, trial=True)
    tried += runs("distilled + encodings", 0.1, 0.1, trial=True, config={"scale": 1})
    tried += runs("distilled + encodings", 0.7, 0.75, trial=True, config={"scale": 2})
    final = runs("distilled", 0.5) + runs("distilled + encodings", 0.4)
    assert choice(tried + final) == "distilled + encodings"  # 0.725 against 0.7
    assert choice(final) == "distilled"
