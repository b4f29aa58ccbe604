"""Channels followed through a model's own code, by running it once."""

from pyg_stkd.prune.following.run import follow

__all__ = ["follow"]
