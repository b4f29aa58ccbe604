"""The models as they were trained, in torch and this package: what their exports are beside.

A file holds weights and widths, and nothing in it is code; the road network is an array.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyg_stkd.graph import Graph
from pyg_stkd.nn import STGCN, cheb_operator
from pyg_stkd.prune import load_compact, save_compact


def save_roads(path: Path, edge_index: Tensor, edge_weight: Tensor, num_nodes: int) -> None:
    """Write the road network as arrays."""
    np.savez(path, edge_index=edge_index, edge_weight=edge_weight, num_nodes=num_nodes)


def save(model: STGCN, path: Path) -> None:
    """Write weights and widths of a model that may be pruned."""
    save_compact(model, path)


def load(path: Path, output_steps: int) -> Callable[[Tensor], Tensor]:
    """Build a model anew, on the road network that lies beside its file."""
    with np.load(path.with_name("roads.npz"), allow_pickle=False) as arrays:
        graph = Graph(torch.from_numpy(arrays["edge_index"]), int(arrays["num_nodes"]))
        weight = graph.sort_edges(torch.from_numpy(arrays["edge_weight"]))
    build = STGCN.student if path.stem == "student" else STGCN.teacher
    model = load_compact(path, lambda: build(1, output_steps)).eval()
    roads = cheb_operator(graph, weight)
    return lambda x: model(x, roads)
