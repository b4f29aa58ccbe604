"""Pruning with distillation-aware scores, and models that really shrink."""

from pyg_stkd.prune import rules, schedule
from pyg_stkd.prune.algorithm import distill_and_prune
from pyg_stkd.prune.compact import compact
from pyg_stkd.prune.groups import Group
from pyg_stkd.prune.importance import KDIS, Importance, Magnitude, Random
from pyg_stkd.prune.ports import Ports
from pyg_stkd.prune.pruned import Pruned
from pyg_stkd.prune.pruner import Pruner
from pyg_stkd.prune.recipe import load_compact, save_compact
from pyg_stkd.prune.registry import register
from pyg_stkd.prune.stage import Stage

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
]
