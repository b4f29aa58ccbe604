from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyg_stkd import kernels
from pyg_stkd.functional import contrast, gsp, lsp, temporal_correlation
from pyg_stkd.functional.structures.similarities import pairwise as module
from pyg_stkd.functional.structures.similarities.pairwise import pairwise

KERNELS = [kernels.RBF(), kernels.Cosine(), kernels.Linear(), kernels.Laplacian(2.0)]
NAIVE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "inner": lambda a, b: (a * b).sum(-1),
    "cosine": lambda a, b: torch.cosine_similarity(a, b, dim=-1),
    "squared_distance": lambda a, b: (a - b).square().sum(-1),
    "manhattan": lambda a, b: (a - b).abs().sum(-1),
}


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (1, 3), (0, 3)], ids=str)
def test_equals_naive(kernel: kernels.Kernel, shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    a, b = z.unsqueeze(-2), z.unsqueeze(-3)
    expected = NAIVE[kernel.measure](*torch.broadcast_tensors(a, b))
    torch.testing.assert_close(pairwise(z, kernel), expected)
    torch.testing.assert_close(pairwise(z.float(), kernel).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS[:3], ids=str)
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_gradients_of_any_order(kernel: kernels.Kernel, far: float) -> None:
    z = torch.randn(2, 4, 3, dtype=torch.float64)
    if far and kernel.measure == "squared_distance":
        z[:, :2] += far
        z.mul_(torch.tensor([1.0, 1.0, 1.0]))
        # Only differences count: numeric derivatives would see nothing of them this far out.
        (grad,) = torch.autograd.grad(pairwise(z.requires_grad_(), kernel)[:, :2, :2].sum(), z)
        gap = z[:, None, :2] - z[:, :2, None]
        torch.testing.assert_close(grad[:, :2], -4 * gap.sum(2))
        return
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: pairwise(z, kernel), z)
    assert torch.autograd.gradgradcheck(lambda z: pairwise(z, kernel), z)


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("far", [1e2, 1e4, 1e6])
def test_far_groups_keep_their_digits(
    far: float, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 50)
    z = torch.randn(2, 40, 6)
    z[:, 20:] -= far
    z[:, : (20 if many else 3)] += far
    wide = z.double()
    expected = (wide[:, :, None] - wide[:, None]).square().sum(-1)
    given = pairwise(z, kernels.RBF()).double()
    torch.testing.assert_close(given, expected, rtol=2e-4, atol=0)


def losses(s: Tensor, t: Tensor, kernel: kernels.Kernel, edges: Tensor) -> dict[str, Tensor]:
    sequences = (x.view(2, 10, 10, -1) for x in (s, t))
    return {
        "lsp": lsp(s, t, edges, kernel),
        "gsp": gsp(s, t, kernel),
        "temporal": temporal_correlation(*sequences, kernel),
    }


@pytest.mark.parametrize("lead", [(), (2,)])
def test_one_pair_among_many_is_measured_again(lead: tuple[int, ...]) -> None:
    """All pairs are looked at together first: one that has lost its digits must not pass."""
    z = torch.randn(*lead, 40, 8)
    z[..., 1, :] = z[..., 0, :] + 1e-4
    out = pairwise(z, kernels.RBF())
    exact = (z.double().unsqueeze(-2) - z.double().unsqueeze(-3)).square().sum(-1)
    torch.testing.assert_close(out, exact.float(), rtol=1e-5, atol=0)
    assert torch.equal(out, out.mT)
    assert not out.diagonal(dim1=-2, dim2=-1).any()


@pytest.mark.parametrize("kernel", [kernels.RBF(), kernels.RBF("median")], ids=str)
@pytest.mark.parametrize("far", [1e3, 1e4, 1e5])
def test_losses_and_gradients_of_two_far_groups(kernel: kernels.Kernel, far: float) -> None:
    torch.manual_seed(0)
    s, t = torch.randn(200, 16), torch.randn(200, 8)
    first = torch.arange(200) % 100 < 50  # of the ten steps, half
    s[first] += far
    s[~first] -= far
    group = torch.where(first)[0], torch.where(~first)[0]
    edges = torch.cat([g[torch.randint(0, 100, (2, 500))] for g in group], dim=1)
    x, wide = s.clone().requires_grad_(), s.double().requires_grad_()
    given = losses(x, t, kernel, edges)
    expected = losses(wide, t.double(), kernel, edges)
    for name, loss in given.items():
        torch.testing.assert_close(loss.double(), expected[name], rtol=1e-3, atol=1e-9, msg=name)
        (grad,) = torch.autograd.grad(loss, x, retain_graph=True)
        (truth,) = torch.autograd.grad(expected[name], wide, retain_graph=True)
        assert (grad.double() - truth).norm() < 1e-4 * truth.norm(), name


FAR = {
    "an offset": lambda z, far: z + far,
    "two opposite groups": lambda z, far: torch.cat([z[:120] + far, z[120:] - far]),
    "a small group": lambda z, far: torch.cat([z[:190], z[190:] + far]),
    "three groups": lambda z, far: z + far * torch.eye(3, 16).repeat(70, 1)[:200],
}


def check_cosine(z: Tensor, compile_with: str | None = None) -> None:
    t, edges = torch.randn(200, 8), torch.randint(0, 200, (2, 1000))
    kernel = kernels.Polynomial(2, cosine=True)
    x, wide = z.clone().requires_grad_(), z.double().requires_grad_()
    run = losses if compile_with is None else torch.compile(losses, backend=compile_with)
    given = run(x, t, kernel, edges)
    for name, expected in losses(wide, t.double(), kernel, edges).items():
        (grad,) = torch.autograd.grad(given[name], x, retain_graph=True)
        (truth,) = torch.autograd.grad(expected, wide, retain_graph=True)
        assert given[name].dtype == torch.float32
        assert (grad.double() - truth).norm() < 1e-4 * truth.norm(), name


@pytest.mark.parametrize("far", [1e3, 1e5])
@pytest.mark.parametrize("shape", FAR)
def test_the_gradient_of_the_cosine_of_far_groups(shape: str, far: float) -> None:
    check_cosine(FAR[shape](torch.randn(200, 16, generator=torch.manual_seed(0)), far))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("shape", FAR)
def test_the_gradient_of_the_cosine_of_far_groups_in_compiled_code(shape: str) -> None:
    check_cosine(FAR[shape](torch.randn(200, 16, generator=torch.manual_seed(0)), 1e5), "aot_eager")


OUT = FAR | {
    "one far": lambda z, far: torch.cat([z[:199], z[199:] + far]),
    "in one coordinate": lambda z, far: torch.cat([z.new_full((200, 1), far), z[:, 1:]], dim=1),
    "two groups in one coordinate": lambda z, far: torch.cat(
        [torch.tensor([far, -far]).repeat_interleave(100)[:, None], z[:, 1:]], dim=1
    ),
}
UNBOUNDED = [
    kernels.Linear(),
    kernels.Polynomial(2),
    kernels.Polynomial(2, c=1.0, cosine=True),
    kernels.SquaredEuclidean(),
    kernels.Euclidean(),
    kernels.Cosine(),
]


def check_unbounded(kernel: kernels.Kernel, shape: str, far: float, compiled: bool = False) -> None:
    s, t = (torch.randn(200, width, generator=torch.manual_seed(width)) for width in (16, 8))
    s, t = OUT[shape](s, far), OUT[shape](torch.cat([t, t], dim=1), far)
    # Neighbours within each group, and few: their structures are neither uniform nor of one node.
    edges = torch.cat([torch.randint(0, 90, (2, 400)), torch.randint(130, 190, (2, 300))], dim=1)

    def all_losses(s: Tensor, t: Tensor) -> dict[str, Tensor]:
        few = {"gsp, few": gsp(s[::20], t[::20], kernel)}
        return few | losses(s, t, kernel, edges)

    x, wide = s.clone().requires_grad_(), s.double().requires_grad_()
    run = torch.compile(all_losses, backend="aot_eager") if compiled else all_losses
    given = run(x, t)
    for name, expected in all_losses(wide, t.double()).items():
        assert given[name].dtype == torch.float32
        torch.testing.assert_close(
            given[name].double(), expected, rtol=1e-3, atol=1e-14, msg=f"{name} {kernel}"
        )
        (grad,) = torch.autograd.grad(given[name], x, retain_graph=True)
        (truth,) = torch.autograd.grad(expected, wide, retain_graph=True)
        assert (grad.double() - truth).norm() <= 1e-3 * truth.norm() + 1e-30, name


@pytest.mark.filterwarnings("ignore:.*is blind here")
@pytest.mark.parametrize("far", [1e2, 1e3, 1e4])
@pytest.mark.parametrize("shape", OUT)
@pytest.mark.parametrize("kernel", UNBOUNDED, ids=repr)
def test_kernels_without_bound_far_out(kernel: kernels.Kernel, shape: str, far: float) -> None:
    check_unbounded(kernel, shape, far)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*is blind here")
@pytest.mark.parametrize("kernel", UNBOUNDED, ids=repr)
def test_kernels_without_bound_far_out_in_compiled_code(kernel: kernels.Kernel) -> None:
    check_unbounded(kernel, "in one coordinate", 1e4, compiled=True)


@pytest.mark.parametrize("kernel", [*KERNELS, kernels.Polynomial(2)], ids=repr)
def test_products_of_single_precision_stay_so_under_autocast(kernel: kernels.Kernel) -> None:
    s, t, edges = torch.randn(40, 6), torch.randn(40, 6), torch.randint(0, 40, (2, 200))

    def all_losses(s: Tensor) -> list[Tensor]:
        found = losses(torch.cat([s] * 5), torch.cat([t] * 5), kernel, edges)
        return [*found.values(), gsp(s[:8], t[:8], kernel), contrast(s, t)]

    x, y = s.clone().requires_grad_(), s.clone().requires_grad_()
    expected = all_losses(x)
    with torch.autocast("cpu", torch.bfloat16):
        given = all_losses(y)
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(
        torch.autograd.grad(sum(given), y), torch.autograd.grad(sum(expected), x)
    )


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_code_keeps_the_digits_too() -> None:
    z = torch.randn(60, 6)
    z[30:] += 1e4
    edges = torch.randint(0, 30, (2, 200))
    for loss in (
        lambda z: lsp(z, z.detach() * 2, edges, kernels.RBF(6.0)),
        lambda z: gsp(z, z[:, :2] + 0, kernels.RBF()),
    ):
        x, y = (z.clone().requires_grad_() for _ in range(2))
        loss(x).backward()
        torch.compile(loss, backend="aot_eager")(y).backward()
        assert x.grad is not None
        assert y.grad is not None
        torch.testing.assert_close(y.grad, x.grad, rtol=1e-3, atol=1e-7)
