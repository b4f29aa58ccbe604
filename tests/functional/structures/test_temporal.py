from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd import kernels
from pyg_stkd.functional.structures.temporal import temporal_correlation, temporal_structure

# Small random features are nearly alike to some kernels, which is not the point here.
pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

KERNELS = [
    kernels.Linear(),
    kernels.Polynomial(degree=2, c=0.5),
    kernels.Polynomial(degree=3, cosine=True),
    kernels.RBF(sigma=0.8),
    kernels.SquaredEuclidean(),
    kernels.Euclidean(),
    kernels.Cosine(),
    kernels.Laplacian(scale=2.0),
]


def naive_similarity(kernel: kernels.Kernel, a: Tensor, b: Tensor) -> Tensor:
    if kernel.measure == "cosine":
        a, b = a / a.norm(), b / b.norm()
    if kernel.measure == "squared_distance":
        return kernel(((a - b) ** 2).sum())
    if kernel.measure == "manhattan":
        return kernel((a - b).abs().sum())
    return kernel((a * b).sum())


def naive_structure(h: Tensor, kernel: kernels.Kernel) -> Tensor:
    """The definition, a step at a time, [B, N, T, T - 1]."""
    batch, steps, num_nodes, _ = h.shape
    out = []
    for b in range(batch):
        for n in range(num_nodes):
            for t in range(steps):
                others = [u for u in range(steps) if u != t]
                sims = [naive_similarity(kernel, h[b, t, n], h[b, u, n]) for u in others]
                exps = torch.stack(sims).exp()
                out.append((exps / exps.sum()).log())
    return torch.stack(out).view(batch, num_nodes, steps, steps - 1)


def naive_loss(s: Tensor, t: Tensor, kernel: kernels.Kernel, direction: str = "student") -> Tensor:
    p, q = naive_structure(s, kernel).exp(), naive_structure(t, kernel).exp()
    p, q = (p, q) if direction == "student" else (q, p)
    return (p * (p / q).log()).sum(-1).mean()


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 4, 3, 2).double(), torch.randn(2, 4, 3, 5).double()


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_structure_is_the_definition(kernel: kernels.Kernel, pair: tuple[Tensor, Tensor]) -> None:
    out = temporal_structure(pair[0], kernel)
    torch.testing.assert_close(out, naive_structure(pair[0], kernel), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(out.exp().sum(-1), torch.ones(2, 3, 4).double())


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("direction", ["student", "teacher"])
def test_loss_and_gradient_are_the_definition(
    kernel: kernels.Kernel, direction: str, pair: tuple[Tensor, Tensor]
) -> None:
    s, t = pair[0].requires_grad_(), pair[1]
    ours, theirs = (
        temporal_correlation(s, t, kernel, direction),
        naive_loss(s, t, kernel, direction),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(loss, s)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gradcheck(kernel: kernels.Kernel) -> None:
    s = torch.randn(1, 3, 2, 2).double().requires_grad_()
    t = torch.randn(1, 3, 2, 3).double()
    assert gradcheck(lambda s: temporal_correlation(s, t, kernel), s)
    if kernel.measure != "manhattan":  # torch.cdist has no second derivative
        assert gradgradcheck(lambda s: temporal_correlation(s, t, kernel), s)


def test_median_width_is_that_of_the_pairs(pair: tuple[Tensor, Tensor]) -> None:
    h = pair[0]
    squares = (h[:, :, None] - h[:, None]).square().sum(-1)  # [B, T, T, N]
    off = ~torch.eye(4, dtype=torch.bool)
    width = squares[:, off].median().sqrt().item()
    ours = temporal_structure(h, kernels.RBF(sigma="median"))
    torch.testing.assert_close(ours, temporal_structure(h, kernels.RBF(sigma=width)))


@given(st.integers(1, 3), st.integers(2, 5), st.integers(1, 4), st.integers(1, 4))
def test_properties(batch: int, steps: int, num_nodes: int, width: int) -> None:
    s = torch.randn(batch, steps, num_nodes, width).double()
    t = torch.randn(batch, steps, num_nodes, 3).double()
    loss = temporal_correlation(s, t)
    assert loss >= 0
    assert temporal_correlation(s, s).item() == pytest.approx(0, abs=1e-12)
    if steps == 2:  # one other step: nothing to choose
        assert loss.item() == pytest.approx(0, abs=1e-12)
    back = temporal_correlation(s.flip(1), t.flip(1))  # no order of time is preferred
    torch.testing.assert_close(loss, back)
    torch.testing.assert_close(loss, temporal_correlation(s + 7, t - 3))  # RBF: distances only
    each = torch.stack([temporal_correlation(s[[b]], t[[b]]) for b in range(batch)])
    torch.testing.assert_close(loss, each.mean())


def test_lengths_are_aligned_at_the_last_step(pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair
    longer = torch.cat([torch.randn(2, 3, 3, 5).double(), t], dim=1)
    torch.testing.assert_close(temporal_correlation(s, longer), temporal_correlation(s, t))
    longer = torch.cat([torch.randn(2, 3, 3, 2).double(), s], dim=1)
    torch.testing.assert_close(temporal_correlation(longer, t), temporal_correlation(s, t))


@pytest.mark.parametrize(
    "nodes", [torch.tensor([2, 0]), torch.tensor([True, False, True])], ids=["index", "mask"]
)
def test_nodes_restrict(nodes: Tensor, pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair
    expected = temporal_correlation(s[:, :, [0, 2]], t[:, :, [0, 2]])
    torch.testing.assert_close(temporal_correlation(s, t, nodes=nodes), expected)
    known = temporal_structure(t)
    ours = temporal_correlation(s, None, nodes=nodes, teacher_structure=known)
    torch.testing.assert_close(ours, expected)


def test_known_structure_and_no_gradient_for_the_teacher(pair: tuple[Tensor, Tensor]) -> None:
    s, t = pair[0].requires_grad_(), pair[1].requires_grad_()
    known = temporal_structure(t)
    ours = temporal_correlation(s, None, teacher_structure=known)
    theirs = temporal_correlation(s, t)
    torch.testing.assert_close(ours, theirs)
    for loss in (ours, theirs):
        loss.backward()
    assert t.grad is None


@pytest.mark.parametrize("normalize", ["l2", "layer"])
@pytest.mark.parametrize("kernel", [kernels.RBF(), kernels.Cosine()], ids=repr)
def test_normalize(normalize: str, kernel: kernels.Kernel, pair: tuple[Tensor, Tensor]) -> None:
    h = pair[1]
    if normalize == "l2":
        z = h / h.norm(dim=-1, keepdim=True)
    else:
        variance = h.var(-1, keepdim=True, correction=0)
        z = (h - h.mean(-1, keepdim=True)) / variance.sqrt()
    ours = temporal_structure(h, kernel, normalize)
    torch.testing.assert_close(ours, naive_structure(z, kernel))


def test_float32_far_from_the_origin(pair: tuple[Tensor, Tensor]) -> None:
    h = (pair[0] + 1000).float()
    expected = naive_structure(h.double(), kernels.RBF())
    torch.testing.assert_close(temporal_structure(h).double(), expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_computed_in_float32(pair: tuple[Tensor, Tensor]) -> None:
    h = pair[0].bfloat16()
    out = temporal_structure(h)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, temporal_structure(h.float()))


def test_no_array_of_all_pairs_and_channels(
    allocations: Callable[[Callable[[], object]], list[int]],
) -> None:
    s = torch.randn(2, 8, 16, 64, requires_grad=True)
    t = torch.randn(2, 8, 16, 64)
    taken = allocations(lambda: temporal_correlation(s, t).backward())
    assert max(taken) <= s.numel() * 4 * 2  # all pairs would be 8 times the features


def test_blind_kernel_warns() -> None:
    h = torch.randn(2, 4, 3, 2)
    text = re.escape("RBF(sigma=1.0) is blind here: the teacher's temporal structures are uniform")
    with pytest.warns(UserWarning, match=text):
        temporal_correlation(h, h * 1e-3)
    with pytest.warns(UserWarning, match=r"SIM varies by less than 0.02 .*Normalise the features"):
        temporal_correlation(h, h * 1e-3)
    with pytest.warns(UserWarning, match="are one-hot"):
        temporal_correlation(h, 100 * torch.randn(2, 4, 3, 2), kernels.SquaredEuclidean())


@pytest.mark.parametrize("width", [8, 256])
def test_median_width_of_unit_vectors_sees(width: int) -> None:
    h = torch.randn(3, 12, 20, width)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*is blind here")  # a mark would come after the module's
        temporal_correlation(h, h, kernels.RBF(sigma="median"), normalize="l2")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"h_student": torch.ones(4, 3, 2)},
            ValueError,
            r"'h_student' must have shape \[B, T, N, C\]",
        ),
        ({"h_student": torch.ones(2, 1, 3, 2)}, ValueError, r"at least 2 time steps \(got 1\)"),
        ({"h_teacher": torch.ones(2, 4, 4, 2)}, ValueError, "must have the same batch and nodes"),
        ({"h_student": torch.ones(2, 4, 3, 2).int()}, TypeError, r"\(got torch.int32\)"),
        ({"h_teacher": None}, ValueError, "Exactly one of 'h_teacher' and 'teacher_structure'"),
        ({"direction": "both"}, ValueError, r"'direction' must be one of .* \(got 'both'\)"),
        ({"kernel": "rbf"}, TypeError, "'kernel' must be a Kernel"),
        ({"normalize": "batch"}, ValueError, r"'normalize' must be .* \(got 'batch'\)"),
        (
            {"h_teacher": None, "teacher_structure": torch.ones(2, 3, 4, 4)},
            ValueError,
            r"'teacher_structure' must have shape \[2, 3, 4, 3\].*\(got \[2, 3, 4, 4\]\)",
        ),
        (
            {"h_student": torch.full((2, 4, 3, 2), math.nan)},
            ValueError,
            "'h_student' must be finite",
        ),
        (
            {
                "h_student": torch.full((2, 4, 3, 2), 1e200, dtype=torch.float64),
                "kernel": kernels.Linear(),
            },
            ValueError,
            "The temporal structures overflow",
        ),
    ],
)
def test_errors(change: dict[str, object], error: type[Exception], text: str) -> None:
    given_ = {"h_student": torch.randn(2, 4, 3, 2), "h_teacher": torch.randn(2, 4, 3, 5)}
    with pytest.raises(error, match=text):
        temporal_correlation(**{**given_, **change})


def test_unknown_measure() -> None:
    class Odd(kernels.Kernel):
        measure = "odd"  # type: ignore[assignment]

    with pytest.raises(ValueError, match=r"'kernel.measure' must be .* \(got 'odd'\)"):
        temporal_structure(torch.ones(1, 3, 1, 1), Odd())


@pytest.mark.parametrize("kernel", [*KERNELS, kernels.RBF(sigma="median")], ids=repr)
@pytest.mark.parametrize("normalize", [None, "l2", "layer"])
@pytest.mark.parametrize("shape", [(0, 4, 3, 2), (2, 4, 0, 2), (0, 2, 0, 2)], ids=str)
def test_empty(kernel: kernels.Kernel, normalize: str | None, shape: tuple[int, ...]) -> None:
    s = torch.randn(shape, requires_grad=True)
    loss = temporal_correlation(s, torch.randn(shape), kernel, normalize=normalize)  # type: ignore
    assert loss.item() == 0
    assert torch.autograd.grad(loss, s)[0].shape == shape
    assert temporal_structure(s, kernel).shape == (shape[0], shape[2], shape[1], shape[1] - 1)


def test_no_channel() -> None:
    s, t = torch.randn(2, 4, 3, 2, requires_grad=True), torch.randn(2, 4, 3, 5)
    loss = temporal_correlation(s[..., :0], t[..., :0])
    assert loss.item() == 0
    assert torch.autograd.grad(loss, s)[0].abs().max() == 0
