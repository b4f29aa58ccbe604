"""The recipe: a training on labelled and unlabelled inputs, which an interruption does not end."""

from pyg_stkd.distill.fitting.fit import fit
from pyg_stkd.distill.fitting.run import Epoch

__all__ = ["Epoch", "fit"]
