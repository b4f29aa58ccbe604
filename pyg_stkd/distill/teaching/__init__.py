"""Several teachers, and how far each is to be believed."""

from pyg_stkd.distill.teaching.teachers import Teachers

__all__ = ["Teachers"]
