"""The search behind :func:`pyg_stkd.functional.knn_graph`: an operator without doctests.

pytest imports a file with doctests anew where that file alone is given, and an operator can be
defined only once.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import torch
import torch_geometric.typing
from torch import Tensor

from pyg_stkd.functional.neighbours.clouds import (
    are_usual,
    centred,
    cloud_sizes,
    has_tiny,
    has_tiny_norm,
    have_vanished,
    in_range,
    like_clouds,
    square_norms,
)
from pyg_stkd.functional.neighbours.doubt import Found, Rounding, settle
from pyg_stkd.functional.neighbours.knn_cloud import (
    ALIGN,
    DIRECT,
    Cloud,
    Plan,
    Space,
    rows_at_once,
    search_cloud,
    sum_squares,
)
from pyg_stkd.functional.neighbours.largest import largest, largest_by_groups, num_groups

__all__ = []

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
    others = [n - (not loop) for n in sizes]  # how many may be found
    width = min(k, max(others, default=0))
    edge_index = torch.empty(2, x.size(0), width, dtype=torch.int64, device=x.device)
    edge_index[1] = torch.arange(x.size(0), device=x.device).view(-1, 1)
    if width > 0:
        _fill(x, starts, others, loop, edge_index[0])
    if width == min(k, min(others, default=0)):
        return edge_index.view(2, -1)
    count = torch.tensor([[min(k, n) for n in others], sizes], device=x.device)
    count = count[0].repeat_interleave(count[1], output_size=x.size(0))
    return edge_index[:, torch.arange(width, device=x.device) < count.view(-1, 1)]


def _fill(x: Tensor, starts: list[int], others: list[int], loop: bool, near: Tensor) -> None:
    """Write the neighbours of each point [N, k], in clouds with so many other points."""
    # Moved where distances come from inner products, with points to be masked behind the last.
    move = x.size(1) > DIRECT
    scaled, moved, norm = x, x, x.new_zeros(0)
    if move:
        moved = centred(x, starts, move, ALIGN)
        norm = square_norms(moved)
    tiny = False
    if not move or not are_usual(norm):
        tiny = not move and has_tiny(x)
        scaled = in_range(x, tiny)
        moved = centred(scaled, starts, move, ALIGN)
        norm = square_norms(moved) if move else moved.new_zeros(moved.size(0))
    if move:
        tiny = has_tiny_norm(norm[: x.size(0)], moved)
    elif scaled is not x:
        tiny = has_tiny(scaled)
    vanish = tiny or have_vanished(scaled, x)
    rounds = (move or vanish) and near.size(1) > loop  # else it is its own neighbour alone
    found = Found.of(near, moved.dtype) if rounds else Found(near)
    _search_clouds(moved, Plan(starts, others, loop, norm), found)
    norm, rounding = norm[: x.size(0)], Rounding.of(moved.dtype, x.size(1), vanish)
    settle(found, x if x.dtype == torch.float32 else scaled, norm, rounding, starts, loop)


@torch.library.register_fake("pyg_stkd::knn_graph", lib=_library)
def _(x: Tensor, k: int, batch: Tensor | None, loop: bool) -> Tensor:
    size: int | torch.SymInt
    if batch is None:
        size = x.size(0) * min(k, max(0, x.size(0) - int(not loop)))
    else:
        size = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty(2, size, dtype=torch.int64)


def _search_clouds(x: Tensor, plan: Plan, found: Found) -> None:
    """Search each cloud, by itself or with others."""
    limit, starts = _limit(x), plan.starts
    sizes = [b - a for a, b in pairwise(starts)]
    wanted = [min(n, found.wanted) for n in plan.others]
    large = [i for i, n in enumerate(sizes) if _is_large(x, n, limit, found)]
    if large:
        clouds = [Cloud(starts[i], sizes[i], wanted[i]) for i in large]
        limit <<= x.size(1) > DIRECT  # differences of a coordinate need no memory there
        space, arrays = Space.of(x, clouds, limit), found.map(Tensor.numpy)
        for cloud in clouds:
            search_cloud(x, cloud, plan, limit, space, arrays)
        limit = _limit(x)
    groups = [part for part in like_clouds(sizes, limit) if plan.others[part[0]] > 0]
    groups = [part for part in groups if not _is_large(x, sizes[part[0]], limit, found)]
    most = [_shares(len(part), sizes[part[0]], limit)[2] for part in groups]
    buffer = x.new_empty(2, max(most, default=0))
    for part in groups:
        _search_group(x, part, plan, buffer, found)


def _search_group(x: Tensor, clouds: list[int], plan: Plan, buffer: Tensor, found: Found) -> None:
    """Search clouds of about one size together, the largest of them first."""
    starts = plan.starts
    sizes = [starts[i + 1] - starts[i] for i in clouds]
    first, n, last = starts[clouds[0]], sizes[0], starts[clouds[-1]]
    wanted = min(found.wanted, plan.others[clouds[0]])
    wide = _wide(x, n, found)
    if last == first + (len(clouds) - 1) * n and sizes[-1] == n:  # side by side
        parts = x[first : last + wide], plan.norm[first : last + wide]
        points, norm = (part.unfold(0, wide, n) for part in parts)
        start = torch.arange(first, last + 1, n, device=x.device).view(-1, 1, 1)
        out = found.map(lambda part: part[first : last + n].unflatten(0, (-1, n)))
        _search(points.transpose(1, 2), norm, wanted, plan, start, None, buffer, out)
        return
    size, start = torch.tensor([sizes, [starts[i] for i in clouds]], device=x.device)[..., None]
    column = torch.arange(wide, device=x.device)
    index = torch.minimum(column, size - 1) + start
    place, used = index[:, :n], column[:n] < size
    out = found.map(lambda part: part[place])
    _search(x[index], plan.norm[index], wanted, plan, start[..., None], size, buffer, out)
    for part, written in zip(found, out, strict=True):
        if part is not None and written is not None:
            part[place[used]] = written[used]


def _limit(x: Tensor) -> int:
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1
    return _CHUNK.get(x.device.type, 1 << 24) * threads


def _is_large(x: Tensor, n: int, limit: int, found: Found) -> bool:
    return x.device.type == "cpu" and 2 * n * n > limit and not _use_tree(x, n, found)


def _shares(clouds: int, n: int, limit: int) -> tuple[int, int, int]:
    """Return how many clouds, and points of each, are searched at once, and the distances then."""
    step = min(clouds, max(1, round(limit / (n * n))))
    rows = rows_at_once(n, limit)
    return step, rows, step * rows * (n + ALIGN)


def _wide(x: Tensor, n: int, found: Found) -> int:
    return n if n < 8 * ALIGN or _use_tree(x, n, found) else -(-n // ALIGN) * ALIGN


def _search(
    x: Tensor,
    norm: Tensor,
    k: int,
    plan: Plan,
    start: Tensor,
    size: Tensor | None,
    buffer: Tensor,
    out: Found,
) -> None:
    """Write the k best within each of several clouds, [B, m, C] -> [B, n, k].

    Where m > n, or clouds differ in size [B, 1], points are repeated behind the last one. Rows of
    such points mean nothing, nor does what is found beyond the number that a cloud can give.
    """
    (num_clouds, n, _), m, loop = out.near.shape, x.size(1), plan.loop
    if size is None and _use_tree(x, n, out):
        out.write(_search_tree(x, k, loop), norm, start)
        return
    groups = num_groups(m, k) if x.device.type == "cpu" else 0
    behind = (torch.arange(m, device=x.device) >= (n if size is None else size)).unsqueeze(-2)
    behind = behind.expand(num_clouds, 1, m)
    step, most, _ = _shares(num_clouds, n, _limit(x))
    at = out.places(k, loop)
    for b in range(0, num_clouds, step):
        part = slice(b, b + step)
        points, columns = x[part], _columns(x[part], norm[part], behind[part])
        for r in range(0, n, most):
            shape = (min(step, num_clouds - b), min(most, n - r), m)
            rows = slice(r, r + shape[1])
            score, gap = (each[: math.prod(shape)].view(shape) for each in buffer)
            _score(points, columns, rows, score, gap)
            score.diagonal(r, 1, 2).fill_(math.inf if loop else -math.inf)
            flat = score.view(-1, m)
            best = largest_by_groups(flat, k, groups, at) if groups else largest(flat, k, at)
            column, value = (each.unflatten(0, shape[:2]) for each in best)
            out.map(lambda each: each[part, rows]).write(column, value, start[part])  # noqa: B023


def _columns(x: Tensor, norm: Tensor, behind: Tensor) -> Tensor:
    """Return the coordinates [B, C, m], or squared norms [B, 1, m], with points behind at infinity.

    So no score of theirs has to be masked.
    """
    if x.size(2) > DIRECT:
        return norm.unsqueeze(1).masked_fill(behind, math.inf)
    columns = x.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    return columns.masked_fill_(behind, math.inf)


def _score(x: Tensor, columns: Tensor, rows: slice, out: Tensor, gap: Tensor) -> None:
    """Write what falls with the distance, and differs from its negative square by row at most."""
    if x.size(2) <= DIRECT:
        sum_squares(x[:, rows, :, None].unbind(2), columns.split(1, dim=1), gap, out)
    else:
        torch.baddbmm(columns, x[:, rows], x.transpose(1, 2), beta=-1, alpha=2, out=out)


def _use_tree(x: Tensor, n: int, found: Found) -> bool:
    small = x.size(-1) <= _TREE_WIDTH and n >= _TREE_POINTS
    found_here = getattr(torch_geometric.typing, "WITH_KNN", False) and x.device.type == "cpu"
    return found_here and small and found.score is None


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
