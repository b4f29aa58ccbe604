"""The nearest neighbours of points, cloud by cloud."""

from pyg_stkd.functional.neighbours.knn import knn_graph

__all__ = ["knn_graph"]
