"""ModelNet10 and ModelNet40 as the clouds of `modelnet40_normal_resampled`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pyg_stkd import checks
from pyg_stkd.datasets.points.point_archive import (
    check_finite,
    find_root,
    missing,
    read_names,
)
from pyg_stkd.datasets.points.point_clouds import (
    Float,
    PointClouds,
    Transform,
    check_split,
)
from pyg_stkd.datasets.tables import read_table

__all__ = ["ModelNetNormals"]

FOLDER = "modelnet40_normal_resampled"
SOURCE = f"https://shapenet.cs.stanford.edu/media/{FOLDER}.zip"


class ModelNetNormals(PointClouds):
    r"""ModelNet10 or ModelNet40 as the clouds with normals of `"PointNet++: Deep Hierarchical
    Feature Learning on Point Sets in a Metric Space" <https://arxiv.org/abs/1706.02413>`_ (Qi et
    al., NIPS 2017), ``modelnet40_normal_resampled``: 10,000 points a shape, centred and within
    the unit sphere, from the local folder of
    https://shapenet.cs.stanford.edu/media/modelnet40_normal_resampled.zip.

    A shape is a file ``<class>/<class>_NNNN.txt`` with lines ``x,y,z,nx,ny,nz``. The lists
    ``modelnet{10,40}_shape_names.txt``, ``..._train.txt`` and ``..._test.txt`` name the classes
    in the order of their labels, and the shapes: 3,991 and 908 of ModelNet10, 9,843 and 2,468 of
    ModelNet40. Nothing is written to :obj:`root`.

    With :obj:`points` only the first lines of each file are read, as the authors do; their order
    is random. All 10,000 of ModelNet40 take 2.4 GB, and minutes to read.

    Args:
        root (str): The folder with the lists, or the one above it.
        name (str, optional): :obj:`"10"` or :obj:`"40"`. (default: :obj:`"40"`)
        train (bool, optional): The training shapes, or the test shapes. (default: :obj:`True`)
        points (int, optional): The number of points of each cloud, the first of the file;
            :obj:`None` for all of them. (default: :obj:`None`)
        transform (callable, optional): Applied to a :class:`~torch_geometric.data.Data` at every
            access. Most of PyG's transforms turn ``pos`` and leave ``normal`` as it is.
            (default: :obj:`None`)

    Attributes:
        classes (list[str]): The classes, in the order of their list.
        names (list[str]): The name of each shape, such as ``airplane_0001``.

    Shapes:
        - **pos:** :math:`(P, 3)`, float32
        - **normal:** :math:`(P, 3)`, float32
        - **y:** :math:`(1)`, int64

    Raises:
        FileNotFoundError: If the folder, a list or a listed file is missing.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, or a file is damaged: other than six
            finite numbers a line, fewer points than asked for, or not as many as the first file.

    Example:
        >>> import pathlib, tempfile
        >>> from pyg_stkd.datasets import ModelNetNormals
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "cup").mkdir()
        >>> _ = (root / "cup" / "cup_0001.txt").write_text("0,0,1,0,0,1\n0,1,0,0,1,0\n")
        >>> _ = (root / "modelnet40_shape_names.txt").write_text("cone\ncup\n")
        >>> _ = (root / "modelnet40_train.txt").write_text("cup_0001\n")
        >>> dataset = ModelNetNormals(root, points=1)
        >>> dataset[0].pos, dataset[0].normal, dataset[0].y
        (tensor([[0., 0., 1.]]), tensor([[0., 0., 1.]]), tensor([1]))
    """

    names: list[str]

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str = "40",
        train: bool = True,
        points: int | None = None,
        transform: Transform | None = None,
    ) -> None:
        checks.choice("name", name, ("10", "40"))
        check_split(train)
        if points is not None:
            checks.count("points", points)
        self.name, self.train, self.points = name, train, points
        lists = [f"modelnet{name}_{part}.txt" for part in ("shape_names", "train", "test")]
        needs = f"{', '.join(lists)}, <class>/<class>_NNNN.txt"
        folder = find_root(root, needs, SOURCE)
        folder = folder / FOLDER if (folder / FOLDER / lists[0]).is_file() else folder
        for file in (lists[0], lists[1 if train else 2]):
            if not (folder / file).is_file():
                raise missing(folder, f"'{file}' is not in it", needs, SOURCE)
        self.classes = read_names(folder / lists[0])
        split = folder / lists[1 if train else 2]
        self.names = read_names(split)
        kinds = [shape.rpartition("_")[0] for shape in self.names]  # night_stand_0001
        if unknown := sorted(set(kinds) - set(self.classes)):
            raise ValueError(
                f"'{split}' must hold names <class>_NNNN with a class of {lists[0]} "
                f"(got the classes {', '.join(map(repr, unknown))})"
            )
        paths = [
            folder / kind / f"{shape}.txt" for kind, shape in zip(kinds, self.names, strict=True)
        ]
        if absent := [path.name for path in paths if not path.is_file()]:
            some = ", ".join(absent[:3])
            what = f"{len(absent)} of the {len(paths)} shapes of '{split.name}' are not, as {some}"
            raise missing(folder, what, needs, SOURCE)
        super().__init__(None, transform)

        table: Float | None = None
        for i, path in enumerate(paths):
            cloud = _read(path, points)
            if table is None:
                table = np.empty((len(paths), *cloud.shape), dtype=np.float32)
            if cloud.shape != table.shape[1:]:
                raise ValueError(
                    f"'{path}' must hold {table.shape[1]} points, as the files before it "
                    f"(got {len(cloud)})"
                )
            table[i] = cloud
        assert table is not None  # a list has at least one name
        flat = table.reshape(-1, 6)
        place = {kind: label for label, kind in enumerate(self.classes)}
        self._fill(
            np.ascontiguousarray(flat[:, :3]),
            np.full(len(table), table.shape[1]),
            np.array([place[kind] for kind in kinds], dtype=np.int64),
            np.ascontiguousarray(flat[:, 3:]),
        )


def _read(path: Path, points: int | None) -> Float:
    """Return the first points of a file, or all, with their normals: `[P, 6]`."""
    cloud = read_table(path, columns=6, rows=points).values
    if len(cloud) < (points or 1):
        raise ValueError(f"'{path}' must hold at least {points} points (got {len(cloud)})")
    if cloud.shape[1] != 6:
        raise ValueError(f"'{path}' must hold lines x,y,z,nx,ny,nz (got {cloud.shape[1]} columns)")
    with np.errstate(over="ignore"):
        table = cloud.astype(np.float32)
    check_finite(table, "x,y,z,nx,ny,nz", path)
    return table
