from __future__ import annotations

import copy
import importlib.util
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch.autograd import gradcheck

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
from pyg_stkd.nn.sequence.st_conv import STConv

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1], [1, 2, 0, 0, 1, 2]])
WEIGHT = torch.rand(6, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def load_peers() -> ModuleType:
    """Loads the reference layers that the benchmarks use too."""
    path = Path(__file__).parents[3] / "benchmarks" / "st_peers.py"
    spec = importlib.util.spec_from_file_location("st_peers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PEERS = load_peers()


def sequence(width: int = 3, nodes: int = 5, steps: int = 7) -> Tensor:
    return torch.randn(2, steps, nodes, width, dtype=torch.double, requires_grad=True)


def assert_same(block: STConv, peer: torch.nn.Module, out: Tensor, expected: Tensor, x: Tensor):
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    (a,) = torch.autograd.grad(out, x, seed, retain_graph=True)
    (b,) = torch.autograd.grad(expected, x, seed, retain_graph=True)
    torch.testing.assert_close(a, b)
    out.backward(seed)
    expected.backward(seed)
    # Sums of all gradients: the layouts of the weights differ.
    total = sum(p.grad.sum() for p in block.parameters())
    torch.testing.assert_close(total, sum(p.grad.sum() for p in peer.parameters()))


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("widths", [(8, 4, 8), (4, 8, 4), (2, 2, 6)])
@pytest.mark.parametrize("K", [1, 3])
def test_equals_the_published_block(
    propagation: str, weight: Tensor | None, widths: tuple[int, int, int], K: int
) -> None:
    operator = PEERS.laplacian(EDGES, 5, None if weight is None else weight.float())
    operator = cheb_operator(EDGES, weight, 5, dtype=torch.double).to_dense() + 0 * operator
    peer = PEERS.PublishedBlock(3, widths, 3, K, operator).double()
    block = STConv(
        3, widths[1], widths[2], 3, K, temporal_channels=widths[0], num_nodes=5,
        propagation=propagation,
    ).double()  # fmt: skip
    PEERS.copy_published(block, peer)
    x = sequence()
    expected = peer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert_same(block, peer, block(x, EDGES, weight), expected, x)


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_equals_the_block_of_pyg_temporal(propagation: str, weight: Tensor | None) -> None:
    peer = PEERS.TemporalBlock(5, 3, 4, 6, 3, 3).double()
    block = STConv.pyg_temporal(5, 3, 4, 6, propagation=propagation).double()
    PEERS.copy_temporal(block, peer)
    x = sequence()
    assert_same(block, peer, block(x, EDGES, weight), peer(x, EDGES, weight), x)
    block.eval(), peer.eval()
    torch.testing.assert_close(block(x, EDGES), peer(x, EDGES))


def test_our_copy_of_pyg_temporal_is_faithful() -> None:
    module = PEERS.pyg_temporal()
    if module is None:
        pytest.skip("PyTorch Geometric Temporal is not installed")
    theirs = module.STConv(5, 3, 4, 6, 3, 3).double()
    ours = PEERS.TemporalBlock(5, 3, 4, 6, 3, 3).double()
    ours.load_state_dict(theirs.state_dict())
    x = sequence()
    torch.testing.assert_close(ours(x, EDGES, WEIGHT), theirs(x, EDGES, WEIGHT))


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: pyg.GCNConv(a, b),
        lambda a, b: pyg.SAGEConv(a, b),
        lambda a, b: pyg.GATConv(a, b, heads=2, concat=False),
        lambda a, b: pyg.ChebConv(a, b, 2),
    ],
)
@pytest.mark.parametrize("residual", [True, False])
def test_runs_any_layer_of_pyg(make, residual: bool) -> None:
    block = STConv(3, 4, 6, conv=make, residual=residual, norm=None).double()
    x = sequence()
    h = block.temporal1(x)
    h = block.align(h) if residual else h
    steps = [torch.stack([block.conv(h[b, t], EDGES) for t in range(5)]) for b in range(2)]
    u = torch.stack(steps) + (h if residual else 0.0)
    torch.testing.assert_close(block(x, EDGES), block.temporal2(u.relu()))
    torch.testing.assert_close(block(x, Graph(EDGES, 5)), block.temporal2(u.relu()))


def test_gcn_equals_the_layer_of_pyg() -> None:
    ours = STConv(3, 4, 6, conv="gcn").double()
    theirs = copy.deepcopy(ours)
    theirs.conv = pyg.GCNConv(4, 4).double()
    with torch.no_grad():
        theirs.conv.lin.weight.copy_(ours.conv.lin.weight)
    x = sequence()
    torch.testing.assert_close(ours(x, EDGES, WEIGHT), theirs(x, EDGES, WEIGHT))


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
@pytest.mark.parametrize("nodes", [1, 4])
def test_no_edges_and_one_node(propagation: str, nodes: int) -> None:
    block = STConv(3, 4, 6, propagation=propagation).double()
    x = sequence(nodes=nodes)
    out = block(x, EDGES[:, :0])
    # Without edges the filter is W_0 - W_2 in each node: nodes do not meet before the norm.
    h = block.align(block.temporal1(x))
    u = h @ (block.conv.lins[0].weight - block.conv.lins[2].weight).t() + block.conv.bias + h
    torch.testing.assert_close(out, block.norm(block.temporal2(u.relu())))
    out.sum().backward()


@pytest.mark.parametrize("options", [{}, {"gate": "pgt", "residual": False}, {"norm": None}])
def test_gradcheck(options: dict) -> None:
    block = STConv(2, 2, 3, 2, 3, **options).double()
    x = torch.randn(1, 4, 3, 2, dtype=torch.double, requires_grad=True)
    weight = torch.rand(3, dtype=torch.double, requires_grad=True)
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    assert gradcheck(lambda x, w: block(x, edges, w), (x, weight))


@pytest.mark.parametrize("norm", ["layer", "batch", None])
def test_axes_strides_and_padding(norm: str | None) -> None:
    block = STConv(3, 4, 6, norm=norm, num_nodes=5, padding="same").double()
    x = torch.randn(2, 3, 9, 5, dtype=torch.double).permute(0, 2, 3, 1)
    out = block(x, EDGES)
    assert out.shape == (2, 9, 5, 6)
    torch.testing.assert_close(out, block(x.contiguous(), EDGES))
    if norm == "layer":
        mean = out.mean((2, 3))
        torch.testing.assert_close(mean, torch.zeros_like(mean))


def test_nodes_may_be_renamed() -> None:
    block = STConv(3, 4, 6).double()
    x, order = sequence(), torch.tensor([3, 1, 4, 0, 2])
    renamed = torch.argsort(order)[EDGES]
    torch.testing.assert_close(
        block(x[:, :, order], renamed, WEIGHT), block(x, EDGES, WEIGHT)[:, :, order]
    )


def test_bfloat16_and_autocast() -> None:
    block = STConv(4, 4, 4)
    x = torch.randn(2, 6, 5, 4)
    expected = block(x, EDGES)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = block(x, EDGES)
    torch.testing.assert_close(mixed.float(), expected, rtol=0.1, atol=0.1)
    half = copy.deepcopy(block).bfloat16()(x.bfloat16(), EDGES)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("propagation", "prepared"),
    [
        ("sparse", True),
        pytest.param("sparse", False, marks=pytest.mark.full),
        pytest.param("dense", True, marks=pytest.mark.full),
        pytest.param("dense", False, marks=pytest.mark.full),
    ],
)
def test_compiles_whole(propagation: str, prepared: bool) -> None:
    block = STConv(3, 4, 6, propagation=propagation)
    x = torch.randn(2, 6, 5, 3, requires_grad=True)
    edges = cheb_operator(EDGES, None, 5, propagation=propagation) if prepared else EDGES
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    out, expected = compiled(x, edges), block(x, edges)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    (a,) = torch.autograd.grad(out, x, seed)
    (b,) = torch.autograd.grad(expected, x, seed)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("conv", ["cheb", "gcn", "pyg"])
def test_a_graph_for_each_step(conv: str, padding: Any) -> None:
    make: Any = {"pyg": lambda a, b: pyg.GraphConv(a, b)}.get(conv, conv)
    block = STConv(3, 4, 5, conv=make, padding=padding).double()
    x = sequence(steps=8)
    other = torch.tensor([[0, 1, 2], [4, 4, 3]])
    graphs = [EDGES, EDGES, other, EDGES, other, other, EDGES, other]
    weights = [WEIGHT if edges is EDGES else WEIGHT[:3] for edges in graphs]
    for train in (True, False):
        block.train(train)
        with torch.set_grad_enabled(train):
            out = block(x, graphs, weights)
            # A window is filtered on the graph of its last step.
            h = block.temporal1(x)
            h = block.align(h) if block.align is not None else h
            steps = range(8 - h.size(1), 8)
            parts = [
                torch.relu(block._graph(h[:, i : i + 1], graphs[t], weights[t]))
                for i, t in enumerate(steps)
            ]
            expected = block.norm(block.temporal2(torch.cat(parts, dim=1)))
            torch.testing.assert_close(out, expected)
            torch.testing.assert_close(block(x, [EDGES] * 8), block(x, EDGES))
    assert not torch.allclose(block(x, graphs), block(x, EDGES))
    with pytest.raises(
        ValueError, match=r"'edge_index' must have one item .* 8 steps, .*\(got 2\)"
    ):
        block(x, graphs[:2])
    with pytest.raises(ValueError, match=r"'edge_weight' must have one item .*\(got Tensor\)"):
        block(x, graphs, WEIGHT)


def test_copies_and_weights() -> None:
    block = STConv(3, 4, 6, num_nodes=5)
    x = torch.randn(1, 6, 5, 3)
    out = block(x, EDGES)
    out.sum().backward()
    other = STConv(3, 4, 6, num_nodes=5)
    other.load_state_dict(block.state_dict())
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block)), other):
        torch.testing.assert_close(twin(x, EDGES), out, rtol=0, atol=0)
    block.reset_parameters()
    assert not torch.equal(block(x, EDGES), out)
    assert (
        repr(block) == "STConv(3, 4, 6, kernel_size=3, conv=ChebConv(4, 4, K=3, normalization=sym))"
    )


def test_dropout_only_in_training() -> None:
    block = STConv(3, 4, 6, dropout=0.5)
    x = torch.randn(1, 6, 5, 3)
    assert (block(x, EDGES) == 0).float().mean() > 0.2
    assert (block.eval()(x, EDGES) == 0).sum() == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((7, 5, 3), r"\[B, T, N, C\] \(batch, time, nodes, channels\)"),
        ((2, 3, 7, 5), "the channels seem to be on axis 1"),
        ((2, 4, 5, 3), r"at least 5 time steps for two windows of kernel_size=3 \(got 4\)"),
        ((2, 7, 4, 3), r"N=5 nodes, the norm's num_nodes \(got 4\)"),
    ],
)
def test_bad_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        STConv(3, 4, 6, num_nodes=5)(torch.zeros(shape), EDGES[:, :0])


def test_bad_arguments() -> None:
    x = torch.zeros(1, 5, 3, 3)
    with pytest.raises(IndexError, match=r"below the 3 source nodes \(got 3\)"):
        STConv(3, 4, 6)(x, EDGES)
    with pytest.raises(IndexError, match=r"below the 3 source nodes \(got 3\)"):
        STConv(3, 4, 6, conv=pyg.GCNConv)(x, EDGES)
    with pytest.raises(ValueError, match=r"must be \(3, 3\).*\(got \(5, 5\)\)"):
        STConv(3, 4, 6)(x, Graph(EDGES, 5))
    with pytest.raises(ValueError, match=r"'edge_weight' must be None for SAGEConv"):
        STConv(3, 4, 6, conv=pyg.SAGEConv)(torch.zeros(1, 5, 5, 3), EDGES, WEIGHT)
    with pytest.raises(TypeError, match="must hold edges for GCNConv"):
        STConv(3, 4, 6, conv=pyg.GCNConv)(x, cheb_operator(EDGES))
    with pytest.raises(ValueError, match=r"'conv' must be 'cheb', 'gcn', .* \(got 'gat'\)"):
        STConv(3, 4, 6, conv="gat")
    with pytest.raises(ValueError, match=r"'conv' must have in_channels=4 here \(got 3\)"):
        STConv(3, 4, 6, conv=pyg.GCNConv(3, 4))
    with pytest.raises(
        ValueError, match=r"'norm' must be one of 'layer', 'batch', None \(got 'group'\)"
    ):
        STConv(3, 4, 6, norm="group")
    with pytest.raises(ValueError, match="'num_nodes' must be given for norm='batch'"):
        STConv(3, 4, 6, norm="batch")
    with pytest.raises(ValueError, match=r"'hidden_channels' must be at least 1 \(got 0\)"):
        STConv(3, 0, 6)
