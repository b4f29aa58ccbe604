from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from pyg_stkd.nn.sequence.cheb_conv import ChebConv
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
from pyg_stkd.nn.sequence.st_attention import ChebAttentionConv, SpatialAttention, TemporalAttention

B, T, N, C = 2, 4, 3, 2
EDGES = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])


def sequence() -> Tensor:
    return torch.randn(B, T, N, C, dtype=torch.double)


def naive(attention: torch.nn.Module, x: Tensor) -> Tensor:
    """Scores every pair of rows of x [B, others, rows, C] by itself, softmax over the first."""
    num_others, num_rows = x.shape[1:3]
    out = torch.zeros(len(x), num_rows, num_rows, dtype=x.dtype)
    for b in range(len(x)):
        gate = torch.zeros(num_rows, num_rows, dtype=x.dtype)
        for i in range(num_rows):
            for j in range(num_rows):
                left = sum(attention.w1[o] * x[b, o, i] for o in range(num_others))
                product = sum(
                    (left @ attention.w2[:, o]) * (attention.w3 @ x[b, o, j])
                    for o in range(num_others)
                )
                gate[i, j] = torch.sigmoid(product + attention.bias[i, j])
        score = attention.scale @ gate
        out[b] = score.exp() / score.exp().sum(0)
    return out


def test_spatial_attention_pair_by_pair() -> None:
    attention, x = SpatialAttention(C, N, T).double(), sequence()
    torch.testing.assert_close(attention(x), naive(attention, x))
    assert gradcheck(attention, x.requires_grad_())


def test_temporal_attention_pair_by_pair() -> None:
    attention, x = TemporalAttention(C, N, T).double(), sequence()
    torch.testing.assert_close(attention(x), naive(attention, x.transpose(1, 2)))
    assert gradcheck(attention, x.requires_grad_())


@pytest.mark.parametrize("K", [1, 2, 4])
def test_filter_term_by_term(K: int) -> None:
    conv, x = ChebAttentionConv(C, 3, K).double(), sequence()
    attention = torch.rand(B, N, N, dtype=torch.double)
    laplacian = torch.randn(N, N, dtype=torch.double)
    terms = [torch.eye(N, dtype=torch.double), laplacian]
    for _ in range(2, K):
        terms.append(2 * laplacian @ terms[-1] - terms[-2])
    expected = torch.zeros(B, T, N, 3, dtype=torch.double)
    for b in range(B):
        for t in range(T):
            for k in range(K):
                # As printed, with the transpose of the (there symmetric) polynomial.
                scaled = (terms[k].t() * attention[b]).t()
                expected[b, t] += scaled @ x[b, t] @ conv.weight[k]
    torch.testing.assert_close(conv(x, attention, laplacian), expected)
    assert gradcheck(conv, (x.requires_grad_(), attention.requires_grad_(), laplacian))


def test_attention_of_ones_is_the_plain_filter() -> None:
    conv, plain, x = ChebAttentionConv(C, 3, 3).double(), ChebConv(C, 3, 3).double(), sequence()
    plain.load_state_dict({"weight": conv.weight, "bias": plain.bias})
    operator = cheb_operator(EDGES, num_nodes=N, dtype=torch.double)
    out = conv(x, torch.ones(B, N, N, dtype=torch.double), operator.to_dense())
    torch.testing.assert_close(out, plain(x, operator))


def test_errors_and_repr() -> None:
    with pytest.raises(ValueError, match=r"T=4 time steps and N=3 nodes \(got T=3 and N=4\)"):
        SpatialAttention(C, N, T)(torch.zeros(B, N, T, C))
    with pytest.raises(ValueError, match=r"\[B, T, N, C\].*with C=2 last"):
        TemporalAttention(C, N, T)(torch.zeros(B, T, C, N))
    with pytest.raises(ValueError, match=r"'laplacian' must have shape \[3, 3\].*\(got \[2, 2\]\)"):
        ChebAttentionConv(C, 3, 2)(torch.zeros(B, T, N, C), torch.ones(B, N, N), torch.eye(2))
    with pytest.raises(ValueError, match=r"'K' must be at least 1 \(got 0\)"):
        ChebAttentionConv(C, 3, 0)
    for cls in (SpatialAttention, TemporalAttention):
        with pytest.raises(ValueError, match=r"'num_nodes' must be at least 1 \(got 0\)"):
            cls(C, 0, T)
    assert repr(TemporalAttention(C, N, T)) == "TemporalAttention(2, 4, 3)"
    assert repr(ChebAttentionConv(C, 3, 2)) == "ChebAttentionConv(2, 3, K=2)"
