from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch_geometric import EdgeIndex
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor

from pyg_stkd import kernels
from pyg_stkd.functional import local_structure, lsp
from pyg_stkd.graph import Graph

N, E = 9, 40
Formula = Callable[[Tensor, Tensor], Tensor]
RBF = kernels.RBF(sigma=1.5)
# kernel: its naive formula on the features of both ends of the edges
KERNELS: dict[kernels.Kernel, Formula] = {
    kernels.Linear(): lambda a, b: (a * b).sum(-1),
    kernels.Polynomial(): lambda a, b: (a * b).sum(-1) ** 2,
    kernels.Polynomial(3, c=0.5): lambda a, b: ((a * b).sum(-1) + 0.5) ** 3,
    kernels.Polynomial(2, cosine=True): lambda a, b: F.cosine_similarity(a, b) ** 2,
    RBF: lambda a, b: (-(a - b).square().sum(-1) / (2 * 1.5**2)).exp(),
    kernels.RBF(sigma="median"): lambda a, b: (
        -(a - b).square().sum(-1) / (2 * (a - b).square().sum(-1).detach().median())
    ).exp(),
    kernels.SquaredEuclidean(): lambda a, b: (a - b).square().sum(-1),
    kernels.Euclidean(): lambda a, b: (a - b).norm(dim=-1),
    kernels.Cosine(): F.cosine_similarity,
    kernels.Laplacian(scale=2.0): lambda a, b: ((a - b).abs().sum(-1) / -2).exp(),
}
NORMALIZE: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda z: z,
    "l2": lambda z: z / z.norm(dim=-1, keepdim=True),
    "layer": lambda z: (
        (z - z.mean(-1, keepdim=True)) / z.var(-1, unbiased=False, keepdim=True).sqrt()
    ),
}
# Small random features on small graphs may well have nearly uniform structures.
pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here:UserWarning")
COMPILE = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def edges() -> Tensor:
    """Loops, duplicates, a node without edges (8) and one with a single edge (7)."""
    src = torch.randint(0, N - 1, (E,))
    dst = torch.randint(0, N - 2, (E,))
    src[:3] = dst[:3]
    src[3:6], dst[3:6] = src[6:9], dst[6:9]
    dst[-1] = 7
    return torch.stack([src, dst])


def features(*widths: int, num_nodes: int = N) -> list[Tensor]:
    return [torch.randn(num_nodes, width, dtype=torch.double) for width in widths]


def naive_structure(z: Tensor, edge_index: Tensor, sim: Formula) -> list[Tensor]:
    """The structure of each node, log(softmax) of its edges in their given order."""
    score = sim(z[edge_index[1]], z[edge_index[0]])
    return [score[edge_index[1] == i].log_softmax(0) for i in range(z.size(0))]


def naive_lsp(
    z_student: Tensor,
    z_teacher: Tensor,
    edge_index: Tensor,
    kernel: kernels.Kernel = RBF,
    direction: str = "student",
    normalize: str | None = None,
    reduction: str = "node",
    nodes: list[int] | None = None,
) -> Tensor:
    """Equations 3, 5 and 6 of the paper, node by node."""
    norm, sim = NORMALIZE[normalize], KERNELS[kernel]
    student = naive_structure(norm(z_student), edge_index, sim)
    teacher = naive_structure(norm(z_teacher), edge_index, sim)
    total, num_edges = z_student.new_zeros(()), 0
    nodes = list(range(z_student.size(0))) if nodes is None else nodes
    for i in nodes:
        p, q = (student[i], teacher[i]) if direction == "student" else (teacher[i], student[i])
        total = total + (p.exp() * (p - q)).sum()
        num_edges += p.numel()
    return total / (len(nodes) if reduction == "node" else num_edges)


def assert_equals_naive(edge_index: Tensor, device: torch.device, **options: Any) -> None:
    z_student, z_teacher = (z.to(device) for z in features(5, 8))
    z_student.requires_grad_()
    if "nodes" in options:
        options["nodes"] = options["nodes"].to(device)
    loss = lsp(z_student, z_teacher, edge_index.to(device), **options)
    if "nodes" in options:
        nodes = options["nodes"]
        options["nodes"] = (
            nodes.nonzero().view(-1) if nodes.dtype == torch.bool else nodes
        ).tolist()
    expected = naive_lsp(z_student, z_teacher, edge_index.to(device), **options)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    grads = [torch.autograd.grad(y, z_student)[0] for y in (loss, expected)]
    torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-10)
    assert grads[0].abs().max() > 1e-6


# Against the naive formula -----------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["student", "teacher"])
@pytest.mark.parametrize("reduction", ["node", "edge"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.usefixtures("extensions")
def test_kernels(
    kernel: kernels.Kernel, reduction: str, direction: str, device: torch.device
) -> None:
    options = {"kernel": kernel, "reduction": reduction, "direction": direction}
    assert_equals_naive(edges(), device, **options)


@pytest.mark.parametrize("normalize", [None, "l2", "layer"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_normalize(kernel: kernels.Kernel, normalize: str | None, device: torch.device) -> None:
    assert_equals_naive(edges(), device, kernel=kernel, normalize=normalize)


@pytest.mark.parametrize("nodes", [[2, 0, 5], [2, 2, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8]])
@pytest.mark.parametrize("reduction", ["node", "edge"])
@pytest.mark.parametrize("kind", ["int64", "int32", "mask"])
def test_nodes(nodes: list[int], reduction: str, kind: str, device: torch.device) -> None:
    given = torch.tensor(nodes, dtype=torch.int32 if kind == "int32" else torch.int64)
    if kind == "mask":
        given = torch.zeros(N, dtype=torch.bool).index_fill(0, given, True)
    assert_equals_naive(edges(), device, kernel=RBF, reduction=reduction, nodes=given)


@pytest.mark.parametrize("nodes", [torch.tensor([8]), torch.arange(N) == 8])
@pytest.mark.parametrize("reduction", ["node", "edge"])
def test_nodes_without_edges(nodes: Tensor, reduction: str) -> None:
    z_student, z_teacher = features(5, 8)
    z_student.requires_grad_()
    loss = lsp(z_student, z_teacher, edges(), RBF, nodes=nodes, reduction=reduction)  # type: ignore[arg-type]
    assert loss.item() == 0
    assert torch.autograd.grad(loss, z_student)[0].abs().max() == 0


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_local_structure(kernel: kernels.Kernel, device: torch.device) -> None:
    edge_index = edges().to(device)
    graph, (z,) = Graph(edge_index, N), features(5)
    z = z.to(device)
    expected = torch.cat(naive_structure(z, edge_index, KERNELS[kernel]))
    torch.testing.assert_close(local_structure(z, graph, kernel), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(local_structure(z, edge_index, kernel), expected)


@pytest.mark.parametrize("direction", ["student", "teacher"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_teacher_structure(kernel: kernels.Kernel, direction: Any) -> None:
    graph, (z_student, z_teacher) = Graph(edges(), N), features(5, 8)
    kept = local_structure(z_teacher.requires_grad_(), graph, kernel, "l2")
    options = {"kernel": kernel, "direction": direction, "normalize": "l2"}
    loss = lsp(z_student.requires_grad_(), z_teacher, graph, **options)
    again = lsp(z_student, None, graph, teacher_structure=kept, **options)
    assert again.equal(loss)
    again.backward()
    assert z_teacher.grad is None  # a teacher is a constant


@pytest.mark.parametrize("direction", ["student", "teacher"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_derivatives(kernel: kernels.Kernel, direction: Any) -> None:
    if kernel.__dict__.get("sigma") == "median":
        pytest.skip("the width is a constant to autograd")
    edge_index = edges()
    graph = Graph(edge_index[:, edge_index[0] != edge_index[1]], N)  # a distance has a kink at 0
    z_student, z_teacher = features(3, 4)

    def loss(z: Tensor) -> Tensor:
        return lsp(z, z_teacher, graph, kernel, direction)

    assert gradcheck(loss, z_student.requires_grad_(), fast_mode=True)
    assert gradgradcheck(loss, z_student, fast_mode=True)


def test_official_code() -> None:
    """Laplacian kernel of width 100, KL(t || s), mean over nodes."""
    edge_index, (z_student, z_teacher) = edges(), features(5, 8)

    def structure(z: Tensor) -> Tensor:
        sim = (-(z[edge_index[0]] - z[edge_index[1]]).abs().sum(-1) / 100).exp().exp()
        return sim / torch.zeros(N, dtype=z.dtype).index_add(0, edge_index[1], sim)[edge_index[1]]

    p, q = structure(z_teacher), structure(z_student)
    expected = (p * (p.log() - q.log())).sum() / N
    loss = lsp(z_student, z_teacher, edge_index, kernels.Laplacian(), "teacher")
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("kernel", "sim"),
    [
        (kernels.Cosine(), F.cosine_similarity),
        (kernels.Polynomial(2, cosine=True), lambda a, b: F.cosine_similarity(a, b) ** 2),
        (kernels.Euclidean(), lambda a, b: torch.norm(a - b, p=2, dim=-1)),
        (kernels.RBF(), lambda a, b: torch.exp(-0.5 * ((a - b) ** 2).sum(dim=-1))),
    ],
    ids=["cosine", "squared cosine", "Euclidean", "RBF"],
)
def test_efficient_gnns_code(kernel: kernels.Kernel, sim: Formula) -> None:
    """Softmax over in-edges, KL(t || s) as the mean of F.kl_div over edges (its old default)."""
    edge_index, (z_student, z_teacher) = edges(), features(5, 8)

    def structure(z: Tensor) -> Tensor:
        weight = sim(z[edge_index[0]], z[edge_index[1]]).exp()
        total = torch.zeros(N, dtype=z.dtype).index_add(0, edge_index[1], weight)
        return weight / total[edge_index[1]]

    expected = F.kl_div(structure(z_student).log(), structure(z_teacher), reduction="none").mean()
    loss = lsp(z_student, z_teacher, edge_index, kernel, "teacher", reduction="edge")
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    "layout", ["int32", "EdgeIndex", "csr", "csc", "coo", "SparseTensor", "Graph"]
)
def test_edges_of_any_kind(layout: str) -> None:
    edge_index = edges().unique(dim=1).contiguous()
    z_student, z_teacher = features(5, 8)
    expected = lsp(z_student, z_teacher, edge_index, RBF)
    if layout == "SparseTensor" and not WITH_TORCH_SPARSE:
        pytest.skip("torch-sparse is not installed")
    value = torch.rand(edge_index.size(1))  # weights play no part in the loss
    coo = torch.sparse_coo_tensor(edge_index.flip(0), value, (N, N), check_invariants=True)
    coo = coo.coalesce()
    adj = {
        "int32": lambda: edge_index.int(),
        "EdgeIndex": lambda: EdgeIndex(edge_index, sparse_size=(N, N)),
        "csr": coo.to_sparse_csr,
        "csc": coo.to_sparse_csc,
        "coo": lambda: coo,
        "SparseTensor": lambda: SparseTensor.from_edge_index(edge_index, value, (N, N)).t(),
        "Graph": lambda: Graph(edge_index, N),
    }[layout]()
    torch.testing.assert_close(lsp(z_student, z_teacher, adj, RBF), expected)


# Properties --------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Tensor, int]:
    num_nodes = draw(st.integers(1, 7))
    edge = st.tuples(*[st.integers(0, num_nodes - 1)] * 2)
    pairs = draw(st.lists(edge, max_size=20))
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2).t(), num_nodes


@given(graphs(), st.sampled_from(list(KERNELS)), st.sampled_from(["student", "teacher"]))
def test_divergence(drawn: tuple[Tensor, int], kernel: kernels.Kernel, direction: Any) -> None:
    edge_index, num_nodes = drawn
    z_student, z_teacher = features(3, 4, num_nodes=num_nodes)
    loss = lsp(z_student, z_teacher, edge_index, kernel, direction)
    assert loss >= -1e-12
    assert lsp(z_teacher, z_teacher, edge_index, kernel, direction).item() == 0
    structure = local_structure(z_student, edge_index, kernel).exp()
    total = torch.zeros(num_nodes).double()
    total.index_add_(0, Graph(edge_index, num_nodes).edge_index[1], structure)
    assert torch.allclose(total, total.round())


@given(graphs(), st.sampled_from(list(KERNELS)))
def test_names_and_order_are_free(drawn: tuple[Tensor, int], kernel: kernels.Kernel) -> None:
    edge_index, num_nodes = drawn
    z_student, z_teacher = features(3, 4, num_nodes=num_nodes)
    loss = lsp(z_student, z_teacher, edge_index, kernel)
    shuffle, rename = torch.randperm(edge_index.size(1)), torch.randperm(num_nodes)
    old = rename.argsort()
    renamed = lsp(z_student[old], z_teacher[old], rename[edge_index[:, shuffle]], kernel)
    torch.testing.assert_close(renamed, loss)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_empty(kernel: kernels.Kernel) -> None:
    none = torch.empty(2, 0, dtype=torch.long)
    for num_nodes in (0, 3):
        z = torch.randn(num_nodes, 4, requires_grad=True)
        loss = lsp(z, z.detach(), none, kernel)
        assert loss.item() == 0
        assert torch.autograd.grad(loss, z)[0].abs().sum() == 0


# Precision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16, torch.half])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_precision(kernel: kernels.Kernel, dtype: torch.dtype) -> None:
    edge_index = edges()
    z_student, z_teacher = (z.to(dtype) for z in features(5, 8))
    wide = z_student.double().requires_grad_()
    loss = lsp(z_student.requires_grad_(), z_teacher, edge_index, kernel)
    expected = naive_lsp(wide, z_teacher.double(), edge_index, kernel)
    assert loss.dtype == torch.float
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
    (grad,) = torch.autograd.grad(loss, z_student)
    (correct,) = torch.autograd.grad(expected, wide)
    assert grad.dtype == dtype
    rtol = {torch.float: 1e-3, torch.bfloat16: 2e-2, torch.half: 2e-3}[dtype]
    torch.testing.assert_close(grad.double(), correct, rtol=rtol, atol=rtol * float(correct.norm()))


@pytest.mark.parametrize("offset", [0, 1e3])
def test_offset_costs_no_accuracy(offset: float) -> None:
    edge_index = torch.randint(0, 60, (2, 600))
    z_student, z_teacher = (torch.randn(60, width) * 0.4 + offset for width in (12, 24))
    wide = z_student.double().requires_grad_()
    loss = lsp(z_student.requires_grad_(), z_teacher, edge_index, RBF)
    expected = naive_lsp(wide, z_teacher.double(), edge_index)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=0)
    (grad,) = torch.autograd.grad(loss, z_student)
    (correct,) = torch.autograd.grad(expected, wide)
    assert (grad - correct).norm() < 1e-4 * correct.norm()


@pytest.mark.parametrize("scale", [1e2, 1e4])
@pytest.mark.parametrize("direction", ["student", "teacher"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_raw_wide_features_stay_finite(
    kernel: kernels.Kernel, direction: Any, scale: float
) -> None:
    if isinstance(kernel, kernels.Polynomial) and kernel.degree > 2:
        scale = 1e2  # the cube of 1e11 leaves float32
    z_student, z_teacher = torch.randn(50, 136) * scale, torch.randn(50, 1024) * scale
    loss = lsp(
        z_student.requires_grad_(), z_teacher, torch.randint(0, 50, (2, 300)), kernel, direction
    )
    assert loss.isfinite()
    loss.backward()
    assert z_student.grad.isfinite().all()


def test_autocast() -> None:
    edge_index, lin = edges(), torch.nn.Linear(8, 5)
    x, z_teacher = torch.randn(N, 8), torch.randn(N, 6)
    expected = lsp(lin(x), z_teacher, edge_index, RBF)
    with torch.autocast("cpu", torch.bfloat16):
        z = lin(x)
        loss = lsp(z, z_teacher, edge_index, RBF)
    assert (z.dtype, loss.dtype) == (torch.bfloat16, torch.float)
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.01)
    loss.backward()
    assert lin.weight.grad.isfinite().all()


# How it is done ----------------------------------------------------------------------------------


def gather_step(z_student: Tensor, z_teacher: Tensor, graph: Graph, kernel: kernels.Kernel) -> None:
    """The naive formula as it is written everywhere, with [E, F] arrays."""
    src, dst = graph.edge_index
    logs = []
    for z in (z_teacher, z_student):
        score = KERNELS[kernel](z[dst], z[src]).exp()
        logs.append((score / score.new_zeros(z.size(0)).index_add(0, dst, score)[dst]).log())
    teacher, student = logs
    torch.autograd.grad((student.exp() * (student - teacher)).sum(), z_student)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_memory(
    kernel: kernels.Kernel, allocations: Callable[[Callable[[], object]], list[int]]
) -> None:
    num_nodes, num_edges, width = 200, 8_000, 128
    graph = Graph(torch.randint(0, num_nodes, (2, num_edges)))
    z_student, z_teacher = torch.randn(num_nodes, width), torch.randn(num_nodes, width)
    z_student.requires_grad_()

    def step() -> None:
        torch.autograd.grad(lsp(z_student, z_teacher, graph, kernel), z_student)

    def peak(events: list[int]) -> int:
        return int(torch.tensor(events).cumsum(0).max())

    ours = allocations(step)
    naive = allocations(lambda: gather_step(z_student, z_teacher, graph, kernel))
    assert max(naive) >= 4 * num_edges * width
    assert max(ours) < 0.1 * (4 * num_edges * width)
    assert peak(ours) < 0.15 * peak(naive)


@COMPILE
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (RBF, {"nodes": torch.tensor([True, False, True] * 3)}),
        (kernels.Laplacian(), {"nodes": torch.tensor([0, 4]), "reduction": "edge"}),
        (kernels.Cosine(), {"normalize": "layer", "direction": "teacher"}),
    ],
    ids=["rbf", "laplacian", "cosine"],
)
def test_compile(kernel: kernels.Kernel, options: dict[str, Any]) -> None:
    graph, (z_student, z_teacher) = Graph(edges(), N), features(5, 8)
    compiled = torch.compile(lsp, backend="aot_eager", fullgraph=True)
    results = []
    for f in (lsp, compiled):
        loss = f(z_student.requires_grad_(), z_teacher, graph, kernel, **options)
        results.append((loss, *torch.autograd.grad(loss, z_student)))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


@pytest.mark.skipif(
    tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 8),
    reason="before torch 2.8 a number of edges that is not known breaks the graph",
)
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_is_compiled_once_for_few_and_many_edges() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(lsp, backend=counter, fullgraph=True, dynamic=True)
    for num_edges in (1000, 5000):  # on both sides of every limit of the eager code
        s, t = torch.randn(2, 70, 4)
        args = (s.requires_grad_(), t, torch.randint(70, (2, num_edges)), RBF)
        torch.testing.assert_close(compiled(*args), lsp(*args))
    assert counter.frame_count == 1


# The blind-kernel warning ------------------------------------------------------------------------


@pytest.fixture
def no_blind_kernel() -> Iterator[None]:
    """Fails at the warning, which a mark would not: the module's own mark goes before it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*is blind here")
        yield


@pytest.mark.filterwarnings("default:.*is blind here:UserWarning")
@pytest.mark.parametrize(
    ("kernel", "scale", "kind", "bound"),
    [
        (kernels.RBF(), 1.0, "uniform", "less than 0.02"),  # all neighbours beyond its reach
        (kernels.RBF(sigma=0.01), 1.0, "uniform", "less than 0.02"),
        (kernels.Laplacian(scale=1e6), 1.0, "uniform", "less than 0.02"),
        (kernels.Linear(), 1e3, "one-hot", "below 1 %"),
        (kernels.SquaredEuclidean(), 1e3, "one-hot", "below 1 %"),
    ],
    ids=repr,
)
def test_blind_kernel(kernel: kernels.Kernel, scale: float, kind: str, bound: str) -> None:
    edge_index = torch.stack([torch.randperm(64).repeat(4), torch.arange(64).repeat_interleave(4)])
    z = torch.randn(64, 256) * scale
    with pytest.warns(UserWarning, match=f"is blind here.* {kind}.* {bound}") as caught:
        lsp(z, z, edge_index, kernel)
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("default:.*is blind here:UserWarning")
def test_loops_do_not_hide_a_blind_kernel() -> None:
    loops = torch.arange(2000).expand(2, -1)
    edge_index = torch.cat([torch.randint(0, 2000, (2, 8000)), loops], dim=1)
    z = torch.randn(2000, 256)
    with pytest.warns(UserWarning, match=r"RBF\(sigma=1.0\) is blind here.* uniform"):
        lsp(z, z, edge_index)


@pytest.mark.filterwarnings("default:.*is blind here:UserWarning")
@pytest.mark.parametrize(
    ("kernel", "normalize", "scale", "advice", "silent"),
    [
        (kernels.RBF(0.01), None, 1.0, "Normalise the features .* another width", "weight"),
        (kernels.RBF(99.0), "l2", 1.0, "another width.* unbounded.* larger weight", "ormalise"),
        (kernels.Linear(), None, 1e3, "Normalise the features .* bounded kernel", "width|weight"),
        (kernels.Linear(), None, 1e-3, "Normalise the features", "width|bounded"),
        (kernels.Linear(), "layer", 1.0, "a bounded kernel", "ormalise|width|weight"),
    ],
)
def test_advice_is_what_can_help(
    kernel: kernels.Kernel, normalize: Any, scale: float, advice: str, silent: str
) -> None:
    z = torch.randn(64, 4000) * scale
    edge_index = torch.stack([torch.randperm(64).repeat(4), torch.arange(64).repeat_interleave(4)])
    with pytest.warns(UserWarning, match=f"is blind here.*{advice}") as caught:
        lsp(z, z, edge_index, kernel, normalize=normalize)
    assert not re.search(silent, str(caught[0].message))


@pytest.mark.usefixtures("no_blind_kernel")
@pytest.mark.parametrize("width", [8, 64, 1024])
@pytest.mark.parametrize("loops", [0, 300])
def test_median_width_of_unit_vectors_sees(width: int, loops: int) -> None:
    """Its structures are near uniform, as those of all kernels between 0 and 1 are."""
    dst = torch.arange(300).repeat_interleave(20)
    edge_index = torch.stack([torch.randint(0, 300, (6000,)), dst])
    edge_index = torch.cat([edge_index, torch.arange(loops).expand(2, -1)], dim=1)
    z = torch.randn(300, width)
    lsp(z, z, edge_index, kernels.RBF(sigma="median"), normalize="l2")


@pytest.mark.usefixtures("no_blind_kernel")
def test_seeing_kernel_is_silent() -> None:
    (z,) = features(4, num_nodes=N + 20)  # 21 nodes without edges
    lsp(z, z, edges(), kernels.RBF(sigma=1.5))
    lsp(z, z, torch.tensor([[0, 1, 2], [1, 2, 3]]), kernels.Linear())  # degree 1: nothing to see
    lsp(z, z, torch.tensor([[0, 1, 2, 1], [1, 2, 3, 1]]), kernels.RBF(9.0))  # but for a loop
    lsp(z, z, torch.empty(2, 0, dtype=torch.long))
    graph = Graph(edges(), N + 20)
    kept = local_structure(z * 1e3, graph, kernels.Linear())
    lsp(
        z, None, graph, kernels.Linear(), teacher_structure=kept
    )  # warned when it was made, if ever


def test_blind_kernel_is_announced_once() -> None:
    z = torch.randn(64, 256)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            lsp(z, torch.randn(64, 256), torch.randint(0, 64, (2, 256)), kernels.RBF())
    assert len(caught) == 1


# Bad input ---------------------------------------------------------------------------------------

Z, EDGE = torch.ones(5, 3), torch.tensor([[0, 1], [1, 0]])
BAD: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = {
    "direction": ((Z, Z, EDGE, RBF, "both"), {}, ValueError, r"'direction' .*\(got 'both'\)"),
    "reduction": ((Z, Z, EDGE), {"reduction": "mean"}, ValueError, r"'reduction' .*\(got 'mean'\)"),
    "normalize": ((Z, Z, EDGE), {"normalize": "l1"}, ValueError, r"'normalize' .*\(got 'l1'\)"),
    "kernel": ((Z, Z, EDGE, "rbf"), {}, TypeError, r"'kernel' must be .*\(got 'rbf'\)"),
    "rows": ((Z, Z[1:], EDGE), {}, ValueError, r"same number of nodes \(got 5 and 4\)"),
    "shape": ((Z[0], Z, EDGE), {}, ValueError, r"'z_student' must have shape .*\(got \[3\]\)"),
    "teacher": ((Z, Z[0], EDGE), {}, ValueError, r"'z_teacher' must have shape .*\(got \[3\]\)"),
    "dtype": ((Z.int(), Z, EDGE), {}, TypeError, r"'z_student' must be .*\(got torch.int32\)"),
    "complex": ((Z, Z.cfloat(), EDGE), {}, TypeError, r"'z_teacher' .*\(got torch.complex64\)"),
    "list": ((Z, [1.0], EDGE), {}, TypeError, r"'z_teacher' must be a tensor .*\(got list\)"),
    "edges": ((Z, Z, EDGE + 4), {}, IndexError, r"below the 5 source nodes \(got 5\)"),
    "graph": ((Z, Z, Graph(EDGE, 6)), {}, ValueError, r"must be \(5, 5\).*\(got \(6, 6\)\)"),
    "device": ((Z.to("meta"), Z, EDGE), {}, ValueError, r"device cpu \(got meta\)"),
    "neither": ((Z, None, EDGE), {}, ValueError, "Exactly one of 'z_teacher' and 'teacher_str"),
    "both": ((Z, Z, EDGE), {"teacher_structure": torch.ones(2)}, ValueError, "Exactly one of"),
    "structure": (
        (Z, None, EDGE), {"teacher_structure": torch.ones(3)}, ValueError, r"\[2\].*\(got \[3\]\)",
    ),
    "student NaN": ((Z * torch.nan, Z, EDGE), {}, ValueError, "'z_student' must be finite"),
    "teacher inf": ((Z, Z / 0, EDGE), {}, ValueError, "'z_teacher' must be finite"),
    "structure NaN": (
        (Z, None, EDGE), {"teacher_structure": torch.full((2,), torch.nan)}, ValueError,
        "'teacher_structure' must be finite",
    ),
    "overflow": (
        (Z * 1e30, Z * 1e30, EDGE, kernels.Polynomial(9)), {}, ValueError, "structures overflow",
    ),
    "nodes": ((Z, Z, EDGE), {"nodes": [0]}, TypeError, r"'nodes' must be a tensor .*\(got list\)"),
    "nodes dims": ((Z, Z, EDGE), {"nodes": EDGE}, ValueError, r"'nodes' .*\(got shape \[2, 2\]\)"),
    "nodes dtype": ((Z, Z, EDGE), {"nodes": Z[0]}, TypeError, r"'nodes' .*\(got torch.float32\)"),
    "nodes mask": (
        (Z, Z, EDGE), {"nodes": torch.ones(4).bool()}, ValueError, r"each of the 5.*\(got 4\)",
    ),
    "nodes range": (
        (Z, Z, EDGE), {"nodes": torch.tensor([5])}, IndexError, r"below the 5 nodes \(got 5\)",
    ),
    "nodes below": (
        (Z, Z, EDGE), {"nodes": torch.tensor([-1])}, IndexError, r"negative indices \(got -1\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    args, options, error, text = BAD[name]
    with pytest.raises(error, match=text):
        lsp(*args, **options)


def test_bad_input_of_local_structure() -> None:
    with pytest.raises(ValueError, match=r"'z' must have shape \[N, F\] \(got \[3\]\)"):
        local_structure(Z[0], EDGE)
    with pytest.raises(TypeError, match=r"'z' must be a tensor.*\(got list\)"):
        local_structure([1.0], EDGE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be \(5, 5\).*\(got \(6, 6\)\)"):
        local_structure(Z, Graph(EDGE, 6))
