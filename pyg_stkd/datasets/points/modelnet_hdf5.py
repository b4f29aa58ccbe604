"""ModelNet40 as the clouds of `modelnet40_ply_hdf5_2048`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyg_stkd.datasets.points.point_archive import (
    check_labels,
    check_points,
    find_root,
    missing,
    read_names,
)
from pyg_stkd.datasets.points.point_clouds import Float, Int, PointClouds, Transform, check_split

__all__ = ["ModelNetHDF5"]

FOLDER = "modelnet40_ply_hdf5_2048"
_DEFLATE = 1032  # times as much as it takes in the file, an array can be at most
NEEDS = "shape_names.txt, train_files.txt, test_files.txt, ply_data_train*.h5, ply_data_test*.h5"
SOURCE = f"https://shapenet.cs.stanford.edu/media/{FOLDER}.zip"


class ModelNetHDF5(PointClouds):
    r"""ModelNet40 as the clouds that PointNet and DGCNN use, ``modelnet40_ply_hdf5_2048``: 9,840
    training and 2,468 test shapes of 2,048 points each, centred and within the unit sphere, from
    the local folder of https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip.

    ``shape_names.txt`` names the classes in the order of their labels; ``train_files.txt`` and
    ``test_files.txt`` list the archives, of which the file names count; these hold ``data``
    :math:`(S, P, 3)` and ``label`` :math:`(S, 1)`. Other entries, such as ``normal``, are not
    read. Nothing is written to :obj:`root`. The papers use 1,024 of the points:
    :class:`~torch_geometric.transforms.FixedPoints` draws them anew at each access. Needs
    :obj:`h5py`.

    Args:
        root (str): The folder with the files, or the one above it.
        train (bool, optional): The training shapes, or the test shapes. (default: :obj:`True`)
        transform (callable, optional): Applied to a :class:`~torch_geometric.data.Data` at every
            access. (default: :obj:`None`)

    Attributes:
        classes (list[str]): The classes, in the order of ``shape_names.txt``.

    Shapes:
        - **pos:** :math:`(2048, 3)`, float32
        - **y:** :math:`(1)`, int64, 0 to 39

    Raises:
        FileNotFoundError: If the folder or a file is missing.
        ImportError: If :obj:`h5py` is not installed.
        ValueError: If a file is damaged.

    Example:
        >>> from pyg_stkd.datasets import ModelNetHDF5
        >>> dataset = ModelNetHDF5("data/modelnet40_ply_hdf5_2048")  # doctest: +SKIP
        >>> len(dataset), dataset.num_classes  # doctest: +SKIP
        (9840, 40)
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform | None = None,
    ) -> None:
        check_split(train)
        self.train = train
        folder = find_root(root, NEEDS, SOURCE)
        folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
        self.classes = _names(folder, "shape_names.txt")
        # the lists name the archives by their place in the authors' repository
        names = _names(folder, f"{'train' if train else 'test'}_files.txt", places=True)
        paths = [folder / name for name in names]
        if absent := [path.name for path in paths if not path.is_file()]:
            raise missing(folder, f"{', '.join(absent)} not in it", NEEDS, SOURCE)
        h5py = _h5py()
        super().__init__(None, transform)

        clouds, labels = zip(*(_read(h5py, path, len(self.classes)) for path in paths), strict=True)
        if len({cloud.shape[1] for cloud in clouds}) > 1:
            counts = ", ".join(str(cloud.shape[1]) for cloud in clouds)
            raise ValueError(f"the archives of '{folder}' must agree in points (got {counts})")
        pos = np.concatenate(clouds)
        sizes = np.full(len(pos), pos.shape[1])
        self._fill(pos.reshape(-1, 3), sizes, np.concatenate(labels))


def _names(folder: Path, name: str, places: bool = False) -> list[str]:
    if not (folder / name).is_file():
        raise missing(folder, f"'{name}' is not in it", NEEDS, SOURCE)
    return read_names(folder / name, places)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("ModelNetHDF5 reads HDF5 files: it needs 'pip install h5py'") from error
    return h5py


def _read(h5py: Any, path: Path, num_classes: int) -> tuple[Float, Int]:
    try:
        with h5py.File(path, "r") as file:
            keys = ", ".join(file) or "none"
            arrays = {name: _array(h5py, file, name) for name in ("data", "label") if name in file}
    except Exception as error:  # of any kind, where HDF5 meets a damaged file
        raise ValueError(f"'{path}' must be a complete HDF5 file (got {error})") from error
    for name in ("data", "label"):
        if name not in arrays:
            raise ValueError(f"'{path}' must hold the array {name!r} (got {keys})")
    pos = check_points(arrays["data"], "data", path)
    return pos, check_labels(arrays["label"], "label", path, len(pos), num_classes)


def _array(h5py: Any, file: Any, name: str) -> NDArray[np.generic]:
    """Return an array that lies in the file itself, and is not larger than it can hold."""
    data = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"{name!r} that is no array of this file")
    if data.dtype.kind not in "iuf" or data.nbytes > _DEFLATE * data.id.get_storage_size():
        raise ValueError(f"{name!r} of {data.dtype} and {data.nbytes} bytes, shape {data.shape}")
    return np.asarray(data[()])
