"""Which channels of which tensors belong together, layer by layer."""

from pyg_stkd.prune.structure import rules
from pyg_stkd.prune.structure.layout import Group
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register

__all__ = ["Group", "Ports", "register", "rules"]
