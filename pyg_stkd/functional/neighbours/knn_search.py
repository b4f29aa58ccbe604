"""The search behind :func:`pyg_stkd.functional.knn_graph`: an operator without doctests.

pytest imports a file with doctests anew where that file alone is given, and an operator can be
defined only once.
"""

from __future__ import annotations

import math
from itertools import accumulate

import torch
import torch_geometric.typing
from torch import Tensor

from pyg_stkd.functional.neighbours.clouds import centred, cloud_sizes, like_clouds
from pyg_stkd.functional.neighbours.knn_cloud import (
    ALIGN,
    DIRECT,
    Cloud,
    Space,
    rows_at_once,
    search_cloud,
    sum_squares,
)
from pyg_stkd.functional.neighbours.largest import largest, largest_by_groups, num_groups

# Distances that are alive at once, about: 2**19 floats stay in the cache of a CPU core.
_CHUNK = {"cpu": 1 << 19, "cuda": 1 << 26}
# pyg-lib searches a k-d tree: it wins in low dimensions, the more points the more.
_TREE_WIDTH = 3
_TREE_POINTS = 1024

_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define("knn_graph(Tensor x, int k, Tensor? batch, bool loop) -> Tensor")


@torch.library.impl(_library, "knn_graph", "CompositeExplicitAutograd")
@torch.compiler.disable  # where a graph breaks, Dynamo would look into NumPy's part
def _knn_graph(x: Tensor, k: int, batch: Tensor | None, loop: bool) -> Tensor:
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if x.size(1) == 0:
        x = x.new_zeros(x.size(0), 1)
    sizes = cloud_sizes(x.size(0), batch)
    starts = [0, *accumulate(sizes)]
    # Moved where distances come from inner products, with points to be masked behind the last.
    behind = centred(x, starts, x.size(1) > DIRECT, ALIGN)
    x = behind[: x.size(0)]
    degree = [min(k, n - (not loop)) for n in sizes]
    width = max(degree, default=0)
    edge_index = torch.empty(2, x.size(0), width, dtype=torch.int64, device=x.device)
    edge_index[1] = torch.arange(x.size(0), device=x.device).view(-1, 1)
    limit = _limit(x)
    large = [i for i, n in enumerate(sizes) if width > 0 and _is_large(x, n, limit)]
    _search_large(behind, [Cloud(starts[i], sizes[i], degree[i]) for i in large], loop, edge_index)
    groups = like_clouds(sizes, limit) if width > 0 else []
    groups = [clouds for clouds in groups if not _is_large(x, sizes[clouds[0]], limit)]
    most = [_shares(len(clouds), sizes[clouds[0]], limit)[2] for clouds in groups]
    buffer = x.new_empty(2, max(most, default=0))
    for clouds in groups:
        first, n = starts[clouds[0]], sizes[clouds[0]]
        last, near, wide = starts[clouds[-1]], degree[clouds[0]], _wide(x, n)
        if last == first + (len(clouds) - 1) * n and sizes[clouds[-1]] == n:  # side by side
            points = behind[first : last + wide].unfold(0, wide, n).transpose(1, 2)
            out = edge_index[0, first : last + n].view(len(clouds), n, width)[..., :near]
            start = torch.arange(first, last + 1, n, device=x.device).view(-1, 1, 1)
            _search(points, loop, start, None, buffer, out)
            continue
        size, start = torch.tensor(
            [[sizes[i] for i in clouds], [starts[i] for i in clouds]], device=x.device
        )[..., None]
        column = torch.arange(wide, device=x.device)
        index = torch.minimum(column, size - 1) + start
        out = index.new_empty(len(clouds), n, near)
        _search(x[index], loop, start[..., None], size, buffer, out)
        used = column[:n] < size
        edge_index[0, index[:, :n][used], :near] = out[used]
    if width == min(degree, default=0):
        return edge_index.view(2, -1)
    count = torch.tensor([degree, sizes], device=x.device)
    count = count[0].repeat_interleave(count[1], output_size=x.size(0))
    return edge_index[:, torch.arange(width, device=x.device) < count.view(-1, 1)]


@torch.library.register_fake("pyg_stkd::knn_graph", lib=_library)
def _(x: Tensor, k: int, batch: Tensor | None, loop: bool) -> Tensor:
    size: int | torch.SymInt
    if batch is None:
        size = x.size(0) * min(k, max(0, x.size(0) - (not loop)))
    else:
        size = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty(2, size, dtype=torch.int64)


def _limit(x: Tensor) -> int:
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1
    return _CHUNK.get(x.device.type, 1 << 24) * threads


def _is_large(x: Tensor, n: int, limit: int) -> bool:
    return x.device.type == "cpu" and 2 * n * n > limit and not _use_tree(x, n)


def _search_large(x: Tensor, clouds: list[Cloud], loop: bool, edge_index: Tensor) -> None:
    if not clouds:
        return
    limit = _limit(x) << (x.size(1) > DIRECT)  # differences of a coordinate need no memory there
    space, out = Space.of(x, clouds, limit), edge_index[0].numpy()
    for cloud in clouds:
        search_cloud(x, cloud, loop, limit, space, out)


def _shares(clouds: int, n: int, limit: int) -> tuple[int, int, int]:
    """Return how many clouds, and points of each, are searched at once, and the distances then."""
    step = min(clouds, max(1, round(limit / (n * n))))
    rows = rows_at_once(n, limit)
    return step, rows, step * rows * (n + ALIGN)


def _wide(x: Tensor, n: int) -> int:
    return n if n < 8 * ALIGN or _use_tree(x, n) else -(-n // ALIGN) * ALIGN


def _search(
    x: Tensor, loop: bool, start: Tensor, size: Tensor | None, buffer: Tensor, out: Tensor
) -> None:
    """Write the neighbours within each of several clouds: [B, m, C] -> [B, n, k], counted on.

    Where m > n, or clouds differ in size [B, 1], points are repeated behind the last one. Rows of
    such points mean nothing, nor do neighbours beyond the number that a cloud can give.
    """
    (num_clouds, n, k), m = out.shape, x.size(1)
    if size is None and _use_tree(x, n):
        torch.add(_search_tree(x, k, loop), start, out=out)
        return
    groups = num_groups(m, k) if x.device.type == "cpu" else 0
    behind = (torch.arange(m, device=x.device) >= (n if size is None else size)).unsqueeze(-2)
    behind = behind.expand(num_clouds, 1, m)
    step, rows, _ = _shares(num_clouds, n, _limit(x))
    for b in range(0, num_clouds, step):
        clouds = slice(b, b + step)
        points, columns = x[clouds], _columns(x[clouds], behind[clouds])
        for r in range(0, n, rows):
            shape = (min(step, num_clouds - b), min(rows, n - r), m)
            score, gap = (part[: math.prod(shape)].view(shape) for part in buffer)
            _score(points, columns, slice(r, r + shape[1]), score, gap)
            score.diagonal(r, 1, 2).fill_(math.inf if loop else -math.inf)
            flat = score.view(-1, m)
            if groups:
                best = torch.from_numpy(largest_by_groups(flat, k, groups))
            else:
                best = largest(flat, k)
            torch.add(best.view(*shape[:2], k), start[clouds], out=out[clouds, r : r + shape[1]])


def _columns(x: Tensor, behind: Tensor) -> Tensor:
    """Return the coordinates [B, C, m], or squared norms [B, 1, m], with points behind at infinity.

    So no score of theirs has to be masked.
    """
    if x.size(2) > DIRECT:
        return x.square().sum(-1).unsqueeze(1).masked_fill_(behind, math.inf)
    columns = x.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    return columns.masked_fill_(behind, math.inf)


def _score(x: Tensor, columns: Tensor, rows: slice, out: Tensor, gap: Tensor) -> None:
    """Write what falls with the distance, and differs from its negative square by row at most."""
    if x.size(2) <= DIRECT:
        sum_squares(x[:, rows, :, None].unbind(2), columns.split(1, dim=1), gap, out)
    else:
        torch.baddbmm(columns, x[:, rows], x.transpose(1, 2), beta=-1, alpha=2, out=out)


def _use_tree(x: Tensor, n: int) -> bool:
    small = x.size(-1) <= _TREE_WIDTH and n >= _TREE_POINTS
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
