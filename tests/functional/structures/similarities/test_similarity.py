from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from pyg_stkd import kernels
from pyg_stkd.functional import similarity
from pyg_stkd.graph import Graph

EDGES = torch.tensor([[3, 0, 2, 4, 0, 1, 3, 2], [1, 2, 0, 4, 2, 0, 3, 1]])
Formula = Callable[[Tensor, Tensor], Tensor]
# kernel: its formula on both ends of the edges
KERNELS: dict[kernels.Kernel, Formula] = {
    kernels.Linear(): lambda a, b: (a * b).sum(-1),
    kernels.Polynomial(): lambda a, b: (a * b).sum(-1) ** 2,
    kernels.Polynomial(3, c=0.5): lambda a, b: ((a * b).sum(-1) + 0.5) ** 3,
    kernels.Polynomial(2, cosine=True): lambda a, b: F.cosine_similarity(a, b) ** 2,
    kernels.RBF(): lambda a, b: (-0.5 * (a - b).square().sum(-1)).exp(),
    kernels.RBF(sigma=2.5): lambda a, b: (-(a - b).square().sum(-1) / (2 * 2.5**2)).exp(),
    kernels.SquaredEuclidean(): lambda a, b: (a - b).square().sum(-1),
    kernels.Euclidean(): lambda a, b: (a - b).norm(dim=-1),
    kernels.Cosine(): F.cosine_similarity,
    kernels.Laplacian(): lambda a, b: ((a - b).abs().sum(-1) / -100).exp(),
    kernels.Laplacian(scale=2.0): lambda a, b: ((a - b).abs().sum(-1) / -2).exp(),
}
NORMALIZE = {
    None: lambda z: z,
    "l2": lambda z: z / z.norm(dim=-1, keepdim=True),
    "layer": lambda z: (
        (z - z.mean(-1, keepdim=True)) / z.var(-1, unbiased=False, keepdim=True).sqrt()
    ),
}
DISTANCES = [k for k in KERNELS if k.measure in ("squared_distance", "manhattan")]


@pytest.fixture(autouse=True, params=["differences", "products"])
def distances(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes both ways to squared distances: that of few edges, and that of many."""
    if request.param == "products":
        monkeypatch.setattr("pyg_stkd.functional.structures.similarities.square_distance._FEW", 0)


def naive(z: Tensor, graph: Graph, kernel: kernels.Kernel, normalize: str | None = None) -> Tensor:
    src, dst = graph.edge_index
    z = NORMALIZE[normalize](z)
    return KERNELS[kernel](z[dst], z[src])


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_equals_naive(kernel: kernels.Kernel, normalize: str | None, device: torch.device) -> None:
    graph = Graph(EDGES.to(device), 6)
    z = torch.randn(6, 5, dtype=torch.double, device=device, requires_grad=True)
    out, expected = (f(z, graph, kernel, normalize) for f in (similarity, naive))
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(out)
    got, correct = (torch.autograd.grad(y, z, grad)[0] for y in (out, expected))
    torch.testing.assert_close(got, correct, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_derivatives(kernel: kernels.Kernel) -> None:
    graph = Graph(EDGES[:, EDGES[0] != EDGES[1]], 5)  # a distance has a kink at 0
    z = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    assert gradcheck(lambda z: similarity(z, graph, kernel), z)
    assert gradgradcheck(lambda z: similarity(z, graph, kernel), z, atol=1e-4)


def test_median_width() -> None:
    graph = Graph(EDGES, 6)
    z = torch.randn(6, 3, dtype=torch.double)
    distance = similarity(z, graph, kernels.SquaredEuclidean())
    expected = (-distance / (2 * distance.median())).exp()
    torch.testing.assert_close(similarity(z, graph, kernels.RBF("median")), expected)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_half_precision_is_computed_in_float32(kernel: kernels.Kernel, dtype: torch.dtype) -> None:
    graph, z = Graph(EDGES), torch.randn(5, 3).to(dtype)
    out = similarity(z, graph, kernel)
    assert out.dtype == torch.float
    torch.testing.assert_close(out, naive(z.float(), graph, kernel), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", DISTANCES, ids=repr)
def test_distances_do_not_see_where_the_nodes_are(kernel: kernels.Kernel) -> None:
    graph = Graph(torch.randint(0, 40, (2, 200)))
    z = (torch.randn(40, 16) * 0.5 + 1000).requires_grad_()
    wide = z.detach().double().requires_grad_()
    out, expected = similarity(z, graph, kernel), naive(wide, graph, kernel)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    edges = (graph.edge_index[0] != graph.edge_index[1]).float()
    got, correct = (
        torch.autograd.grad((y * edges).sum(), x)[0] for y, x in ((out, z), (expected, wide))
    )
    torch.testing.assert_close(got.double(), correct, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_equal_nodes_are_at_distance_zero(scale: float) -> None:
    z = (torch.randn(1, 37) * scale).repeat(6, 1) + torch.tensor([[0.0]] * 5 + [[scale]])
    graph = Graph(torch.tensor([[0, 1, 4, 3, 2], [1, 1, 0, 2, 3]]), 6)
    assert similarity(z, graph, kernels.SquaredEuclidean()).tolist() == [0] * 5
    assert similarity(z, graph, kernels.RBF(sigma=1e-4)).tolist() == [1] * 5
    assert similarity(z, graph, kernels.Laplacian()).tolist() == [1] * 5


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_rotation(kernel: kernels.Kernel) -> None:
    graph = Graph(EDGES)
    z = torch.randn(5, 6, dtype=torch.double)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.double))
    same = torch.allclose(similarity(z, graph, kernel), similarity(z @ rotation, graph, kernel))
    assert same == (kernel.measure != "manhattan")


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_empty(kernel: kernels.Kernel) -> None:
    for num_nodes in (0, 3):
        z = torch.randn(num_nodes, 4, requires_grad=True)
        out = similarity(z, EDGES[:, :0], kernel)
        assert out.shape == (0,)
        assert torch.autograd.grad(out.sum(), z)[0].tolist() == [[0] * 4] * num_nodes


def test_bad_input() -> None:
    z = torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"'normalize' must be one of None, 'l2', .*got 'l1'\)"):
        similarity(z, EDGES, kernels.Linear(), "l1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'kernel' must be a Kernel \(got 'rbf'\)"):
        similarity(z, EDGES, "rbf")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'kernel' must be a Kernel \(got <class"):
        similarity(z, EDGES, kernels.RBF)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'z' must have shape \[N, F\] \(got \[5\]\)"):
        similarity(z[:, 0], EDGES, kernels.RBF())
    with pytest.raises(TypeError, match=r"'z' must be .*\(got torch.int64\)"):
        similarity(z.long(), EDGES, kernels.RBF())
    with pytest.raises(ValueError, match=r"device cpu \(got meta\)"):
        similarity(z.to("meta"), EDGES, kernels.RBF())
    with pytest.raises(ValueError, match=r"must be \(5, 5\).*\(got \(5, 6\)\)"):
        similarity(z, Graph(EDGES, (5, 6)), kernels.RBF())
    own = kernels.Linear()
    own.measure = "other"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"'kernel.measure' must be .*\(got 'other'\)"):
        similarity(z, EDGES, own)


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_tight_clusters_far_apart(spread: float, dtype: torch.dtype, device: torch.device) -> None:
    """Norms and products alone would lose most digits of the distances within a cluster."""
    spread *= 1.0 if dtype == torch.float else 4e-5
    side = torch.arange(60) % 2 * 2 - 1
    z = F.normalize(side[:, None] + spread * torch.randn(60, 40).double(), dim=1)
    edges = torch.randint(60, (2, 900))
    edges = torch.cat([edges, torch.arange(60).expand(2, -1)], dim=1)
    graph = Graph(edges[:, side[edges[0]] == side[edges[1]]].to(device), 60)
    z = z.to(device, dtype).requires_grad_()
    out = similarity(z, graph, kernels.SquaredEuclidean())
    wide = z.detach().double()
    src, dst = graph.edge_index
    expected = (wide[dst] - wide[src]).square().sum(-1)
    torch.testing.assert_close(out.double(), expected, rtol=3e-4, atol=0)
    assert (out[src == dst] == 0).all()
    weight = torch.randn_like(out)
    (grad,) = torch.autograd.grad(out, z, weight)
    slope = 2 * weight[:, None] * (wide[dst] - wide[src])
    correct = torch.zeros_like(wide).index_add(0, dst, slope).index_add(0, src, -slope)
    assert (grad - correct).norm() < 5e-3 * correct.norm()
