from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_geometric.nn
from torch_geometric.explain import Explainer, GNNExplainer

from pyg_stkd.nn import GATConv
from pyg_stkd.nn.conv.fusing import overrides_step, runs_unchanged

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
X = torch.randn(3, 4)


def explain(conv: Any) -> None:
    Explainer(
        conv, GNNExplainer(epochs=1), explanation_type="model", edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node"},
    )  # fmt: skip
    conv.explain = True


LOOKS = {
    "a hook before": lambda conv: conv.register_propagate_forward_pre_hook(lambda *_: None),
    "a hook after": lambda conv: conv.register_propagate_forward_hook(lambda *_: None),
    "a hook on messages": lambda conv: conv.register_message_forward_hook(lambda *_: None),
    "another message": lambda conv: setattr(conv, "message", conv.message),
    "an explanation": explain,
    "the other way": lambda conv: setattr(conv, "flow", "target_to_source"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looks_into_message_passing_sees_it(look: str) -> None:
    conv = torch_geometric.nn.GATConv(4, 2)
    assert runs_unchanged(conv)
    LOOKS[look](conv)
    assert not runs_unchanged(conv)


def test_hooks_that_are_taken_away_leave_nothing() -> None:
    conv = torch_geometric.nn.GATConv(4, 2)
    conv.register_propagate_forward_hook(lambda *_: None).remove()
    assert runs_unchanged(conv)


@pytest.mark.parametrize("step", ["message", "update", "aggregate", "propagate", "edge_update"])
def test_classes_that_override_a_step(step: str) -> None:
    kind = type("Mine", (GATConv,), {step: lambda self, *args, **kwargs: None})
    assert overrides_step(kind)
    assert not overrides_step(type("Same", (GATConv,), {}))


def test_transforms_take_the_message_passing_of_pyg(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = GATConv(4, 2)
    called: list[bool] = []
    usual: Callable[..., Any] = conv.propagate
    monkeypatch.setattr(
        type(conv), "propagate", lambda self, *a, **k: called.append(True) or usual(*a, **k)
    )
    conv(X, EDGES)
    assert called == []
    torch.func.grad(lambda x: conv(x, EDGES).sum())(X)
    assert called == [True]
