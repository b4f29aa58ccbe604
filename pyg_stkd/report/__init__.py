"""Results to show and to believe: pages of tables and figures, intervals, hardware."""

from pyg_stkd.files import write_atomic
from pyg_stkd.report.machine import machine
from pyg_stkd.report.page import Report
from pyg_stkd.report.statistics import Gap, Interval, gap, holm, interval, p_value

__all__ = [
    "Gap",
    "Interval",
    "Report",
    "gap",
    "holm",
    "interval",
    "machine",
    "p_value",
    "write_atomic",
]
