from __future__ import annotations

import copy
import importlib.util
import pickle
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pyg_stkd.graph import Graph
from pyg_stkd.nn.models.stgcn import STGCN

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1], [1, 2, 0, 0, 1, 2]])


def load_peers() -> ModuleType:
    """Loads the reference layers that the benchmarks use too."""
    path = Path(__file__).parents[3] / "benchmarks" / "st_peers.py"
    spec = importlib.util.spec_from_file_location("st_peers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_equals_the_published_model() -> None:
    peers = load_peers()
    peer = peers.PublishedSTGCN(2, 3, 12, 3, peers.laplacian(EDGES, 5)).double()
    for block in peer.blocks:
        block.graph.operator = block.graph.operator.double()
    model = STGCN(2, 16, 3, num_nodes=5).double()
    peers.copy_stgcn(model, peer)
    x = torch.randn(2, 12, 5, 2, dtype=torch.double)
    expected = peer(x.permute(0, 3, 1, 2))[:, :, 0]
    # The operator of the reference was made in float32.
    torch.testing.assert_close(model(x, EDGES), expected, rtol=1e-5, atol=1e-5)


def test_presets_and_their_parameters() -> None:
    published = STGCN.published(228)
    assert count(published) == 240_577
    assert published.dropout.p == 0.5
    assert count(STGCN.teacher(1, 12)) == 125_772
    assert count(STGCN.student(1, 12)) == 3_940
    assert STGCN.teacher(1, 12).hidden_channels == [(64, 16, 64), (64, 16, 64)]
    assert STGCN.student(1, 12).hidden_channels == [(12, 4, 12), (12, 4, 12)]


@pytest.mark.parametrize("horizons", [1, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("conv", ["cheb", "gcn"])
def test_any_horizons_graph_and_gradients(horizons: int, padding: str, conv: str) -> None:
    model = STGCN(
        2, [(4, 2, 3), (6, 3, 5)], horizons, head_channels=(7, 8), padding=padding, conv=conv
    )
    for nodes, edges in ((5, EDGES), (1, EDGES[:, :0]), (9, Graph(EDGES, 9))):
        out = model(torch.randn(2, 12, nodes, 2), edges)
        assert out.shape == (2, horizons, nodes)
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_samples_and_nodes_do_not_mix_up() -> None:
    model = STGCN(1, 4, 2, temporal_channels=8).double().eval()
    x = torch.randn(3, 12, 5, 1, dtype=torch.double)
    out = model(x, EDGES)
    torch.testing.assert_close(model(x[1:2], EDGES), out[1:2])
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(model(x[:, :, order], order.argsort()[EDGES]), out[..., order])


def test_learns_to_repeat_the_last_value() -> None:
    model = STGCN(1, 4, 1, temporal_channels=8, head_channels=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.randn(32, 12, 5, 1)
    losses = []
    for _ in range(40):
        loss = (model(x, EDGES)[:, 0] - x[:, -1, :, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_copies_and_weights() -> None:
    model = STGCN.student(1, 3)
    x = torch.randn(2, 12, 5, 1)
    out = model(x, EDGES)
    out.sum().backward()
    other = STGCN.student(1, 3)
    other.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        torch.testing.assert_close(twin(x, EDGES), out, rtol=0, atol=0)
    model.reset_parameters()
    assert not torch.equal(model(x, EDGES), out)
    assert repr(model) == "STGCN(1, [(12, 4, 12), (12, 4, 12)], 3, num_steps=12)"


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.full
def test_compiles_whole() -> None:
    model = STGCN.student(1, 3)
    x = torch.randn(2, 12, 5, 1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, EDGES), model(x, EDGES))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"'num_steps' must be at least 9 for 2 blocks .*got 8"):
        STGCN(1, num_steps=8)
    with pytest.raises(ValueError, match="'hidden_channels' must name at least one block"):
        STGCN(1, [])
    with pytest.raises(ValueError, match=r"must have T=12 time steps \(got 11\)"):
        STGCN(1)(torch.zeros(2, 11, 5, 1), EDGES)
    with pytest.raises(ValueError, match="the channels seem to be on axis 1"):
        STGCN(1)(torch.zeros(2, 1, 12, 5), EDGES)


def test_other_layers_may_take_the_place_of_ours() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self, lin: torch.nn.Linear) -> None:
            super().__init__()
            self.inner = lin

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.inner(x)

    edges, x = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.randn(2, 12, 3, 1)
    model = STGCN(1, 4, 12, temporal_channels=8, head_channels=8).eval()
    for name in ("lin1", "lin2"):
        setattr(model, name, Scaled(getattr(model, name)))
        expected = model(x, edges)
        assert expected.requires_grad
        with torch.no_grad():
            torch.testing.assert_close(model(x, edges), expected)


def test_a_graph_for_each_step() -> None:
    model = STGCN(2, 4, 3, temporal_channels=6, head_channels=5).double()
    x, other = torch.randn(2, 12, 4, 2).double(), EDGES.flip(0)
    torch.testing.assert_close(model(x, [EDGES] * 12), model(x, EDGES))
    graphs = [EDGES] * 5 + [other] * 7
    h = model.blocks[0](x, graphs)
    h = model.blocks[1](h, graphs[-h.size(1) :])
    h = model.head_norm(model.head_conv(h))[:, -1]
    expected = model.lin2(torch.relu(model.lin1(h))).transpose(1, 2)
    torch.testing.assert_close(model(x, graphs), expected)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x, graphs), expected)
    assert not torch.allclose(model(x, graphs), model(x, EDGES))
