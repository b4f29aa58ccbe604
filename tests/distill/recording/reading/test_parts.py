from __future__ import annotations

import torch

from pyg_stkd.distill.recording.reading.parts import first_tensor


def test_first_tensor_goes_depth_first():
    a, b = torch.tensor(1), torch.tensor(2)
    assert first_tensor(a) is a
    assert first_tensor((None, [(), {"x": b}], a)) is b
    assert first_tensor({"k": None}) is None
