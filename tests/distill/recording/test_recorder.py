from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch_geometric.nn import SumAggregation

from pyg_stkd.distill.recording.recorder import Recorder, named_layers


class Twice(nn.Module):
    """Calls one layer twice, the second time by keyword."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 2)

    def forward(self, x):
        return self.lin(input=self.lin(x).relu())


def test_every_call_is_noted_with_its_arguments():
    model, x = Twice(), torch.randn(3, 2)
    recorder = Recorder(model, ["lin", ""])
    recorder.start()
    out = model(x)
    records = recorder.stop()
    first, second = records["lin"]
    assert first.args[0] is x
    assert torch.equal(second.kwargs["input"], first.output.relu())
    assert second.output is out


def test_quiet_unless_started():
    model = Twice()
    recorder = Recorder(model, ["lin"])
    model(torch.ones(1, 2))
    recorder.start()
    assert recorder.stop() == {"lin": []}


def test_nothing_is_kept_after_stop():
    model = Twice()
    recorder = Recorder(model, ["lin"])
    recorder.start()
    out = weakref.ref(model(torch.ones(1, 2)))
    records = recorder.stop()
    assert out() is not None
    del records
    gc.collect()
    assert out() is None


def test_removed_hooks_are_gone():
    model = Twice()
    recorder = Recorder(model, ["lin", ""])
    assert not recorder.removed
    recorder.remove()
    assert recorder.removed
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_go_with_their_recorder():
    model = Twice()
    recorder, other = Recorder(model, ["lin", ""]), Recorder(model, ["lin"])
    assert len(model.lin._forward_hooks) == 2
    del recorder
    gc.collect()
    assert len(model.lin._forward_hooks) == len(model.lin._forward_hooks_with_kwargs) == 1
    assert not model._forward_hooks
    pair = copy.deepcopy((model, other))
    del other
    gc.collect()
    assert not model.lin._forward_hooks
    assert len(pair[0].lin._forward_hooks) == 1
    copied = pair[0]
    del pair
    gc.collect()
    assert not copied.lin._forward_hooks


def test_gradients_of_a_call_are_noted():
    class Half(Twice):
        def forward(self, x):
            with torch.no_grad():
                x = self.lin(x)
            return self.lin(x)

    model = Half()
    recorder = Recorder(model, ["lin"])
    recorder.start()
    model(torch.ones(1, 2))
    assert [record.grad for record in recorder.stop()["lin"]] == [False, True]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_have_hooks_of_their_own(copied):
    model = Twice()
    recorder = Recorder(model, ["lin"])
    recorder.start()
    model(torch.ones(1, 2))  # left running on purpose: a copy must not take the notes along
    other_model, other = copied((model, recorder))
    other_model(torch.ones(1, 2))
    assert len(other.stop()["lin"]) == 0
    other.start()
    other_model(torch.ones(1, 2))
    assert len(other.stop()["lin"]) == 2
    assert len(recorder.stop()["lin"]) == 2
    other.remove()
    assert not other_model.lin._forward_hooks
    assert model.lin._forward_hooks


def test_graph_built_in_a_sub_module_belongs_to_the_call():
    class Chain(nn.Module):
        def forward(self, x):
            node = torch.arange(x.size(0))
            return torch.stack([node, (node + 1) % x.size(0)])

    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.chain = Chain()

        def forward(self, x):
            return x[self.chain(x)[0]]

    model = nn.Sequential(Conv(), nn.Identity())
    recorder = Recorder(model, ["0", "1"])
    recorder.start()
    model(torch.ones(3, 1))
    records = recorder.stop()
    assert records["0"][0].built.tolist() == [[0, 1, 2], [1, 2, 0]]
    assert records["1"][0].built is None


def test_parts_that_return_features_have_no_hook():
    layer = nn.ModuleDict({"lin": nn.Linear(2, 2), "aggr": SumAggregation(), "own": nn.Identity()})
    recorder = Recorder(nn.Sequential(layer), ["0"])
    hooked = [name for name, part in layer.named_children() if part._forward_hooks]
    assert hooked == ["own"]  # which may build a graph
    recorder.remove()
    assert not layer["own"]._forward_hooks


def test_unknown_layer_lists_close_names_first():
    model = nn.ModuleDict({"apple": nn.ReLU(), "convs": nn.ModuleList([nn.ReLU(), nn.ReLU()])})
    match = r"valid names: 'convs.1', 'convs.0', 'convs', 'apple' \(got 'conv.1'\)"
    with pytest.raises(ValueError, match=match):
        Recorder(model, ["conv.1"])
    with pytest.raises(ValueError, match=r"valid names: none \(got 'x'\)"):
        Recorder(nn.ReLU(), ["x"])


def test_shared_modules_have_all_their_names():
    relu = nn.ReLU()
    assert set(named_layers(nn.Sequential(relu, relu))) == {"", "0", "1"}


def test_compiled_models_keep_their_names():
    model = torch.compile(nn.Sequential(Twice()), backend="eager")
    assert set(named_layers(model)) == {"", "0", "0.lin"}
