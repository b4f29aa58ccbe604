"""What teacher and student of a forecaster weigh alike and unlike."""

from pyg_stkd.report.interpretation.channels import Channels
from pyg_stkd.report.interpretation.interpret import Interpretation, interpret
from pyg_stkd.report.interpretation.occlusion import Influence
from pyg_stkd.report.interpretation.structures import Agreement

__all__ = ["Agreement", "Channels", "Influence", "Interpretation", "interpret"]
