"""Builds the graph of nearest neighbours inside a model."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.neighbours.knn import knn_graph

__all__ = ["KNNGraph"]


class KNNGraph(torch.nn.Module):
    r"""Connects each point with its nearest neighbours, as the layers of `"Dynamic Graph CNN for
    Learning on Point Clouds" <https://arxiv.org/abs/1801.07829>`_ do.

    A module of its own, without parameters, so that the graph of a layer can be seen from outside.
    The search is :func:`pyg_stkd.functional.knn_graph`.

    Args:
        k (int): Number of neighbours, the point itself included if :obj:`loop` is set.
        loop (bool, optional): If set, each point is its own first neighbour.
            (default: :obj:`False`)

    Shapes:
        - **input:** points :math:`(|\mathcal{V}|, C)`, batch vector :math:`(|\mathcal{V}|)`
          *(optional)*
        - **output:** edge indices :math:`(2, |\mathcal{E}|)`, neighbours to centres

    Raises:
        ValueError: If :obj:`k` is not an integer of at least 1.

    Example:
        >>> graph = KNNGraph(k=1)
        >>> graph
        KNNGraph(k=1, loop=False)
        >>> graph(torch.tensor([[0.0], [1.0], [3.0]])).tolist()
        [[1, 0, 1], [0, 1, 2]]
    """

    def __init__(self, k: int, loop: bool = False) -> None:
        super().__init__()
        self.k = checks.count("k", k)
        self.loop = loop

    def forward(self, x: Tensor, batch: Tensor | None = None) -> Tensor:
        """Build the graph.

        Args:
            x (Tensor): Points or features.
            batch (Tensor, optional): The cloud of each point, in ascending order.
        """
        return knn_graph(x, self.k, batch, self.loop)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(k={self.k}, loop={self.loop})"
