from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import nn

from pyg_stkd import Distiller
from pyg_stkd.distill import Capture, HintLoss, OutputLoss, STCDLoss
from pyg_stkd.distill.recording.reading.layout import arrange, check_layout

SIZES = {"B": 2, "T": 3, "N": 5, "C": 7}


@pytest.mark.parametrize("layout", ["".join(x) for x in permutations("BTNC")])
def test_axes_are_brought_to_one_order(layout: str) -> None:
    x = torch.arange(2.0 * 3 * 5 * 7).view(2, 3, 5, 7)
    given = x.permute(["BTNC".index(axis) for axis in layout])
    assert torch.equal(arrange(given, layout), x)


@pytest.mark.parametrize("layout", ["NC", "CN", "BNC", "CNB", "NTC", "N", "BN", "NB", "BTN"])
def test_axes_may_be_fewer(layout: str) -> None:
    given = torch.randn([SIZES[axis] for axis in layout])
    out = arrange(given, layout)
    assert list(out.shape) == [
        SIZES.get(a, 1) if a in layout else 1 for a in "BTNC" if a in layout + "C"
    ]
    assert torch.equal(out.flatten().sort()[0], given.flatten().sort()[0])


def test_the_default_takes_any_number_of_axes() -> None:
    for shape in ((5,), (5, 7), (2, 5, 7), (2, 3, 5, 7), (1, 2, 3, 5, 7)):
        x = torch.randn(shape)
        assert arrange(x, "BTNC") is x


@pytest.mark.parametrize("bad", ["", "C", "BT", "NN", "BTNX", "bnc", 3, None])
def test_bad_layouts(bad: object) -> None:
    with pytest.raises(ValueError, match=r"'layout' must name N and others of B, T and C"):
        check_layout("layout", bad)
    if bad is not None:
        with pytest.raises(ValueError, match=r"'teacher_layout' must name N"):
            HintLoss("", "", teacher_layout=bad)


def test_axes_must_be_as_many() -> None:
    capture = Capture(torch.ones(2, 3), layer="lin")
    (part,) = capture.parts(layout="BNC").values()
    with pytest.raises(ValueError, match=r"student layer 'lin' must have the 3 axes of.*\[2, 3\]"):
        _ = part.value


@pytest.mark.parametrize("layout", ["BNCT", "BCNT", "BNTC", "CTNB"])
def test_every_loss_of_sequences_takes_them_in_any_order(layout: str) -> None:
    order = ["BTNC".index(axis) for axis in layout]
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])

    def losses(**options: str) -> list:
        hint = HintLoss("", "", projection=False, **options)
        return [*STCDLoss("", "", **options)[1:], hint, OutputLoss(**options)]

    def plain(model: nn.Module, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        return model(x)

    def moved(model: nn.Module, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        return model(x).permute(order)

    teacher, student = nn.Linear(4, 7), nn.Linear(4, 7)
    x = torch.randn(2, 3, 5, 4)
    expected = Distiller(teacher, student, losses(), call=plain)(x, edges)[1]
    both = Distiller(teacher, student, losses(layout=layout), call=moved)(x, edges)[1]
    mixed = losses(layout=layout, teacher_layout="BTNC")
    one = Distiller(teacher, student, mixed, call=(plain, moved))(x, edges)[1]
    for name, value in expected.items():
        torch.testing.assert_close(both[name], value)
        torch.testing.assert_close(one[name], value)
