from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import Compose, RandomJitter

from pyg_stkd.datasets import RandomScaleTranslate, UnitSphere


def test_unit_sphere() -> None:
    pos = torch.randn(50, 3) * 4 + 1000
    kept = pos.clone()
    data = Data(pos=pos, y=torch.tensor([3]))
    out = UnitSphere()(data)
    centred = pos.double() - pos.double().mean(0)
    expected = centred / centred.norm(dim=1).max()
    torch.testing.assert_close(out.pos.double(), expected, atol=1e-4, rtol=0)
    assert out.pos.norm(dim=1).max().item() == pytest.approx(1, abs=1e-6)
    assert out.y.tolist() == [3]
    assert torch.equal(data.pos, kept)
    assert repr(UnitSphere()) == "UnitSphere()"


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_unit_sphere_of_any_size(scale: float) -> None:
    pos = torch.randn(20, 3)
    out = UnitSphere()(Data(pos=pos * scale)).pos
    torch.testing.assert_close(out, UnitSphere()(Data(pos=pos)).pos)


def test_unit_sphere_of_one_place() -> None:
    assert UnitSphere()(Data(pos=torch.full((3, 3), 5.0))).pos.tolist() == [[0, 0, 0]] * 3


@pytest.mark.parametrize(
    ("pos", "text"),
    [
        (None, r"at least one point, \[P, D\] \(got None\)"),
        (torch.empty(0, 3), r"at least one point.*\(got \(0, 3\)\)"),
        (torch.zeros(3), r"\(got \(3,\)\)"),
        (torch.tensor([[0.0, float("nan")]]), "must be finite"),
    ],
)
def test_unit_sphere_refuses(pos: torch.Tensor | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        UnitSphere()(Data(pos=pos))


def test_random_scale_translate_is_one_affine_map() -> None:
    pos = torch.randn(20, 3)
    drawn = []
    for _ in range(200):
        out = RandomScaleTranslate()(Data(pos=pos)).pos
        scale = (out[1] - out[0]) / (pos[1] - pos[0])  # [3]
        shift = out[0] - scale * pos[0]
        torch.testing.assert_close(out, pos * scale + shift, atol=1e-4, rtol=0)
        drawn.append(torch.stack([scale, shift]))
    scale, shift = torch.stack(drawn, dim=1)
    for d in range(3):  # each axis has its own factor, over the whole range
        assert 2 / 3 - 1e-3 < scale[:, d].min() < 0.75
        assert 1.4 < scale[:, d].max() < 1.5 + 1e-3
        assert -0.2 - 1e-3 < shift[:, d].min() < -0.15
        assert 0.15 < shift[:, d].max() < 0.2 + 1e-3
    assert torch.corrcoef(scale.t())[0, 1].abs() < 0.3


def test_random_scale_translate_turns_normals_along() -> None:
    # a plane with normal n: its directions stay at right angles to the new normal
    normal = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, -1.0]]), dim=1)
    along = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 2.0]])
    pos = torch.cat([torch.zeros(1, 3), along])
    data = Data(pos=pos, normal=normal.expand(3, 3))
    out = RandomScaleTranslate()(data)
    edges = out.pos[1:] - out.pos[0]
    torch.testing.assert_close(edges @ out.normal[0], torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.normal.norm(dim=1), torch.ones(3))
    assert torch.equal(data.normal, normal.expand(3, 3))


def test_random_scale_translate_composes_and_repeats() -> None:
    transform = Compose([RandomScaleTranslate(), RandomJitter(0.01)])
    data = Data(pos=torch.randn(5, 3))
    torch.manual_seed(1)
    first = transform(data).pos
    torch.manual_seed(1)
    assert torch.equal(transform(data).pos, first)
    assert (
        repr(RandomScaleTranslate((1, 2), 0)) == "RandomScaleTranslate(scale=(1.0, 2.0), shift=0.0)"
    )


@pytest.mark.parametrize("scale", [(0, 1), (2, 1), (1,), (1, float("inf")), (float("nan"), 1)])
def test_random_scale_translate_scale(scale: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"'scale' must be a range \(a, b\) .*\(got "):
        RandomScaleTranslate(scale)


def test_random_scale_translate_refuses() -> None:
    with pytest.raises(ValueError, match=r"'shift' must be finite and at least 0 \(got -1\)"):
        RandomScaleTranslate(shift=-1)
    with pytest.raises(ValueError, match=r"'data.pos' must be points \[P, D\] \(got None\)"):
        RandomScaleTranslate()(Data())
