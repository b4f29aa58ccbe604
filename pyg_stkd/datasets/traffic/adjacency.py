"""Edges and weights of a road graph from distances or an adjacency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.datasets.traffic.series_checks import as_numbers

__all__ = [
    "adjacency_to_edges",
    "check_distances",
    "distances_to_edges",
    "GaussianAdjacency",
    "in_float32",
    "links_to_edges",
]

# In units of the kernel: 500 m of STGCN's. A road network that is not even as long as that, or
# links that are not even as long as 20 m, are in another unit.
_LEAST_EXTENT = 0.05
_LEAST_LINK = 0.002


@dataclass(frozen=True)
class GaussianAdjacency:
    r"""Turns road distances into edge weights by the rule of `"Spatio-Temporal Graph Convolutional
    Networks" <https://arxiv.org/abs/1709.04875>`_ (Eq. 10).

    .. math::
        w_{ij} = \begin{cases}
            \exp(-d_{ij}^2 / \sigma^2) & \text{if } i \neq j \text{ and this is} \geq \epsilon \\
            0 & \text{else}
        \end{cases}

    with :math:`d_{ij}` in units of :obj:`scale`.

    Args:
        sigma2 (float): The squared width :math:`\sigma^2`. (default: :obj:`0.1`)
        threshold (float): The least weight :math:`\epsilon` that makes an edge.
            (default: :obj:`0.5`)
        scale (float): The unit of distance, in metres. For distances in kilometres it is
            :obj:`10`. (default: :obj:`1e4`)

    Shapes:
        - **input:** distances in metres of any shape
        - **output:** weights of the same shape, floating point also for whole distances

    Raises:
        ValueError: If a distance is negative or not finite.

    Example:
        >>> GaussianAdjacency()(torch.tensor([0, 1000, 3000]))
        tensor([1.0000, 0.9048, 0.0000])
    """

    sigma2: float = 0.1
    threshold: float = 0.5
    scale: float = 1e4

    def __post_init__(self) -> None:
        checks.number("sigma2", self.sigma2, above=0)
        checks.number("threshold", self.threshold, least=0, most=1)
        checks.number("scale", self.scale, above=0)

    def __call__(self, distance: Tensor) -> Tensor:
        distance = as_numbers("distance", distance)
        check_distances(distance)
        # In float64: a weight beside the threshold must not depend on the precision of the file.
        weight = torch.exp(-((distance.double() / float(self.scale)) ** 2) / float(self.sigma2))
        return weight.where(weight >= self.threshold, 0.0).to(distance.dtype)


def distances_to_edges(
    distances: Tensor,
    kernel: GaussianAdjacency | None = None,
    values: Literal["metres", "weights"] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Return the weighted edges of a matrix of road distances, by the rule of STGCN.

    Such matrices are around as distances and as weights, and look alike. Where :obj:`values` does
    not say which it is, zeros and ones are taken as an adjacency, as STGCN does, and one without
    an entry of 500 or more is refused: weights, or kilometres. The diagonal is ignored.

    Args:
        distances (Tensor): Distances :math:`[N, N]` in metres, from the row's node to the column's.
        kernel (GaussianAdjacency, optional): The kernel. With another :obj:`scale` the 500 become
            :obj:`scale / 20`. :obj:`None`: STGCN's. (default: :obj:`None`)
        values (str, optional): :obj:`"metres"`: distances, whatever they are; :obj:`"weights"`:
            the weights themselves, as in :func:`adjacency_to_edges`. (default: :obj:`None`)

    Returns:
        tuple[Tensor, Tensor]: :obj:`edge_index` :math:`[2, E]` and :obj:`edge_weight` :math:`[E]`.

    Raises:
        ValueError: If the matrix is not square, an entry is negative or not finite, or
            :obj:`values` is needed.

    Example:
        >>> edge_index, edge_weight = distances_to_edges(torch.tensor([[0.0, 1e3], [1e3, 0.0]]))
        >>> edge_index.tolist(), edge_weight
        ([[0, 1], [1, 0]], tensor([0.9048, 0.9048]))
    """
    checks.choice("values", values, ("metres", "weights", None))
    distances = as_numbers("distances", distances)
    _check_square(distances, "distances")
    kernel = kernel or GaussianAdjacency()
    if values != "weights":
        check_distances(distances)
    if values is None:
        zeros_and_ones = bool((distances == 1).any()) and bool((distances**2 == distances).all())
        values = "weights" if zeros_and_ones else "metres"
        if not zeros_and_ones:
            _check_metres(distances, kernel)
    return adjacency_to_edges(distances if values == "weights" else kernel(distances))


def adjacency_to_edges(adjacency: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the weighted edges of an adjacency matrix, without its diagonal.

    Args:
        adjacency (Tensor): Weights :math:`[N, N]`, from the row's node to the column's.

    Returns:
        tuple[Tensor, Tensor]: :obj:`edge_index` :math:`[2, E]` and :obj:`edge_weight` :math:`[E]`.

    Raises:
        ValueError: If the matrix is not square or a weight is negative or not finite.

    Example:
        >>> adjacency_to_edges(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
        (tensor([[0],
                [1]]), tensor([0.5000]))
    """
    adjacency = as_numbers("adjacency", adjacency)
    _check_square(adjacency, "adjacency")
    if not (adjacency.isfinite() & (adjacency >= 0)).all():
        raise ValueError("'adjacency' must be finite and not negative (got an entry that is not)")
    off_diagonal = ~torch.eye(adjacency.size(0), dtype=torch.bool, device=adjacency.device)
    edge_index = ((adjacency > 0) & off_diagonal).nonzero().t().contiguous()
    return edge_index, adjacency[edge_index[0], edge_index[1]]


def links_to_edges(
    links: Tensor,
    distance: Tensor,
    kernel: GaussianAdjacency | None = None,
    undirected: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""Return the weighted edges of a list of road links.

    Of a link that is listed more than once the shortest counts; a link of a node to itself is
    ignored.

    Args:
        links (Tensor): Links :math:`[2, L]` between nodes, from source to target.
        distance (Tensor): Their lengths :math:`[L]` in metres.
        kernel (GaussianAdjacency, optional): Makes the weights from the lengths. :obj:`None`:
            weights of one (connectivity, as STSGCN and ASTGCN have it). (default: :obj:`None`)
        undirected (bool): Also add the reverse of a link that is listed one way only.
            (default: :obj:`True`)

    Returns:
        tuple[Tensor, Tensor]: :obj:`edge_index` :math:`[2, E]`, sorted, and :obj:`edge_weight`
        :math:`[E]`.

    Raises:
        ValueError: If a length is negative or not finite, a node is negative, or, with a
            :obj:`kernel`, no link is as long as :obj:`scale / 500` (20 metres): the lengths are
            in another unit.

    Example:
        >>> links_to_edges(torch.tensor([[0, 1], [1, 2]]), torch.tensor([300.0, 400.0]))[0]
        tensor([[0, 1, 1, 2],
                [1, 0, 2, 1]])
    """
    checks.instance("links", links, Tensor)
    distance = as_numbers("distance", distance)
    if links.dim() != 2 or links.size(0) != 2 or distance.shape != links.shape[1:]:
        raise ValueError(
            "'links' must be [2, L] and 'distance' [L] "
            f"(got {tuple(links.shape)} and {tuple(distance.shape)})"
        )
    whole = links.dtype in (torch.int64, torch.int32)
    low = int(links.min()) if whole and links.numel() else 0
    if not whole or low < 0:
        raise ValueError(
            f"'links' must hold whole numbers of nodes from 0 (got {low if whole else links.dtype})"
        )
    check_distances(distance)
    longest = float(distance.max()) if distance.numel() else torch.inf
    if kernel is not None and longest < _LEAST_LINK * kernel.scale:
        raise ValueError(
            f"'distance' must be in the unit of 'kernel', with a link of "
            f"{_LEAST_LINK * kernel.scale:g} or more (got at most {longest:g}: are these "
            "kilometres? GaussianAdjacency(scale=10) takes them)"
        )
    keep = links[0] != links[1]
    edge_index, length = _shortest(links[:, keep].long(), distance[keep])
    if undirected:
        nodes, place = edge_index.unique(return_inverse=True)  # small numbers: codes fit
        code = place[0] * len(nodes) + place[1]
        one_way = ~torch.isin(place[1] * len(nodes) + place[0], code)
        edge_index = torch.cat([edge_index, edge_index[:, one_way].flip(0)], dim=1)
        edge_index, length = _shortest(edge_index, torch.cat([length, length[one_way]]))
    if kernel is None:
        return edge_index, torch.ones_like(length)
    weight = kernel(length)
    return edge_index[:, weight > 0], weight[weight > 0]


def in_float32(edge_index: Tensor, edge_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return edges with their weights in float32, without those whose weight vanishes in it."""
    weight = edge_weight.float()
    return edge_index[:, weight > 0], weight[weight > 0]


def check_distances(distance: Tensor) -> None:
    """Raise where a distance is negative or not finite."""
    bad = ~(distance.isfinite() & (distance >= 0))
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(
            "distances must be finite and not negative "
            f"(got {distance[tuple(where)].item()} at {where}, and {int(bad.sum()) - 1} more)"
        )


def _check_metres(distances: Tensor, kernel: GaussianAdjacency) -> None:
    """Raise where a matrix need not be one of metres."""
    if distances.size(0) < 2:
        return
    longest, least = float(distances.max()), _LEAST_EXTENT * kernel.scale
    if longest < least:
        raise ValueError(
            f"'distances' must have an entry of {least:g} or more, or values='metres' or "
            f"values='weights' must say what they are (got at most {longest:g}: are these "
            f"{'weights' if longest <= 1 else 'kilometres'}?)"
        )


def _shortest(links: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    unique, place = links.unique(dim=1, return_inverse=True)
    shortest = length.new_full((unique.size(1),), torch.inf)
    return unique, shortest.scatter_reduce(0, place, length, "amin")


def _check_square(matrix: Tensor, name: str) -> None:
    if matrix.dim() != 2 or matrix.size(0) != matrix.size(1):
        raise ValueError(f"'{name}' must be a square [N, N] matrix (got {tuple(matrix.shape)})")
