"""A model under masks: what it costs, what its channels are worth, what to drop."""

from pyg_stkd.prune.masked import schedule
from pyg_stkd.prune.masked.importance import KDIS, Importance, Magnitude, Random
from pyg_stkd.prune.masked.pruned import Pruned

__all__ = ["Importance", "KDIS", "Magnitude", "Pruned", "Random", "schedule"]
