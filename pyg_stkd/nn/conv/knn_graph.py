"""Builds the graph of nearest neighbours inside a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.neighbours.knn import knn_graph
from pyg_stkd.functional.neighbours.knn_pair import knn_pair
from pyg_stkd.nn.scripting import refuse_script

__all__ = ["KNNGraph", "pair_of"]


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
          *(optional)*; or pairs of both, of the points to choose from and of the centres, which
          are then never their own neighbours
        - **output:** edge indices :math:`(2, |\mathcal{E}|)`, neighbours to centres

    Raises:
        ValueError: If :obj:`k` is below 1, or the points or their clouds are not as
            :func:`~pyg_stkd.functional.knn_graph` wants them.

    Example:
        >>> graph = KNNGraph(k=1)
        >>> graph
        KNNGraph(k=1, loop=False)
        >>> graph(torch.tensor([[0.0], [1.0], [3.0]])).tolist()
        [[1, 0, 1], [0, 1, 2]]
    """

    __prepare_scriptable__ = refuse_script

    def __init__(self, k: int, loop: bool = False) -> None:
        super().__init__()
        self.k = checks.count("k", k)
        self.loop = loop

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        batch: Tensor | tuple[Tensor | None, Tensor | None] | None = None,
    ) -> Tensor:
        """Build the graph.

        Args:
            x (Tensor or (Tensor, Tensor)): Points or features; a pair for neighbours of the second
                among the first.
            batch (Tensor or (Tensor, Tensor), optional): The cloud of each point, in ascending
                order.
        """
        if isinstance(x, Tensor):
            if batch is not None and not isinstance(batch, Tensor):
                raise TypeError(
                    f"'batch' must be a tensor where 'x' is one (got {type(batch).__name__})"
                )
            return knn_graph(x, self.k, batch, self.loop)
        sources, targets = pair_of("x", x)
        return knn_pair(sources, targets, self.k, *pair_of("batch", batch))

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(k={self.k}, loop={self.loop})"


def pair_of(name: str, value: Any) -> tuple[Any, Any]:
    """Return a pair as it is, and what is no pair twice."""
    if not isinstance(value, (tuple, list)):
        return value, value
    if len(value) != 2:
        raise ValueError(f"'{name}' must be a tensor or a pair of tensors (got {len(value)} items)")
    return value[0], value[1]
