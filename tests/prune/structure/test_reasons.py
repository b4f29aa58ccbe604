from __future__ import annotations

from pathlib import Path

import torch

from pyg_stkd.prune.structure.reasons import FREED_BY, Reason, caller


def test_a_reason_says_where_as_far_as_it_knows() -> None:
    text = str(Reason("convs.0", "softmax", "net.py:3", (1, 2), "it mixes channels"))
    assert text == "it mixes channels (convs.0, softmax, net.py:3)"
    assert str(Reason("", "softmax", "", (1,), "it mixes")) == "it mixes (softmax)"
    assert str(Reason("", "", "", (), "outputs")) == "outputs"


def test_only_inputs_and_outputs_are_natural() -> None:
    assert Reason("", "", "", (), "", kind="natural").is_natural
    assert not any(Reason("", "", "", (), "", kind=kind).is_natural for kind in FREED_BY)


def test_the_caller_is_outside_of_torch_and_of_this_package() -> None:
    place, line = caller().split(":")
    assert place == "/".join(Path(__file__).parts[-2:])
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert "caller()" in source[int(line) - 1]

    class Tells(torch.nn.Module):
        forward = staticmethod(caller)  # which torch calls

    told = Tells()()
    assert "told = " in source[int(told.split(":")[1]) - 1]
