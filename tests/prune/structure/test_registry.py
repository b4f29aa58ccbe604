from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from pyg_stkd.prune import register
from pyg_stkd.prune.structure import registry
from pyg_stkd.prune.structure.registry import find_rule


def test_only_classes_and_names_can_be_registered() -> None:
    with pytest.raises(TypeError, match="'classes' must be module classes"):
        register(torch.relu)  # type: ignore[arg-type]


def test_a_rule_does_not_hold_for_another_step_of_message_passing() -> None:
    class Flipped(GCNConv):
        def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
            return super().message(x_j.flip(-1), edge_weight)

    assert find_rule(Flipped) is None


def test_the_nearest_class_counts_by_type_or_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))

    class Base(nn.Module):
        pass

    class Child(Base):
        pass

    @register(f"{Base.__module__}.{Base.__qualname__}")
    def of_base(ports: object, module: object, x: object) -> object:
        return x

    assert find_rule(Base) is find_rule(Child) is of_base

    @register(Child)
    def of_child(ports: object, module: object, x: object) -> object:
        return x

    assert find_rule(Base) is of_base
    assert find_rule(Child) is of_child
    assert find_rule(nn.Bilinear) is None


def test_another_forward_hides_the_rule_of_a_base() -> None:
    class Other(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.flip(-1))

    class Again(Other):
        forward = nn.Linear.forward

    assert find_rule(Other) is None
    assert find_rule(Again) is find_rule(nn.Linear)
