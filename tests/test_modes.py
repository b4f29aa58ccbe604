from __future__ import annotations

import pytest
from torch import nn

from pyg_stkd.modes import eval_mode


def models() -> tuple[nn.Module, nn.Module]:
    one = nn.Sequential(nn.Dropout(), nn.Sequential(nn.ReLU().eval(), nn.ReLU()))
    return one, nn.Dropout().eval()


def modes(*given: nn.Module) -> list[bool]:
    return [module.training for model in given for module in model.modules()]


def test_each_module_has_its_own_mode_again() -> None:
    given = models()
    before = modes(*given)
    assert len(set(before)) == 2
    with eval_mode(*given):
        assert not any(modes(*given))
        given[0].train()
        given[1].train()
    assert modes(*given) == before


def test_after_a_failure_too() -> None:
    given = models()
    before = modes(*given)
    with pytest.raises(KeyError), eval_mode(*given):
        raise KeyError
    assert modes(*given) == before
