"""Tests of pyg_stkd/prune/recipe.py: a small model from its file, without the big one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN

from pyg_stkd.nn.models.dgcnn import DGCNN
from pyg_stkd.nn.models.gat import GAT
from pyg_stkd.nn.models.stgcn import STGCN
from pyg_stkd.prune import load_compact, save_compact

EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
X = torch.randn(4, 3)

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "gcn": (lambda: GCN(3, 8, 3, 2, norm="batch_norm", jk="cat"), (X, EDGES)),
    "gat": (lambda: GAT(3, 4, 2, 3, heads=2), (X, EDGES)),
    "dgcnn": (lambda: DGCNN(3, 4, (5, 6, 8), (6,), k=2), (X,)),
    "stgcn": (
        lambda: STGCN(1, [(4, 4, 4)], 2, head_channels=(6, 5), num_steps=5),
        (torch.randn(2, 5, 4, 1), EDGES),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_rebuilds_the_model(tmp_path: Path, prune_at_random: Any, name: str) -> None:
    build, args = MODELS[name]
    small = prune_at_random(build(), 0, 0.5).compact().eval()
    path = tmp_path / "small.safetensors"
    save_compact(small, path)
    again = load_compact(path, build).eval()
    assert torch.equal(again(*args), small(*args))
    assert repr(again) == repr(small)
    for a, b in zip(again.modules(), small.modules(), strict=True):
        public = {k: v for k, v in vars(b).items() if not k.startswith("_")}
        assert all(v == vars(a)[k] for k, v in public.items() if isinstance(v, (int, list, tuple)))
    assert all(p.requires_grad for p in again.parameters())
    assert list(tmp_path.iterdir()) == [path]


def test_dtypes_and_shapes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).to(torch.bfloat16)
    path = tmp_path / "small.safetensors"
    save_compact(model, path)
    again = load_compact(
        path, lambda: nn.Sequential(nn.Linear(2, 9), nn.BatchNorm1d(9), nn.Linear(9, 1))
    )
    for name, value in again.state_dict().items():
        assert value.dtype == model.state_dict()[name].dtype
        assert torch.equal(value, model.state_dict()[name])


def test_the_format_is_that_of_safetensors(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    save_compact(model, tmp_path / "small.safetensors")
    state = library.load_file(tmp_path / "small.safetensors")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())


def test_other_files_and_models_are_refused(tmp_path: Path, prune_at_random: Any) -> None:
    path = tmp_path / "small.safetensors"
    model = GCN(3, 8, 3, 2)
    pruner = prune_at_random(model, 0, 0.5)
    with pytest.raises(ValueError, match=r"must be compacted before it is saved \(got one with"):
        save_compact(model, path)
    assert not path.exists()
    save_compact(pruner.compact(), path)
    with pytest.raises(ValueError, match=r"'build' must make a torch.*GCN, as the file has"):
        load_compact(path, lambda: nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"'build' must make the model of the file \(got others"):
        load_compact(path, lambda: GCN(3, 8, 2, 2))
    for content in (b"x", b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"'path' must be a .*file.*\(got 'small.safetensors'"):
            load_compact(path, lambda: GCN(3, 8, 2, 2))
