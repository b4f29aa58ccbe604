"""ModelNet10 and ModelNet40 as clouds of points on their meshes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch_geometric.transforms import SamplePoints

from pyg_stkd import checks
from pyg_stkd.datasets.points.off_mesh import read_mesh
from pyg_stkd.datasets.points.point_archive import find_root, missing
from pyg_stkd.datasets.points.point_clouds import (
    MODELNET10,
    MODELNET40,
    PointClouds,
    Transform,
    check_split,
    unit_sphere,
)

__all__ = ["ModelNetOFF"]

SOURCES = {
    "10": "http://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip",
    "40": "http://modelnet.cs.princeton.edu/ModelNet40.zip",
}
NEEDS = "<class>/train/<class>_NNNN.off and <class>/test/<class>_NNNN.off for each class"


class ModelNetOFF(PointClouds):
    r"""ModelNet10 or ModelNet40 (`"3D ShapeNets: A Deep Representation for Volumetric Shapes"
    <https://arxiv.org/abs/1406.5670>`_, Wu et al., CVPR 2015) as points on the official OFF
    meshes, from a local folder.

    The meshes are read in place, through PyG's parser: ``<class>/{train,test}/<class>_NNNN.off``
    in :obj:`root` (the unpacked archive, or the folder above it) or in ``raw`` within it (the
    layout of PyG's :class:`~torch_geometric.datasets.ModelNet`). Files with ``OFF`` and the
    counts on one line are read too. Nothing is written to :obj:`root`. The points are drawn
    uniformly on the surface by PyG's :class:`~torch_geometric.transforms.SamplePoints`, for each
    shape from a seed of its own; a cloud is centred at its mean and scaled to a largest norm of
    1.

    Reading the whole of a set takes minutes. ``torch_geometric.datasets.ModelNet(root, name,
    train, pre_transform=...)`` works as well: it downloads the meshes and keeps a processed copy
    in :obj:`root`; with ``Compose([SamplePoints(1024), UnitSphere()])`` it gives such clouds.

    Args:
        root (str): The folder with the files.
        name (str, optional): :obj:`"10"` or :obj:`"40"`. (default: :obj:`"10"`)
        train (bool, optional): The training shapes, or the test shapes. (default: :obj:`True`)
        points (int, optional): The number of points of each cloud. (default: :obj:`1024`)
        transform (callable, optional): Applied to a :class:`~torch_geometric.data.Data` at every
            access. (default: :obj:`None`)
        seed (int, optional): The seed of the points. (default: :obj:`0`)

    Attributes:
        classes (list[str]): The classes, sorted.
        names (list[str]): The name of each shape, such as ``bathtub_0107``.

    Shapes:
        - **pos:** :math:`(P, 3)`, float32
        - **y:** :math:`(1)`, int64

    Raises:
        FileNotFoundError: If the folder is missing, or a class has no file.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range or a file is damaged.

    Example:
        >>> import pathlib, tempfile
        >>> from pyg_stkd.datasets import ModelNetOFF
        >>> from pyg_stkd.datasets.points.point_clouds import MODELNET10
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in MODELNET10:
        ...     (root / name / "train").mkdir(parents=True)
        ...     _ = (root / name / "train" / f"{name}_0001.off").write_text(
        ...         "OFF 3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
        >>> dataset = ModelNetOFF(root, points=32)
        >>> dataset, dataset[0].pos.shape, dataset.names[6]
        (ModelNetOFF(10, train=True), torch.Size([32, 3]), 'night_stand_0001')
    """

    names: list[str]

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str = "10",
        train: bool = True,
        points: int = 1024,
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        if name not in SOURCES:
            raise ValueError(f"'name' must be '10' or '40' (got {name!r})")
        check_split(train)
        checks.count("points", points)
        checks.count("seed", seed, least=0)
        self.name, self.train, self.points, self.seed = name, train, points, seed
        self.classes = list(MODELNET10 if name == "10" else MODELNET40)
        paths, y = self._find(find_root(root, NEEDS, SOURCES[name]))
        self.names = [path.stem for path in paths]
        super().__init__(None, transform)

        sample = SamplePoints(points)
        pos = torch.empty(len(paths), points, 3)
        with torch.random.fork_rng(devices=[]):
            for i, path in enumerate(paths):
                entropy = np.random.SeedSequence([seed, int(train), i])
                # Not torch.manual_seed, which would seed the caller's GPUs too.
                torch.default_generator.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
                pos[i] = sample(read_mesh(path)).pos
        sizes = np.full(len(paths), points)
        self._fill(unit_sphere(pos.view(-1, 3).numpy(), sizes), sizes, np.array(y))

    def _find(self, root: Path) -> tuple[list[Path], list[int]]:
        split = "train" if self.train else "test"
        archive = f"ModelNet{self.name}"
        folders = [root, root / "raw", root / archive, root / "raw" / archive]
        found = [f for f in folders if any((f / kind).is_dir() for kind in self.classes)]
        folder = found[0] if found else root
        paths: list[Path] = []
        y: list[int] = []
        for label, kind in enumerate(self.classes):
            files = sorted((folder / kind / split).glob(f"{kind}_*.off"))
            if not files:
                what = f"no file '{kind}/{split}/{kind}_*.off'"
                raise missing(folder, what, NEEDS, SOURCES[self.name])
            paths += files
            y += [label] * len(files)
        return paths, y
