"""Tests of pyg_stkd/prune/pruner.py: stages, budgets, floors, and what masks survive."""

from __future__ import annotations

import copy
import io
import pickle
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch_geometric.nn import GCN, GIN

from pyg_stkd.prune import KDIS, Magnitude, Pruner, Random, schedule
from pyg_stkd.prune.masked.weights import MaskedWeights
from pyg_stkd.prune.structure.layout import Layout, floor_width

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 0]])
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def gcn() -> GCN:
    return GCN(3, 16, 3, 2, norm="batch_norm")


def losses(model: nn.Module, count: int = 2) -> Iterator[Tensor]:
    assert not model.training
    for i in range(count):
        yield (model(X * (i + 1), EDGES)).square().mean()


def count_left(model: nn.Module) -> int:
    """Counts by hand: what is not masked."""
    masks = {name.removesuffix("_mask"): m for name, m in model.named_buffers() if "_mask" in name}
    return sum(
        int(masks[name.removesuffix("_orig")].sum()) if name.endswith("_orig") else p.numel()
        for name, p in model.named_parameters()
    )


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_compacting_before_the_first_stage_is_told(granularity: Any) -> None:
    model = gcn().eval()
    pruner = Pruner(model, Magnitude(), granularity, keep=0.5)
    with pytest.warns(
        UserWarning, match=r"Nothing is masked, .* as large as the model: step\(\) masks"
    ):
        whole = pruner.compact()
    assert torch.equal(whole(X, EDGES), model(X, EDGES))
    pruner.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.compact()
    other = Pruner(copy.deepcopy(whole), Magnitude(), granularity, keep=0.5)
    other.step(share=0.5)  # of no stage, but masked
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.compact()


@pytest.mark.parametrize("importance", [KDIS(), KDIS(squared=True), Magnitude(), Random(0)])
@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_stages_meet_their_budgets_and_floors(importance: Any, granularity: Any) -> None:
    model = gcn()
    total = sum(p.numel() for p in model.parameters())
    # Without the batch norms, of one dimension, weights alone cannot go below a fifth.
    keep = (0.7, 0.5, 0.4)
    pruner = Pruner(model, importance, granularity, keep, rho=0.3)
    masks: dict[str, Tensor] = {}
    for i, share in enumerate(keep):
        report = pruner.step(losses(model))
        assert model.training
        assert (report.stage, report.target) == (i + 1, share)
        assert report.num_parameters == pruner.num_parameters == count_left(model)
        assert report.share == report.num_parameters / total <= share
        assert 0 < report.prunable_share < 1
        if granularity == "weight":
            assert report.num_parameters == int(share * total)  # exact
        else:
            for width in report.widths.values():
                assert width >= floor_width(16, share, 0.3)
            # One channel more would have been too many.
            assert report.num_parameters > share * total - 16 * 3 - 16
        for name, mask in model.named_buffers():
            if name.endswith("_mask"):
                assert not bool((mask > masks.get(name, torch.ones_like(mask))).any())
                masks[name] = mask.clone()
    with pytest.raises(RuntimeError, match=r"All 3 stages of 'keep' are done: .*step"):
        pruner.step(losses(model))


def test_floors_stop_a_step_and_say_so() -> None:
    pruner = Pruner(gcn(), Magnitude(), keep=0.001)
    with pytest.warns(UserWarning, match=r"The floors of the groups leave .*% of the parameters"):
        report = pruner.step()
    assert set(report.widths.values()) == {2}


def test_the_lowest_scores_go() -> None:
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 1, bias=False))
    model[0].weight.data = torch.tensor([[4.0], [1.0], [3.0], [2.0]])
    model[1].weight.data = torch.tensor([[0.0, 9.0, 0.0, 0.0]])
    Pruner(model, Magnitude(), keep=0.5).step()  # sums 4, 10, 3, 2
    assert model[0].weight_mask.flatten().tolist() == [1, 1, 0, 0]
    assert model[1].weight_mask.flatten().tolist() == [1, 1, 0, 0]


def test_schedules_serve_as_keep() -> None:
    assert Pruner(gcn(), Random(), keep=schedule.geometric(0.25, 2)).keep == (0.5, 0.25)


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_masks_hold_while_training(granularity: Any) -> None:
    model = gcn()
    pruner = Pruner(model, KDIS(), granularity, keep=(0.6, 0.4))
    for _ in range(2):
        pruner.step(losses(model))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        before = pruner.num_parameters
        for _ in range(2):
            optimizer.zero_grad()
            model(X, EDGES).square().sum().backward()
            optimizer.step()
        assert pruner.num_parameters == before
    model.eval()
    small = pruner.compact()
    torch.testing.assert_close(small(X, EDGES), model(X, EDGES), atol=1e-6, rtol=0)
    if granularity == "weight":
        zeros = sum(int((p == 0).sum()) for p in small.parameters() if p.dim() > 1)
        assert zeros == sum(p.numel() for p in model.parameters()) - before


def test_reset_and_rewind_keep_the_masks() -> None:
    model = gcn()
    first = copy.deepcopy(model.state_dict())
    pruner = Pruner(model, Magnitude(), keep=0.5)
    pruner.step()
    model(X, EDGES).sum().backward()
    kept, left = pruner.state_dict()["kept"], pruner.num_parameters
    weight = model.convs[1].lin.weight_orig.detach().clone()
    pruner.reset_parameters()
    drawn = model.convs[1].lin.weight_orig.detach().clone()
    assert not bool((drawn == weight).any())  # the parameter itself, not its product
    assert torch.equal(model.convs[1].lin.weight, drawn * model.convs[1].lin.weight_mask)
    pruner.rewind(first)
    assert torch.equal(model.convs[1].lin.weight_orig, first["convs.1.lin.weight"])
    assert model.norms[0].module.num_batches_tracked == 0
    assert pruner.num_parameters == left
    for name, mask in pruner.state_dict()["kept"].items():
        assert torch.equal(mask, kept[name])
    with pytest.raises(ValueError, match=r"'state' must hold 'convs.0.bias' of shape \[16\]"):
        pruner.rewind({})


def test_survives_ddp(tmp_path: Path) -> None:
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        model = gcn()
        pruner = Pruner(model, Magnitude(), keep=0.5)
        pruner.step()
        parallel = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            parallel(X, EDGES).square().sum().backward()
            optimizer.step()
        small = pruner.compact().eval()
        torch.testing.assert_close(small(X, EDGES), parallel.eval()(X, EDGES))
        del parallel  # before its group: gloo may hang for ever otherwise
    finally:
        dist.destroy_process_group()


def test_states_of_other_models_are_refused() -> None:
    saved = Pruner(gcn(), Random(0), keep=0.5)
    saved.step()
    model = GCN(3, 12, 3, 2)
    other = Pruner(model, Random(0), keep=0.5)
    with pytest.raises(ValueError, match=r"(?s)must be of a model with groups .*16"):
        other.load_state_dict(saved.state_dict())
    with pytest.raises(ValueError, match=r"must be of granularity 'weight' \(got 'channel'\)"):
        Pruner(gcn(), Random(0), "weight").load_state_dict(saved.state_dict())
    weights = Pruner(gcn(), Random(0), "weight", keep=0.5)
    with pytest.raises(ValueError, match="of a model with weights of these shapes"):
        Pruner(model, Random(0), "weight").load_state_dict(weights.state_dict())
    assert not any("mask" in name for name, _ in model.named_buffers())
    assert other.stage == 0


def test_states_load_safely(tmp_path: Path) -> None:
    pruner = Pruner(gcn(), Random(0), keep=0.5)
    pruner.step()
    torch.save(pruner.state_dict(), tmp_path / "pruner.pt")
    again = Pruner(gcn(), Random(0), keep=0.5)
    again.load_state_dict(torch.load(tmp_path / "pruner.pt", weights_only=True))
    assert again.report() == pruner.report()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"keep": (0.5, 0.6)}, r"'keep' must hold shares in \(0, 1\] that fall"),
        ({"granularity": "layer"}, r"'granularity' must be .* \(got 'layer'\)"),
        ({"rho": 2}, r"'rho' must be at least 0 and at most 1 \(got 2\)"),
        ({"min_width": 0}, r"'min_width' must be at least 1 \(got 0\)"),
        ({"granularity": "head"}, r"'model' must have heads that can be pruned \(got GCN"),
        ({"granularity": "weight", "ignore": ["nn"]}, r"'ignore' must name modules"),
    ],
)
def test_options_are_checked(kwargs: dict[str, Any], message: str) -> None:
    model = gcn()
    with pytest.raises(ValueError, match=message):
        Pruner(model, Random(), **kwargs)
    assert model.state_dict().keys() == gcn().state_dict().keys()


def test_types_are_checked() -> None:
    with pytest.raises(TypeError, match=r"'model' must be a Module \(got <function gcn"):
        Pruner(gcn, Random())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'importance' must be an Importance \(got <class"):
        Pruner(gcn(), KDIS)  # type: ignore[arg-type]


def test_models_without_hidden_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have channels that can be pruned \(got Linear"):
        Pruner(nn.Linear(2, 3), Random())
    with pytest.raises(ValueError, match="must have weights that can be pruned"):
        Pruner(nn.BatchNorm1d(3), Random(), "weight")
    assert Pruner(GIN(3, 4, 2, 2), Random()).groups


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_shared_weights_raise(granularity: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    with pytest.raises(ValueError, match="'model' must not share parameters"):
        Pruner(model, Random(0), granularity)


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_a_step_in_inference_mode_leaves_a_model_that_trains(granularity: Any) -> None:
    model = GCN(3, 8, 3, 2, norm="layer_norm")
    with torch.inference_mode():
        Pruner(model, Magnitude(), granularity, keep=0.5).step()
    model(X, EDGES).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_masks_are_read_few_times_a_step(granularity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    for cls, name in ((Layout, "kept"), (MaskedWeights, "_masks")):
        read = getattr(cls, name)

        def counted(*args: Any, read: Any = read) -> Any:
            reads.append(1)
            return read(*args)

        monkeypatch.setattr(cls, name, counted)
    pruner = Pruner(gcn(), Magnitude(), granularity, keep=(0.6, 0.4))
    for _ in range(2):
        reads.clear()
        pruner.step()
        assert len(reads) == 2  # to score what is left, and to report


def test_a_step_of_a_large_model_takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [layer for _ in range(40) for layer in (nn.Linear(200, 200), nn.ReLU())]
    pruner = Pruner(nn.Sequential(*layers, nn.Linear(200, 3)), Magnitude(), keep=0.4)
    scores = pruner._score(None)  # which depends on the score, and on the losses
    monkeypatch.setattr(pruner, "_score", lambda losses: scores)
    start = time.process_time()
    pruner.step()
    assert time.process_time() - start < 1.0


class Own(nn.Module):
    """Followed: there is no rule for its class."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.a, self.norm = 2, nn.Linear(3, 12), nn.LayerNorm(12)
        self.scale, self.out = nn.Parameter(torch.rand(2, 6)), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x)).view(x.size(0), self.heads, -1) * self.scale
        return self.out(h.flatten(1).relu())


COPIES: dict[str, Any] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda pruner: pickle.loads(pickle.dumps(pruner)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("shrunk", [False, True])
def test_a_pruner_with_an_example_can_be_copied_and_pickled(how: str, shrunk: bool) -> None:
    pruner = Pruner(Own(), Magnitude(), keep=(0.8, 0.6), example=(X,), min_width=1)
    pruner.step()
    if shrunk:
        pruner.shrink()
    other = COPIES[how](pruner)
    assert other.model is not pruner.model
    assert other.explain() == pruner.explain()
    assert repr(other) == repr(pruner)
    first = pruner.num_parameters
    other.step()  # both go on, each by itself
    assert other.stage == 2
    assert pruner.num_parameters == first > other.num_parameters
    pruner.step()
    assert other.widths == pruner.widths
    torch.testing.assert_close(other.compact()(X), pruner.compact()(X))
    size = sum(p.numel() for p in pruner.model.parameters())
    assert len(pickle.dumps(pruner)) < 40_000 + 16 * size  # and no second model inside


def test_the_state_of_a_pruner_with_an_example_goes_to_another() -> None:
    torch.manual_seed(0)
    pruner = Pruner(Own(), Random(0), keep=(0.8, 0.5), example=(X,), min_width=1)
    pruner.step()
    buffer = io.BytesIO()
    torch.save(pruner.state_dict(), buffer)
    buffer.seek(0)
    other = Pruner(Own(), Random(0), keep=(0.8, 0.5), example=(X,), min_width=1)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert (other.stage, other.widths) == (1, pruner.widths)
    other.model.load_state_dict(pruner.model.state_dict())
    torch.testing.assert_close(other.compact()(X), pruner.compact()(X))
    state = pruner.state_dict()
    state["kept"] = {name: mask[:-1] for name, mask in state["kept"].items()}
    with pytest.raises(ValueError, match="'state' must be of a model with groups of these widths"):
        other.load_state_dict(state)
