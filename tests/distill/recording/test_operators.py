"""Operators that are given to layers in place of their graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd import Distiller
from pyg_stkd.distill import LSPLoss
from pyg_stkd.functional import lsp
from pyg_stkd.graph import Graph
from pyg_stkd.nn import GCNConv
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
def test_an_operator_stands_for_its_graph(propagation: str) -> None:
    """It is what layers of sequences are given in place of edges, to make it only once."""

    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.a, self.b = GCNConv(4, width), nn.Linear(width, 3)

        def forward(self, x: Tensor, operator: Any) -> Tensor:
            return self.b(self.a(x, operator))

    torch.manual_seed(0)
    edges = torch.tensor([[0, 1, 2, 3, 4, 4, 1], [1, 2, 3, 4, 0, 2, 1]])
    x, value = torch.randn(5, 4), torch.rand(7)
    graph = Graph(edges, 5)
    operator = GraphOperator(graph, value, propagation)
    teacher, student = Net(8), Net(6)
    for layer in ("a", "b"):
        distiller = Distiller(teacher, student, [LSPLoss(layer, layer)])
        (loss,) = distiller(x, operator)[1].values()
        seen: list[Tensor] = []
        for model in (student, teacher):
            h = model.a(x, operator)
            seen.append(h if layer == "a" else model.b(h))
        torch.testing.assert_close(loss, lsp(*seen, graph))
        known = distiller.capture_teacher(x, operator).to("cpu")
        torch.testing.assert_close(distiller(x, operator, teacher=known)[1]["lsp"], loss)
    given = Distiller(teacher, student, [LSPLoss("b", "b", graph=operator)])
    torch.testing.assert_close(given(x, operator)[1]["lsp"], loss)
    with pytest.raises(ValueError, match="one row for each of the 5 nodes"):
        Distiller(teacher, student, [LSPLoss("", "")], call=lambda m, x, op: m(x, op)[:4])(
            x, operator
        )
