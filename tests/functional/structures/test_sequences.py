from __future__ import annotations

import pytest
import torch

from pyg_stkd.functional.structures.sequences import check_pair


def test_the_last_common_steps() -> None:
    s, t = torch.randn(2, 5, 3, 4), torch.randn(2, 7, 3, 1)
    ours, theirs = check_pair(s, t, None)
    assert theirs is not None
    assert torch.equal(ours, s)
    assert torch.equal(theirs, t[:, 2:])
    ours, theirs = check_pair(t, s, None)
    assert theirs is not None
    assert torch.equal(ours, t[:, 2:])
    assert torch.equal(theirs, s)


def test_the_student_alone_beside_a_structure() -> None:
    s = torch.randn(2, 5, 3, 4)
    assert check_pair(s, None, torch.ones(1))[1] is None


@pytest.mark.parametrize(
    ("theirs", "structure", "match"),
    [
        (None, None, "Exactly one of 'h_teacher' and 'teacher_structure'"),
        (torch.ones(2, 5, 3, 1), torch.ones(1), "Exactly one of"),
        (torch.ones(2, 5, 4, 1), None, "must have the same batch and nodes"),
        (torch.ones(1, 5, 3, 1), None, "must have the same batch and nodes"),
        (torch.ones(2, 1, 3, 1), None, "'h_teacher' .* at least 2 time steps"),
    ],
)
def test_refuses(theirs: torch.Tensor, structure: torch.Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_pair(torch.ones(2, 5, 3, 4), theirs, structure)
