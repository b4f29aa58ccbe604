from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from pyg_stkd import kernels
from pyg_stkd.functional import local_structure, lsp
from pyg_stkd.functional.structures.spatial import rows, spatial_correlation
from pyg_stkd.graph import Graph
from pyg_stkd.graph.slices import slice_blocks

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

# Node 3 has no in-edge, node 2 one of them twice, node 0 a loop.
EDGES = torch.tensor([[1, 2, 0, 0, 2, 0, 0, 3], [0, 0, 0, 1, 1, 2, 2, 1]])
N = 4


def naive(s: Tensor, t: Tensor, edges: Tensor, direction: str = "student") -> Tensor:
    """The definition with an RBF kernel, by a gather of all edges."""
    src, dst = edges
    logs = []
    for h in (s, t):
        sim = (-0.5 * (h[:, :, src] - h[:, :, dst]).square().sum(-1)).exp()  # [B, T, E]
        total = torch.zeros(h.shape[:3], dtype=h.dtype).index_add(2, dst, sim.exp())
        logs.append(sim - total[..., dst].log())
    p, q = logs if direction == "student" else logs[::-1]
    return (p.exp() * (p - q)).sum() / s[..., 0].numel()


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, N, 2).double(), torch.randn(2, 3, N, 5).double()


@pytest.mark.parametrize("direction", ["student", "teacher"])
def test_loss_and_gradient_are_the_definition(direction: str, pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair[0].requires_grad_(), pair[1]
    ours = spatial_correlation(s, t, EDGES, direction=direction)
    theirs = naive(s, t, EDGES, direction)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(loss, s)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def test_gradcheck(pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair[0][:1, :2].requires_grad_(), pair[1][:1, :2]
    for kernel in (kernels.RBF(), kernels.Cosine(), kernels.Laplacian(scale=2.0)):
        assert gradcheck(lambda s, k=kernel: spatial_correlation(s, t, EDGES, k), s)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 12))
def test_properties(batch: int, steps: int, num_nodes: int, num_edges: int) -> None:
    edges = torch.randint(num_nodes, (2, num_edges))
    s, t = (torch.randn(batch, steps, num_nodes, c).double() for c in (2, 3))
    loss = spatial_correlation(s, t, edges)
    torch.testing.assert_close(loss, naive(s, t, edges))
    assert loss >= -1e-12
    assert spatial_correlation(s, s, edges).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(loss, spatial_correlation(s, t, Graph(edges, num_nodes)))


def test_lengths_are_aligned_at_the_last_step(pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair
    expected = spatial_correlation(s, t, EDGES)
    longer = torch.cat([torch.randn(2, 2, N, 5).double(), t], dim=1)
    torch.testing.assert_close(spatial_correlation(s, longer, EDGES), expected)
    longer = torch.cat([torch.randn(2, 2, N, 2).double(), s], dim=1)
    torch.testing.assert_close(spatial_correlation(longer, t, EDGES), expected)


@pytest.mark.parametrize(
    "nodes", [torch.tensor([2, 0]), torch.tensor([True, False, True, False])], ids=["index", "mask"]
)
def test_nodes_restrict(nodes: Tensor, pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair
    kept = EDGES[:, (EDGES[1] == 0) | (EDGES[1] == 2)]
    expected = naive(s, t, kept) * N / 2
    torch.testing.assert_close(spatial_correlation(s, t, EDGES, nodes=nodes), expected)


def test_known_structure(pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair
    graph = Graph(EDGES, N)
    known = local_structure(rows(t), slice_blocks(graph, 6))
    ours = spatial_correlation(s, None, graph, teacher_structure=known)
    torch.testing.assert_close(ours, naive(s, t, EDGES))


def test_no_array_of_edges_and_channels(
    allocations: Callable[[Callable[[], object]], list[int]],
) -> None:
    graph = Graph(torch.randint(16, (2, 160)), 16)
    s = torch.randn(2, 4, 16, 64, requires_grad=True)
    t = torch.randn(2, 4, 16, 64)
    taken = allocations(lambda: spatial_correlation(s, t, graph).backward())
    assert max(taken) <= s.numel() * 4 * 2  # a gather would be 10 times the features


def test_errors(pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair
    with pytest.raises(ValueError, match=r"'h_student' must have shape \[B, T, N, C\]"):
        spatial_correlation(s[0], t, EDGES)
    with pytest.raises(ValueError, match="must have the same batch and nodes"):
        spatial_correlation(s, t[:, :, :3], EDGES)
    with pytest.raises(IndexError, match="source indices below the 4 source nodes"):
        spatial_correlation(s, t, EDGES + 1)
    with pytest.raises(ValueError, match="Exactly one of 'h_teacher' and 'teacher_structure'"):
        spatial_correlation(s, None, EDGES)
    with pytest.raises(ValueError, match=r"'direction' must be one of .* \(got 'up'\)"):
        spatial_correlation(s, t, EDGES, direction="up")  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", [kernels.RBF(), kernels.Cosine(), kernels.Laplacian()], ids=repr)
@pytest.mark.parametrize("normalize", [None, "l2", "layer"])
@pytest.mark.parametrize("shape", [(0, 4, N, 2), (2, 3, 0, 2), (2, 3, N, 0), (0, 1, 0, 0)], ids=str)
def test_empty(kernel: kernels.Kernel, normalize: str | None, shape: tuple[int, ...]) -> None:
    s, edges = torch.randn(shape, requires_grad=True), EDGES if shape[2] else EDGES[:, :0]
    every = torch.ones(shape[2]).bool()
    for nodes in (None, every, every.nonzero().view(-1)):
        loss = spatial_correlation(
            s,
            torch.randn(shape),
            edges,
            kernel,
            normalize=normalize,  # type: ignore[arg-type]
            nodes=nodes,
        )
        assert loss.item() == 0
        assert torch.autograd.grad(loss, s)[0].shape == shape


@pytest.mark.parametrize(
    "kernel",
    [kernels.RBF(2.0), kernels.SquaredEuclidean(), kernels.Euclidean(), kernels.Cosine()],
    ids=repr,
)
@pytest.mark.parametrize("normalize", [None, "l2"])
@pytest.mark.parametrize("direction", ["student", "teacher"])
@pytest.mark.parametrize("nodes", [None, [4, 0], [True, False, False, True, True, False]], ids=str)
def test_many_slices_are_each_a_graph(kernel, normalize, direction, nodes) -> None:
    edge_index = torch.tensor([[0, 1, 2, 3, 3, 1, 4, 4], [1, 0, 1, 3, 2, 3, 0, 0]])
    graph, options = Graph(edge_index, 6), {"normalize": normalize, "direction": direction}
    nodes = None if nodes is None else torch.tensor(nodes)
    s = torch.randn(4, 5, 6, 3, dtype=torch.float64, requires_grad=True)
    t = torch.randn(4, 7, 6, 9, dtype=torch.float64)
    found = spatial_correlation(s, t, graph, kernel, nodes=nodes, **options)
    slices = zip(rows(s).split(6), rows(t[:, 2:]).split(6), strict=True)
    each = [lsp(a, b, graph, kernel, nodes=nodes, **options) for a, b in slices]
    expected = torch.stack(each).mean()
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(x, s, retain_graph=True)[0] for x in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_many_slices_of_half_precision(dtype: torch.dtype) -> None:
    graph = Graph(torch.tensor([[0, 1, 2, 0], [1, 0, 1, 2]]), 3)
    s, t = torch.randn(4, 5, 3, 2, dtype=dtype, requires_grad=True), torch.randn(4, 5, 3, 4)
    loss = spatial_correlation(s, t.to(dtype), graph, kernels.RBF("median"))
    loss.backward()
    single = s.detach().float().requires_grad_()
    expected = spatial_correlation(single, t.to(dtype).float(), graph, kernels.RBF("median"))
    expected.backward()
    assert (loss.dtype, s.grad.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(s.grad, single.grad.to(dtype))
