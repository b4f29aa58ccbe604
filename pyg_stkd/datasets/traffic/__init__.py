"""Traffic: readings of sensors on a road network."""

from pyg_stkd.datasets.traffic.adjacency import (
    GaussianAdjacency,
    adjacency_to_edges,
    distances_to_edges,
    links_to_edges,
)
from pyg_stkd.datasets.traffic.metr_la import METRLAWeek
from pyg_stkd.datasets.traffic.pems import PeMSD4, PeMSD8
from pyg_stkd.datasets.traffic.pemsd7 import PeMSD7
from pyg_stkd.datasets.traffic.scaler import StandardScaler
from pyg_stkd.datasets.traffic.synthetic_traffic import SyntheticTraffic
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries
from pyg_stkd.datasets.traffic.windows import Window, WindowDataset

__all__ = [
    "GaussianAdjacency",
    "METRLAWeek",
    "PeMSD4",
    "PeMSD7",
    "PeMSD8",
    "StandardScaler",
    "SyntheticTraffic",
    "TrafficSeries",
    "Window",
    "WindowDataset",
    "adjacency_to_edges",
    "distances_to_edges",
    "links_to_edges",
]
