from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.functional.sparse import spmm_slices as module
from pyg_stkd.functional.sparse.spmm_slices import spmm_slices
from pyg_stkd.graph import Graph


@given(
    st.integers(0, 7),
    st.sampled_from([(5, 5), (6, 3), (2, 7)]),
    st.integers(0, 12),
    st.integers(1, 40),
    st.booleans(),
)
def test_equals_a_dense_product_whatever_a_call_takes(
    num_slices: int, size: tuple[int, int], num_edges: int, most: int, transpose: bool
) -> None:
    source, target = (torch.randint(count, (num_edges,)) for count in size)
    graph, weight = Graph(torch.stack([source, target]), size), torch.randn(num_edges).double()
    dense = torch.zeros(size[::-1]).double()
    dense.index_put_((graph.edge_index[1], graph.edge_index[0]), weight, accumulate=True)
    dense = dense.t() if transpose else dense
    x = torch.randn(num_slices, 3, dense.size(1)).double().mT  # not in one piece
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_EDGES", most)  # slices of a call, the last of which has fewer
        out = spmm_slices([*graph.csr(), *graph.csc()], weight, x, transpose)
    torch.testing.assert_close(out, dense @ x)
    assert out.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_added_in_single(dtype: torch.dtype) -> None:
    graph = Graph(torch.stack([torch.arange(4096), torch.zeros(4096, dtype=torch.long)]), 4096)
    index, ones = [*graph.csr(), *graph.csc()], torch.ones(4096, dtype=dtype)
    out = spmm_slices(index, ones, torch.ones(2, 4096, 1, dtype=dtype))
    assert out.dtype == dtype
    assert out[:, 0].flatten().tolist() == [4096.0, 4096.0]  # half precision alone stops before
    alone = spmm_slices(index, ones, torch.ones(1, 4096, 1, dtype=dtype))
    assert alone.equal(out[:1])
