"""ModelNet10-149: 149 shapes of ModelNet10 as detailed point clouds."""

from __future__ import annotations

import os

import numpy as np

from pyg_stkd.datasets.points.point_archive import (
    check_labels,
    check_points,
    find_root,
    missing,
)
from pyg_stkd.datasets.points.point_clouds import MODELNET10, PointClouds, Transform, check_split
from pyg_stkd.files import read_npz

__all__ = ["ModelNet149"]

FILE = "modelnet10_149x2048.npz"
SOURCE = (
    "sampling 2,048 points on each of the 149 meshes ModelNet10/<class>/test/*.off of "
    "https://github.com/ashutosh-sharma-xi/3D-Designs-Search; the documentation of ModelNet149 "
    "lists the arrays"
)


class ModelNet149(PointClouds):
    r"""ModelNet10-149: 15 shapes of each class of ModelNet10 (14 chairs) as clouds of 2,048
    points with normals, from a local folder.

    The shapes are of the official **test** part of ModelNet10, the split is our own: the first
    ten of each class by name are for training, the other 49 for testing. Report results on them
    as ModelNet10-149. The file ``modelnet10_149x2048.npz`` holds ``pos`` and ``normal``
    :math:`(S, P, 3)` (here in half precision, centred and scaled to a largest norm of 1), ``y``
    :math:`(S)`, ``split`` :math:`(S)` of 0 (train) and 1 (test), and ``name`` :math:`(S)`.
    Nothing is written to :obj:`root`.

    Args:
        root (str): The folder with the file.
        train (bool, optional): The 100 training shapes, or the 49 test shapes.
            (default: :obj:`True`)
        transform (callable, optional): Applied to a :class:`~torch_geometric.data.Data` at every
            access. Most of PyG's transforms turn ``pos`` and leave ``normal`` as it is.
            (default: :obj:`None`)

    Attributes:
        classes (list[str]): The ten classes, sorted.
        names (list[str]): The name of each shape, such as ``bathtub_0107``.

    Shapes:
        - **pos:** :math:`(2048, 3)`, float32
        - **normal:** :math:`(2048, 3)`, float32
        - **y:** :math:`(1)`, int64, 0 to 9

    Raises:
        FileNotFoundError: If the folder or the file is missing.
        ValueError: If the file is damaged.

    Example:
        >>> import numpy as np, tempfile
        >>> from pyg_stkd.datasets import ModelNet149
        >>> root = tempfile.mkdtemp()
        >>> np.savez(f"{root}/modelnet10_149x2048.npz", pos=np.ones((2, 4, 3)), y=[0, 9],
        ...          normal=np.ones((2, 4, 3)), split=[0, 1], name=["bathtub_1", "toilet_1"])
        >>> dataset = ModelNet149(root, train=False)
        >>> dataset, dataset.names, dataset[0].y
        (ModelNet149(1, train=False), ['toilet_1'], tensor([9]))
    """

    names: list[str]

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform | None = None,
    ) -> None:
        check_split(train)
        self.train, self.classes = train, list(MODELNET10)
        folder = find_root(root, FILE, SOURCE)
        path = folder / FILE
        if not path.is_file():
            raise missing(folder, f"'{FILE}' is not in it", FILE, SOURCE)
        super().__init__(None, transform)

        arrays = read_npz(path, "pos", "normal", "y", "split", "name")
        pos = check_points(arrays["pos"], "pos", path)
        normal = check_points(arrays["normal"], "normal", path)
        if pos.shape != normal.shape:
            raise ValueError(
                f"'normal' of '{path}' must have the shape of 'pos', {pos.shape} "
                f"(got {normal.shape})"
            )
        y = check_labels(arrays["y"], "y", path, len(pos), len(self.classes))
        split = check_labels(arrays["split"], "split", path, len(pos), 2)
        if arrays["name"].shape != (len(pos),):
            raise ValueError(
                f"'name' of '{path}' must name each of the {len(pos)} shapes "
                f"(got shape {arrays['name'].shape})"
            )
        rows = np.flatnonzero(split == int(not train))
        if not len(rows):
            raise ValueError(f"'split' of '{path}' must hold {int(not train)} (got no such shape)")
        self.names = [str(name) for name in arrays["name"][rows]]
        sizes = np.full(len(rows), pos.shape[1])
        self._fill(pos[rows].reshape(-1, 3), sizes, y[rows], normal[rows].reshape(-1, 3))
