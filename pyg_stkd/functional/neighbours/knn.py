"""Nearest neighbours of points in clouds, in pure torch."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.neighbours import knn_search  # noqa: F401  (the operator is defined there)
from pyg_stkd.functional.sparse.plain import plain_knn
from pyg_stkd.graph import is_exporting, is_transforming

__all__ = ["check_points", "knn_graph"]


def knn_graph(x: Tensor, k: int, batch: Tensor | None = None, loop: bool = False) -> Tensor:
    r"""Connect each point with its :math:`k` nearest neighbours in its cloud (Euclidean distance).

    The edges of `"Dynamic Graph CNN for Learning on Point Clouds"
    <https://arxiv.org/abs/1801.07829>`_. A cloud with fewer points gives all that it has. The
    neighbours of a point come nearest first; at equal computed distances the smaller index comes
    first, so that the result does not depend on chance. Memory is bounded: distances exist for a
    few rows at a time. No gradient flows through the choice of neighbours.

    Up to four coordinates, distances are sums of squared differences. Beyond that they come from
    inner products of the centred cloud; where rounding may have changed which points are the
    nearest, their distances are measured by differences in float64, so that outliers, far clusters
    and offsets cost no neighbour. Among the nearest, two whose squared distances differ by less
    than a 64th of the smallest may change places.

    Args:
        x (Tensor): Points or features, in :obj:`float32` at least while they are compared.
        k (int): Number of neighbours, the point itself included if :obj:`loop` is set.
        batch (Tensor, optional): The cloud of each point, in ascending order. A number that does
            not occur is an empty cloud. (default: :obj:`None`, one cloud)
        loop (bool, optional): If set, each point is its own first neighbour, as in DGCNN; if not,
            it never is, and a cloud of one point has no edges. (default: :obj:`False`)

    Shapes:
        - **x:** :math:`(N, C)`
        - **batch:** :math:`(N)`
        - **output:** :math:`(2, |\mathcal{E}|)`, neighbours to centres, sorted by centre

    Raises:
        TypeError: If :obj:`x` is not of real floating point numbers, or :obj:`batch` not of
            integers.
        ValueError: If :math:`k < 1`, points are not finite, or :obj:`batch` is not sorted or has
            another length.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> knn_graph(x, k=1).tolist()
        [[1, 0, 1, 2], [0, 1, 2, 3]]
        >>> knn_graph(x, k=2, batch=torch.tensor([0, 0, 0, 1]), loop=True).tolist()
        [[0, 1, 1, 0, 2, 1, 3], [0, 0, 1, 1, 2, 2, 3]]
    """
    k = check_points(x, k, batch)
    checks.instance("loop", loop, bool)
    if is_exporting():
        if batch is not None and not loop:
            raise ValueError(
                "'loop' must be True under torch.export with a 'batch', where the sizes of clouds "
                "cannot be read (got False)"
            )
        return plain_knn(x.detach(), k, loop, batch)
    if is_transforming() and batch is None:
        return plain_knn(x.detach(), k, loop)
    k = min(k, 2**31)  # more than any cloud has, but no more than an operator takes
    # Sizes of the clouds are read on the host; under torch.compile the operator does it.
    return torch.ops.pyg_stkd.knn_graph(x.detach(), k, batch, loop)


def check_points(x: Tensor, k: int, batch: Tensor | None) -> int:
    """Return the number of neighbours; points and their clouds must be right too."""
    checks.features("x", x)
    k = checks.count("k", k)
    if batch is None:
        return k
    if not isinstance(batch, Tensor):
        raise TypeError(f"'batch' must be a tensor (got {type(batch).__name__})")
    if batch.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"'batch' must be of dtype torch.int64 or torch.int32 (got {batch.dtype})")
    if list(batch.shape) != [x.size(0)]:
        raise ValueError(
            f"'batch' must have one entry for each of the {x.size(0)} points "
            f"(got shape {list(batch.shape)})"
        )
    if batch.device != x.device:
        raise ValueError(f"'batch' must be on the device of 'x', {x.device} (got {batch.device})")
    return k
