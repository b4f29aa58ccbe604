"""Small models, and the proof that they compute what the masked ones do."""

from pyg_stkd.prune.compaction.compact import compact

__all__ = ["compact"]
