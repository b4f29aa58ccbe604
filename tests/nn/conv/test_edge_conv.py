from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.utils import prune
from torch_geometric.typing import SparseTensor

from pyg_stkd.functional.neighbours.knn import knn_graph
from pyg_stkd.functional.neighbours.knn_pair import knn_pair
from pyg_stkd.graph import Graph
from pyg_stkd.nn.conv.edge_conv import DynamicEdgeConv, EdgeConv

C, F = 5, 7
BLOCKS = {
    "bn, leaky": lambda: nn.Sequential(
        nn.Linear(2 * C, F, bias=False), nn.BatchNorm1d(F), nn.LeakyReLU(0.2)
    ),
    "bn, relu in place": lambda: nn.Sequential(
        nn.Linear(2 * C, F), nn.BatchNorm1d(F), nn.ReLU(inplace=True)
    ),
    "bn": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.BatchNorm1d(F, momentum=None)),
    "bn, no affine": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.BatchNorm1d(F, affine=False)),
    "bn, no statistics": lambda: nn.Sequential(
        nn.Linear(2 * C, F), nn.BatchNorm1d(F, track_running_stats=False), nn.ELU()
    ),
    "elu": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.ELU()),
    "softplus": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.Softplus()),
    "prelu": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.PReLU()),
    "linear": lambda: nn.Linear(2 * C, F),
    "mlp": lambda: pyg.MLP([2 * C, F], plain_last=False, act="leaky_relu"),
    "plain mlp": lambda: pyg.MLP([2 * C, F]),
    "pyg sequential": lambda: pyg.Sequential(
        "x", [(pyg.Linear(2 * C, F), "x -> y"), (pyg.BatchNorm(F), "y -> y"), nn.ReLU()]
    ),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(2 * C, F), nn.Identity()), nn.Sequential(nn.BatchNorm1d(F))
    ),
}
OTHERS = {
    "two layers": lambda: pyg.MLP([2 * C, 6, F]),
    "activation first": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.ReLU(), nn.BatchNorm1d(F)),
    "mlp, activation first": lambda: pyg.MLP([2 * C, F], plain_last=False, act_first=True),
    "not monotone": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.GELU()),
    "falling": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.LeakyReLU(-0.5)),
    "falling prelu": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.PReLU(init=-0.5)),
    "layer norm": lambda: nn.Sequential(nn.Linear(2 * C, F), nn.LayerNorm(F)),
    "activation": lambda: nn.Sequential(nn.ReLU(), nn.Linear(2 * C, F)),
}


def make_graph() -> Tensor:
    """Returns unsorted edges with duplicates and isolated nodes."""
    edge_index = torch.randint(0, 30, (2, 150))
    return torch.cat([edge_index, edge_index[:, :5]], dim=1)


def pair(network: nn.Module, dtype: torch.dtype, **kwargs: Any) -> tuple[nn.Module, EdgeConv]:
    network = network.to(dtype)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d) and module.affine:
            nn.init.normal_(module.weight)  # both signs
            nn.init.normal_(module.bias)
    theirs, ours = pyg.EdgeConv(copy.deepcopy(network), **kwargs), EdgeConv(network, **kwargs)
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


def compare(theirs: nn.Module, ours: nn.Module, x: Tensor, edges: Any, tol: float) -> None:
    for training in (True, True, False):
        results = []
        for conv in (theirs, ours):
            conv.train(training)
            z = x.clone().requires_grad_()
            out = conv(z, edges)
            weight = torch.linspace(-1, 1, out.numel(), dtype=x.dtype).view_as(out)
            leaves = [z, *conv.parameters()]
            results.append([out, *torch.autograd.grad((out * weight).sum(), leaves)])
            results[-1] += conv.state_dict().values()
        for expected, given in zip(*results, strict=True):
            torch.testing.assert_close(given, expected, rtol=tol, atol=tol)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("block", BLOCKS)
def test_fused_equals_pyg(block: str, dtype: torch.dtype, tol: float) -> None:
    theirs, ours = pair(BLOCKS[block](), dtype)
    assert ours._block() is not None
    x = torch.randn(40, C, dtype=dtype)
    compare(theirs, ours, x, make_graph(), tol)


@pytest.mark.parametrize("block", OTHERS)
def test_any_other_network_equals_pyg(block: str) -> None:
    theirs, ours = pair(OTHERS[block](), torch.float64)
    assert ours._block() is None
    compare(theirs, ours, torch.randn(40, C, dtype=torch.float64), make_graph(), 1e-9)


@pytest.mark.parametrize("aggr", ["add", "mean", "min"])
def test_any_other_aggregation_equals_pyg(aggr: str) -> None:
    theirs, ours = pair(BLOCKS["bn, leaky"](), torch.float64, aggr=aggr)
    assert ours._block() is None
    compare(theirs, ours, torch.randn(40, C, dtype=torch.float64), make_graph(), 1e-9)


def test_flow_and_dropout_take_the_path_of_edges() -> None:
    network = nn.Sequential(nn.Linear(2 * C, F), nn.Dropout(0.5))
    ours = EdgeConv(network)
    assert ours._block() is None
    assert ours.eval()._block() is not None
    theirs, ours = pair(BLOCKS["bn"](), torch.float64, flow="target_to_source")
    assert ours._block() is None
    compare(theirs, ours, torch.randn(40, C, dtype=torch.float64), make_graph(), 1e-9)


@pytest.mark.parametrize("form", ["graph", "sparse tensor", "csr"])
def test_every_form_of_edges(form: str) -> None:
    edge_index = torch.randint(0, 30, (2, 150)).unique(dim=1)
    forms: dict[str, Any] = {"graph": lambda: Graph(edge_index, 30)}
    graph = Graph(edge_index, 30)
    csr = graph.rowptr, graph.col, torch.ones(graph.num_edges), (30, 30)
    forms["csr"] = lambda: torch.sparse_csr_tensor(*csr, check_invariants=True)
    forms["sparse tensor"] = lambda: SparseTensor.from_edge_index(edge_index, None, (30, 30)).t()
    if form == "sparse tensor":
        pytest.importorskip("torch_sparse")
    edges = forms[form]()
    x = torch.randn(30, C)
    for block in (BLOCKS["bn, leaky"](), OTHERS["two layers"]()):
        conv = EdgeConv(block)
        torch.testing.assert_close(conv(x, edges), conv(x, edge_index))


def test_bipartite_equals_pyg() -> None:
    theirs, ours = pair(BLOCKS["bn, leaky"](), torch.float64)
    x = torch.randn(9, C, dtype=torch.float64), torch.randn(6, C, dtype=torch.float64)
    edge_index = torch.stack([torch.randint(0, 9, (25,)), torch.randint(0, 6, (25,))])
    torch.testing.assert_close(ours(x, edge_index), theirs(x, edge_index), rtol=0, atol=1e-9)


def test_weights_are_kept_until_they_are_reset() -> None:
    network = BLOCKS["bn"]()
    weight = network[0].weight.detach().clone()
    conv = EdgeConv(network)
    assert torch.equal(conv.nn[0].weight, weight)
    conv.reset_parameters()
    assert not torch.equal(conv.nn[0].weight, weight)


def test_hooks_see_the_edges() -> None:
    conv = EdgeConv(BLOCKS["bn, leaky"]())
    seen = []
    conv.nn[0].register_forward_hook(lambda *args: seen.append(args[-1].shape))
    conv(torch.randn(30, C), make_graph())
    assert seen == [(155, F)]


def test_pruned_weights_stay_on_the_fused_path() -> None:
    theirs, ours = pair(BLOCKS["bn, leaky"](), torch.float64)
    for conv in (theirs, ours):
        prune.random_structured(conv.nn[0], "weight", amount=3, dim=0)
        torch.manual_seed(0)
    mask = torch.ones(F, 2 * C, dtype=torch.float64).bernoulli_(0.5)
    for conv in (theirs, ours):
        conv.nn[0].weight_mask.copy_(mask)
    assert ours._block() is not None
    compare(theirs, ours, torch.randn(30, C, dtype=torch.float64), make_graph(), 1e-9)


def test_subclass_with_its_own_message() -> None:
    class Sum(EdgeConv):
        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return self.nn(torch.cat([x_i, x_i + x_j], dim=-1))

    conv = Sum(nn.Linear(2 * C, F))
    assert conv._block() is None


def test_no_edges_and_one_edge() -> None:
    x = torch.randn(4, C)
    none = torch.empty(2, 0, dtype=torch.long)
    assert not EdgeConv(nn.Linear(2 * C, F))(x, none).any()
    conv = EdgeConv(BLOCKS["bn"]())
    with pytest.raises(ValueError, match="more than 1 value"):
        conv(x, torch.tensor([[0], [1]]))


def test_offset_in_float32() -> None:
    conv = EdgeConv(BLOCKS["bn, leaky"]())
    x = torch.randn(50, C) * 0.1
    edge_index = knn_graph(x, 5)
    exact = copy.deepcopy(conv).double()(x.double() + 1000, edge_index)
    assert (conv(x + 1000, edge_index) - exact).abs().max() < 5e-3


def test_distant_clouds_in_float32() -> None:
    results: list[list[Tensor]] = []
    ours = EdgeConv(BLOCKS["bn, leaky"]())
    with torch.no_grad():
        ours.nn[0].weight[:3, :C] *= 1e-3  # there, only differences of neighbours count
    exact = pyg.EdgeConv(BLOCKS["bn, leaky"]()).double()
    exact.load_state_dict(ours.state_dict())
    x = torch.randn(60, C)
    x[30:] += 1000
    edge_index = knn_graph(x, 5, torch.arange(2).repeat_interleave(30))
    for conv, z in ((ours, x.requires_grad_()), (exact, x.detach().double().requires_grad_())):
        out = conv(z, edge_index)
        weight = torch.linspace(-1, 1, out.numel(), dtype=z.dtype).view_as(out)
        results.append([out, *torch.autograd.grad((out * weight).sum(), [z, *conv.parameters()])])
        results[-1] += conv.nn[1].buffers()
    for given, expected in zip(*results, strict=True):
        assert (given - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_is_as_accurate_as_that_of_pyg(dtype: torch.dtype) -> None:
    theirs, ours = pair(BLOCKS["bn, leaky"](), torch.float32)
    x = torch.randn(500, C) + 8
    edge_index = torch.randint(0, 500, (2, 40_000))
    exact = copy.deepcopy(ours).double()
    exact(x.double(), edge_index)
    error = []
    for conv in (theirs, ours):
        with torch.autocast("cpu", dtype):
            out = conv(x, edge_index)
            out.float().square().sum().backward()
        assert out.isfinite().all()
        assert all(p.grad.isfinite().all() for p in conv.parameters())
        error.append((conv.nn[1].running_var - exact.nn[1].running_var).abs().max().item())
    assert error[1] <= error[0]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("width", [3, 16])
@pytest.mark.parametrize("block", ["bn, leaky", "linear"])
def test_half_precision_rounds_the_output_alone(block: str, width: int, training: bool) -> None:
    """Neighbours differ by a tenth of what places differ: products must not be rounded."""
    make = {
        "bn, leaky": lambda: nn.Sequential(
            nn.Linear(2 * width, F, bias=False), nn.BatchNorm1d(F), nn.LeakyReLU(0.2)
        ),
        "linear": lambda: nn.Linear(2 * width, F, bias=False),
    }[block]
    theirs, ours = pair(make(), torch.float32)
    first = (ours.nn if block == "linear" else ours.nn[0]).weight  # type: ignore[union-attr]
    with torch.no_grad():
        first[:, :width] = 0  # differences alone
    theirs.load_state_dict(ours.state_dict())
    theirs.train(training), ours.train(training)
    x = torch.randn(20, 1, width) + 0.1 * torch.randn(20, 8, width)
    x = x.view(-1, width)
    edge_index = knn_graph(x, 4, torch.arange(20).repeat_interleave(8))
    exact = copy.deepcopy(ours).double()(x.double(), edge_index)
    with torch.autocast("cpu", torch.bfloat16):
        given, plain = ours(x, edge_index), theirs(x, edge_index)
    assert given.dtype == plain.dtype == torch.bfloat16
    error, theirs_error, least = (
        ((out.double() - exact).norm() / exact.norm()).item()
        for out in (given, plain, exact.bfloat16())
    )
    assert error <= theirs_error
    assert error < 1.1 * least


def test_layers_of_half_precision_are_as_accurate() -> None:
    """The model itself, without autocast; its gradients too."""
    ours = EdgeConv(BLOCKS["bn, leaky"]()).bfloat16()
    exact = copy.deepcopy(ours).double()
    x, edge_index = torch.randn(30, C).bfloat16().requires_grad_(), make_graph()
    z = x.detach().double().requires_grad_()
    out, expected = ours(x, edge_index), exact(z, edge_index)
    assert out.dtype == torch.bfloat16
    assert (out - expected).abs().max() < 2**-8 * expected.abs().max()
    out.sum().backward(), expected.sum().backward()
    for given, wanted in zip((x, *ours.parameters()), (z, *exact.parameters()), strict=True):
        assert given.grad is not None
        assert wanted.grad is not None
        assert given.grad.dtype == torch.bfloat16
        size = max(1.0, float(wanted.grad.abs().max()))
        assert (given.grad - wanted.grad).abs().max() < 0.02 * size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_neighbours_under_autocast_are_those_of_single_precision(dtype: torch.dtype) -> None:
    """Inner products in half precision would take other points: they cancel."""
    conv = DynamicEdgeConv(nn.Linear(32, F), k=5)
    x, batch = torch.randn(200, 16) + 20, torch.arange(4).repeat_interleave(50)
    with torch.autocast("cpu", dtype):
        assert torch.equal(conv.knn(x, batch), knn_graph(x, 5, batch, loop=True))
        assert torch.equal(
            conv.knn(x.to(dtype), batch), knn_graph(x.to(dtype).float(), 5, batch, loop=True)
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_takes_what_a_layer_before_returned(dtype: torch.dtype) -> None:
    """In eval mode the norm is folded into the linear layer, beside features of half precision."""
    theirs, ours = pair(BLOCKS["bn, leaky"](), torch.float32)
    x, edge_index = torch.randn(30, C).to(dtype), make_graph()
    for training in (True, False):
        with torch.autocast("cpu", dtype):
            out, expected = (conv.train(training)(x, edge_index) for conv in (ours, theirs))
        size = expected.float().abs().max()
        assert (out.float() - expected.float()).abs().max() < 0.05 * size


def test_the_shift_may_learn_alone() -> None:
    theirs, ours = pair(BLOCKS["bn, leaky"](), torch.float64)
    x, edge_index = torch.randn(30, C, dtype=torch.float64), make_graph()
    for conv in (theirs, ours):
        conv.nn[0].requires_grad_(False)
        conv.nn[1].weight.requires_grad_(False)
        conv(x, edge_index).square().sum().backward()
    torch.testing.assert_close(ours.nn[1].bias.grad, theirs.nn[1].bias.grad)


def test_a_node_that_is_not_finite_spoils_its_neighbours_only() -> None:
    theirs, ours = pair(nn.Linear(2 * C, F), torch.float64)
    x = torch.randn(30, C, dtype=torch.float64)
    x[29] = torch.nan
    edge_index = make_graph().clamp(max=28)
    torch.testing.assert_close(ours(x, edge_index), theirs(x, edge_index))


def test_parametrized_weights_are_read_as_often_as_by_pyg() -> None:
    network = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2 * C, F)))
    theirs, ours = pair(network, torch.float64)
    compare(theirs, ours, torch.randn(30, C, dtype=torch.float64), make_graph(), 1e-9)


@pytest.mark.parametrize("clouds", [False, True])
@pytest.mark.parametrize("network", ["linear", "two layers"])
def test_dynamic_on_two_sets_of_points(network: str, clouds: bool) -> None:
    def make() -> nn.Module:
        deep = [nn.ReLU(), nn.Linear(F, F)] if network == "two layers" else []
        return nn.Sequential(nn.Linear(2 * C, F), *deep)

    ours, theirs = DynamicEdgeConv(make(), k=3).double(), pyg.EdgeConv(make()).double()
    theirs.load_state_dict(ours.state_dict())
    x, y = torch.randn(12, C).double().requires_grad_(), torch.randn(5, C).double()
    batches = torch.tensor([0] * 7 + [1] * 5), torch.tensor([0, 0, 1, 1, 1])
    edges = knn_pair(x, y, 3, *(batches if clouds else (None, None)))
    out = ours((x, y), batches) if clouds else ours((x, y))
    expected = theirs((x, y), edges)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(*(torch.autograd.grad(z.sin().sum(), x)[0] for z in (out, expected)))
    with pytest.raises(ValueError, match=r"or a pair of them \(got \[12\]\)"):
        ours((x[:, 0], y))


@pytest.mark.parametrize("sizes", [[16, 16], [20, 3, 1, 8]], ids=str)
def test_dynamic_is_static_on_its_neighbours(sizes: list[int]) -> None:
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x = torch.randn(32, C, dtype=torch.float64)
    network = BLOCKS["bn, leaky"]().double()
    static, dynamic = EdgeConv(copy.deepcopy(network)), DynamicEdgeConv(network, k=4)
    assert static.state_dict().keys() == dynamic.state_dict().keys()
    expected = static(x, knn_graph(x, 4, batch, loop=True))
    torch.testing.assert_close(dynamic(x, batch), expected, rtol=0, atol=1e-12)
    assert repr(dynamic).startswith("DynamicEdgeConv(nn=Sequential(")


def test_the_state_is_that_of_pyg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_geometric.typing.WITH_KNN", True, raising=False)
    monkeypatch.setattr("torch_geometric.nn.conv.edge_conv.knn", object(), raising=False)  # older
    theirs = pyg.DynamicEdgeConv(BLOCKS["mlp"](), k=4)
    ours = DynamicEdgeConv(BLOCKS["mlp"](), k=4)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_bad_input() -> None:
    conv = DynamicEdgeConv(nn.Linear(2 * C, F), k=2)
    with pytest.raises(ValueError, match=r"'x' must have shape \[N, 5\], half the inputs"):
        conv(torch.randn(4, C + 1))
    with pytest.raises(ValueError, match=r"'x' must be a tensor of shape \[N, F\]"):
        conv(torch.randn(2, 4, C))
    with pytest.raises(ValueError, match="'k' must be at least 1"):
        DynamicEdgeConv(nn.Linear(2 * C, F), k=0)
    with pytest.raises(ValueError, match="'x' must be finite"):
        conv(torch.full((4, C), torch.nan))
    with pytest.raises(ValueError, match="'flow' must be"):
        DynamicEdgeConv(nn.Linear(2 * C, F), k=1, flow="target_to_source")
    static, edges = EdgeConv(nn.Linear(2 * C, F)), torch.tensor([[3], [0]])
    with pytest.raises(IndexError, match="below the 4 source nodes"):
        static(torch.randn(4, C), edges + 1)
    for bad in (torch.ones(4, C).numpy(), None, "x", (torch.ones(4, C), None)):
        with pytest.raises(TypeError, match="'x' must be a Tensor"):
            static(bad, edges)
    with pytest.raises(ValueError, match=r"or a pair of tensors \(got 3 items\)"):
        static((torch.ones(4, C),) * 3, edges)
    with pytest.raises(TypeError, match=r"real floating point numbers \(got torch.int64\)"):
        static(torch.ones(4, C).long(), edges)


def test_sparse_features_take_the_path_of_edges() -> None:
    conv, x, edges = EdgeConv(nn.Linear(2 * C, F)), torch.randn(30, C), make_graph()
    torch.testing.assert_close(conv(x.to_sparse(), edges), conv(x, edges))


@pytest.mark.parametrize("norm", [None, True, False])
def test_second_gradients_are_those_of_pyg(norm: bool | None) -> None:
    torch.manual_seed(0)
    edge_index = torch.randint(0, 6, (2, 15))
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    layers = [torch.nn.Linear(6, 4), *([torch.nn.BatchNorm1d(4)] if norm is not None else [])]
    theirs = pyg.EdgeConv(torch.nn.Sequential(*layers, torch.nn.Tanh())).double()
    theirs.train(norm is not False)
    ours = EdgeConv(copy.deepcopy(theirs.nn)).double().train(norm is not False)
    seconds, hessians = [], []
    for conv in (theirs, ours):

        def loss(z: Tensor, conv: torch.nn.Module = conv) -> Tensor:
            return conv(z, edge_index).sin().sum()

        out = loss(x)
        (grad,) = torch.autograd.grad(out, x, create_graph=True)
        penalised = out + grad.square().sum()
        seconds.append(torch.autograd.grad(penalised, x, retain_graph=True)[0])
        conv.zero_grad()
        penalised.backward(inputs=list(conv.parameters()))
        seconds += [parameter.grad for parameter in conv.parameters()]
        hessians.append(torch.autograd.functional.hessian(loss, x))
    half = len(seconds) // 2
    torch.testing.assert_close(seconds[:half], seconds[half:])
    torch.testing.assert_close(*hessians)
