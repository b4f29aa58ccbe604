from __future__ import annotations

import pytest
import torch
from torch import nn

from pyg_stkd.distill import Capture
from pyg_stkd.distill.losses.projection import Projection, project


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_widths_of_the_first_features(mode) -> None:
    projection, x = Projection(), torch.randn(4, 3, dtype=torch.float64)
    weight, bias = projection.weight, projection.bias
    with mode():
        projection.fit(x, 5)
    assert (projection.weight, projection.bias) == (weight, bias)  # as an optimizer has them
    assert not weight.is_inference()
    assert (weight.shape, weight.dtype) == ((5, 3), torch.float64)
    projection(x).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(5, 3))
    assert type(projection) is nn.Linear


def test_other_widths() -> None:
    x = torch.ones(4, 2)
    capture = Capture(x, layer="convs.0")
    match = r"student layer 'convs.0' must have the 7 channels.*loss 'mine'.*\(got shape \[4, 2\]\)"
    for projection in (nn.Linear(7, 3), nn.Sequential(nn.ReLU(), nn.Linear(7, 3), nn.Linear(3, 9))):
        with pytest.raises(ValueError, match=match):
            project(projection, x, capture, "mine")
    inner = nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 5))  # its own fault
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        project(inner, x, capture, "mine")


def test_precision_of_the_projection() -> None:
    x = torch.randn(4, 2)
    linear = nn.Linear(2, 3).double()
    out = project(linear, x, Capture(x), "mine")
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, linear(x.double()).float())
