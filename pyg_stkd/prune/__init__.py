"""Pruning with distillation-aware scores, and models that really shrink."""

from pyg_stkd.prune.algorithm import Stage, distill_and_prune, start_from
from pyg_stkd.prune.compaction import compact
from pyg_stkd.prune.masked import KDIS, Importance, Magnitude, Pruned, Random, schedule
from pyg_stkd.prune.pruner import Pruner
from pyg_stkd.prune.saving import load_compact, save_compact
from pyg_stkd.prune.structure import Group, Ports, register, rules

__all__ = [
    "KDIS",
    "Group",
    "Importance",
    "Magnitude",
    "Ports",
    "Pruned",
    "Pruner",
    "Random",
    "Stage",
    "compact",
    "distill_and_prune",
    "load_compact",
    "register",
    "rules",
    "save_compact",
    "schedule",
    "start_from",
]
