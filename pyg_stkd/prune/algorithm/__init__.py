"""Algorithm 1: distil, prune and fine-tune, stage by stage."""

from pyg_stkd.prune.algorithm.distill_and_prune import distill_and_prune
from pyg_stkd.prune.algorithm.stage import Stage
from pyg_stkd.prune.algorithm.start_from import start_from

__all__ = ["Stage", "distill_and_prune", "start_from"]
