"""Uniform points on the surfaces of simple solids, many solids of one kind at a time.

Each function takes a generator and the numbers of solids and points and gives `[S, P, 3]`, the
third axis up. Proportions are random for each solid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "SURFACES"]

Array = NDArray[np.float64]
Rng = np.random.Generator
TAU = 2 * np.pi


def _circle(u: Array) -> tuple[Array, Array]:
    return np.cos(TAU * u), np.sin(TAU * u)


def _polygon(u: Array, corners: int) -> tuple[Array, Array]:
    # around an incircle of radius 1; u runs along the edges
    edge, along = np.divmod(u * corners, 1.0)
    angle, offset = TAU * edge / corners, (2 * along - 1) * np.tan(np.pi / corners)
    return np.cos(angle) - offset * np.sin(angle), np.sin(angle) + offset * np.cos(angle)


def _outline(u: Array, corners: int) -> tuple[Array, Array]:
    return _polygon(u, corners) if corners else _circle(u)


# An outline of length L around an incircle of radius 1 has area L / 2: shares do not depend on it.
def extruded(rng: Rng, solids: int, points: int, corners: int) -> Array:
    """Box, cylinder, prism: an outline moved upwards, closed by its two ends."""
    height = rng.uniform(1.0, 3.0, (solids, 1))
    part, u, v, w = rng.random((4, solids, points))
    x, y = _outline(u, corners)
    side = part < height / (height + 1)  # L h of L h + 2 L / 2
    r = np.where(side, 1.0, np.sqrt(v))
    z = np.where(side, v - 0.5, np.where(w < 0.5, -0.5, 0.5)) * height
    return np.stack([r * x, r * y, z], axis=-1)


def tapered(rng: Rng, solids: int, points: int, corners: int) -> Array:
    """Cone, pyramid: an outline shrinking towards a tip, closed by its base."""
    height = rng.uniform(1.0, 3.0, (solids, 1))
    part, u, v = rng.random((3, solids, points))
    x, y = _outline(u, corners)
    slant = np.sqrt(1 + height**2)
    side = part < slant / (slant + 1)  # L slant / 2 of L slant / 2 + L / 2
    r = np.sqrt(v)
    return np.stack([r * x, r * y, np.where(side, (1 - r) * height, 0.0)], axis=-1)


def sphere(rng: Rng, solids: int, points: int) -> Array:
    """A sphere."""
    pos = rng.standard_normal((solids, points, 3))
    pos /= np.linalg.norm(pos, axis=-1, keepdims=True)
    return pos


def hemisphere(rng: Rng, solids: int, points: int) -> Array:
    """Half a sphere, closed by its disk, either way up."""
    pos = sphere(rng, solids, points)
    part, v = rng.random((2, solids, points))
    disk = part < 1 / 3
    # the height of a uniform point of a half sphere is uniform, the angle of the disk is as above
    pos[..., 2] = np.abs(pos[..., 2])
    r = np.linalg.norm(pos[..., :2], axis=-1)
    pos[..., :2] *= np.where(disk, np.sqrt(v) / r, 1.0)[..., None]
    pos[..., 2] *= np.where(disk, 0.0, rng.choice([-1.0, 1.0], (solids, 1)))
    return pos


def capsule(rng: Rng, solids: int, points: int) -> Array:
    """A cylinder with half a sphere at each end."""
    height = rng.uniform(1.0, 3.0, (solids, 1))
    pos = sphere(rng, solids, points)
    part, u, v = rng.random((3, solids, points))
    side = part < height / (height + 2)  # 2 pi h of 2 pi h + 4 pi
    x, y = _circle(u)
    pos[..., 0] = np.where(side, x, pos[..., 0])
    pos[..., 1] = np.where(side, y, pos[..., 1])
    end = pos[..., 2] + np.copysign(height / 2, pos[..., 2])
    pos[..., 2] = np.where(side, (v - 0.5) * height, end)
    return pos


def torus(rng: Rng, solids: int, points: int) -> Array:
    """A ring with a round section."""
    radius = rng.uniform(0.2, 0.6, (solids, 1))
    part, u, v = rng.random((3, solids, points))
    # more area outside: a density of 1 + r cos, by moving some points to the other side
    inner = 2 * part > 1 + radius * np.cos(TAU * v)
    x, y = _circle(u)
    a, z = _circle(np.where(inner, v + 0.5, v))
    r = 1 + radius * a
    return np.stack([r * x, r * y, radius * z], axis=-1)


def helix(rng: Rng, solids: int, points: int) -> Array:
    """A tube wound upwards, either hand."""
    turns, pitch, radius, start = (
        rng.uniform(low, high, (solids, 1))
        for low, high in ((1.5, 4.0), (0.5, 1.2), (0.1, 0.25), (0.0, 1.0))
    )
    u, v = rng.random((2, solids, points))
    x, y = _circle(turns * u + start)
    a, b = _circle(v)  # in the frame of the outward direction and the binormal
    rise = pitch / TAU
    tilt = radius * b / np.sqrt(1 + rise**2)
    r = 1 + radius * a
    pos = np.stack(
        [r * x + tilt * rise * y, r * y - tilt * rise * x, turns * pitch * (u - 0.5) + tilt],
        axis=-1,
    )
    pos[..., 0] *= rng.choice([-1.0, 1.0], (solids, 1))
    return pos


def _with(function: Callable[..., Array], corners: int) -> Callable[[Rng, int, int], Array]:
    return lambda rng, solids, points: function(rng, solids, points, corners)


SURFACES: dict[str, Callable[[Rng, int, int], Array]] = {
    "box": _with(extruded, 4),
    "capsule": capsule,
    "cone": _with(tapered, 0),
    "cylinder": _with(extruded, 0),
    "ellipsoid": sphere,  # after the random stretch
    "helix": helix,
    "hemisphere": hemisphere,
    "prism": _with(extruded, 3),
    "pyramid": _with(tapered, 4),
    "torus": torus,
}
