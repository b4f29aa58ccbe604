"""Edges and weights of a road graph from distances or an adjacency."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        scale (float): The unit of distance, in metres. (default: :obj:`1e4`)

    Shapes:
        - **input:** distances in metres of any shape
        - **output:** weights of the same shape

    Raises:
        ValueError: If a distance is negative or not finite.

    Example:
        >>> GaussianAdjacency()(torch.tensor([0.0, 1000.0, 3000.0]))
        tensor([1.0000, 0.9048, 0.0000])
    """

    sigma2: float = 0.1
    threshold: float = 0.5
    scale: float = 1e4

    def __post_init__(self) -> None:
        if not self.sigma2 > 0 or not self.scale > 0:
            raise ValueError(
                "`sigma2` and `scale` must be positive "
                f"(got sigma2={self.sigma2}, scale={self.scale})"
            )
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"`threshold` must lie in [0, 1] (got {self.threshold})")

    def __call__(self, distance: Tensor) -> Tensor:
        check_distances(distance)
        # In float64: a weight beside the threshold must not depend on the precision of the file.
        weight = torch.exp(-((distance.double() / self.scale) ** 2) / self.sigma2)
        return weight.where(weight >= self.threshold, 0.0).to(distance.dtype)


def distances_to_edges(
    distances: Tensor, kernel: GaussianAdjacency | None = None
) -> tuple[Tensor, Tensor]:
    r"""The weighted edges of a matrix of road distances, by the rule of STGCN.

    A matrix of zeros and ones is taken as an adjacency, as STGCN does. The diagonal is ignored.

    Args:
        distances (Tensor): Distances :math:`[N, N]` in metres, from the row's node to the column's.
        kernel (GaussianAdjacency, optional): The kernel. :obj:`None`: STGCN's.
            (default: :obj:`None`)

    Returns:
        tuple[Tensor, Tensor]: :obj:`edge_index` :math:`[2, E]` and :obj:`edge_weight` :math:`[E]`.

    Raises:
        ValueError: If the matrix is not square or a distance is negative or not finite.

    Example:
        >>> edge_index, edge_weight = distances_to_edges(torch.tensor([[0.0, 1e3], [1e3, 0.0]]))
        >>> edge_index.tolist(), edge_weight
        ([[0, 1], [1, 0]], tensor([0.9048, 0.9048]))
    """
    _check_square(distances, "distances")
    check_distances(distances)
    if bool((distances == 1).any()) and bool(((distances == 0) | (distances == 1)).all()):
        return adjacency_to_edges(distances)
    return adjacency_to_edges((kernel or GaussianAdjacency())(distances))


def adjacency_to_edges(adjacency: Tensor) -> tuple[Tensor, Tensor]:
    r"""The weighted edges of an adjacency matrix, without its diagonal.

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
    _check_square(adjacency, "adjacency")
    if not (adjacency.isfinite() & (adjacency >= 0)).all():
        raise ValueError("`adjacency` must be finite and not negative (got an entry that is not)")
    off_diagonal = ~torch.eye(adjacency.size(0), dtype=torch.bool, device=adjacency.device)
    edge_index = ((adjacency > 0) & off_diagonal).nonzero().t().contiguous()
    return edge_index, adjacency[edge_index[0], edge_index[1]]


def links_to_edges(
    links: Tensor,
    distance: Tensor,
    kernel: GaussianAdjacency | None = None,
    undirected: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""The weighted edges of a list of road links.

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
        ValueError: If a length is negative or not finite.

    Example:
        >>> links_to_edges(torch.tensor([[0, 1], [1, 2]]), torch.tensor([300.0, 400.0]))[0]
        tensor([[0, 1, 1, 2],
                [1, 0, 2, 1]])
    """
    if links.dim() != 2 or links.size(0) != 2 or distance.shape != links.shape[1:]:
        raise ValueError(
            "`links` must be [2, L] and `distance` [L] "
            f"(got {tuple(links.shape)} and {tuple(distance.shape)})"
        )
    check_distances(distance)
    keep = links[0] != links[1]
    edge_index, length = _shortest(links[:, keep], distance[keep])
    if undirected:
        num_nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
        code = edge_index[0] * num_nodes + edge_index[1]
        one_way = ~torch.isin(edge_index[1] * num_nodes + edge_index[0], code)
        edge_index = torch.cat([edge_index, edge_index[:, one_way].flip(0)], dim=1)
        edge_index, length = _shortest(edge_index, torch.cat([length, length[one_way]]))
    if kernel is None:
        return edge_index, torch.ones_like(length)
    weight = kernel(length)
    return edge_index[:, weight > 0], weight[weight > 0]


def check_distances(distance: Tensor) -> None:
    """Refuses distances that are negative or not finite."""
    bad = ~(distance.isfinite() & (distance >= 0))
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(
            "distances must be finite and not negative "
            f"(got {distance[tuple(where)].item()} at {where}, and {int(bad.sum()) - 1} more)"
        )


def _shortest(links: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    unique, place = links.unique(dim=1, return_inverse=True)
    shortest = length.new_full((unique.size(1),), torch.inf)
    return unique, shortest.scatter_reduce(0, place, length, "amin")


def _check_square(matrix: Tensor, name: str) -> None:
    if matrix.dim() != 2 or matrix.size(0) != matrix.size(1):
        raise ValueError(f"`{name}` must be a square [N, N] matrix (got {tuple(matrix.shape)})")
