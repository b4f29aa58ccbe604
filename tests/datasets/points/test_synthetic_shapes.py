from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.loader import DataLoader

from pyg_stkd.datasets import SyntheticShapes

CLASSES = ["box", "capsule", "cone", "cylinder", "ellipsoid",
           "helix", "hemisphere", "prism", "pyramid", "torus"]  # fmt: skip


def clouds(dataset: SyntheticShapes) -> Tensor:
    return torch.stack([data.pos for data in dataset])  # [S, P, 3]


def test_shapes_items() -> None:
    dataset = SyntheticShapes(num_shapes=25, points=64)
    assert dataset.classes == CLASSES
    assert (len(dataset), dataset.num_classes) == (25, 10)
    assert dataset.y.tolist() == [i % 10 for i in range(25)]
    assert dataset[24].y.tolist() == [4]
    pos = clouds(dataset)
    assert pos.shape == (25, 64, 3)
    assert pos.dtype == torch.float32
    assert pos.mean(1).abs().max() < 1e-6
    torch.testing.assert_close(pos.norm(dim=2).amax(1), torch.ones(25))
    (batch,) = DataLoader(dataset[:4], batch_size=4)
    assert batch.batch.bincount().tolist() == [64] * 4
    assert repr(dataset) == "SyntheticShapes(25, train=True)"


def test_shapes_seed_and_split() -> None:
    def make(train: bool = True, seed: int = 0) -> Tensor:
        return clouds(SyntheticShapes(train, num_shapes=20, points=16, seed=seed))

    before = torch.get_rng_state()
    first = make()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(make(), first)
    for other in (make(train=False), make(seed=1)):
        assert (other - first).abs().amax(dim=(1, 2)).min() > 1e-3  # every shape differs


def test_shapes_without_disturbance_keep_their_surface() -> None:
    plain = SyntheticShapes(num_shapes=40, points=512, noise=0, occlusion=0, density=0)
    for data in plain:
        if plain.classes[int(data.y)] == "ellipsoid":
            # a quadric x'Ax + b'x = 1 through all points
            x = data.pos.double()
            i, j = torch.triu_indices(3, 3)
            terms = torch.cat([x[:, i] * x[:, j], x], dim=1)
            one = torch.ones(512, 1, dtype=torch.double)
            fit = torch.linalg.lstsq(terms, one).solution
            torch.testing.assert_close(terms @ fit, one, atol=1e-4, rtol=0)
        if plain.classes[int(data.y)] in ("box", "cylinder", "prism"):
            z = data.pos[:, 2]  # two flat ends
            assert ((z - z.max()).abs() < 1e-5).sum() > 20
            assert ((z - z.min()).abs() < 1e-5).sum() > 20


def test_shapes_noise() -> None:
    kinds: dict[str, Any] = {"num_shapes": 20, "points": 256, "occlusion": 0, "density": 0}
    plain, noisy = (clouds(SyntheticShapes(noise=s, **kinds)) for s in (0.0, 0.05))
    # the same shapes but for the scale: the residual of the best scale is the noise, per axis
    scale = (plain * noisy).sum((1, 2), keepdim=True) / noisy.square().sum((1, 2), keepdim=True)
    rest = (scale * noisy - plain).std(dim=(1, 2))
    torch.testing.assert_close(rest, torch.full((20,), 0.05), atol=0.006, rtol=0)


def test_shapes_occlusion_moves_the_centre_of_ellipsoids() -> None:
    def half_gap(occlusion: float) -> Tensor:
        dataset = SyntheticShapes(num_shapes=200, points=256, occlusion=occlusion, density=0)
        pos = clouds(dataset)[dataset.y == 4]
        # an ellipsoid is symmetric about its middle; one that is cut is not
        return (pos.amax(1) + pos.amin(1)).norm(dim=1)

    assert half_gap(0.0).mean() < 0.15
    assert half_gap(0.5).mean() > 2 * half_gap(0.0).mean()


def test_shapes_density_varies() -> None:
    def third_moment(density: float) -> Tensor:
        dataset = SyntheticShapes(num_shapes=200, points=256, occlusion=0, density=density)
        return clouds(dataset)[dataset.y == 4].pow(3).mean(1).norm(dim=1)

    assert third_moment(2.0).mean() > 1.5 * third_moment(0.0).mean()


def test_shapes_are_no_matter_of_trivial_statistics() -> None:
    """Extents, spreads, skews and main axes tell less than half of the classes."""

    def statistics(dataset: SyntheticShapes) -> Tensor:
        pos = clouds(dataset)
        axes = torch.linalg.eigvalsh(pos.transpose(1, 2) @ pos / pos.size(1))
        norm = pos.norm(dim=2)
        moments = [pos.amax(1), pos.amin(1), pos.std(1), pos.pow(3).mean(1), axes]
        return torch.cat([*moments, norm.mean(1, True), norm.std(1, keepdim=True)], dim=1)

    train, test = (SyntheticShapes(t, num_shapes=400, points=256) for t in (True, False))
    a, b = statistics(train), statistics(test)
    b, a = (b - a.mean(0)) / a.std(0), (a - a.mean(0)) / a.std(0)
    nearest = train.y[torch.cdist(b, a).argmin(1)]
    centre = torch.stack([a[train.y == k].mean(0) for k in range(10)])
    for guess in (nearest, torch.cdist(b, centre).argmin(1)):
        assert (guess == test.y).float().mean() < 0.5


def test_shapes_of_one_point() -> None:
    assert (
        clouds(SyntheticShapes(num_shapes=3, points=1, occlusion=0.5)).tolist() == [[[0] * 3]] * 3
    )


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"train": "test"}, TypeError, r"'train' must be True or False \(got 'test'\)"),
        ({"num_shapes": 0}, ValueError, r"'num_shapes' must be at least 1 \(got 0\)"),
        ({"points": 1.5}, TypeError, r"'points' must be an integer \(got 1.5\)"),
        ({"seed": -1}, ValueError, r"'seed' must be at least 0 \(got -1\)"),
        ({"noise": -0.1}, ValueError, r"'noise' must be at least 0 and at most 1 \(got -0.1\)"),
        (
            {"occlusion": 0.6},
            ValueError,
            r"'occlusion' must be at least 0 and at most 0.5 \(got 0.6\)",
        ),
        (
            {"density": float("nan")},
            ValueError,
            r"'density' must be at least 0 and at most 3 \(got nan\)",
        ),
        ({"density": "1"}, TypeError, r"'density' must be a number \(got '1'\)"),
    ],
)
def test_shapes_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SyntheticShapes(**arguments)
