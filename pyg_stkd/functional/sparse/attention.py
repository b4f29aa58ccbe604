r"""Additive (GAT) attention: scores, softmax, dropout and the weighted sum as one operator.

Everything between the projected features and the output lives on :math:`|\mathcal{E}| \cdot H`
numbers; no :math:`(|\mathcal{E}|, H \cdot F)` array is built, forward or backward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.attention_kernels import Attention
from pyg_stkd.functional.sparse.plain import plain_attention
from pyg_stkd.graph import Graph, wants_plain
from pyg_stkd.graph.head_blocks import HeadBlocks, head_blocks

__all__ = ["additive_attention"]


def additive_attention(
    graph: Graph,
    x: Tensor,
    att: Tensor,
    score_dst: Tensor | None = None,
    edge_score: Tensor | None = None,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""Attend to the in-neighbours of each node, as in `"Graph Attention Networks"
    <https://arxiv.org/abs/1710.10903>`_ (Eqs. 3 and 4).

    .. math::
        \mathbf{y}_i = \sum_{e:\, dst(e) = i} \alpha_e \mathbf{x}_{src(e)}, \qquad
        \alpha_e = \mathrm{softmax}_{e:\, dst(e) = i} \left( \mathrm{LeakyReLU} \left(
        \mathbf{a}^{\top}_{s} \mathbf{x}_{src(e)} + t_i + u_e \right) \right)

    with :math:`t_i = \mathbf{a}^{\top}_{t} \mathbf{x}_i` or :obj:`score_dst`, for each head.

    Args:
        graph (Graph): The edges.
        x (Tensor): Projected features of the sources.
        att (Tensor): Attention vectors: of the sources, or of the sources and the targets where
            both are the same nodes.
        score_dst (Tensor, optional): Scores :math:`t_i` of the targets. (default: none, or those
            of the second attention vector)
        edge_score (Tensor, optional): Scores :math:`u_e` of the edges, in the order of the
            :obj:`edge_index` that the graph was built from. (default: none)
        negative_slope (float): Slope of the LeakyReLU. (default: :obj:`0.2`)
        dropout (float): Probability of a weight to be dropped. The masks are those that
            :func:`torch.nn.functional.dropout` draws for weights in the given order.
            (default: :obj:`0.0`)
        need_weights (bool): Also return the weights. (default: :obj:`False`)

    Shapes:
        - **x:** :math:`(N_{src}, H, F)`
        - **att:** :math:`(1, H, F)` or :math:`(2, H, F)`
        - **score_dst:** :math:`(N_{dst}, H)`
        - **edge_score:** :math:`(|\mathcal{E}|, H)`
        - **output:** :math:`(N_{dst}, H \cdot F)`, and weights :math:`(|\mathcal{E}|, H)` in the
          given order or :obj:`None`

    Raises:
        ValueError: If the shapes do not fit the graph or each other, or the devices differ.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x, att = torch.tensor([[[1.0]], [[3.0]]]), torch.zeros(1, 1, 1)
        >>> additive_attention(graph, x, att, need_weights=True)
        (tensor([[0.],
                [2.]]), tensor([[0.5000],
                [0.5000]]))
    """
    _check(graph, x, att, score_dst, edge_score)
    if wants_plain():
        out, alpha = plain_attention(graph, x, att, score_dst, edge_score, negative_slope, dropout)
        return out, alpha if need_weights else None
    heads = x.size(1)
    blocks = head_blocks(graph, heads)
    noise: Tensor | None = None
    if edge_score is not None:
        edge_score = edge_score.reshape(-1).index_select(0, _given(graph, blocks))
    if dropout > 0.0:
        noise = F.dropout(x.new_ones(graph.num_edges, heads), dropout)
        noise = noise.view(-1).index_select(0, _given(graph, blocks))
    floats = [x, att, score_dst, edge_score]
    dtype = x.dtype
    for part in floats:
        dtype = dtype if part is None else torch.promote_types(dtype, part.dtype)
    index = [*blocks.csr()]
    if torch.is_grad_enabled():
        index += blocks.csc()
    out, alpha = Attention.apply(
        *(None if z is None else z.to(dtype) for z in floats), noise, float(negative_slope), *index
    )
    if not need_weights:
        return out, None
    place = torch.empty_like(index[1], dtype=torch.long)
    place[_given(graph, blocks)] = torch.arange(place.numel(), device=place.device)
    return out, alpha.index_select(0, place).view(-1, heads)


def _given(graph: Graph, blocks: HeadBlocks) -> Tensor:
    """Return the place of each edge of the blocks in an array of the given edges and heads."""
    edge = torch.div(blocks.order, blocks.heads, rounding_mode="floor")
    return graph.perm.index_select(0, edge) * blocks.heads + blocks.order % blocks.heads


def _check(
    graph: Graph, x: Tensor, att: Tensor, score_dst: Tensor | None, edge_score: Tensor | None
) -> None:
    num_src, num_dst = graph.size
    if x.dim() != 3 or x.size(0) != num_src or not x.is_floating_point():
        raise ValueError(
            f"'x' must be floating point numbers of shape [{num_src}, H, F] on this graph "
            f"(got {list(x.shape)} of {x.dtype})"
        )
    if x.device != graph.device:
        raise ValueError(f"'x' must be on the graph's device {graph.device} (got {x.device})")
    heads = x.size(1)
    shared = score_dst is None and num_src == num_dst
    if att.shape[1:] != x.shape[1:] or att.size(0) not in ((1, 2) if shared else (1,)):
        raise ValueError(
            f"'att' must have shape [1, {heads}, {x.size(2)}], or 2 rows if sources and targets "
            f"are the same nodes and 'score_dst' is not given (got {list(att.shape)})"
        )
    for name, score, rows in (
        ("score_dst", score_dst, num_dst),
        ("edge_score", edge_score, graph.num_edges),
    ):
        if score is not None and list(score.shape) != [rows, heads]:
            raise ValueError(
                f"'{name}' must have shape [{rows}, {heads}] (got {list(score.shape)})"
            )
