"""Distillation losses: modules that compare one layer of the teacher with one of the student."""

from pyg_stkd.distill.losses.base import DistillationLoss, until_epoch
from pyg_stkd.distill.losses.correlation import SpatialCorrelationLoss, TemporalCorrelationLoss
from pyg_stkd.distill.losses.feature import AttentionTransferLoss, HintLoss
from pyg_stkd.distill.losses.forecast import ResponseLoss, STCDLoss
from pyg_stkd.distill.losses.output import LogitLoss, OutputLoss
from pyg_stkd.distill.losses.pairwise import ContrastiveLoss, GSPLoss
from pyg_stkd.distill.losses.response import SoftTargetLoss
from pyg_stkd.distill.losses.structure import LSPLoss

__all__ = [
    "AttentionTransferLoss",
    "ContrastiveLoss",
    "DistillationLoss",
    "GSPLoss",
    "HintLoss",
    "LSPLoss",
    "LogitLoss",
    "OutputLoss",
    "ResponseLoss",
    "STCDLoss",
    "SoftTargetLoss",
    "SpatialCorrelationLoss",
    "TemporalCorrelationLoss",
    "until_epoch",
]
