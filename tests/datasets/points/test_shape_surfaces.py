from __future__ import annotations

import numpy as np
import pytest

from pyg_stkd.datasets.points.shape_surfaces import (
    SURFACES,
    capsule,
    extruded,
    hemisphere,
    sphere,
    tapered,
    torus,
)

SOLIDS, POINTS = 6, 40000


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def radius(pos: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pos[..., :2], axis=-1)


def gauge(pos: np.ndarray, corners: int) -> np.ndarray:
    """The factor at which a point lies on the outline: 1 on it, less within."""
    if not corners:
        return radius(pos)
    angle = 2 * np.pi * np.arange(corners) / corners
    return (pos[..., :1] * np.cos(angle) + pos[..., 1:2] * np.sin(angle)).max(axis=-1)


def test_sphere_is_uniform() -> None:
    pos = sphere(rng(), SOLIDS, POINTS)
    np.testing.assert_allclose(np.linalg.norm(pos, axis=-1), 1)
    second = np.einsum("spi,spj->ij", pos, pos) / (SOLIDS * POINTS)
    np.testing.assert_allclose(second, np.eye(3) / 3, atol=0.005)


@pytest.mark.parametrize("corners", [0, 3, 4])
def test_extruded(corners: int) -> None:
    pos = extruded(rng(), SOLIDS, POINTS, corners)
    r, z = gauge(pos, corners), pos[..., 2]
    half = np.abs(z).max(axis=1, keepdims=True)
    side = np.isclose(r, 1)
    assert (side | np.isclose(np.abs(z), half)).all()
    # sides of L h against ends of 2 L / 2
    height = 2 * half[:, 0]
    np.testing.assert_allclose(side.mean(axis=1), height / (height + 1), atol=0.01)
    ends = np.where(side, np.nan, r**2)  # uniform for a uniform density
    np.testing.assert_allclose(np.nanmean(ends, axis=1), 0.5, atol=0.01)
    assert height.min() >= 1
    assert height.max() <= 3
    assert height.std() > 0.1


@pytest.mark.parametrize("corners", [0, 4])
def test_tapered(corners: int) -> None:
    pos = tapered(rng(), SOLIDS, POINTS, corners)
    r, z = gauge(pos, corners), pos[..., 2]
    side = z > 0
    height = np.median(np.where(side, z / (1 - r), np.nan)[:, side.all(axis=0)], axis=1)
    np.testing.assert_allclose(z[side], ((1 - r) * height[:, None])[side], atol=1e-9)
    slant = np.sqrt(1 + height**2)
    np.testing.assert_allclose(side.mean(axis=1), slant / (slant + 1), atol=0.01)
    np.testing.assert_allclose((r**2).mean(axis=1), 0.5, atol=0.01)


def test_hemisphere() -> None:
    pos = hemisphere(rng(), SOLIDS, POINTS)
    disk = pos[..., 2] == 0
    np.testing.assert_allclose(disk.mean(axis=1), 1 / 3, atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(pos[~disk], axis=-1), 1)
    np.testing.assert_allclose((radius(pos[disk]) ** 2).mean(), 0.5, atol=0.01)
    up = np.sign(pos[..., 2]).sum(axis=1)
    assert set(np.sign(up)) == {-1, 1}  # either way up
    np.testing.assert_allclose(np.abs(up), (~disk).sum(axis=1))


def test_capsule() -> None:
    pos = capsule(rng(), SOLIDS, POINTS)
    half = np.abs(pos[..., 2]).max(axis=1, keepdims=True) - 1  # the poles are at h / 2 + 1
    beyond = np.maximum(np.abs(pos[..., 2]) - half, 0)
    np.testing.assert_allclose(np.hypot(radius(pos), beyond), 1, atol=1e-3)
    np.testing.assert_allclose((beyond == 0).mean(axis=1), (half / (half + 1))[:, 0], atol=0.01)


def test_torus() -> None:
    pos = torus(rng(), SOLIDS, POINTS)
    tube = np.hypot(radius(pos) - 1, pos[..., 2])  # [S, P]
    np.testing.assert_allclose(tube, np.repeat(tube[:, :1], POINTS, axis=1))
    # a uniform density on a torus has mean distance 1 + r^2 / 2 from the axis
    np.testing.assert_allclose(radius(pos).mean(axis=1), 1 + tube[:, 0] ** 2 / 2, atol=0.01)
    assert np.ptp(tube[:, 0]) > 0.05


def test_helix() -> None:
    pos = SURFACES["helix"](rng(), SOLIDS, POINTS)
    r = radius(pos)
    # the tube has one radius around a curve of radius 1
    inner, outer = r.min(axis=1), r.max(axis=1)
    np.testing.assert_allclose(outer - 1, 1 - inner, atol=0.01)
    assert (outer <= 1.26).all()
    # the height rises with the angle along the curve, so a slice at one angle has gaps
    for solid in pos:
        angle = np.arctan2(solid[:, 1], solid[:, 0])
        z = np.sort(solid[np.abs(angle) < 0.02, 2])
        assert np.diff(z).max() > 0.05


def test_every_surface() -> None:
    assert len(SURFACES) == 10
    for function in SURFACES.values():
        pos = function(rng(), 3, 500)
        assert pos.shape == (3, 500, 3)
        assert np.isfinite(pos).all()
        assert np.array_equal(pos, function(rng(), 3, 500))
