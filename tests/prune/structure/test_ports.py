"""Tests of pyg_stkd/prune/structure/ports.py: what owns what, and what no rule knows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN, GATConv, SAGEConv

from pyg_stkd.nn.models.gat import GAT
from pyg_stkd.prune import Pruner, Random, register
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import find_rule


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), *layers, nn.Linear(4, 1))


class Scaled(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.factor = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_index_maps_of_attention() -> None:
    ports = Ports(nn.Sequential(GATConv(3, 2, heads=3)))
    rows = ports.owned["0.lin.weight"][0]
    assert rows == rows[:2] * 3  # h * F + c belongs to channel c
    assert ports.owned["0.att_src"][2] == rows[:2]
    heads = Ports(nn.Sequential(GATConv(3, 2, heads=3)), heads=True).owned["0.lin.weight"][0]
    assert heads[0] == heads[1] != heads[2] == heads[3] != heads[4] == heads[5]


def test_inputs_and_outputs_are_frozen() -> None:
    ports = Ports(chain())
    frozen = [ports.find(u) in ports.frozen for u in ports.owned["0.weight"][1]]
    assert frozen == [True, True]
    assert ports.find(ports.owned["1.weight"][0][0]) in ports.frozen
    assert not ports.frozen & {ports.find(u) for u in ports.owned["0.weight"][0]}


def test_unknown_modules_raise_with_their_names_and_two_ways_out() -> None:
    model = chain(Scaled(4), nn.Bilinear(4, 4, 4))
    pattern = r"(?s)1 \(.*Scaled\), 2 \(.*Bilinear\).*register a rule.*ignore=\[name\]"
    with pytest.raises(ValueError, match=pattern):
        Pruner(model, Random())
    with pytest.raises(ValueError, match=r"example=\(x, edge_index\).*Scaled"):
        Pruner(Scaled(2), Random())


def test_an_ignored_module_keeps_both_ends() -> None:
    model = nn.Sequential(nn.Linear(2, 4), Scaled(4), nn.Linear(4, 5), nn.Linear(5, 1))
    pruner = Pruner(model, Random(), keep=0.7, ignore=["1"])
    assert [group.name for group in pruner.groups] == ["2"]
    ignored = Pruner(chain(nn.Linear(4, 4)), Random(), ignore=["0"], keep=0.7)
    assert [group.name for group in ignored.groups] == ["1"]


def test_names_to_ignore_are_checked() -> None:
    with pytest.raises(ValueError, match=r"'ignore' must name modules of the model: '0', '1' "):
        Pruner(chain(), Random(), ignore=["lin"])
    with pytest.raises(TypeError, match="'ignore' must be a list of names"):
        Pruner(chain(), Random(), ignore="0")


def test_a_registered_layer_is_pruned(check_rule: Any) -> None:
    class Mine(Scaled):
        pass

    @register(Mine)
    def mine(ports: Ports, module: Mine, x: Any) -> Any:
        x = ports.sized(x, module.channels)
        ports.own(module, "factor", 0, x)
        ports.attribute(module, "channels", x)
        return x

    model = chain(Mine(4)).double()
    pruner = Pruner(model, Random(0), keep=1.0, rho=0, min_width=1)
    pruner.mask({"0": torch.tensor([1, 0, 1, 1])})
    small = pruner.compact()
    x = torch.randn(3, 2).double()
    torch.testing.assert_close(small(x), model(x))
    assert small[1].channels == small[1].factor.numel() == 3
    assert find_rule(Mine) is mine


def test_a_rule_does_not_hold_for_another_forward() -> None:
    class Other(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.flip(-1))

    class Same(nn.Linear):
        pass

    assert find_rule(Same) is find_rule(nn.Linear)
    with pytest.raises(ValueError, match=r"1 .*Other"):
        Ports(chain(Other(4, 4)))


def test_shared_lazy_and_mismatched_parameters_raise() -> None:
    shared = chain(nn.Linear(4, 4))
    shared[1].weight = nn.Parameter(torch.rand(4, 4))
    shared[1].bias = shared[0].bias
    with pytest.raises(ValueError, match=r"must not share parameters \(got '0.bias' and '1.bias'"):
        Ports(shared)
    with pytest.raises(ValueError, match=r"must have been run once: '1\.lin_l\.weight'"):
        Ports(nn.Sequential(nn.Linear(2, 3), SAGEConv(-1, 3)))
    with pytest.raises(ValueError, match="The rules disagree at '1': it takes 5 channels"):
        Ports(nn.Sequential(nn.Linear(2, 3), nn.Linear(5, 3)))


def test_a_module_that_is_called_twice_ties_its_ends() -> None:
    middle = nn.Linear(4, 4)
    ports = Ports(nn.Sequential(nn.Linear(2, 4), middle, middle, nn.Linear(4, 1)))
    ends = [ports.owned[name][dim] for name, dim in (("1.weight", 0), ("0.weight", 0))]
    assert [ports.find(u) for u in ends[0]] == [ports.find(u) for u in ends[1]]


def test_residuals_tie_and_models_declare_their_wiring() -> None:
    model = GAT(3, 4, 2, num_layers=3, heads=2)
    assert [group.width for group in Pruner(model, Random()).groups] == [4, 4]
    assert [g.width for g in Pruner(model, Random(), "head").groups] == [2, 2]
    tied = Pruner(GCN(3, 6, 3, 2, jk="max"), Random())
    assert [(g.name, g.width) for g in tied.groups] == [("convs.0+convs.1+convs.2", 6)]


def test_spectral_norm_is_no_mask() -> None:
    model = chain(torch.nn.utils.spectral_norm(nn.Linear(4, 4)))
    with pytest.raises(ValueError, match=r"'weight' of '1' must be a parameter or buffer"):
        Ports(model)
    assert (
        not Pruner(chain(*model[1:2], nn.Linear(4, 4)), Random(), ignore=["1"]).groups[0].fixed[0]
    )


@pytest.mark.parametrize("norm", [nn.LayerNorm(4, elementwise_affine=False), nn.InstanceNorm1d(4)])
def test_a_norm_without_weights_that_is_called_twice_ties(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(2, 4), norm, nn.Linear(4, 4), norm, nn.Linear(4, 1))
    assert [g.name for g in Pruner(model, Random()).groups] == ["0+2"]


def test_ignored_layers_may_be_what_no_rule_fits() -> None:
    lstm = SAGEConv(4, 4, aggr="lstm")
    model = nn.Sequential(nn.Linear(2, 4), lstm, nn.Linear(4, 6), nn.Linear(6, 2))
    with pytest.raises(ValueError, match="No rule says what becomes of channels in LSTM"):
        Pruner(model, Random())
    assert [g.name for g in Pruner(model, Random(), ignore=["1"]).groups] == ["2"]


def test_what_has_no_parameters_and_no_rule_keeps_channels_and_blocks_nothing() -> None:
    layers = [nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 5), nn.Flatten(), nn.Linear(5, 3)]
    ports = Ports(nn.Sequential(*layers, nn.LogSoftmax(-1)))
    free = {name: ports.is_free(channels) for name, channels in ports.axes}
    assert free == {"0": True, "2": False, "4": False}
    assert [(reason.kind, reason.why.rpartition(".")[2]) for reason in ports.reasons] == [
        ("rule", "Flatten"),
        ("natural", "LogSoftmax"),
    ]
