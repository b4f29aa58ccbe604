from __future__ import annotations

import pytest
import torch

from pyg_stkd.distill import Capture
from pyg_stkd.distill.losses.sequences import align_steps

# [B, T, N, C]: each entry says which step it is of.
STEPS = torch.arange(5.0).view(1, 5, 1, 1)


@pytest.mark.parametrize(("of_student", "of_teacher"), [(3, 5), (5, 3), (4, 4)])
def test_the_last_steps_are_shared(of_student: int, of_teacher: int) -> None:
    student = Capture((STEPS[:, :of_student] + 5 - of_student).expand(2, -1, 3, 4))
    teacher = Capture((STEPS[:, :of_teacher] + 5 - of_teacher).expand(2, -1, 3, 7).double())
    s, t = align_steps(student, teacher)
    shared = min(of_student, of_teacher)
    assert s.shape == (2, shared, 3, 4)
    assert t.shape == (2, shared, 3, 7)
    assert s.dtype == t.dtype == torch.float32
    torch.testing.assert_close(s[..., 0], t[..., 0])
    torch.testing.assert_close(s[0, :, 0, 0], torch.arange(5.0)[5 - shared :])


def test_gradients_reach_the_shared_steps_alone() -> None:
    x = torch.randn(1, 5, 2, 3, requires_grad=True)
    s, _ = align_steps(Capture(x), Capture(torch.ones(1, 2, 2, 3)))
    s.sum().backward()
    assert x.grad is not None
    assert x.grad.sum(dim=(0, 2, 3)).tolist() == [0.0, 0.0, 0.0, 6.0, 6.0]


@pytest.mark.parametrize(
    ("student", "teacher", "match"),
    [
        ((3, 2), (1, 3, 2, 4), r"student output must be a sequence \[B, T, N, C\] \(got \[3, 2\]"),
        ((1, 3, 2, 4), (3, 2), r"teacher output must be a sequence \[B, T, N, C\] \(got \[3, 2\]"),
        ((2, 3, 2, 4), (1, 3, 2, 4), "must have the same batch and nodes"),
        ((1, 3, 2, 4), (1, 3, 5, 4), "must have the same batch and nodes"),
    ],
)
def test_refused(student: tuple[int, ...], teacher: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        align_steps(Capture(torch.ones(student)), Capture(torch.ones(teacher), owner="teacher"))


def test_devices() -> None:
    x = torch.ones(1, 3, 2, 4)
    with pytest.raises(ValueError, match="must be on one device"):
        align_steps(Capture(x), Capture(x.to("meta")))
