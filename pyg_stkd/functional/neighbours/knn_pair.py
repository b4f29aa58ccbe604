"""The nearest points of one set to each point of another: an operator without doctests.

It is asked for by bipartite layers alone, so it is plain: exact distances, a few rows at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.functional.neighbours.clouds import cloud_sizes, has_tiny, in_range
from pyg_stkd.functional.neighbours.knn import check_points

__all__ = ["knn_pair"]

# Distances that are alive at once.
_CHUNK = 1 << 22


def knn_pair(
    x: Tensor, y: Tensor, k: int, batch_x: Tensor | None = None, batch_y: Tensor | None = None
) -> Tensor:
    r"""Connect each point of :obj:`y` with the :math:`k` nearest points of :obj:`x` in its cloud.

    As in :func:`~pyg_stkd.functional.knn_graph` the nearest come first, at equal distances the
    smaller index; a cloud of fewer points gives all that it has. Distances are sums of squared
    differences, in float64.

    Args:
        x (Tensor): The points to choose from.
        y (Tensor): The points that get neighbours.
        k (int): Number of neighbours.
        batch_x (Tensor, optional): The cloud of each point of :obj:`x`, in ascending order.
            (default: :obj:`None`, one cloud)
        batch_y (Tensor, optional): The same for :obj:`y`.

    Shapes:
        - **x:** :math:`(N_x, C)`
        - **y:** :math:`(N_y, C)`
        - **output:** :math:`(2, |\mathcal{E}|)`, indices into :obj:`x` and into :obj:`y`, sorted
          by the latter

    Raises:
        TypeError: If points are not of real floating point numbers, or clouds not of integers.
        ValueError: If widths differ, one set has clouds and the other has not, or for the reasons
            of :func:`~pyg_stkd.functional.knn_graph`.
    """
    k = min(check_points(x, k, batch_x), 2**31)
    check_points(y, k, batch_y)
    if x.size(1) != y.size(1):
        raise ValueError(
            f"'x' must be a pair of points of one width (got {list(x.shape)} and {list(y.shape)})"
        )
    if (batch_x is None) != (batch_y is None):
        raise ValueError("'batch' must be given for both sets of points or for none (got one)")
    return torch.ops.pyg_stkd.knn_pair(x.detach(), y.detach(), k, batch_x, batch_y)


_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define("knn_pair(Tensor x, Tensor y, int k, Tensor? batch_x, Tensor? batch_y) -> Tensor")


@torch.library.impl(_library, "knn_pair", "CompositeExplicitAutograd")
@torch.compiler.disable
def _knn_pair(
    x: Tensor, y: Tensor, k: int, batch_x: Tensor | None, batch_y: Tensor | None
) -> Tensor:
    x, y = _comparable(x, y)
    edges = [torch.empty(2, 0, dtype=torch.int64, device=x.device)]
    for first_x, size_x, first_y, size_y in _clouds(x, y, batch_x, batch_y):
        sources = x[first_x : first_x + size_x]
        step = max(1, _CHUNK // max(1, size_x))
        for start in range(first_y, first_y + size_y if size_x else first_y, step):
            stop = min(start + step, first_y + size_y)
            distance = torch.cdist(
                y[start:stop], sources, compute_mode="donot_use_mm_for_euclid_dist"
            )
            near = distance.sort(dim=1, stable=True).indices[:, :k] + first_x
            target = torch.arange(start, stop, device=x.device).view(-1, 1).expand_as(near)
            edges.append(torch.stack([near, target]).flatten(1))
    return torch.cat(edges, dim=1)


def _comparable(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float64, where the device has it, and where squares are usual numbers."""
    dtype = torch.float32 if x.device.type == "mps" else torch.float64
    both = torch.cat([x.to(dtype), y.to(dtype)])
    both = in_range(both, tiny=has_tiny(both))
    return both[: x.size(0)], both[x.size(0) :]


def _clouds(
    x: Tensor, y: Tensor, batch_x: Tensor | None, batch_y: Tensor | None
) -> list[tuple[int, int, int, int]]:
    """Return where the points of each cloud begin in both sets, and how many they are."""
    if batch_x is None or batch_y is None:
        return [(0, x.size(0), 0, y.size(0))]
    for num_points, batch in ((x.size(0), batch_x), (y.size(0), batch_y)):
        cloud_sizes(num_points, batch)  # refuses clouds in several pieces
    names = torch.cat([batch_x, batch_y]).unique()
    parts = []
    for batch in (batch_x, batch_y):
        first = torch.searchsorted(batch, names)
        parts += [first, torch.searchsorted(batch, names, right=True) - first]
    return [(a, b, c, d) for a, b, c, d in torch.stack(parts, dim=1).tolist()]


@torch.library.register_fake("pyg_stkd::knn_pair", lib=_library)
def _(x: Tensor, y: Tensor, k: int, batch_x: Tensor | None, batch_y: Tensor | None) -> Tensor:
    size: int | torch.SymInt
    if batch_x is None:
        size = y.size(0) * min(k, x.size(0))
    else:
        size = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty(2, size, dtype=torch.int64)
