"""Distillation: a teacher, a student and the losses between their layers."""

from pyg_stkd.distill.cache import TeacherCache
from pyg_stkd.distill.check import CheckReport, LossReport, TapReport, TeacherReport
from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.fitting.fit import fit
from pyg_stkd.distill.fitting.run import Epoch
from pyg_stkd.distill.global_mean import global_mean
from pyg_stkd.distill.losses import (
    AttentionTransferLoss,
    ContrastiveLoss,
    DistillationLoss,
    GSPLoss,
    HintLoss,
    LogitLoss,
    LSPLoss,
    OutputLoss,
    ResponseLoss,
    SoftTargetLoss,
    SpatialCorrelationLoss,
    STCDLoss,
    TemporalCorrelationLoss,
    until_epoch,
)
from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures
from pyg_stkd.distill.teaching.teachers import Teachers
from pyg_stkd.distill.unrolled import Unrolled

__all__ = [
    "AttentionTransferLoss",
    "Capture",
    "CheckReport",
    "ContrastiveLoss",
    "DistillationLoss",
    "Distiller",
    "Epoch",
    "GSPLoss",
    "HintLoss",
    "LSPLoss",
    "LogitLoss",
    "LossReport",
    "OutputLoss",
    "ResponseLoss",
    "STCDLoss",
    "SoftTargetLoss",
    "SpatialCorrelationLoss",
    "TapReport",
    "TeacherCache",
    "TeacherCaptures",
    "TeacherReport",
    "Teachers",
    "TemporalCorrelationLoss",
    "Unrolled",
    "fit",
    "global_mean",
    "until_epoch",
]
