from __future__ import annotations

import pytest
import torch

from pyg_stkd.datasets.traffic.scaler import StandardScaler
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries


def make(values: torch.Tensor, mask: torch.Tensor | None = None) -> TrafficSeries:
    c = values.size(2)
    return TrafficSeries(values, mask, channels=["c"] * c, units=["u"] * c)


def test_fit_counts_observed_readings_of_the_training_part_only() -> None:
    values = torch.randn(40, 5, 2, dtype=torch.double) * 3 + torch.tensor([60.0, 1000.0])
    mask = torch.rand(40, 5, 2) > 0.3
    values[30:] += 1e6  # a test part that would give itself away
    train, _ = make(values.where(mask, 0.0), mask).split(0.75, 0.25)
    scaler = StandardScaler.fit(train)
    for c in range(2):
        seen = values[:30, :, c][mask[:30, :, c]]
        assert scaler.mean[c].item() == pytest.approx(seen.mean().item(), rel=1e-12)
        assert scaler.std[c].item() == pytest.approx(seen.std(correction=0).item(), rel=1e-12)


def test_float32_does_not_lose_digits() -> None:
    values = torch.randn(20_000, 10, 1) + 10_000
    scaler = StandardScaler.fit(make(values))
    assert scaler.std.item() == pytest.approx(values.double().std(correction=0).item(), rel=1e-6)


def test_inverse_is_the_inverse() -> None:
    scaler = StandardScaler(torch.tensor([60.0, 5.0]), torch.tensor([10.0, 2.0]))
    x = torch.tensor([[70.0, 1.0]])
    assert scaler.transform(x).tolist() == [[1.0, -2.0]]
    assert scaler.inverse_transform(scaler.transform(x)).tolist() == x.tolist()
    assert scaler.transform(torch.tensor([3.0, 7.0, 5.0]), channel=1).tolist() == [-1.0, 1.0, 0.0]
    assert scaler.inverse_transform(torch.tensor([2.0]), channel=0).tolist() == [80.0]


def test_constant_channel_is_only_centred() -> None:
    scaler = StandardScaler.fit(make(torch.full((4, 2, 1), 55.1)))
    assert scaler.transform(torch.tensor([[56.1]])).item() == pytest.approx(1.0, abs=1e-5)


def test_refuses() -> None:
    scaler = StandardScaler(torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match=r"C = 2 channels last.*\(got \(2, 3\)\)"):
        scaler.transform(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="'std' positive"):
        StandardScaler(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match=r"must be \[C\]"):
        StandardScaler(torch.zeros(1), torch.ones(2))
    mask = torch.ones(4, 2, 1, dtype=torch.bool)
    mask[:2] = False
    with pytest.raises(ValueError, match="got none in 'c'"):
        StandardScaler.fit(make(torch.rand(4, 2, 1), mask)[:2])


def test_whole_numbers_are_scaled_as_such_not_cut() -> None:
    scaler = StandardScaler(torch.tensor([50.5]), torch.tensor([0.5]))
    x = torch.tensor([[50], [51]])
    assert scaler.transform(x).flatten().tolist() == [-1.0, 1.0]
    assert scaler.inverse_transform(x).flatten().tolist() == [75.5, 76.0]
    assert scaler.transform(x.flatten(), channel=0).tolist() == [-1.0, 1.0]
    assert StandardScaler(torch.tensor([50]), torch.tensor([2])).std.dtype == torch.float32


@pytest.mark.parametrize("bad", [None, 1.0, torch.ones(1) * 1j])
def test_what_is_no_tensor_is_a_type_error(bad: object) -> None:
    scaler = StandardScaler(torch.ones(1), torch.ones(1))
    for call in (scaler.transform, scaler.inverse_transform):
        with pytest.raises(TypeError, match="'x' must be a tensor of real numbers"):
            call(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'mean' must be a tensor of real numbers"):
        StandardScaler(bad, torch.ones(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'series' must be a TrafficSeries"):
        StandardScaler.fit(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'x' must be \[\*, C\]"):
        scaler.transform(torch.tensor(1.0))
