from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch_geometric.nn import SAGEConv

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.structure.prunable import (
    check_as_written,
    check_example,
    check_ignored,
    check_parameters,
    keeps_channels,
)


def test_functions_of_single_channels_are_told() -> None:
    assert keeps_channels(torch.relu)
    assert keeps_channels(lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert keeps_channels(lambda x: x.mean(0, keepdim=True).expand(3, 5))  # over nodes
    assert keeps_channels(nn.Dropout(0.5))  # with the same numbers twice
    assert not keeps_channels(lambda x: x.softmax(-1))
    assert not keeps_channels(lambda x: x - x.mean(-1, keepdim=True))
    assert not keeps_channels(lambda x: x[:, :4])
    assert not keeps_channels(lambda x, y: x)  # it takes something else


def test_the_trial_changes_no_inputs_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    assert keeps_channels(lambda x: x.relu_())
    assert torch.equal(state, torch.get_rng_state())


def test_shared_and_lazy_parameters_are_named() -> None:
    lin = nn.Linear(2, 2)
    check_parameters(nn.Sequential(lin, lin))  # one layer called twice
    other = nn.Linear(2, 2)
    other.weight = lin.weight
    with pytest.raises(ValueError, match=r"share parameters \(got '0.weight' and '1.weight'\)"):
        check_parameters(nn.Sequential(lin, other))
    with pytest.raises(ValueError, match=r"must have been run once: 'lin_l\.weight' has no shape"):
        check_parameters(SAGEConv(-1, 2))


def test_only_known_hooks_need_no_example() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    prune.random_unstructured(model[0], "weight", 0.5)
    check_as_written(model)
    handle = model[1].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"where a module has hooks, .* \(got None and '1'\)"):
        check_as_written(model)
    handle.remove()
    check_as_written(model)
    model.forward = lambda x: x
    with pytest.raises(ValueError, match=r"a forward of its own.*and 'the model'"):
        check_as_written(model)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.norm = 0, nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(x)


def test_an_example_is_run_in_eval_mode() -> None:
    model = Counts()
    state = torch.get_rng_state()
    check_example(model, lambda m: m(torch.rand(3, 2)))
    assert model.calls == 1
    assert model.norm.num_batches_tracked == 0
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match=r"'example' must be inputs .*\(got RuntimeError: .*2"):
        check_example(model, lambda m: m(torch.rand(3, 4)))
    with pytest.raises(ValueError, match=r", with 'call' for a model without a forward \(got N"):
        check_example(nn.ModuleList(), lambda m: m(torch.rand(3, 4)))


def test_the_model_itself_is_not_run() -> None:
    model = nn.Sequential(Counts(), nn.Linear(2, 8), nn.Linear(8, 1))
    pruner = Pruner(model, Random(0), keep=0.6, example=(torch.rand(3, 2),))
    pruner.step()
    assert pruner.compact()[0].calls == 0
    assert model[0].calls == 0
    assert model[0].norm.num_batches_tracked == 0


def test_parameters_without_shapes_are_refused() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    with pytest.raises(ValueError, match=r"'model' must have been run once: '0\.weight' has no"):
        check_parameters(model)
    with pytest.raises(ValueError, match=r"'model' must have been run once: '0\.weight' has no"):
        Pruner(model, example=(torch.rand(3, 2),))


def test_names_to_ignore_must_be_there() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    names = {module: name for name, module in model.named_modules()}
    assert check_ignored(names, ["1"]) == ("1",)
    for name in ("2", ""):
        with pytest.raises(ValueError, match=rf"modules of the model: '0', '1' \(got '{name}'\)"):
            check_ignored(names, [name])
