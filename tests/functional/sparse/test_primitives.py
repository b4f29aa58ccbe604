from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.typing import WITH_TORCH_SCATTER

from pyg_stkd.functional import (
    sddmm,
    segment_log_softmax,
    segment_softmax,
    segment_sum,
    spmm,
)
from pyg_stkd.functional.sparse import primitives, sparse_ops
from pyg_stkd.graph import Graph

GRAPHS = {
    # edges, (sources, targets)
    "square": (torch.tensor([[3, 0, 2, 4, 0, 1, 3, 2], [1, 2, 0, 4, 2, 0, 3, 1]]), (5, 5)),
    "isolated": (torch.tensor([[6, 0], [1, 1]]), (9, 9)),
    "bipartite": (torch.tensor([[6, 0, 3, 6], [1, 0, 1, 1]]), (7, 3)),
    "no edges": (torch.empty(2, 0, dtype=torch.long), (4, 4)),
    "no nodes": (torch.empty(2, 0, dtype=torch.long), (0, 0)),
}
HEADS = [None, 1, 3]
PRIMITIVES = {"sddmm", "spmm", "segment_sum", "segment_softmax", "segment_log_softmax"}
# What dynamo does by itself to each autograd.Function.
COMPILE = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


# The naive formulas ------------------------------------------------------------------------------


def naive_sddmm(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    src, dst = graph.edge_index
    return (a[dst] * b[src]).sum(-1)


def naive_spmm(graph: Graph, weight: Tensor | None, x: Tensor) -> Tensor:
    src, dst = graph.edge_index
    message = x[src] if weight is None else weight[..., None] * x[src]
    return x.new_zeros(graph.num_nodes, *x.shape[1:]).index_add(0, dst, message)


def naive_sum(graph: Graph, value: Tensor) -> Tensor:
    out = value.new_zeros(graph.num_nodes, *value.shape[1:])
    return out.index_add(0, graph.edge_index[1], value)


def naive_softmax(graph: Graph, score: Tensor) -> Tensor:
    rows = [score[graph.edge_index[1] == i].softmax(0) for i in range(graph.num_nodes)]
    return torch.cat([*rows, score[:0]])


def naive_log_softmax(graph: Graph, score: Tensor) -> Tensor:
    rows = [score[graph.edge_index[1] == i].log_softmax(0) for i in range(graph.num_nodes)]
    return torch.cat([*rows, score[:0]])


def case(
    primitive: str,
    graph: Graph,
    heads: int | None,
    dtype: torch.dtype = torch.double,
    width: int = 4,
) -> tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]:
    """The primitive, its naive formula, both on that graph, and inputs."""
    head = () if heads is None else (heads,)
    num_src, num_dst = graph.size
    shapes: dict[str, list[tuple[int, ...]]] = {
        "sddmm": [(num_dst, *head, width), (num_src, *head, width)],
        "spmm": [(graph.num_edges, *head), (num_src, *head, width)],
    }
    function, naive = {
        "sddmm": (sddmm, naive_sddmm),
        "spmm": (spmm, naive_spmm),
        "segment_sum": (segment_sum, naive_sum),
        "segment_softmax": (segment_softmax, naive_softmax),
        "segment_log_softmax": (segment_log_softmax, naive_log_softmax),
    }[primitive]
    inputs = [
        torch.randn(shape, dtype=torch.double).to(dtype).to(graph.device).requires_grad_()
        for shape in shapes.get(primitive, [(graph.num_edges, *head)])
    ]
    return lambda *x: function(graph, *x), lambda *x: naive(graph, *x), inputs


def build(name: str, device: torch.device | str = "cpu") -> Graph:
    edge_index, size = GRAPHS[name]
    return Graph(edge_index.to(device), size)


# Values and derivatives --------------------------------------------------------------------------


def assert_equal_to_naive(
    primitive: str, graph: Graph, heads: int | None, dtype: torch.dtype, tolerance: float
) -> None:
    function, naive, inputs = case(primitive, graph, heads, dtype)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    out, expected = function(*inputs), naive(*wide)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    grad = torch.randn_like(out)
    grads = torch.autograd.grad(out, inputs, grad)
    expected_grads = torch.autograd.grad(expected, wide, grad.double())
    for x, got, correct in zip(inputs, grads, expected_grads, strict=True):
        assert got.dtype == x.dtype
        torch.testing.assert_close(got.double(), correct, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("primitive", sorted(PRIMITIVES))
@pytest.mark.usefixtures("extensions")
def test_equals_naive(primitive: str, name: str, heads: int | None, device: torch.device) -> None:
    assert_equal_to_naive(primitive, build(name, device), heads, torch.double, 1e-13)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float, 2e-6), (torch.half, 4e-3), (torch.bfloat16, 3e-2)]
)
@pytest.mark.parametrize("heads", [None, 3])
@pytest.mark.parametrize("primitive", sorted(PRIMITIVES))
@pytest.mark.usefixtures("extensions")
def test_precision(
    primitive: str, heads: int | None, dtype: torch.dtype, tolerance: float, device: torch.device
) -> None:
    assert_equal_to_naive(primitive, build("square", device), heads, dtype, tolerance)


@pytest.mark.skipif(not WITH_TORCH_SCATTER, reason="torch-scatter is not installed")
@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.bfloat16])
@pytest.mark.parametrize("heads", [None, 3])
@pytest.mark.parametrize("primitive", ["segment_sum", "segment_softmax", "segment_log_softmax"])
def test_torch_scatter_equals_native(
    primitive: str, heads: int | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GRAPHS:
        function, _, inputs = case(primitive, build(name), heads, dtype)
        results = []
        for scatter in (False, True):
            monkeypatch.setattr(sparse_ops, "_use_scatter", lambda value, use=scatter: use)
            out = function(*inputs)
            results.append((out, *torch.autograd.grad(out.sin().sum(), inputs)))
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("name", ["square", "isolated", "bipartite"])
@pytest.mark.parametrize("primitive", sorted(PRIMITIVES))
def test_derivatives(primitive: str, name: str, heads: int | None, device: torch.device) -> None:
    function, _, inputs = case(primitive, build(name, device), heads, width=2)
    assert gradcheck(function, inputs, fast_mode=True)
    assert gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("primitive", ["sddmm", "spmm"])
def test_derivatives_of_one_input(primitive: str, heads: int | None) -> None:
    for skipped in (0, 1):
        function, naive, inputs = case(primitive, build("bipartite"), heads)
        inputs[skipped].requires_grad_(False)
        got, expected = (
            torch.autograd.grad(f(*inputs).sin().sum(), inputs[1 - skipped])
            for f in (function, naive)
        )
        torch.testing.assert_close(got, expected)
        assert gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("heads", [None, 3])
def test_unweighted_sum(heads: int | None) -> None:
    graph = build("bipartite")
    _, _, (_, x) = case("spmm", graph, heads)
    torch.testing.assert_close(spmm(graph, None, x), naive_spmm(graph, None, x))
    assert gradcheck(lambda x: spmm(graph, None, x), x)


def test_same_tensor_twice() -> None:
    graph = build("square")
    x = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(sddmm(graph, x, x), naive_sddmm(graph, x, x))
    assert gradcheck(lambda x: sddmm(graph, x, x), x)
    assert gradgradcheck(lambda x: sddmm(graph, x, x), x)


def test_no_features() -> None:
    graph = build("square")
    empty = torch.empty(5, 0, requires_grad=True)
    assert sddmm(graph, empty, empty).tolist() == [0] * 8
    assert spmm(graph, torch.ones(8), empty).shape == (5, 0)
    assert torch.autograd.grad(sddmm(graph, empty, empty).sum(), empty)[0].shape == (5, 0)


@pytest.mark.parametrize("heads", [None, 3])
@pytest.mark.parametrize("primitive", sorted(PRIMITIVES))
def test_layouts(primitive: str, heads: int | None) -> None:
    function, naive, inputs = case(primitive, build("square"), heads)
    strided = [torch.stack([x, x], dim=-1)[..., 0] for x in inputs]
    swapped = [x.detach().transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    for layout in (strided, swapped):
        torch.testing.assert_close(function(*layout), naive(*layout))
        assert function(*layout).is_contiguous()


def test_mixed_dtypes() -> None:
    graph = build("square")
    a, b = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3).bfloat16().requires_grad_()
    out = spmm(graph, sddmm(graph, a, b), b)
    assert out.dtype == torch.float
    grads = torch.autograd.grad(out.sum(), (a, b))
    assert [grad.dtype for grad in grads] == [torch.float, torch.bfloat16]


def test_autocast() -> None:
    graph, lin = build("square"), torch.nn.Linear(3, 4)
    x = torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        h = lin(x)
        assert h.dtype == torch.bfloat16
        weight = segment_softmax(graph, sddmm(graph, h, h))
        out = spmm(graph, weight, h)
    assert (weight.dtype, out.dtype) == (torch.bfloat16, torch.bfloat16)
    wide = torch.nn.functional.linear(x, lin.weight, lin.bias)
    expected = naive_spmm(graph, naive_softmax(graph, naive_sddmm(graph, wide, wide)), wide)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert lin.weight.grad.dtype == torch.float
    assert lin.weight.grad.isfinite().all()


# Log space ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_log_softmax_of_wide_scores(scale: float) -> None:
    graph = build("square")
    score = (torch.randn(8) * scale).requires_grad_()
    out = segment_log_softmax(graph, score)
    assert out.isfinite().all()
    torch.testing.assert_close(out, naive_log_softmax(graph, score))
    (out.exp() * out).sum().backward()
    assert score.grad.isfinite().all()


def test_masked_scores() -> None:
    graph = Graph(torch.tensor([[0, 1, 2], [0, 0, 0]]))
    score = torch.tensor([1.0, -torch.inf, 1.0], requires_grad=True)
    out = segment_softmax(graph, score)
    assert out.tolist() == [0.5, 0, 0.5]
    assert torch.autograd.grad(out[0], score)[0].tolist() == [0.25, 0, -0.25]


def test_softmax_of_half_precision_is_rounded_once() -> None:
    graph = Graph(torch.stack([torch.arange(500), torch.zeros(500, dtype=torch.long)]))
    score = torch.randn(500).bfloat16()
    expected = score.double().softmax(0)
    error = (segment_softmax(graph, score).double() - expected).abs() / expected
    assert error.max() < 2**-8


# Properties --------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int]]:
    num_src, num_dst = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    edge = st.tuples(st.integers(0, num_src - 1), st.integers(0, num_dst - 1))
    edges = draw(st.lists(edge, max_size=15))
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t(), (num_src, num_dst)


@given(graphs(), st.sampled_from(HEADS))
def test_sum_of_softmax(drawn: tuple[Tensor, tuple[int, int]], heads: int | None) -> None:
    graph = Graph(*drawn)
    function, _, (score,) = case("segment_softmax", graph, heads)
    total = segment_sum(graph, function(score * 10)).detach()
    reached = (graph.degree > 0).double()
    expected = reached if heads is None else reached[:, None].expand(-1, heads)
    torch.testing.assert_close(total, expected)


@given(graphs(), st.sampled_from(HEADS))
def test_adjoint(drawn: tuple[Tensor, tuple[int, int]], heads: int | None) -> None:
    edge_index, size = drawn
    graph, transpose = Graph(edge_index, size), Graph(edge_index.flip(0), size[::-1])
    _, _, (y, x) = case("sddmm", graph, heads)
    weight = torch.randn(edge_index.size(1), *y.shape[1:-1], dtype=torch.double)
    there = (spmm(graph, graph.sort_edges(weight), x) * y).sum()
    back = (spmm(transpose, transpose.sort_edges(weight), y) * x).sum()
    edges = (sddmm(graph, y, x) * graph.sort_edges(weight)).sum()
    torch.testing.assert_close(there, back)
    torch.testing.assert_close(there, edges)


@given(graphs(), st.randoms(use_true_random=False))
def test_order_of_edges_is_free(drawn: tuple[Tensor, tuple[int, int]], random: object) -> None:
    edge_index, size = drawn
    shuffle = torch.randperm(edge_index.size(1))
    a, b = Graph(edge_index, size), Graph(edge_index[:, shuffle], size)
    _, _, (weight, x) = case("spmm", a, None)
    given = torch.empty_like(weight)
    given[a.perm] = weight  # in the order of edge_index
    out = spmm(a, segment_softmax(a, weight), x)
    torch.testing.assert_close(out, spmm(b, segment_softmax(b, b.sort_edges(given[shuffle])), x))


@given(graphs())
def test_names_of_nodes_are_free(drawn: tuple[Tensor, tuple[int, int]]) -> None:
    edge_index, (num_src, num_dst) = drawn
    src, dst = torch.randperm(num_src), torch.randperm(num_dst)
    a = Graph(edge_index, (num_src, num_dst))
    b = Graph(torch.stack([src[edge_index[0]], dst[edge_index[1]]]), (num_src, num_dst))
    weight = torch.randn(edge_index.size(1))
    x = torch.randn(num_src, 3)
    renamed = torch.empty_like(x)
    renamed[src] = x
    out = spmm(b, b.sort_edges(weight), renamed)[dst]
    torch.testing.assert_close(out, spmm(a, a.sort_edges(weight), x), rtol=1e-5, atol=1e-5)


# How it is done ----------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("primitive", ["sddmm", "spmm"])
def test_chunked_gather(primitive: str, heads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_ops, "_has_kernel", lambda x: False)
    monkeypatch.setattr(sparse_ops, "_CHUNK", 12)  # three edges
    for name in GRAPHS:
        assert_equal_to_naive(primitive, build(name), heads, torch.double, 1e-13)


def test_gather_is_announced() -> None:
    with pytest.warns(UserWarning, match="no sparse kernels for 'meta'.*gathered in chunks"):
        assert not sparse_ops._has_kernel(torch.empty(1, device="meta"))


def test_transpose_is_built_for_derivatives_only() -> None:
    graph = build("square")
    x = torch.randn(5, 3)
    spmm(graph, sddmm(graph, x, x), x)
    x.requires_grad_()
    with torch.no_grad():
        spmm(graph, sddmm(graph, x, x), x)
    assert graph.arrays._csc is None
    sddmm(graph, x, x)
    assert graph.arrays._csc is not None


def test_more_duplicates_than_the_matrix_has_places() -> None:
    graph = Graph(torch.zeros(2, 5, dtype=torch.long))
    x = torch.tensor([[2.0]], requires_grad=True)
    out = sddmm(graph, x, x)
    assert out.tolist() == [4] * 5
    assert torch.autograd.grad(out.sum(), x)[0].item() == 20


@pytest.mark.parametrize("heads", [None, 4])
def test_no_array_of_edges_times_features(
    heads: int | None, allocations: Callable[[Callable[[], object]], list[int]]
) -> None:
    num_nodes, num_edges, width = 100, 8_000, 64
    graph = Graph(torch.randint(0, num_nodes, (2, num_edges)))
    head = () if heads is None else (heads,)
    x = torch.randn(num_nodes, *head, width, requires_grad=True)
    y = torch.randn(num_nodes, *head, width, requires_grad=True)

    def step() -> None:
        out = spmm(graph, segment_softmax(graph, sddmm(graph, x, y)), y)
        torch.autograd.grad(out.square().sum(), (x, y))

    # At most an index or an [E, H] array, or an [N, H, F] one.
    assert max(allocations(step)) <= max(8 * num_edges, 4 * num_edges * (heads or 1), 4 * x.numel())


@COMPILE
@pytest.mark.parametrize(("heads", "dynamic"), [(None, False), (2, True)])
def test_compile(heads: int | None, dynamic: bool) -> None:
    graph = build("square")
    _, _, (x, y) = case("sddmm", graph, heads)

    def step(x: Tensor, y: Tensor) -> Tensor:
        return spmm(graph, segment_softmax(graph, sddmm(graph, x, y)), y)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    results = []
    for f in (step, compiled):
        out = f(x, y)
        results.append((out, *torch.autograd.grad(out.sin().sum(), (x, y))))
    # Compiled products are added in another order.
    torch.testing.assert_close(*results, rtol=1e-13, atol=1e-14)


@COMPILE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("few", [True, False], ids=["few", "many"])
@pytest.mark.parametrize("name", ["bipartite", "no edges"])
def test_compiled_products_are_plain_by_size(
    name: str,
    few: bool,
    heads: int | None,
    dtype: torch.dtype,
    compiled_calls: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of few features the derivative is a compiler's too, of many that of our operator."""
    graph = build(name)
    _, _, (x, y) = case("sddmm", graph, heads)
    x, y = (z.detach().to(dtype).requires_grad_() for z in (x, y))
    expected = sddmm(graph, x, y)
    grads = torch.autograd.grad(expected.sum(), (x, y))
    monkeypatch.setattr(primitives, "_FEW_FEATURES", x.numel() - int(not few))
    seen, found = compiled_calls(lambda x, y: sddmm(graph, x, y), x, y)
    assert seen == (set() if few else {"spmm"})
    torch.testing.assert_close(found, [expected.detach(), *grads])


@COMPILE
def test_compiled_gradients_of_weights_are_products_too(compiled_calls: Any) -> None:
    graph = build("square")
    _, _, (weight, x) = case("spmm", graph, None)
    expected = spmm(graph, weight, x)
    grads = torch.autograd.grad(expected.sum(), (weight, x))
    seen, found = compiled_calls(lambda weight, x: spmm(graph, weight, x), weight, x)
    assert seen == {"spmm"}
    torch.testing.assert_close(found, [expected.detach(), *grads])


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", ["bipartite", "no edges"])
def test_operators(name: str, heads: int | None) -> None:
    graph = build(name)
    ops, index = torch.ops.pyg_stkd, [*graph.csr(), *graph.csc()]
    _, _, (weight, x) = case("spmm", graph, heads)
    _, _, (y, _) = case("sddmm", graph, heads)
    weight, x, y = weight.detach(), x.detach(), y.detach()
    calls = [
        (ops.sddmm, (index, y, x)),
        (ops.spmm, (index, weight, x, False)),
        (ops.spmm, (index, weight, y, True)),
        (ops.segment_sum, (index[0], weight)),
        (ops.segment_log_softmax, (index[0], index[2], weight)),
        (ops.segment_log_softmax, (index[0], index[2], torch.stack([weight] * 2, -1)[..., 0])),
    ]
    for op, args in calls:
        torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))


# Bad input ---------------------------------------------------------------------------------------

G = build("bipartite")  # 7 sources, 3 targets, 4 edges
X, Y, W = torch.ones(7, 2), torch.ones(3, 2), torch.ones(4)
BAD = {
    "rows a": (sddmm, (G, X, X), ValueError, r"'a' must have shape \[3, F\].*\(got \[7, 2\]\)"),
    "rows b": (sddmm, (G, Y, Y), ValueError, r"'b' must have shape \[7, F\].*\(got \[3, 2\]\)"),
    "rows x": (spmm, (G, W, Y), ValueError, r"'x' must have shape \[7, F\].*\(got \[3, 2\]\)"),
    "width": (sddmm, (G, Y, X[:, :1]), ValueError, r"same width \(got \[3, 2\] and \[7, 1\]\)"),
    "heads": (sddmm, (G, Y, X[:, None]), ValueError, r"same width \(got \[3, 2\] and \[7, 1, 2\]"),
    "dims": (spmm, (G, W, X[:, 0]), ValueError, r"'x' must have shape .* \(got \[7\]\)"),
    "dtype": (spmm, (G, W, X.long()), TypeError, r"'x' must be .* real .*\(got torch.int64\)"),
    "complex": (spmm, (G, W.cfloat(), X), TypeError, r"'weight' must be .*\(got torch.complex64\)"),
    "list": (sddmm, (G, [1.0], X), TypeError, r"'a' must be a tensor .*\(got list\)"),
    "weight": (spmm, (G, W[1:], X), ValueError, r"'weight' must have shape \[4\].*\(got \[3\]\)"),
    "weight heads": (
        spmm, (G, W, X[:, None]), ValueError, r"'weight' must have shape \[4, 1\].*\(got \[4\]\)",
    ),
    "value": (segment_sum, (G, W[1:]), ValueError, r"'value' must have shape \[4\].*\(got \[3\]\)"),
    "value dims": (
        segment_sum, (G, W.view(4, 1, 1)), ValueError, r"shape \[4\] or \[4, H\].*\[4, 1, 1\]",
    ),
    "score": (segment_softmax, (G, X), ValueError, r"'score' .*\[4, 2\].*\(got \[7, 2\]\)"),
    "score dtype": (segment_log_softmax, (G, W.int()), TypeError, r"'score' .*\(got torch.int32\)"),
    "device": (
        sddmm, (G, Y.to("meta"), X), ValueError, r"'a' must be on the graph's device cpu",
    ),
    "graph": (spmm, (G.edge_index, W, X), TypeError, r"'graph' must be a Graph"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    function, args, error, text = BAD[name]
    with pytest.raises(error, match=text):
        function(*args)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("heads", "width"), [(None, 0), (3, 0), (0, 2), (0, 0)])
def test_no_features_of_heads(name: str, heads: int | None, width: int) -> None:
    graph = build(name)
    head = () if heads is None else (heads,)
    weight = torch.randn(graph.num_edges, *head, requires_grad=True)
    x, y = (torch.randn(n, *head, width, requires_grad=True) for n in graph.size)
    out = spmm(graph, weight, x)
    assert out.shape == (graph.num_nodes, *head, width)
    for grad in torch.autograd.grad(out.sum(), (weight, x)):
        assert grad.abs().sum() == 0
    out = sddmm(graph, y, x)
    assert out.tolist() == torch.zeros(graph.num_edges, *head).tolist()
    for part, grad in zip((y, x), torch.autograd.grad(out.sum(), (y, x)), strict=True):
        assert grad.shape == part.shape
