"""Constant matrices of a graph, which the layers on sequences propagate with."""

from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator, gcn_operator

__all__ = ["GraphOperator", "cheb_operator", "gcn_operator"]
