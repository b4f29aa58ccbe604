from __future__ import annotations

import json
import time

import torch

import pyg_stkd
from pyg_stkd.report import machine


def test_what_a_figure_was_measured_with() -> None:
    found = machine()
    assert found["torch"] == torch.__version__
    assert found["pyg_stkd"] == pyg_stkd.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    time.strptime(str(found["date"]), "%Y-%m-%d")
    assert json.loads(json.dumps(found)) == found
