"""Results to show and to believe: pages of tables and figures, intervals, hardware."""

from pyg_stkd.files import write_atomic
from pyg_stkd.report.interpretation import (
    Agreement,
    Channels,
    Influence,
    Interpretation,
    interpret,
)
from pyg_stkd.report.machine import machine
from pyg_stkd.report.page import Report
from pyg_stkd.report.statistics import Gap, Interval, gap, holm, interval, p_value, rank_correlation

__all__ = [
    "Agreement",
    "Channels",
    "Gap",
    "Influence",
    "Interpretation",
    "Interval",
    "Report",
    "gap",
    "holm",
    "interpret",
    "interval",
    "machine",
    "p_value",
    "rank_correlation",
    "write_atomic",
]
