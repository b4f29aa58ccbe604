"""What every point-cloud data set here is: labelled clouds in memory, and names of the classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

__all__ = [
    "check_split",
    "Float",
    "Int",
    "MODELNET10",
    "MODELNET40",
    "PointClouds",
    "Transform",
    "unit_sphere",
]

Float = NDArray[np.float32]
Int = NDArray[np.int64]
Transform = Callable[[Data], Data]

# The classes of ModelNet10 and ModelNet40, in the order of their labels.
MODELNET10 = [
    "bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table",
    "toilet",
]  # fmt: skip
MODELNET40 = [
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone",
    "cup", "curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard",
    "lamp", "laptop", "mantel", "monitor", "night_stand", "person", "piano", "plant", "radio",
    "range_hood", "sink", "sofa", "stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase",
    "wardrobe", "xbox",
]  # fmt: skip


class PointClouds(InMemoryDataset):
    r"""Base class of the labelled point clouds: an in-memory data set of PyG, all clouds in one.

    Attributes:
        classes (list[str]): The names of the classes, in the order of their labels.
        train (bool): Whether these are the training shapes.

    Example:
        >>> from pyg_stkd.datasets import SyntheticShapes
        >>> shapes = SyntheticShapes(num_shapes=20, points=16)
        >>> isinstance(shapes, PointClouds), shapes.num_classes, shapes[0].pos.shape
        (True, 10, torch.Size([16, 3]))
    """

    classes: list[str]
    train: bool

    def _fill(
        self, pos: Float, sizes: Sequence[int] | Int, y: Int, normal: Float | None = None
    ) -> None:
        # pos [sum of sizes, 3]: the clouds one after another; collating thousands of Data is slow
        ptr = torch.zeros(len(sizes) + 1, dtype=torch.long)
        torch.cumsum(torch.as_tensor(sizes), 0, out=ptr[1:])
        self.data = Data(pos=torch.from_numpy(pos), y=torch.from_numpy(y))
        self.slices = {"pos": ptr, "y": torch.arange(len(sizes) + 1)}
        if normal is not None:
            self._data.normal = torch.from_numpy(normal)
            self.slices["normal"] = ptr

    @property
    def num_classes(self) -> int:
        """Return the number of classes, of which a subset of the shapes may lack some."""
        return len(self.classes)

    @property
    def y(self) -> Tensor:
        """Return the class of every shape of this split, before any transform: `[S]`."""
        return self._data.y if self._indices is None else self._data.y[self.indices()]

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({len(self)}, train={self.train})"


def unit_sphere(pos: NDArray[np.floating[Any]], sizes: Sequence[int] | Int) -> Float:
    """Each cloud of `pos` shifted to mean 0 and scaled to a largest norm of 1 (a cloud of one
    place stays at 0); computed in float64.
    """
    sizes = np.asarray(sizes)
    start = np.cumsum(sizes) - sizes
    mean = np.add.reduceat(pos, start, axis=0, dtype=np.float64) / sizes[:, None]
    centred = pos - np.repeat(mean, sizes, axis=0)
    radius = np.sqrt(np.maximum.reduceat((centred**2).sum(axis=1), start))
    scale = 1 / np.where(radius > 0, radius, 1.0)
    centred *= np.repeat(scale, sizes)[:, None]
    return centred.astype(np.float32)


def check_split(train: bool) -> None:
    """Raise for anything but a bool: a name such as 'test' would count as true."""
    if not isinstance(train, bool):
        raise TypeError(f"'train' must be True or False (got {train!r})")
