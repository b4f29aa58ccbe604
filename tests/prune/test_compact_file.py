"""Tests of pyg_stkd/prune/recipe.py: a small model from its file, without the big one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT as PyGGAT
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


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(2), persistent=False)
        self.register_buffer("attn_mask", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * self.attn_mask


def test_modules_stay_shared(tmp_path: Path, prune_at_random: Any) -> None:
    def build() -> nn.Module:
        return PyGGAT(3, 8, 2, 2, v2=True, heads=2, share_weights=True)

    small = prune_at_random(build(), 0, 0.5).compact().eval()
    path = tmp_path / "small.safetensors"
    save_compact(small, path)
    again = load_compact(path, build).eval()
    assert torch.equal(again(X, EDGES), small(X, EDGES))
    assert again.convs[0].lin_l is again.convs[0].lin_r
    assert len([*again.parameters()]) == len([*small.parameters()])
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert "convs.0.lin_l.weight" in header
    assert not any("lin_r" in name for name in header)  # on the disk once
    with pytest.raises(ValueError, match=r"\(got others: \['convs.0.lin_r.bias', 'convs.0.lin_r"):
        load_compact(path, lambda: PyGGAT(3, 8, 2, 2, v2=True, heads=2))


def test_buffers_of_the_user(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), Scale())

    model, path = build(), tmp_path / "small.safetensors"
    model[1].scale.fill_(3.0)
    model[1].attn_mask[0] = 0.0
    save_compact(model, path, ignore=["1"])
    again = load_compact(path, build)
    x = torch.randn(4, 2)
    assert torch.equal(again(x), model(x))
    assert again[1].scale.tolist() == [3.0, 3.0]
    assert again[1].attn_mask.tolist() == [0.0, 1.0]
    assert again.state_dict().keys() == model.state_dict().keys()  # as little persistent


def test_buffers_stay_shared(tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 2), Scale(), Scale())
        model[2].scale = model[1].scale
        return model

    path = tmp_path / "small.safetensors"
    save_compact(build(), path, ignore=["1", "2"])
    again = load_compact(path, build)
    assert again[2].scale is again[1].scale
    assert again[2].scale.tolist() == [1.0, 1.0]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    eighth = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1).to(torch.float8_e4m3fn))
    with pytest.raises(ValueError, match=r"'model' must have .*\(got torch.float8_e4m3fn for '1.w"):
        save_compact(eighth, path)

    class Extra(nn.ReLU):
        def get_extra_state(self) -> int:
            return 1

        def set_extra_state(self, state: int) -> None: ...

    with pytest.raises(
        ValueError, match=r"'model' must have no state .*\(got \['1._extra_state'\]"
    ):
        save_compact(nn.Sequential(nn.Linear(2, 3), Extra()), path)
    assert not path.exists()


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
