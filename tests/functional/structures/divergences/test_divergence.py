from __future__ import annotations

import numpy as np
import pytest
import torch

from pyg_stkd.functional.structures.divergences.divergence import (
    check_finite,
    divergence,
    given_structure,
)


def test_divergence_equals_that_of_torch() -> None:
    s, t = torch.randn(2, 5, 4, dtype=torch.float64).log_softmax(-1)
    for direction, p, q in (("student", s, t), ("teacher", t, s)):
        expected = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True)
        torch.testing.assert_close(divergence(s, t, direction), expected)  # type: ignore[arg-type]


def test_a_given_structure_is_a_constant_of_the_right_shape() -> None:
    structure = torch.zeros(3, requires_grad=True)
    assert not given_structure(structure, [3], "a value for each edge").requires_grad
    match = r"'teacher_structure' must have shape \[4\], a value for each edge \(got \[3\]\)"
    with pytest.raises(ValueError, match=match):
        given_structure(structure, [4], "a value for each edge")
    with pytest.raises(TypeError, match=r"'teacher_structure' must be a tensor .*got ndarray"):
        given_structure(np.zeros(3), [3], "a value for each edge")  # type: ignore[arg-type]


def test_what_is_not_finite_is_named() -> None:
    bad, good = torch.tensor([1.0, torch.nan]), torch.ones(2)
    check_finite(good.sum(), "local", z=good)
    with pytest.raises(ValueError, match=r"'z' must be finite \(got NaN or infinite values\)"):
        check_finite(bad.sum(), "local", y=None, x=good, z=bad)
    with pytest.raises(ValueError, match="The local structures overflow: normalise the features"):
        check_finite(bad.sum(), "local", x=good)
