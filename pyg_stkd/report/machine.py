"""The hardware and the versions that figures are measured with."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch
import torch_geometric.typing

import pyg_stkd

__all__ = ["machine"]


def machine() -> dict[str, str | int | bool]:
    r"""Return the hardware and the versions that a figure was measured with.

    Example:
        >>> machine()["torch"] == torch.__version__
        True
    """
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": name,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "cuda": torch.version.cuda or "none",
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "torch_scatter": torch_geometric.typing.WITH_TORCH_SCATTER,
        "torch_sparse": torch_geometric.typing.WITH_TORCH_SPARSE,
        "pyg_stkd": pyg_stkd.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
