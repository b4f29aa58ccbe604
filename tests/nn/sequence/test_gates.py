from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd.nn.sequence.gates import apply_gate

P, Q, R = torch.randn(3, 2, 4, 5, dtype=torch.float64).unbind()
GATES = {
    "linear": (P, P),
    "glu": (torch.cat([P, Q], -1), P * (1 / (1 + (-Q).exp()))),
    "relu": (P, P.clamp(min=0)),
    "sigmoid": (P, 1 / (1 + (-P).exp())),
    "gtu": (torch.cat([P, Q], -1), P.tanh() / (1 + (-Q).exp())),
    "pgt": (torch.cat([P, Q, R], -1), (P / (1 + (-Q).exp()) + R).clamp(min=0)),
}


@pytest.mark.parametrize("gate", GATES)
def test_equals_the_formula_on_any_axis(gate: str) -> None:
    given, expected = GATES[gate]
    torch.testing.assert_close(apply_gate(given, gate), expected)
    moved: Tensor = apply_gate(given.movedim(-1, 1).contiguous(), gate, dim=1)
    torch.testing.assert_close(moved, expected.movedim(-1, 1))
