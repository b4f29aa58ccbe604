from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from pyg_stkd.functional import gsp
from pyg_stkd.kernels import (
    RBF,
    Cosine,
    Euclidean,
    Kernel,
    Laplacian,
    Linear,
    Polynomial,
    SquaredEuclidean,
)

KERNELS = {
    "cosine": Cosine(),
    "linear": Linear(),
    "polynomial": Polynomial(2, cosine=True),
    "rbf": RBF(1.5),
    "squared": SquaredEuclidean(),
    "euclidean": Euclidean(),
    "laplacian": Laplacian(2.0),
}


def naive(s: Tensor, t: Tensor, name: str) -> float:
    """The definition, a pair at a time."""

    def sim(a: Tensor, b: Tensor) -> float:
        inner, distance = float(a @ b), float((a - b).norm())
        cosine = inner / max(float(a.norm() * b.norm()), 1e-24)
        return {
            "cosine": cosine,
            "linear": inner,
            "polynomial": cosine**2,
            "rbf": math.exp(-(distance**2) / (2 * 1.5**2)),
            "squared": distance**2,
            "euclidean": distance,
            "laplacian": math.exp(-float((a - b).abs().sum()) / 2.0),
        }[name]

    pairs = [(i, j) for i in range(len(s)) for j in range(len(s))]
    return sum((sim(s[i], s[j]) - sim(t[i], t[j])) ** 2 for i, j in pairs) / len(pairs)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("num_nodes", [1, 4, 12])  # fewer, and more, than there are features
def test_equals_the_definition(name: str, num_nodes: int) -> None:
    s, t = torch.randn(num_nodes, 3).double(), torch.randn(num_nodes, 5).double()
    s.requires_grad_()
    assert gsp(s, t, KERNELS[name]).item() == pytest.approx(naive(s.detach(), t, name), abs=1e-9)
    if name not in ("euclidean", "laplacian"):  # these have a corner where a node meets itself
        assert gradcheck(lambda s: gsp(s, t, KERNELS[name]), s)


@given(st.integers(0, 20), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_both_ways_are_one_and_the_order_of_nodes_is_none(
    num_nodes: int, width: int, other: int, seed: int
) -> None:
    class Same(Kernel):  # the cosine once more, but not known to be an inner product
        measure = "cosine"

        def __call__(self, value: Tensor) -> Tensor:
            return value

    random = torch.Generator().manual_seed(seed)
    s = torch.randn(num_nodes, width, generator=random).double()
    t = torch.randn(num_nodes, other, generator=random).double()
    value = gsp(s, t)
    torch.testing.assert_close(value, gsp(s, t, Same()), rtol=0, atol=1e-12)
    shuffle = torch.randperm(num_nodes, generator=random)
    torch.testing.assert_close(value, gsp(s[shuffle], t[shuffle]), rtol=0, atol=1e-12)
    assert gsp(s, s).item() == pytest.approx(0.0, abs=1e-12)


def test_equal_structures_cost_nothing_in_float32_far_from_the_origin() -> None:
    z = torch.randn(50, 4) + 1000
    turn = torch.linalg.qr(torch.randn(4, 4))[0]
    for kernel in (Cosine(), RBF(1.0)):
        assert gsp(z @ turn, z, kernel).item() < 1e-4


@pytest.mark.parametrize("most", [None, 20, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_pairs_or_features_by_what_costs_less(
    dtype: torch.dtype, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are of float64; of them none is drawn, so they do where pairs would be."""
    module = sys.modules["pyg_stkd.functional.structures.global_structure"]
    by_features, called = module._by_features, []

    def note(s: Tensor, t: Tensor) -> Tensor:
        called.append(s.size(0))
        return by_features(s, t)

    monkeypatch.setattr(module, "_by_features", note)
    s, t = torch.randn(40, 5, dtype=dtype), torch.randn(40, 7, dtype=dtype)
    for num_nodes in (8, 12, 13, 20, 21, 24, 25, 40):
        torch.manual_seed(0)
        value = gsp(s[:num_nodes], t[:num_nodes], max_samples=most)
        if (most, num_nodes) != (9, 12):  # of which 9 are drawn
            expected = naive(s[:num_nodes], t[:num_nodes], "cosine")
            assert value.item() == pytest.approx(expected, rel=1e-5)
    single = {None: [25, 40], 20: [21, 24, 25, 40], 9: [13, 20, 21, 24, 25, 40]}[most]
    assert called == ([13, 20, 21, 24, 25, 40] if dtype == torch.float64 else single)


def test_half_precision_and_no_gradient_to_the_teacher() -> None:
    s, t = torch.randn(9, 2, dtype=torch.bfloat16), torch.randn(9, 3, requires_grad=True)
    s.requires_grad_()
    value = gsp(s, t)
    assert value.item() == pytest.approx(naive(s.detach().float(), t.detach(), "cosine"), rel=1e-2)
    value.backward()
    assert t.grad is None
    assert s.grad is not None
    assert s.grad.abs().sum() > 0


def test_draws_the_same_rows_of_both() -> None:
    s = torch.randn(30, 3).double()
    assert gsp(s, s.clone(), RBF(1.0), max_samples=7).item() == pytest.approx(0.0, abs=1e-15)
    torch.manual_seed(0)
    first = gsp(s, s.flip(0), RBF(1.0), max_samples=7)
    torch.manual_seed(0)
    rows = torch.randperm(30)[:7]
    assert first.item() == pytest.approx(naive_rbf(s[rows], s.flip(0)[rows]))


def naive_rbf(s: Tensor, t: Tensor) -> float:
    a, b = ((-0.5 * torch.cdist(z, z) ** 2).exp() for z in (s, t))
    return float(((a - b) ** 2).mean())


def test_refuses_what_does_not_fit() -> None:
    z = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"same nodes, row by row \(got shapes \[3, 2\] and \[4"):
        gsp(z, torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"'max_samples' must be at least 1 \(got 0\)"):
        gsp(z, z, RBF(1.0), max_samples=0)
    with pytest.raises(TypeError, match="'z_student' must be a tensor of real floating point"):
        gsp(z.long(), z)
    with pytest.raises(TypeError, match="kernel"):
        gsp(z, z, "cosine")  # type: ignore[arg-type]
    for kernel in (Cosine(), RBF(1.0)):
        with pytest.raises(ValueError, match=r"'z_teacher' must be finite"):
            gsp(z, z * math.nan, kernel)
    with pytest.raises(ValueError, match="The global structures overflow: normalise the features"):
        gsp(z * 1e15, z, Linear())


@pytest.mark.parametrize("bad", [None, 1, [[0.5]], torch.ones(3, 2, dtype=torch.long)])
@pytest.mark.parametrize("name", ["z_student", "z_teacher"])
def test_gsp_refuses_what_holds_no_features(name: str, bad: object) -> None:
    given: dict[str, object] = {"z_student": torch.ones(3, 2), "z_teacher": torch.ones(3, 2)}
    with pytest.raises(TypeError, match=f"'{name}' must be a tensor of real floating point"):
        gsp(**{**given, name: bad})  # type: ignore[arg-type]
