"""The transforms of point clouds that PyG lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

__all__ = ["RandomScaleTranslate", "UnitSphere"]


class UnitSphere(BaseTransform):
    r"""Shift a cloud to mean 0 and scale it to a largest norm of 1, as PointNet and DGCNN do.

    PyG's :class:`~torch_geometric.transforms.NormalizeScale` scales to the unit **cube** instead:
    the largest coordinate becomes 1, not the largest norm. A cloud of one place becomes 0.

    Raises:
        ValueError: If a :class:`~torch_geometric.data.Data` has no points, or NaN ones.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_stkd.datasets import UnitSphere
        >>> UnitSphere()(Data(pos=torch.tensor([[1.0, 0.0, 0.0], [7.0, 8.0, 0.0]]))).pos
        tensor([[-0.6000, -0.8000,  0.0000],
                [ 0.6000,  0.8000,  0.0000]])
    """

    def forward(self, data: Data) -> Data:
        """Return the data with new `pos`; the given tensor is not changed."""
        pos = data.pos
        if pos is None or pos.dim() != 2 or pos.size(0) == 0:
            raise ValueError(
                "'data.pos' must hold at least one point, [P, D] "
                f"(got {None if pos is None else tuple(pos.shape)})"
            )
        if not pos.isfinite().all():
            raise ValueError("'data.pos' must be finite (got NaN or infinite values)")
        pos = pos - pos.mean(dim=0)
        largest = pos.abs().amax()
        pos = pos / torch.where(largest > 0, largest, 1.0)  # squares of any size are then in range
        radius = pos.norm(dim=1).max()
        data.pos = pos / torch.where(radius > 0, radius, 1.0)
        return data


class RandomScaleTranslate(BaseTransform):
    r"""Scale each axis by its own random factor, then shift it: the augmentation of `"Dynamic
    Graph CNN for Learning on Point Clouds" <https://arxiv.org/abs/1801.07829>`_ (in its code).

    .. math::
        \mathbf{x}'_i = \mathbf{s} \odot \mathbf{x}_i + \mathbf{t}, \qquad
        s_d \sim U(a, b), \quad t_d \sim U(-t, t)

    with one :math:`\mathbf{s}` and :math:`\mathbf{t}` for the whole cloud. PyG's
    :class:`~torch_geometric.transforms.RandomScale` has one factor for all axes, its
    :class:`~torch_geometric.transforms.RandomJitter` one shift for each point. Normals, if any,
    turn along: :math:`\mathbf{n}' \propto \mathbf{n} / \mathbf{s}`.

    Args:
        scale ((float, float), optional): The range :math:`(a, b)` of the factors.
            (default: :obj:`(2/3, 3/2)`)
        shift (float, optional): The largest shift :math:`t`, in the units of the cloud.
            (default: :obj:`0.2`)

    Raises:
        ValueError: If the range is not :math:`0 < a \le b`, or the shift is negative.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_stkd.datasets import RandomScaleTranslate
        >>> transform = RandomScaleTranslate(scale=(2.0, 2.0), shift=0.0)
        >>> transform(Data(pos=torch.tensor([[1.0, 0.0, 3.0]]))).pos
        tensor([[2., 0., 6.]])
    """

    def __init__(self, scale: Sequence[float] = (2 / 3, 3 / 2), shift: float = 0.2) -> None:
        if len(scale) != 2 or not (0 < scale[0] <= scale[1] < math.inf):
            raise ValueError(f"'scale' must be a range (a, b) with 0 < a <= b (got {scale})")
        if not 0 <= shift < math.inf:
            raise ValueError(f"'shift' must be finite and at least 0 (got {shift})")
        self.scale, self.shift = (float(scale[0]), float(scale[1])), float(shift)

    def forward(self, data: Data) -> Data:
        """Return the data with new `pos` and `normal`; the given tensors are not changed."""
        pos = data.pos
        if pos is None or pos.dim() != 2:
            raise ValueError(
                "'data.pos' must be points [P, D] "
                f"(got {None if pos is None else tuple(pos.shape)})"
            )
        scale = pos.new_empty(pos.size(1)).uniform_(*self.scale)
        data.pos = pos * scale + pos.new_empty(pos.size(1)).uniform_(-self.shift, self.shift)
        if "normal" in data:
            data.normal = F.normalize(data.normal / scale, dim=-1)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(scale={self.scale}, shift={self.shift})"
