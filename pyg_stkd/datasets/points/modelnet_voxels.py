"""ModelNet10-vox24: ModelNet10 as point clouds made from 24^3 occupancy grids."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.datasets.points.point_archive import (
    check_labels,
    find_root,
    missing,
)
from pyg_stkd.datasets.points.point_clouds import (
    MODELNET10,
    Float,
    Int,
    PointClouds,
    Transform,
    check_split,
    unit_sphere,
)
from pyg_stkd.files import read_npz

__all__ = ["ModelNetVoxels"]

SOURCE = "https://github.com/guoguo12/modelnet-cnn (data/modelnet10.npz)"
NEEDS = "modelnet10.npz or modelnet10_vox24_packed.npz"
SIDE, PAD = 24, 3  # voxels of a side, and the empty ones around them in the original file
NUM_SHAPES = {"train": 3991, "test": 908}
# The shapes of the official split whose grids are empty in the file.
EMPTY = {"train": (6, 15, 21, 24, 60, 3392, 3857), "test": (304,)}
CHUNK = 512  # shapes whose grids are unpacked at once


class ModelNetVoxels(PointClouds):
    r"""ModelNet10-vox24: the shapes of ModelNet10 (`"3D ShapeNets: A Deep Representation for
    Volumetric Shapes" <https://arxiv.org/abs/1406.5670>`_, Wu et al., CVPR 2015) in the official
    split, as clouds from :math:`24^3` occupancy grids, from a local folder.

    The file is ``modelnet10.npz`` of https://github.com/guoguo12/modelnet-cnn (:math:`30^3`
    grids, the outer three voxels empty), or its inner :math:`24^3` voxels as bits,
    ``modelnet10_vox24_packed.npz``, which is taken where both exist. Nothing is written to
    :obj:`root`.

    These are real shapes, but coarse: a voxel is 1/24 of a shape's longest side. They are **not**
    the clouds of ModelNet10 that papers use; report results on them as ModelNet10-vox24.

    A cloud holds the centres of the **surface** voxels, those occupied with at least one of the
    six neighbours empty (outside of the grid is empty). With :obj:`points` it holds as many
    points, each in a random surface voxel at a uniformly random place of it, every voxel
    :math:`\lfloor P / S \rfloor` or :math:`\lceil P / S \rceil` times for :math:`S` surface
    voxels. A shape with fewer of them than points thus has several, distinct, points a voxel.
    Clouds are centred at their mean and scaled to a largest norm of 1; up is the third axis.

    Of the 3991 training and 908 test shapes, 7 and 1 have an empty grid in the file
    (:obj:`EMPTY` of this module). They are no shapes and are left out: 3984 and 907 remain.

    Args:
        root (str): The folder with the file.
        train (bool, optional): The training shapes, or the test shapes. (default: :obj:`True`)
        points (int, optional): The number of points of each cloud; :obj:`None` for the voxel
            centres, about 1,000. (default: :obj:`None`)
        transform (callable, optional): Applied to a :class:`~torch_geometric.data.Data` at every
            access. (default: :obj:`None`)
        seed (int, optional): The seed of the points. (default: :obj:`0`)

    Attributes:
        classes (list[str]): The ten classes, sorted.
        rows (Tensor): The row of each shape in its array of the file, int64.

    Shapes:
        - **pos:** :math:`(P, 3)`, float32
        - **y:** :math:`(1)`, int64, 0 to 9

    Raises:
        FileNotFoundError: If the folder or the file is missing.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, the file is damaged, or a grid is empty
            that is not known to be.

    Example:
        >>> import numpy as np, tempfile
        >>> from pyg_stkd.datasets import ModelNetVoxels
        >>> root = tempfile.mkdtemp()
        >>> grid = np.zeros((1, 30, 30, 30), dtype=np.int32)
        >>> grid[:, 10:13, 10:13, 10:13] = 1  # 27 voxels, of which one is inside
        >>> np.savez(f"{root}/modelnet10.npz", X_train=grid, y_train=[8])
        >>> dataset = ModelNetVoxels(root)
        >>> dataset[0].pos.shape, ModelNetVoxels(root, points=512)[0].pos.shape
        (torch.Size([26, 3]), torch.Size([512, 3]))
        >>> dataset.classes[dataset[0].y]
        'table'
    """

    rows: Tensor

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        points: int | None = None,
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        check_split(train)
        if points is not None:
            checks.count("points", points)
        checks.count("seed", seed, least=0)
        self.train, self.points, self.seed = train, points, seed
        self.classes = list(MODELNET10)
        path = _find(root)
        super().__init__(None, transform)

        split = "train" if train else "test"
        grids, y = _read(path, split, len(self.classes))
        parts = [_surface(grids[i : i + CHUNK]) for i in range(0, len(grids), CHUNK)]
        voxels = np.concatenate([part[0] for part in parts])  # [V, 3]
        sizes = np.concatenate([part[1] for part in parts])
        rows = np.flatnonzero(sizes)
        known = EMPTY[split] if len(sizes) == NUM_SHAPES[split] else ()
        if bad := sorted(set(np.flatnonzero(sizes == 0)) - set(known)):
            raise ValueError(
                f"'{path}' must hold an occupied voxel in every shape but {known or 'none'} "
                f"(got empty grids in rows {', '.join(map(str, bad[:10]))} of {split!r})"
            )
        self.rows, sizes = torch.from_numpy(rows), sizes[rows]
        pos = voxels.astype(np.float32) + 0.5
        if points is not None:
            pos = _sample(voxels, sizes, points, np.random.default_rng([seed, int(train)]))
            sizes = np.full(len(rows), points)
        self._fill(unit_sphere(pos, sizes), sizes, y[rows])


def _find(root: str | os.PathLike[str]) -> Path:
    folder = find_root(root, NEEDS, SOURCE)
    for name in ("modelnet10_vox24_packed.npz", "modelnet10.npz"):
        if (folder / name).is_file():
            return folder / name
    raise missing(folder, "neither is in it", NEEDS, SOURCE)


def _read(path: Path, split: str, num_classes: int) -> tuple[NDArray[np.uint8], Int]:
    """Return the grids as bits `[S, 24^3 / 8]`, and the labels."""
    if "packed" in path.name:
        name, label = f"{split}_bits", f"{split}_y"
        arrays = read_npz(path, name, label)
        bits = arrays[name]
        if (
            bits.ndim != 2
            or bits.shape[1] != SIDE**3 // 8
            or bits.dtype != np.uint8
            or 0 in bits.shape
        ):
            raise ValueError(
                f"{name!r} of '{path}' must be uint8 [S, {SIDE**3 // 8}] "
                f"(got shape {bits.shape} of {bits.dtype})"
            )
        return bits.astype(np.uint8), check_labels(
            arrays[label], label, path, len(bits), num_classes
        )
    name, label = f"X_{split}", f"y_{split}"
    arrays = read_npz(path, name, label)
    grids, side = arrays[name], SIDE + 2 * PAD
    if grids.ndim != 4 or grids.shape[1:] != (side,) * 3 or 0 in grids.shape:
        raise ValueError(
            f"{name!r} of '{path}' must be grids [S, {side}, {side}, {side}] (got {grids.shape})"
        )
    y = check_labels(arrays[label], label, path, len(grids), num_classes)
    inner = grids[:, PAD:-PAD, PAD:-PAD, PAD:-PAD]
    occupied = inner == 1
    if np.count_nonzero(grids) != np.count_nonzero(occupied):
        raise ValueError(
            f"{name!r} of '{path}' must be 0 and 1, and 0 in the outer {PAD} voxels "
            f"(got other values)"
        )
    return np.packbits(occupied.reshape(len(grids), -1), axis=1), y


def _surface(bits: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Int]:
    """Return the surface voxels `[V, 3]` of some grids, grid after grid, and their counts."""
    grids = np.unpackbits(bits, axis=1, count=SIDE**3).reshape(-1, SIDE, SIDE, SIDE).view(bool)
    padded = np.pad(grids, ((0, 0), (1, 1), (1, 1), (1, 1)))
    inside = grids.copy()
    for axis in (1, 2, 3):
        for start in (0, 2):
            place = [slice(None), *[slice(1, -1)] * 3]
            place[axis] = slice(start, start + SIDE)
            inside &= padded[tuple(place)]
    surface = (grids & ~inside).reshape(len(grids), -1)
    shape, voxel = np.nonzero(surface)
    index = np.stack(np.unravel_index(voxel, (SIDE,) * 3), axis=1)
    return index.astype(np.uint8), np.bincount(shape, minlength=len(grids))


def _sample(voxels: NDArray[np.uint8], sizes: Int, points: int, rng: np.random.Generator) -> Float:
    """`points` places in each shape's voxels: a random order of them, over and over."""
    shape = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(shape + 0.5 * rng.random(len(shape)))  # random within each shape
    start = np.cumsum(sizes) - sizes
    pick = start[:, None] + np.arange(points) % sizes[:, None]  # [S, P]
    pos: Float = voxels[order[pick.reshape(-1)]].astype(np.float32)
    pos += rng.random(pos.shape, dtype=np.float32)
    return pos
