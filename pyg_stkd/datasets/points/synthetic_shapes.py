"""Generated point clouds of ten kinds of solids, a twin of ModelNet that needs no file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyg_stkd import checks
from pyg_stkd.datasets.points.point_clouds import (
    Float,
    PointClouds,
    Transform,
    check_split,
    unit_sphere,
)
from pyg_stkd.datasets.points.shape_surfaces import SURFACES, Array

__all__ = ["SyntheticShapes"]

CANDIDATES = 4  # points drawn for each point kept
STRETCH = 0.5  # log of the largest stretch or squeeze of an axis
CHUNK = 64  # solids made at once


class SyntheticShapes(PointClouds):
    r"""Generated clouds of points on ten kinds of solids: box, capsule, cone, cylinder,
    ellipsoid, helix, hemisphere, prism, pyramid, torus. Made in the constructor from a seed,
    without any file.

    The task is of the kind of ModelNet; figures measured on it say nothing about ModelNet. Each
    solid has random proportions, is stretched along its three axes by random factors (0.61 to
    1.65) and turned by a random angle about the vertical (third) axis. Its surface is then

    - **occluded**: behind a randomly turned plane a share of it, uniform from 0 to
      :obj:`occlusion`, is cut off;
    - **sampled** with a density in proportion to :math:`\exp(a\, \mathbf{d}^{\top} \mathbf{x})`,
      :math:`\mathbf{d}` a random direction, :math:`\mathbf{x}` standardised along it, :math:`a`
      uniform from 0 to :obj:`density`;
    - **noisy**: every point moves by a Gaussian of the standard deviation :obj:`noise` times the
      cloud's radius.

    Clouds are then centred at their mean and scaled to a largest norm of 1, so that the size
    tells nothing, and extents, spreads and skews overlap widely between the classes. Shape *i*
    has class *i* modulo 10; training and test shapes come from different random streams.

    Args:
        train (bool, optional): The training shapes, or the test shapes. (default: :obj:`True`)
        num_shapes (int, optional): The number of shapes of this split. (default: :obj:`1000`)
        points (int, optional): The number of points of each cloud. (default: :obj:`1024`)
        seed (int, optional): The seed of everything. (default: :obj:`0`)
        noise (float, optional): Standard deviation of the noise, in radii, 0 to 1.
            (default: :obj:`0.02`)
        occlusion (float, optional): The largest share cut off, 0 to 0.5. (default: :obj:`0.3`)
        density (float, optional): The largest log-density slope, 0 (uniform) to 3.
            (default: :obj:`1.0`)
        transform (callable, optional): Applied to a :class:`~torch_geometric.data.Data` at every
            access. (default: :obj:`None`)

    Attributes:
        classes (list[str]): The ten classes, sorted.

    Shapes:
        - **pos:** :math:`(P, 3)`, float32
        - **y:** :math:`(1)`, int64, 0 to 9

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Example:
        >>> from pyg_stkd.datasets import SyntheticShapes
        >>> dataset = SyntheticShapes(num_shapes=20, points=64)
        >>> dataset, dataset[0].pos.shape
        (SyntheticShapes(20, train=True), torch.Size([64, 3]))
        >>> dataset.classes[dataset[12].y]
        'cone'
        >>> round(float(dataset[0].pos.norm(dim=1).max()), 5)
        1.0
    """

    def __init__(
        self,
        train: bool = True,
        num_shapes: int = 1000,
        points: int = 1024,
        seed: int = 0,
        noise: float = 0.02,
        occlusion: float = 0.3,
        density: float = 1.0,
        transform: Transform | None = None,
    ) -> None:
        check_split(train)
        for name, count, least in (("num_shapes", num_shapes, 1), ("points", points, 1),
                                   ("seed", seed, 0)):  # fmt: skip
            checks.count(name, count, least)
        for name, value, most in (("noise", noise, 1), ("occlusion", occlusion, 0.5),
                                  ("density", density, 3)):  # fmt: skip
            checks.number(name, value, least=0, most=most)
        self.train, self.num_shapes, self.points, self.seed = train, num_shapes, points, seed
        self.noise, self.occlusion, self.density = noise, occlusion, density
        self.classes = sorted(SURFACES)
        super().__init__(None, transform)

        y = np.arange(num_shapes) % len(self.classes)
        pos = np.empty((num_shapes, points, 3), dtype=np.float32)
        for label in np.unique(y):
            rng = np.random.default_rng([seed, int(train), int(label)])
            rows = np.flatnonzero(y == label)
            for i in range(0, len(rows), CHUNK):
                pos[rows[i : i + CHUNK]] = self._make(int(label), len(rows[i : i + CHUNK]), rng)
        self._fill(pos.reshape(-1, 3), np.full(num_shapes, points), y)

    def _make(self, label: int, solids: int, rng: np.random.Generator) -> Float:
        pos = SURFACES[self.classes[label]](rng, solids, CANDIDATES * self.points)  # [S, M, 3]
        pos *= np.exp(rng.uniform(-STRETCH, STRETCH, (solids, 1, 3)))
        angle = rng.uniform(0, 2 * np.pi, (solids, 1))
        x, y = pos[..., 0].copy(), pos[..., 1]
        pos[..., 0] = x * np.cos(angle) - y * np.sin(angle)
        pos[..., 1] = x * np.sin(angle) + y * np.cos(angle)

        pos = np.take_along_axis(pos, self._visible(pos, rng)[..., None], axis=1)  # [S, P, 3]
        radius = np.linalg.norm(pos - pos.mean(axis=1, keepdims=True), axis=-1).max(axis=1)
        pos += self.noise * radius[:, None, None] * rng.standard_normal(pos.shape)
        sizes = np.full(solids, self.points)
        return unit_sphere(pos.reshape(-1, 3), sizes).reshape(pos.shape)

    def _visible(self, pos: Array, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the points kept of the candidates `[S, M, 3]`: `[S, P]`."""
        solids, candidates = pos.shape[:2]
        cut = self.occlusion * rng.random(solids)
        slope = self.density * rng.random((solids, 1))
        direction = rng.standard_normal((2, solids, 3))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        depth, along = np.einsum("smd,ksd->ksm", pos, direction)
        along -= along.mean(axis=1, keepdims=True)
        along /= along.std(axis=1, keepdims=True)
        # the largest of weight + Gumbel noise: a weighted draw without replacement
        score = slope * along + rng.gumbel(size=along.shape)
        first = np.floor(cut * candidates).astype(np.int64)
        limit = np.take_along_axis(np.sort(depth, axis=1), first[:, None], axis=1)
        score[depth < limit] = -np.inf
        return np.argpartition(-score, self.points - 1, axis=1)[:, : self.points]
