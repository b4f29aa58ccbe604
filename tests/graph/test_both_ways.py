from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.graph import Graph
from pyg_stkd.graph.both_ways import both_ways


@given(st.integers(1, 6), st.integers(0, 20))
def test_sums_both_directions_and_loops(num_nodes: int, num_edges: int) -> None:
    graph = Graph(torch.randint(num_nodes, (2, num_edges)), num_nodes)
    pointer, node, place = (part.long() for part in both_ways(graph))
    source, target = graph.edge_index
    weight, of_node = torch.randn(num_edges).double(), torch.randn(num_nodes).double()
    dense = torch.diag(of_node)
    dense.index_put_((target, source), weight, accumulate=True)
    dense.index_put_((source, target), weight, accumulate=True)
    row = torch.repeat_interleave(pointer.diff())
    actual = torch.zeros_like(dense)
    actual.index_put_((row, node), torch.cat([weight, of_node])[place], accumulate=True)
    torch.testing.assert_close(actual, dense)
    assert both_ways(graph)[0] is both_ways(graph)[0]
