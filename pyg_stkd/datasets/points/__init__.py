"""Point clouds: shapes of ModelNet, and generated ones."""

from pyg_stkd.datasets.points.modelnet_149 import ModelNet149
from pyg_stkd.datasets.points.modelnet_hdf5 import ModelNetHDF5
from pyg_stkd.datasets.points.modelnet_normals import ModelNetNormals
from pyg_stkd.datasets.points.modelnet_off import ModelNetOFF
from pyg_stkd.datasets.points.modelnet_voxels import ModelNetVoxels
from pyg_stkd.datasets.points.point_clouds import PointClouds
from pyg_stkd.datasets.points.point_transforms import RandomScaleTranslate, UnitSphere
from pyg_stkd.datasets.points.synthetic_shapes import SyntheticShapes

__all__ = [
    "ModelNet149",
    "ModelNetHDF5",
    "ModelNetNormals",
    "ModelNetOFF",
    "ModelNetVoxels",
    "PointClouds",
    "RandomScaleTranslate",
    "SyntheticShapes",
    "UnitSphere",
]
