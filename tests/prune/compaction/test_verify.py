"""Nothing unproved leaves the house: masked and compacted are compared on the example."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN, TransformerConv
from torch_geometric.nn import Sequential as Chain

from pyg_stkd.prune import Magnitude, Pruner, Random, register
from pyg_stkd.prune.compaction.verify import Comparison, difference
from pyg_stkd.prune.structure import registry
from pyg_stkd.prune.structure.example import Example


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.b(x).relu(), self.a(x).relu()], dim=-1))


@pytest.fixture
def rules() -> Iterator[None]:
    before = dict(registry._RULES)
    yield
    registry._RULES.clear()
    registry._RULES.update(before)


@pytest.mark.usefixtures("rules")
def test_a_division_by_the_width_is_seen() -> None:
    @register(TransformerConv)
    def transformer(ports: Any, conv: Any, x: Any) -> Any:
        x, out = ports.sized(x, conv.lin_key.in_channels), ports.fresh(conv.out_channels)
        for name in ("lin_key", "lin_query", "lin_value", "lin_skip"):
            lin = getattr(conv, name)
            ports.own(lin, "weight", 0, out), ports.own(lin, "weight", 1, x)
            ports.own(lin, "bias", 0, out)
        ports.attribute(conv, "out_channels", out)
        return out

    torch.manual_seed(0)
    x, edge_index = torch.randn(20, 8), torch.randint(20, (2, 60))
    layers = [(TransformerConv(8, 32), "x, e -> x"), (TransformerConv(32, 4), "x, e -> x")]
    pruner = Pruner(Chain("x, e", layers), Magnitude(), keep=0.5, example=(x, edge_index))
    with pytest.raises(ValueError, match=r"must compute the same on 'example'.*'module_0"):
        pruner.step()


def test_hooks_that_change_outputs_are_refused() -> None:
    x, edge_index = torch.randn(20, 8), torch.randint(20, (2, 60))
    model = GCN(8, 16, 3, 4)
    model.convs[0].register_forward_hook(lambda module, args, out: out.softmax(-1))
    with pytest.raises(ValueError, match=r"'example' must be given .* hooks.*'convs\.0'"):
        Pruner(model, Magnitude())
    with pytest.raises(ValueError, match=r"the same without its hooks.*'convs\.0'"):
        Pruner(model, Magnitude(), example=(x, edge_index))
    quiet = GCN(8, 16, 3, 4)
    quiet.convs[0].register_forward_hook(lambda module, args, out: None)
    assert Pruner(quiet, Magnitude(), example=(x, edge_index)).groups


def test_a_forward_set_on_an_instance_is_refused_or_followed() -> None:
    model = GCN(8, 16, 3, 4)
    model.convs[0].forward = lambda x, edge_index, **kwargs: torch.ones(x.size(0), 16)
    with pytest.raises(ValueError, match=r"'example' must be given .* forward of its own"):
        Pruner(model, Magnitude())


def test_differences_of_two_models_are_named() -> None:
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)) for _ in range(2))
    example = Example((torch.randn(5, 2),))
    assert difference(a, a, example) is None
    b.load_state_dict(a.state_dict())
    with torch.no_grad():
        b[2].bias += 1.0
    found = difference(a, b, example)
    assert found is not None
    assert found.layer == "2"
    assert "in eval mode outputs differ by" in str(found)
    short = difference(a, nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(2, 1)), example)
    assert short is not None
    assert "RuntimeError" in short.what


def test_random_state_and_modes_stay() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
    model[1].eval()
    state, before = torch.get_rng_state(), model[2].running_mean.clone()
    pruner = Pruner(model, Random(0), keep=0.6, example=(torch.randn(5, 2),))
    pruner.step()
    pruner.compact()
    assert [module.training for module in model] == [True, False, True, True]
    torch.set_rng_state(state)
    assert torch.equal(model[2].running_mean, before)


@pytest.mark.parametrize(("noise", "passes"), [(1e-6, True), (1e-2, False)])
def test_what_varies_by_itself_is_compared_with_that(noise: float, passes: bool) -> None:
    calls = count()

    class Drawn(Branches):
        def forward(self, x: Tensor) -> Tensor:  # as by a library with random numbers of its own
            return super().forward(x) + noise * next(calls)

    torch.manual_seed(0)
    model, example = Drawn(), Example((torch.randn(20, 8),))
    found = difference(model, copy.deepcopy(model), example, tolerance=1e-9)
    assert (found is None) == passes
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.out.bias.add_(0.5)
    assert difference(model, other, example, tolerance=1e-9) is not None


class InTrainMode(nn.Module):
    """Mixes channels in train mode alone, so that a channel that is gone is no zero there."""

    def __init__(self, inside: str = "centred") -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.inside = inside
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        x = self.b(self.a(x).relu())
        if self.training and self.inside == "dropout":
            x = nn.functional.dropout(x)
        elif self.training and self.inside == "centred":
            x = x - x.mean(dim=-1, keepdim=True)
        elif self.training and self.inside == "floors":
            x = 2 * x if x.size(-1) > 1 else 3 * x
        return self.out(x.relu())


@pytest.mark.filterwarnings("ignore:These channels are kept")
def test_train_mode_is_compared_at_the_floors_too() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 8)
    pruner = Pruner(InTrainMode(), Random(0), keep=0.6, example=(x,))
    (row,) = [row for row in pruner.explain() if not row.is_natural]
    assert row.name == "b"
    assert row.why == "in train mode its result depends on channels that are gone"
    assert set(pruner.widths) == {"a"}
    # Where one channel is left, which no random half is: at the floors alone.
    pruner = Pruner(InTrainMode("floors"), Random(0), keep=0.6, example=(x,))
    assert set(pruner.widths) == {"a"}


@pytest.mark.parametrize(
    ("inside", "trains"), [("none", [0, 0]), ("dropout", [1, 0]), ("centred", [1, 2])]
)
def test_train_mode_is_run_again_only_where_it_tells_more(inside: str, trains: list[int]) -> None:
    torch.manual_seed(0)
    masked = InTrainMode(inside)
    small = copy.deepcopy(masked)
    comparison = Comparison(Example((torch.randn(20, 8),)))
    for _ in range(2):
        assert comparison.difference(masked, small) is None
    assert [small.modes.count(True), masked.modes.count(True)] == trains


@pytest.mark.parametrize("wrong", [False, True])
def test_random_numbers_of_train_mode_hide_nothing(wrong: bool) -> None:
    class Drops(Branches):
        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.dropout(self.a(x).relu(), 0.5, self.training)
            x = torch.cat([self.b(x[:, :8]) * (1.0 + torch.rand_like(x)), x], dim=-1)
            return self.out(x) * (1.5 if self.training and self.is_wrong else 1.0)

    torch.manual_seed(0)
    masked: Any = Drops()
    masked.is_wrong = False
    small = copy.deepcopy(masked)
    small.is_wrong = wrong
    found = difference(masked, small, Example((torch.randn(20, 8),)))
    if wrong:
        assert str(found).startswith("in train mode outputs differ by")
    else:
        assert found is None


def test_what_is_drawn_even_so_is_compared_by_its_shape() -> None:
    class Shuffles(nn.Linear):
        cut, sign = 4, 1.0

        def forward(self, x: Tensor) -> Tensor:
            x = super().forward(x)
            if not self.training:
                return x
            return self.sign * x[torch.randperm(len(x) + self.cut) % len(x)]

    masked = Shuffles(8, 4)
    small = copy.deepcopy(masked)
    example = Example((torch.randn(20, 8),))
    assert difference(masked, small, example) is None
    small.sign = -1.0  # as many numbers are drawn: they are the same ones
    assert "in train mode outputs differ by" in str(difference(masked, small, example))
    small.cut = 3  # other numbers are drawn, of which nothing can be said
    assert str(difference(masked, small, example)) == (
        "in train mode outputs of shape [24, 4] become [23, 4]"
    )


class Steep(nn.Sequential):
    """In train mode as steep as it is told."""

    slope = 1e16

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return (self.slope * x).sin() if self.training else x


def test_what_the_last_bit_decides_is_no_difference_in_train_mode_as_far_as_it_is_small() -> None:
    torch.manual_seed(0)
    masked, example = Steep(nn.Linear(8, 4)).double(), Example((torch.randn(9, 8).double(),))
    small = copy.deepcopy(masked)
    masked.slope = small.slope = 1e10
    with torch.no_grad():
        small[0].bias.add_(2e-16)
    assert difference(masked, small, example) is None
    with torch.no_grad():
        small[0].bias.add_(1e-9)  # which eval mode does not tell from rounding
    assert "in train mode" in str(difference(masked, small, example))
    with torch.no_grad():
        small[0].bias.add_(1e-3)
    assert "in eval mode" in str(difference(masked, small, example))
    with torch.no_grad():
        small[0].bias.copy_(masked[0].bias)
    masked.slope = small.slope = 1e16
    small.register_forward_hook(lambda module, args, out: -out if module.training else out)
    assert "in train mode" in str(difference(masked, small, example))  # nothing proves it


class Chaotic(nn.Module):
    """So many batch norms that train mode makes another output of another last bit."""

    def __init__(self, layers: int, embeds: bool = False) -> None:
        super().__init__()
        self.inputs = nn.Embedding(20, 8) if embeds else nn.Identity()
        self.lins = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(8) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x)
        for lin, norm in zip(self.lins, self.norms, strict=True):
            x = norm(lin(x)).relu()
        return x


def rounded(model: Any) -> Any:
    """Returns a model of other last bits."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.lins.parameters():
            parameter.mul_(1.0 + 1e-15)
    return other


@pytest.mark.parametrize(
    ("layers", "least", "wrong"),
    [
        (100, 1e-9, ""),
        (100, 1e-9, "norms.50"),
        *(
            pytest.param(200, 1e-2, wrong, marks=pytest.mark.full)
            for wrong in ("", "lins.2", "norms.50", "norms.98")
        ),
    ],
)
def test_a_fault_of_train_mode_does_not_hide_where_rounding_is_blown_up(
    layers: int, least: float, wrong: str
) -> None:
    torch.manual_seed(0)
    masked, x = Chaotic(layers).double(), torch.randn(20, 8, dtype=torch.float64)
    a, b, small = copy.deepcopy(masked), rounded(masked), rounded(masked)
    assert float((a.train()(x) - b.train()(x)).detach().abs().max()) > least
    if wrong:
        layer = small.get_submodule(wrong)
        layer.register_forward_hook(lambda m, args, out: 1.01 * out + 0.01 if m.training else out)
    found = difference(masked, small, Example((x,)))
    assert (found is not None) == bool(wrong)
    if found is not None:
        assert found.what.startswith("in train mode outputs differ by")
    assert {norm.eps for model in (masked, small) for norm in model.norms} == {1e-5}


@pytest.mark.full
def test_rounding_is_blown_up_where_inputs_are_whole_numbers_too() -> None:
    torch.manual_seed(0)
    masked = Chaotic(200, embeds=True).double()
    assert difference(masked, rounded(masked), Example((torch.arange(20),))) is None
