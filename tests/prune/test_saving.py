"""Tests of pyg_stkd/prune/saving.py: a small model from its file, without the big one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch_geometric.nn import GAT as PyGGAT
from torch_geometric.nn import GCN, GCNConv

from pyg_stkd.nn.models.dgcnn import DGCNN
from pyg_stkd.nn.models.gat import GAT
from pyg_stkd.nn.models.stgcn import STGCN
from pyg_stkd.prune import Magnitude, Pruner, load_compact, save_compact

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
    double = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, dtype=torch.complex128))
    with pytest.raises(ValueError, match=r"'model' must have .*\(got torch.complex128, torch.floa"):
        save_compact(double, path)

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
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    save_compact(model, tmp_path / "small.safetensors")
    state = load_file(tmp_path / "small.safetensors")
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
    with pytest.raises(ValueError, match=r"'build' must make a torch.*GCN, as 'small.safe.*' has"):
        load_compact(path, lambda: nn.Linear(2, 3))
    with pytest.raises(
        ValueError, match=r"'build' must make the model of 'small.safetensors' \(got oth"
    ):
        load_compact(path, lambda: GCN(3, 8, 2, 2))
    whole = path.read_bytes()
    contents = (b"", b"x", b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]", whole[:-1], whole[:99])
    for content in (*contents, whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"'path' must be a .*file.*\(got 'small.safetensors'"):
            load_compact(path, lambda: GCN(3, 8, 2, 2))
    with pytest.raises(FileNotFoundError, match=r"'path' must be a file \(got '/nowhere/x'\)"):
        load_compact("/nowhere/x", nn.Identity)


def chain(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))


def write(path: Path, state: dict[str, Tensor], recipe: Any) -> None:
    """Writes the format by hand, as the first version did, with the tensors in their own order."""
    header: dict[str, Any] = {"__metadata__": {"recipe": json.dumps(recipe)}}
    blobs = b""
    for name, tensor in state.items():
        blob = tensor.detach().numpy().tobytes()
        places = [len(blobs), len(blobs) + len(blob)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": places}
        blobs += blob
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + blobs)


def first_recipe(model: nn.Module, *attributes: Any) -> dict[str, Any]:
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    return {"format": "pyg_stkd.compact.1", "class": name, "attributes": [*attributes]}


def test_files_of_the_first_version_load(tmp_path: Path) -> None:
    path, small = tmp_path / "old.safetensors", chain(3)
    widths = [["0", "in_features", 2], ["0", "out_features", 3], ["2", "in_features", 3]]
    write(path, small.state_dict(), first_recipe(small, *widths))
    again = load_compact(path, chain)
    assert torch.equal(again(X[:, :2]), small(X[:, :2]))
    assert repr(again) == repr(small)


def test_files_of_the_first_version_with_modules_without_rules_load(tmp_path: Path) -> None:
    def build(width: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 2), nn.Bilinear(2, 2, 2))

    path, small = tmp_path / "old.safetensors", build(3)
    recipe = first_recipe(small, ["0", "out_features", 3], ["1", "in_features", 3])
    write(path, small.state_dict(), recipe)
    assert load_compact(path, build)[0].out_features == 3
    recipe["attributes"].append(["0", "forward", 5])
    write(path, small.state_dict(), recipe)
    with pytest.raises(ValueError, match=r"'old.safetensors': '0.forward' is no width"):
        load_compact(path, build)
    write(path, build(9).state_dict(), recipe | {"attributes": []})
    with pytest.raises(ValueError, match=r"0 of '0.weight' must be at most 8, not 9"):
        load_compact(path, build)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s, r: s.update({"0.weight": s["0.weight"].t()}),
            "1 of '0.weight' must be at most 2, not 3",
        ),
        (lambda s, r: s.update({"0.bias": torch.ones(2)}), "which the other widths contradict"),
        (lambda s, r: s.update({"0.bias": torch.ones(3, 1)}), r"'0.bias' must be as \[8\] of tor"),
        (lambda s, r: s.update({"2.bias": torch.ones(0)}), "of '2.bias' must be 1, not 0"),
        (lambda s, r: r["attributes"].append(["0", "out_features", 77]), "'0.out_features' is 77"),
        (lambda s, r: r["attributes"].append(["0", "out_features", [3]]), "must be a number, not"),
        (lambda s, r: r["attributes"].append(["0", "out_features", "3"]), "features' is no width"),
        (lambda s, r: r["attributes"].append(["0", "forward", 5]), "'0.forward' is no width"),
        (lambda s, r: r["attributes"].append(["0", "no_such", 5]), "'0.no_such' is no width"),
        (lambda s, r: r["attributes"].append(["7", "out_features", 5]), "'7.out_feat.* no width"),
        (lambda s, r: r["attributes"].append(["0", "training", 1]), r"'0.training'\] are no width"),
        (lambda s, r: r["attributes"].append(["0"]), ""),
        (lambda s, r: r["attributes"].append(5), ""),
        (lambda s, r: r.pop("attributes"), ""),
        (lambda s, r: r.pop("class"), ""),
        (lambda s, r: r.update(format="pyg_stkd.compact.9"), ""),
        (lambda s, r: r.update(ignore=[5]), ""),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path, small = tmp_path / "small.safetensors", chain(3)
    state, recipe = dict(small.state_dict()), first_recipe(small)
    change(state, recipe)
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    write(path, state, recipe)
    with pytest.raises(ValueError, match=rf"'path' .*got 'small.safetensors'.*{message}"):
        load_compact(path, chain)


@pytest.mark.parametrize("places", [[0, 12], [-28, -16], [0, 400], [4, 28]])
def test_places_that_overlap_or_lie_outside_are_refused(tmp_path: Path, places: Any) -> None:
    path, small = tmp_path / "small.safetensors", chain(3)
    write(path, small.state_dict(), first_recipe(small))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["0.bias"]["data_offsets"] = places
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(ValueError, match=r"must be a file of save_compact \(got 'small.safetens"):
        load_compact(path, chain)


def test_widths_that_are_sums_must_fit(tmp_path: Path, prune_at_random: Any) -> None:
    def build() -> nn.Module:
        return GCN(3, 8, 3, 2, jk="cat")

    path, small = tmp_path / "small.safetensors", prune_at_random(build(), 0, 0.5).compact()
    width = small.lin.in_features
    small.lin = nn.Linear(width - 1, 2)
    state = dict(small.state_dict())
    write(path, state, first_recipe(small))
    with pytest.raises(ValueError, match="which the other widths contradict"):
        load_compact(path, build)
    small.lin = nn.Linear(width, 2)
    write(path, dict(small.state_dict()), first_recipe(small))
    load_compact(path, build)


def test_without_the_package_both_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = tmp_path / "small.safetensors"
    with pytest.raises(ImportError, match=r"save_compact needs .* pip install 'pyg-stkd\[safe\]'"):
        save_compact(chain(), path)
    path.write_bytes(b"")
    with pytest.raises(ImportError, match=r"load_compact needs .* pip install 'pyg-stkd\[safe\]'"):
        load_compact(path, chain)


def test_views_of_one_tensor_are_saved(tmp_path: Path) -> None:
    small, path = chain(4), tmp_path / "small.safetensors"
    both = torch.rand(2, 4)
    small[0].bias = nn.Parameter(both[0])
    small[2].weight = nn.Parameter(both[1:])
    save_compact(small, path)
    again = load_compact(path, chain)
    assert torch.equal(again(X[:, :2]), small(X[:, :2]))


class Net(nn.Module):
    """A model without a rule, whose own code reads a width."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.width = width
        self.conv1 = GCNConv(3, width)
        self.conv2 = GCNConv(width, width)
        self.lin = nn.Linear(2 * width, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        first = self.conv1(x, edge_index).relu()
        second = self.conv2(first, edge_index).relu()
        return self.lin(torch.cat([first, second], dim=-1))


def test_models_of_ones_own_are_followed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, example = tmp_path / "own.safetensors", (X, EDGES)
    pruner = Pruner(Net(), Magnitude(), keep=0.5, example=example)
    pruner.step()
    small = pruner.compact().eval()
    assert small.conv1.out_channels < 12
    with pytest.raises(ValueError, match="'example' must be given for a model class without a r"):
        save_compact(small, path)
    save_compact(small, path, example=example)
    again = load_compact(path, Net).eval()
    assert torch.equal(again(X, EDGES), small(X, EDGES))
    assert repr(again) == repr(small)
    assert again.width == small.width
    with safe_open(path, framework="pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    state = small.state_dict()
    write(path, state, recipe)
    load_compact(path, Net)
    wider = dict(state)
    wider["lin.weight"] = torch.ones(2, state["lin.weight"].size(1) - 1)
    write(path, wider, recipe)
    with pytest.raises(ValueError, match=r"'own.safetensors'.*which the other widths contradict"):
        load_compact(path, Net)
    for widths in (5, [5], [[["conv1.bias", 0], [[0, "a"]], 0]], [[["conv1.bias", 7], [], 0]]):
        write(path, state, recipe | {"widths": widths})
        with pytest.raises(ValueError, match=r"'path' must be .*'own.safetensors'"):
            load_compact(path, Net)


def test_a_class_of_a_script_is_found_again_in_a_module(tmp_path: Path) -> None:
    """A script saves a class of __main__, and what loads it imports that class."""
    first, second = (
        type("Net", (nn.Sequential,), {"__module__": module}) for module in ("__main__", "mine")
    )
    small = first(nn.Linear(2, 3), nn.Linear(3, 1))
    x = torch.ones(1, 2)
    save_compact(small, tmp_path / "small.safetensors", example=(x,))
    build = lambda: second(nn.Linear(2, 8), nn.Linear(8, 1))  # noqa: E731
    again = load_compact(tmp_path / "small.safetensors", build)
    assert type(again) is second
    assert torch.equal(again(x), small(x))
    other = type("Other", (nn.Sequential,), {})
    with pytest.raises(ValueError, match=r"'build' must make a __main__\.Net, as .*\.Other\)"):
        load_compact(tmp_path / "small.safetensors", lambda: other(*build()))


def test_build_is_a_function(tmp_path: Path) -> None:
    for build in (nn.Linear(2, 3), "Net"):
        with pytest.raises(
            TypeError, match=r"'build' must be a function that makes.*\(got (Linear|str)\)"
        ):
            load_compact(tmp_path / "small.safetensors", build)  # type: ignore[arg-type]
