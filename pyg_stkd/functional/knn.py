"""Nearest neighbours of points in clouds, in pure torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch_geometric.typing
from torch import Tensor

from pyg_stkd.functional.largest import largest, largest_by_groups, num_groups

__all__ = ["knn_graph"]

# Distances that are alive at once: 2**19 floats stay in the cache of a CPU core.
_CHUNK = {"cpu": 1 << 19, "cuda": 1 << 26}
# Up to this width, distances are summed coordinate by coordinate: without cancellation, and no
# slower than a matrix product.
_DIRECT = 4
# pyg-lib searches a k-d tree: it wins in low dimensions, the more points the more.
_TREE_WIDTH = 3
_TREE_POINTS = 1024


def knn_graph(x: Tensor, k: int, batch: Tensor | None = None, loop: bool = False) -> Tensor:
    r"""Connect each point with its :math:`k` nearest neighbours in its cloud (Euclidean distance).

    The edges of `"Dynamic Graph CNN for Learning on Point Clouds"
    <https://arxiv.org/abs/1801.07829>`_. A cloud with fewer points gives all that it has. The
    neighbours of a point come nearest first; at equal computed distances the smaller index comes
    first, so that the result does not depend on chance. Memory is bounded: distances exist for a
    few rows at a time. No gradient flows through the choice of neighbours.

    Up to four coordinates, distances are exact sums of squared differences; beyond that they come
    from inner products of the centred cloud, as accurate as float32 allows.

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
        ValueError: If :math:`k < 1`, points are not finite (or so far apart that their squared
            distances overflow), or :obj:`batch` is not sorted or has another length.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> knn_graph(x, k=1).tolist()
        [[1, 0, 1, 2], [0, 1, 2, 3]]
        >>> knn_graph(x, k=2, batch=torch.tensor([0, 0, 0, 1]), loop=True).tolist()
        [[0, 1, 1, 0, 2, 1, 3], [0, 0, 1, 1, 2, 2, 3]]
    """
    _check(x, k, batch)
    # Sizes of the clouds are read on the host; under torch.compile the operator does it.
    return torch.ops.pyg_stkd.knn_graph(x.detach(), k, batch, bool(loop))


def _check(x: Tensor, k: int, batch: Tensor | None) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"'x' must be a tensor of real floating point numbers (got {kind})")
    if x.dim() != 2:
        raise ValueError(f"'x' must have shape [N, C] (got {list(x.shape)})")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"'k' must be an integer of at least 1 (got {k!r})")
    if batch is None:
        return
    if batch.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"'batch' must be of dtype torch.int64 or torch.int32 (got {batch.dtype})")
    if list(batch.shape) != [x.size(0)]:
        raise ValueError(
            f"'batch' must have one entry for each of the {x.size(0)} points "
            f"(got shape {list(batch.shape)})"
        )
    if batch.device != x.device:
        raise ValueError(f"'batch' must be on the device of 'x', {x.device} (got {batch.device})")


_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define("knn_graph(Tensor x, int k, Tensor? batch, bool loop) -> Tensor")


@torch.library.impl(_library, "knn_graph", "CompositeExplicitAutograd")
def _knn_graph(x: Tensor, k: int, batch: Tensor | None, loop: bool) -> Tensor:
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    found, degree = [], []
    for start, clouds, n in _runs(x.size(0), batch):
        points = x[start : start + clouds * n].view(clouds, n, -1)
        nearest = _search(points, k, loop)
        offset = torch.arange(start, start + clouds * n, n, device=x.device)
        found.append((nearest + offset.view(-1, 1, 1)).view(-1))
        degree.append((clouds * n, nearest.size(-1)))
    centre = torch.arange(x.size(0), device=x.device)
    if len({k for _, k in degree}) == 1:
        centre = centre.view(-1, 1).expand(-1, degree[0][1]).reshape(-1)
    else:
        rows = [centre.new_full((size,), k) for size, k in degree] or [centre]
        centre = centre.repeat_interleave(torch.cat(rows))
    return torch.stack([torch.cat(found) if found else centre, centre])


@torch.library.register_fake("pyg_stkd::knn_graph", lib=_library)
def _(x: Tensor, k: int, batch: Tensor | None, loop: bool) -> Tensor:
    size: int | torch.SymInt
    if batch is None:
        size = x.size(0) * min(k, max(0, x.size(0) - (not loop)))
    else:
        size = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty(2, size, dtype=torch.int64)


def _runs(num_points: int, batch: Tensor | None) -> Iterator[tuple[int, int, int]]:
    """Yield start, number and size of neighbouring clouds of one size."""
    if num_points == 0:
        return
    sizes = [num_points]
    if batch is not None:
        if not bool((batch[1:] >= batch[:-1]).all()):
            raise ValueError("'batch' must be sorted, so that each cloud is in one piece (got not)")
        sizes = batch.unique_consecutive(return_counts=True)[1].tolist()
    start = first = 0
    for i, n in enumerate(sizes):
        if i + 1 == len(sizes) or sizes[i + 1] != n:
            count = i + 1 - first
            yield start, count, n
            start, first = start + count * n, i + 1


def _search(x: Tensor, k: int, loop: bool) -> Tensor:
    """Return the neighbours within each of several clouds of one size: [B, n, C] -> [B, n, k]."""
    clouds, n, width = x.shape
    k = min(k, n if loop else n - 1)
    if width > _DIRECT:
        x = x - x.mean(dim=1, keepdim=True)  # float32 keeps more digits near the origin
    norm = x.square().sum(-1)
    # Twice: a sum of four such numbers must not overflow either.
    if not bool((norm * 4).isfinite().all()):
        raise ValueError(
            "'x' must be finite, with squared distances within the range of its dtype "
            "(got NaN, infinite or too large values)"
        )
    out = torch.empty(clouds, n, k, dtype=torch.int64, device=x.device)
    if k == 0:
        return out
    if _use_tree(x):
        return _search_tree(x, k, loop)
    groups = num_groups(n, k) if x.device.type == "cpu" else 0
    padded = -(-n // groups) * groups if groups else n
    limit = _CHUNK.get(x.device.type, 1 << 24)
    step = max(1, limit // (n * padded))  # clouds at once
    rows = n if step > 1 else min(n, max(1, limit // padded))
    buffer = x.new_empty(min(step, clouds) * rows * padded)
    for b in range(0, clouds, step):
        cloud, length = x[b : b + step], norm[b : b + step]
        for r in range(0, n, rows):
            part = slice(r, r + rows)
            shape = (cloud.size(0), min(rows, n - r), padded)
            score = buffer[: math.prod(shape)].view(shape)
            _score(cloud, length, part, score)
            score[..., n:] = -math.inf
            score.diagonal(r, 1, 2).fill_(math.inf if loop else -math.inf)
            flat = score.view(-1, padded)
            best = largest_by_groups(flat, k, groups) if groups else largest(flat, k)
            out[b : b + step, part] = best.view(*shape[:2], k)
    return out


def _score(x: Tensor, norm: Tensor, rows: slice, out: Tensor) -> None:
    """Write what falls with the distance, and differs from its negative square by row at most."""
    n, width = x.shape[1:]
    if width <= _DIRECT:
        near = out[..., :n].zero_()
        gap = torch.empty_like(near)
        for axis in x.unbind(-1):
            axis = axis.contiguous()
            torch.sub(axis[:, rows, None], axis[:, None], out=gap)
            near.addcmul_(gap, gap, value=-1)
    elif out.size(0) == 1:
        torch.addmm(norm[0], x[0, rows], x[0].t(), beta=-1, alpha=2, out=out[0, :, :n])
    else:
        out[..., :n] = torch.baddbmm(norm[:, None], x, x.transpose(1, 2), beta=-1, alpha=2)


def _use_tree(x: Tensor) -> bool:
    small = x.size(2) <= _TREE_WIDTH and x.size(1) >= _TREE_POINTS
    return getattr(torch_geometric.typing, "WITH_KNN", False) and x.device.type == "cpu" and small


def _search_tree(x: Tensor, k: int, loop: bool) -> Tensor:
    """Do the same with pyg-lib, whose ties at the last distance fall as its tree has them."""
    clouds, n, width = x.shape
    x = x.reshape(-1, width)
    ptr = torch.arange(0, clouds * n + 1, n)
    wanted = min(k + (not loop), n)
    index = torch.ops.pyg.knn(x, x, ptr, ptr, wanted, False, 1)[1].view(-1, wanted)
    centre = torch.arange(x.size(0)).view(-1, 1)
    index = index.sort(dim=1).values
    own = index == centre
    gap = (
        (x.index_select(0, index.view(-1)).view(*index.shape, width) - x[:, None]).square().sum(-1)
    )
    if loop:  # among many duplicates the tree may leave out the point itself
        last = gap.argmax(dim=1, keepdim=True)
        index = torch.where(own.any(dim=1, keepdim=True), index, index.scatter(1, last, centre))
        own = index == centre
    gap.masked_fill_(own, -1 if loop else math.inf)
    order = gap.sort(dim=1, stable=True).indices[:, :k]
    return (index.gather(1, order) % n).view(clouds, n, k)
