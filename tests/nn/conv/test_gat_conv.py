from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn
import torch_geometric.typing as pyg_typing
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csr_tensor

from pyg_stkd.graph import Graph
from pyg_stkd.nn import GATConv

ROOT = Path(__file__).parents[3]
N, E = 9, 40
OLD_TORCH = tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 8)
needs_torch_sparse = pytest.mark.skipif(
    not pyg_typing.WITH_TORCH_SPARSE, reason="torch-sparse is not installed"
)


def random_edges(num_src: int = N, num_dst: int = N, count: int = E) -> Tensor:
    """Duplicates and loops included."""
    return torch.stack([torch.randint(num_src, (count,)), torch.randint(num_dst, (count,))])


def pair(*args: Any, dtype: torch.dtype = torch.double, **kwargs: Any) -> tuple[Any, Any]:
    """Builds our layer and PyG's with the same parameters."""
    ours, theirs = GATConv(*args, **kwargs), torch_geometric.nn.GATConv(*args, **kwargs)
    theirs.load_state_dict(ours.state_dict())
    if ours.bias is not None:
        torch.nn.init.normal_(ours.bias)
        theirs.load_state_dict(ours.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def flat(out: Any) -> list[Tensor]:
    if isinstance(out, SparseTensor):
        return [out.storage.value()]
    if isinstance(out, (tuple, list)):
        return [z for part in out for z in flat(part)]
    return [out] if out.is_floating_point() and out.layout == torch.strided else []


def assert_same(
    ours: Any,
    theirs: Any,
    x: Any,
    edges: Any,
    edge_attr: Tensor | None = None,
    given: Any = None,
    **kwargs: Any,
) -> None:
    """Compares values, weights and all gradients; ``given`` are the edges for ours, if others."""
    inputs = [z for z in (*(x if isinstance(x, tuple) else (x,)), edge_attr) if z is not None]
    for z in inputs:
        z.requires_grad_()
    tolerance = 1e-12 if inputs[0].dtype == torch.double else 1e-5
    torch.manual_seed(0)
    expected = flat(theirs(x, edges, edge_attr, **kwargs))
    torch.manual_seed(0)
    actual = flat(ours(x, edges if given is None else given, edge_attr, **kwargs))
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    weights = [torch.randn_like(out) for out in expected]
    grads = []
    for conv, outs in ((ours, actual), (theirs, expected)):
        wanted = [*inputs, *(p for _, p in sorted(conv.named_parameters()))]
        grads.append(torch.autograd.grad(outs, wanted, weights, allow_unused=True))
    for a, b in zip(*grads, strict=True):
        if a is None or b is None:
            assert not any(z.any() for z in (a, b) if z is not None)
        else:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("concat", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_same_as_pyg(heads: int, concat: bool, residual: bool, dtype: torch.dtype) -> None:
    args: dict[str, Any] = {"heads": heads, "concat": concat, "residual": residual}
    ours, theirs = pair(5, 4, dtype=dtype, **args)
    x, edges = torch.randn(N, 5, dtype=dtype), random_edges()
    assert_same(ours, theirs, x, edges)
    assert_same(ours, theirs, x, edges, given=Graph(edges, N))
    assert_same(ours, theirs, x, edges, return_attention_weights=True)
    assert_same(ours, theirs, x, edges, given=Graph(edges, N), return_attention_weights=True)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"bias": False},
        {"add_self_loops": False},
        {"negative_slope": 0.7},
        {"dropout": 0.4},
        {"dropout": 0.4, "add_self_loops": False, "edge_dim": 2},
    ],
    ids=str,
)
def test_options(kwargs: dict[str, Any]) -> None:
    ours, theirs = pair(5, 4, heads=2, **kwargs)
    x, edges = torch.randn(N, 5, dtype=torch.double), random_edges()
    edge_attr = torch.randn(E, 2, dtype=torch.double) if "edge_dim" in kwargs else None
    for given in (edges, Graph(edges, N)):
        assert_same(ours, theirs, x, edges, edge_attr, given, return_attention_weights=True)
    ours.eval()
    theirs.eval()
    assert_same(ours, theirs, x, edges, edge_attr)


@pytest.mark.parametrize(
    "fill_value", ["mean", "add", "min", "max", "mul", 2.0, torch.tensor([0.5, -1.0, 2.0])], ids=str
)
def test_edge_features_and_fill_values(fill_value: Any) -> None:
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.double()
    ours, theirs = pair(5, 4, heads=2, edge_dim=3, fill_value=fill_value)
    x, edges = torch.randn(N, 5, dtype=torch.double), random_edges()
    edge_attr = torch.randn(E, 3, dtype=torch.double)
    assert_same(ours, theirs, x, edges, edge_attr, return_attention_weights=True)
    assert_same(ours, theirs, x, edges, edge_attr, Graph(edges, N), return_attention_weights=True)
    assert_same(ours, theirs, x, edges)


def test_one_edge_feature_without_a_dimension_and_values_of_a_graph() -> None:
    ours, theirs = pair(5, 4, edge_dim=1)
    x, edges = torch.randn(N, 5, dtype=torch.double), random_edges()
    value = torch.randn(E, dtype=torch.double)
    assert_same(ours, theirs, x, edges, value)
    adj = torch.sparse_coo_tensor(edges.flip(0), value.detach(), (N, N), check_invariants=True)
    torch.testing.assert_close(ours(x, Graph(adj)), theirs(x, edges, value))


@pytest.mark.parametrize("targets", [4, N, 12])
@pytest.mark.parametrize("shared", [False, True])
def test_bipartite(targets: int, shared: bool) -> None:
    # PyG fails to fill the features of loops from edges where targets outnumber sources.
    fill: Any = 0.5 if targets > N else "mean"
    width = 5 if shared else (5, 3)
    ours, theirs = pair(width, 4, heads=2, residual=True, edge_dim=2, fill_value=fill)
    edges = random_edges(N, targets)
    x = torch.randn(N, 5, dtype=torch.double), torch.randn(targets, 5 if shared else 3).double()
    edge_attr = torch.randn(E, 2, dtype=torch.double)
    for kwargs in ({}, {"size": (N, targets)}, {"return_attention_weights": True}):
        assert_same(ours, theirs, x, edges, edge_attr, **kwargs)
        assert_same(ours, theirs, x, edges, edge_attr, Graph(edges, (N, targets)), **kwargs)
    assert_same(ours, theirs, (x[0], None), edges, edge_attr, size=(N, targets))
    assert_same(ours, theirs, (x[0], None), edges, edge_attr, Graph(edges, (N, targets)),
                size=(N, targets))  # fmt: skip
    square = random_edges()
    assert_same(ours, theirs, (x[0], None), square)


def test_loop_features_where_targets_outnumber_sources() -> None:
    conv = GATConv((1, 1), 1, edge_dim=1).double()
    x = torch.randn(1, 1, dtype=torch.double), torch.randn(3, 1, dtype=torch.double)
    edges, edge_attr = torch.tensor([[0, 0], [1, 2]]), torch.randn(2, 1, dtype=torch.double)
    _, (with_loops, _) = conv(x, edges, edge_attr, return_attention_weights=True)
    assert with_loops.tolist() == [[0, 0, 0], [1, 2, 0]]


def test_one_input_through_two_projections() -> None:
    ours, theirs = pair((5, 5), 4, heads=2, residual=True)
    assert_same(ours, theirs, torch.randn(N, 5, dtype=torch.double), random_edges())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly:UserWarning")
@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("kind", ["csr", "coo", "EdgeIndex", "int32"])
def test_other_kinds_of_edges(kind: str, loops: bool) -> None:
    ours, theirs = pair(5, 4, heads=2, add_self_loops=loops)
    edges = random_edges().unique(dim=1)
    x = torch.randn(N, 5, dtype=torch.double)
    make = {
        "csr": lambda: to_torch_csr_tensor(edges.flip(0), size=(N, N)),
        "coo": lambda: to_torch_coo_tensor(edges.flip(0), size=(N, N)),
        "EdgeIndex": lambda: EdgeIndex(edges.contiguous(), sparse_size=(N, N)),
        "int32": lambda: edges,
    }
    adj = make[kind]()
    given = adj.int() if kind == "int32" else adj
    assert_same(ours, theirs, x, adj, given=given)
    assert_same(ours, theirs, x, adj, given=given, return_attention_weights=True)
    assert_same(ours, theirs, x, adj, given=Graph(given, N))
    torch.testing.assert_close(ours(x, given), ours(x, edges), rtol=0, atol=1e-12)
    edges_ours = ours(x, given, return_attention_weights=True)[1][0]
    edges_theirs = theirs(x, adj, return_attention_weights=True)[1][0]
    assert type(edges_ours) is type(edges_theirs)
    if kind in ("csr", "coo"):
        edges_ours, edges_theirs = edges_ours.to_dense(), edges_theirs.to_dense()
    assert torch.equal(torch.as_tensor(edges_ours), torch.as_tensor(edges_theirs))


@needs_torch_sparse
@pytest.mark.parametrize("loops", [False, True])
def test_sparse_tensor(loops: bool) -> None:
    ours, theirs = pair(5, 4, heads=2, add_self_loops=loops)
    edges, x = random_edges(), torch.randn(N, 5, dtype=torch.double)
    adj = SparseTensor.from_edge_index(edges, sparse_sizes=(N, N)).t()
    assert_same(ours, theirs, x, adj)
    assert_same(ours, theirs, x, adj, return_attention_weights=True)
    assert isinstance(ours(x, adj, return_attention_weights=True)[1], SparseTensor)
    with_features, _ = pair(5, 4, edge_dim=1)
    with pytest.raises(NotImplementedError, match="currently not yet supported"):
        with_features(x, adj)


@pytest.mark.parametrize("kwargs", [{}, {"add_self_loops": False}, {"edge_dim": 2}], ids=str)
def test_no_edges_and_no_nodes(kwargs: dict[str, Any]) -> None:
    ours, theirs = pair(5, 4, heads=2, **kwargs)
    edges = torch.empty(2, 0, dtype=torch.long)
    edge_attr = torch.empty(0, 2, dtype=torch.double) if "edge_dim" in kwargs else None
    for num_nodes in (3, 0):
        x = torch.randn(num_nodes, 5, dtype=torch.double)
        assert_same(ours, theirs, x, edges, edge_attr)
        assert_same(ours, theirs, x, edges, edge_attr, Graph(edges, num_nodes))
        out, (_, alpha) = ours(x, edges, edge_attr, return_attention_weights=True)
        assert out.shape == (num_nodes, 8)
        assert alpha.shape == (num_nodes if ours.add_self_loops else 0, 2)


@pytest.mark.parametrize("lead", [(3,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("bipartite", [False, True])
def test_static_graph(lead: tuple[int, ...], bipartite: bool) -> None:
    conv = GATConv((5, 3) if bipartite else 5, 4, heads=2, residual=True, edge_dim=2).double()
    edges, edge_attr = random_edges(), torch.randn(E, 2, dtype=torch.double)
    x = torch.randn(*lead, N, 5, dtype=torch.double, requires_grad=True)
    y = torch.randn(*lead, N, 3, dtype=torch.double)
    hooked = []
    conv.register_forward_hook(lambda *args: hooked.append(1))
    for given in (edges, Graph(edges, N)):
        hooked.clear()
        out, (_, alpha) = conv(
            (x, y) if bipartite else x, given, edge_attr, return_attention_weights=True
        )
        assert hooked == [1]
        assert out.shape == (*lead, N, 8)
        assert alpha.shape[:-2] == lead
        slices = zip(x.flatten(0, -3), y.flatten(0, -3), out.flatten(0, -3), strict=True)
        for one, other, result in slices:
            expected = conv((one, other) if bipartite else one, edges, edge_attr)
            torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
        out.sum().backward()


def test_lazy_channels() -> None:
    x, edges = torch.randn(N, 5), random_edges()
    edge_attr = torch.randn(E, 3)
    conv = GATConv(-1, 4, heads=2, residual=True, edge_dim=-1)
    out = conv(x, edges, edge_attr)
    theirs = torch_geometric.nn.GATConv(5, 4, heads=2, residual=True, edge_dim=3)
    theirs.load_state_dict(conv.state_dict())
    torch.testing.assert_close(out, theirs(x, edges, edge_attr))
    conv = GATConv((-1, -1), 4)
    assert conv((x, torch.randn(N, 3)), edges).shape == (N, 4)
    assert (
        str(conv) == str(torch_geometric.nn.GATConv((-1, -1), 4)) == "GATConv((-1, -1), 4, heads=1)"
    )


class Doubled(GATConv):
    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return 2 * super().message(x_j, alpha)


class Later(Doubled):
    pass


@pytest.mark.parametrize("cls", [Doubled, Later])
def test_an_overridden_step_runs(cls: type[GATConv]) -> None:
    conv, theirs = cls(5, 4, heads=2, bias=False), torch_geometric.nn.GATConv(5, 4, 2, bias=False)
    theirs.load_state_dict(conv.state_dict())
    x, edges = torch.randn(N, 5), random_edges()
    torch.testing.assert_close(conv(x, edges), 2 * theirs(x, edges))
    torch.testing.assert_close(conv(x, Graph(edges, N)), 2 * theirs(x, edges))


@pytest.mark.parametrize(
    "kwargs", [{"aggr": "max"}, {"aggr": "mean"}, {"flow": "target_to_source"}], ids=str
)
def test_other_aggregations_and_flow_take_the_path_of_pyg(kwargs: dict[str, Any]) -> None:
    ours, theirs = pair(5, 4, heads=2, **kwargs)
    x, edges = torch.randn(N, 5, dtype=torch.double), random_edges()
    assert_same(ours, theirs, x, edges)
    assert_same(ours, theirs, x, edges, given=Graph(edges, N))


def test_hooks_fire_and_may_change_messages() -> None:
    conv, theirs = pair(5, 4, heads=2, bias=False)
    x, edges = torch.randn(N, 5, dtype=torch.double), random_edges()
    handles = [
        conv.register_message_forward_hook(lambda module, inputs, out: 3 * out),
        conv.register_propagate_forward_hook(lambda module, inputs, out: out + 1),
        conv.register_edge_update_forward_pre_hook(lambda module, inputs: None),
    ]
    torch.testing.assert_close(conv(x, edges), 3 * theirs(x, edges) + 1)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(conv(x, edges), theirs(x, edges))


def test_explained_as_by_pyg() -> None:
    conv, theirs = pair(5, 4, heads=2)
    x, edges = torch.randn(N, 5, dtype=torch.double), random_edges()
    mask = torch.randn(E, dtype=torch.double)
    for layer in (conv, theirs):
        layer.explain, layer._edge_mask = True, mask
        layer._loop_mask = edges[0] != edges[1]
    for given in (edges, Graph(edges, N)):
        torch.testing.assert_close(conv(x, given), theirs(x, edges))
    conv.explain = theirs.explain = False
    torch.testing.assert_close(conv(x, edges), theirs(x, edges))


def test_explained_where_pyg_built_its_own_layer_first() -> None:
    code = (
        "import torch, torch_geometric.nn as pyg\n"
        "theirs = pyg.GATConv(2, 3)\n"
        "from pyg_stkd.nn import GATConv\n"
        "ours = GATConv(2, 3)\n"
        "theirs.load_state_dict(ours.state_dict())\n"
        "x, edges = torch.randn(3, 2), torch.tensor([[0, 1, 2], [1, 2, 0]])\n"
        "for layer in (ours, theirs):\n"
        "    layer.explain, layer._edge_mask = True, torch.tensor([-1.0, 0.0, 2.0])\n"
        "    layer._loop_mask = edges[0] != edges[1]\n"
        "torch.testing.assert_close(ours(x, edges), theirs(x, edges))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.bool])
@pytest.mark.parametrize("loops", [False, True])
def test_integers_as_edge_features_are_numbers(kind: torch.dtype, loops: bool) -> None:
    ours, theirs = pair(5, 4, edge_dim=1, add_self_loops=loops, dtype=torch.float)
    x, edges = torch.randn(N, 5), random_edges()
    attr = torch.randint(0, 4, (edges.size(1),)).to(kind)
    torch.testing.assert_close(ours(x, edges, attr), theirs(x, edges, attr.float()))
    torch.testing.assert_close(ours(x, Graph(edges, N), attr), theirs(x, edges, attr.float()))


@pytest.mark.parametrize("loops", [False, True])
def test_edge_index_that_knows_its_size(loops: bool) -> None:
    ours, theirs = pair(5, 4, heads=2, add_self_loops=loops, dtype=torch.float)
    edges = EdgeIndex(torch.tensor([[0, 1, 2, 3, 1], [0, 1, 1, 2, 1]]), sparse_size=(5, 3))
    x = torch.randn(5, 5)
    actual = ours((x, None), edges)
    assert actual.shape == (3, 8)
    # PyG takes loops for those of as many targets as sources, which its own layer then returns.
    expected = theirs((x, None), edges if not loops else edges.as_tensor(), size=(5, 3))
    torch.testing.assert_close(actual, expected)
    both = (x, torch.randn(3, 5))
    torch.testing.assert_close(ours(both, edges), theirs(both, edges))
    with pytest.raises(ValueError, match=r"'edge_index' must be of 4 source and 3 target"):
        ours((x[:4], None), edges)


def test_state_dict_copy_and_pickle() -> None:
    ours, theirs = pair(5, 4, heads=2, edge_dim=3, residual=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x, graph = torch.randn(N, 5, dtype=torch.double), Graph(random_edges(), N)
    expected = ours(x, graph)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x, graph), expected)
    assert torch.equal(ours(x, copy.deepcopy(graph)), expected)


def test_second_derivative() -> None:
    conv, theirs = pair(5, 4, heads=2)
    x, edges = torch.randn(N, 5, dtype=torch.double, requires_grad=True), random_edges()
    results = []
    for layer in (conv, theirs):
        (grad,) = torch.autograd.grad(layer(x, edges).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(grad.square().sum(), [x, layer.att_src]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_autocast_is_that_of_pyg() -> None:
    conv, theirs = pair(16, 8, heads=2, dtype=torch.float)
    x, edges = torch.randn(N, 16), random_edges()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, expected = conv(x, edges), theirs(x, edges)
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)
    actual.sum().backward()
    assert conv.lin.weight.grad.dtype == torch.float


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("given", ["graph", "edge_index"])
@pytest.mark.parametrize("loops", [False, True])
def test_compiles_into_one_graph(given: str, loops: bool) -> None:
    if OLD_TORCH and loops and given == "edge_index":
        pytest.skip("before torch 2.8 a number of edges that depends on them breaks the graph")
    torch.compiler.reset()
    conv = GATConv(5, 4, heads=2, add_self_loops=loops)
    x, edges = torch.randn(N, 5, requires_grad=True), random_edges()
    adj = Graph(edges, N) if given == "graph" else edges
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
    expected, actual = conv(x, adj), compiled(x, adj)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual.sum(), [x, *conv.parameters()]),
        torch.autograd.grad(expected.sum(), [x, *conv.parameters()]),
    )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traces() -> None:
    conv = GATConv(5, 4, heads=2).eval()
    x, edges = torch.randn(N, 5), random_edges()
    traced = torch.jit.trace(conv, (x, edges), check_trace=False)
    torch.testing.assert_close(traced(x, edges), conv(x, edges))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": torch.ones(N, 4)}, ValueError, r"'x' of the sources .*\[\*, N, 5\] \(got \[9, 4\]"),
        ({"x": torch.ones(5)}, ValueError, r"'x' of the sources must have shape"),
        ({"x": torch.ones(N, 5).long()}, TypeError, r"floating point numbers \(got torch.int64\)"),
        ({"x": [[1.0]]}, TypeError, r"'x' must be a tensor or a pair"),
        ({"x": (1.0, None)}, TypeError, r"'x' must be a tensor or a pair"),
        ({"x": (torch.ones(N, 5), torch.ones(2, N, 5))}, ValueError, r"agree in the dimensions"),
        ({"edge_index": torch.ones(2, 3)}, TypeError, r"'edge_index' must be of dtype"),
        ({"edge_index": torch.ones(3, 3).long()}, ValueError, r"shape \[2, num_edges\].*\[3, 3\]"),
        ({"edge_index": [[0], [1]]}, TypeError, r"'edge_index' must be a tensor .*\(got list\)"),
        ({"edge_index": torch.tensor([[0], [N]])}, IndexError, r"below the 9 target nodes.*got 9"),
        ({"edge_index": torch.tensor([[-1], [0]])}, IndexError, r"negative indices \(got -1\)"),
        ({"edge_index": Graph(torch.tensor([[0], [1]]))}, ValueError, r"'edge_index' must be of 9"),
        ({"edge_attr": torch.ones(3, 2)}, ValueError, r"a row for each of the 1 edges \(got \[3"),
        ({"edge_attr": torch.ones(1, 3)}, ValueError, r"2 channels, the 'edge_dim' \(got 3\)"),
        ({"edge_attr": torch.ones(1, 2).cfloat()}, ValueError, r"'edge_attr' must be of real"),
        ({"size": (N, 4)}, ValueError, r"'size' must be of 9 source and 9 target .*\(9, 4\)"),
    ],
    ids=str,
)
def test_bad_input(change: dict[str, Any], error: type[Exception], match: str) -> None:
    conv = GATConv(5, 4, edge_dim=2)
    inputs = {"x": torch.ones(N, 5), "edge_index": torch.tensor([[0], [1]]), **change}
    with pytest.raises(error, match=match):
        conv(**inputs)
