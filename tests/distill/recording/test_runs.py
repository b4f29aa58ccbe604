from __future__ import annotations

import pytest
import torch
from torch import nn

from pyg_stkd.distill.recording.recorder import Recorder
from pyg_stkd.distill.recording.runs import inputs_of, run

ARGS, KWARGS = (1, 2), {"a": 3}


def test_captures_are_named_after_their_model() -> None:
    model, x = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.randn(4, 2)
    seen = run("teacher", model, Recorder(model, ["0", ""]), (x,), {}, name="5").captures()
    assert list(seen) == ["5.0", "5"]
    assert torch.equal(seen["5"][0].value, model(x))
    assert seen["5.0"][0].where == "teacher layer '5.0'"
    assert seen["5.0"][0].context["input"] is x


def test_arguments_of_one_teacher() -> None:
    assert inputs_of(1, ARGS, KWARGS, None) == [(ARGS, KWARGS)]
    assert inputs_of(1, ARGS, KWARGS, (5,)) == [((5,), {})]
    assert inputs_of(1, ARGS, KWARGS, [5, 6]) == [((5, 6), {})]
    assert inputs_of(1, ARGS, KWARGS, {"b": 5}) == [((), {"b": 5})]


def test_arguments_of_several_teachers() -> None:
    assert inputs_of(2, ARGS, KWARGS, None) == [(ARGS, KWARGS)] * 2
    assert inputs_of(2, ARGS, KWARGS, ({"x": 1}, {"e": 2})) == [(({"x": 1}, {"e": 2}), {})] * 2
    assert inputs_of(2, ARGS, KWARGS, {"b": 5}) == [((), {"b": 5})] * 2
    own = [(5,), {"b": 6}, None]
    assert inputs_of(3, ARGS, KWARGS, own) == [((5,), {}), ((), {"b": 6}), (ARGS, KWARGS)]
    with pytest.raises(ValueError, match=r"one entry for each of the 2 teachers \(got 3\)"):
        inputs_of(2, ARGS, KWARGS, own)
    with pytest.raises(TypeError, match=r"a list of one for each \(got Tensor\)"):
        inputs_of(2, ARGS, KWARGS, [torch.ones(1), torch.ones(1)])
    with pytest.raises(TypeError, match=r"'teacher_args' must be a tuple or a dict.*\(got int\)"):
        inputs_of(1, ARGS, KWARGS, 5)
