"""What a run of a model leaves behind: tensors of its layers, inputs and graphs."""

from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures

__all__ = ["Capture", "TeacherCaptures"]
