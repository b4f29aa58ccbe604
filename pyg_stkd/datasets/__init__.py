"""Data sets: real ones from local folders, and generated ones that need no file."""

from pyg_stkd.datasets.adjacency import (
    GaussianAdjacency,
    adjacency_to_edges,
    distances_to_edges,
    links_to_edges,
)
from pyg_stkd.datasets.metr_la import METRLAWeek
from pyg_stkd.datasets.modelnet_149 import ModelNet149
from pyg_stkd.datasets.modelnet_hdf5 import ModelNetHDF5
from pyg_stkd.datasets.modelnet_normals import ModelNetNormals
from pyg_stkd.datasets.modelnet_off import ModelNetOFF
from pyg_stkd.datasets.modelnet_voxels import ModelNetVoxels
from pyg_stkd.datasets.pems import PeMSD4, PeMSD8
from pyg_stkd.datasets.pemsd7 import PeMSD7
from pyg_stkd.datasets.point_clouds import PointClouds
from pyg_stkd.datasets.point_transforms import RandomScaleTranslate, UnitSphere
from pyg_stkd.datasets.ppi import load_ppi
from pyg_stkd.datasets.proteins import Proteins
from pyg_stkd.datasets.scaler import StandardScaler
from pyg_stkd.datasets.synthetic_proteins import SyntheticProteins
from pyg_stkd.datasets.synthetic_shapes import SyntheticShapes
from pyg_stkd.datasets.synthetic_traffic import SyntheticTraffic
from pyg_stkd.datasets.traffic_series import TrafficSeries
from pyg_stkd.datasets.windows import Window, WindowDataset

__all__ = [
    "GaussianAdjacency",
    "METRLAWeek",
    "ModelNet149",
    "ModelNetHDF5",
    "ModelNetNormals",
    "ModelNetOFF",
    "ModelNetVoxels",
    "PeMSD4",
    "PeMSD7",
    "PeMSD8",
    "PointClouds",
    "Proteins",
    "RandomScaleTranslate",
    "StandardScaler",
    "SyntheticProteins",
    "SyntheticShapes",
    "SyntheticTraffic",
    "TrafficSeries",
    "UnitSphere",
    "Window",
    "WindowDataset",
    "adjacency_to_edges",
    "distances_to_edges",
    "links_to_edges",
    "load_ppi",
]
