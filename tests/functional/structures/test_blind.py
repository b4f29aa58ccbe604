from __future__ import annotations

import warnings

import pytest
import torch

from pyg_stkd import kernels
from pyg_stkd.functional.structures.blind import warn_if_blind


@pytest.mark.parametrize(
    ("spread", "share", "kernel", "normalize", "match"),
    [
        (0.01, 1.0, kernels.RBF(), None, r"uniform .*Normalise .* or 'layer'\), or choose another "
         r"width, .* or take an unbounded one"),
        (0.01, 1.0, kernels.RBF("median"), "l2", "Take an unbounded one .* a larger weight"),
        (9.0, 0.001, kernels.Linear(), "l2", "one-hot .*Take a bounded kernel, such as RBF"),
        (9.0, 0.001, kernels.Cosine(), "l2", "one-hot .*Choose another kernel"),
    ],
)  # fmt: skip
def test_says_what_is_blind_and_what_to_do(
    spread: float, share: float, kernel: kernels.Kernel, normalize: object, match: str
) -> None:
    given = torch.tensor(spread), torch.tensor(share)
    with pytest.warns(UserWarning, match=match):
        warn_if_blind("local", *given, kernel, normalize)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [(0.5, 0.5), (torch.nan, torch.nan), (0.021, 0.011)])
def test_is_silent_where_there_is_something_or_nothing_to_see(values: tuple[float, float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_blind("local", *map(torch.tensor, values), kernels.RBF(), None)
