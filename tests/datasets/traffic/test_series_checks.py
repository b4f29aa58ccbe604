from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_stkd.datasets.traffic.series_checks import (
    as_numbers,
    axis_hint,
    check_distance_matrix,
    check_graph,
    check_matrix,
    check_range,
    check_values,
    check_weights,
    number_stations,
    of_file,
    speed_readings,
    time_stamps,
)

PATH = Path("set/a.csv")


@pytest.mark.parametrize(
    ("shape", "num_nodes", "hint"),
    [
        ((5, 9, 1), 5, "; it looks like [N, T, C]: permute(1, 0, 2)"),
        ((9, 1, 5), 5, "; it looks like [T, C, N]: permute(0, 2, 1)"),
        ((9, 5, 1), 5, ""),
        ((5, 5, 1), 5, ""),
        ((9, 4, 1), 5, ""),
    ],
)
def test_axis_hint(shape: tuple[int, ...], num_nodes: int, hint: str) -> None:
    assert axis_hint(shape, num_nodes) == hint


def test_check_graph_fills_in_defaults() -> None:
    index, weight = check_graph(None, None, (3, 2, 1))
    assert index.shape == (2, 0)
    assert weight.shape == (0,)
    index, weight = check_graph(torch.tensor([[0], [1]]), None, (3, 2, 1))
    assert weight.tolist() == [1.0]


@pytest.mark.parametrize(
    ("index", "weight", "message"),
    [
        (torch.zeros(2, 1), None, r"'edge_index' must be a \[2, E\] tensor of torch.long"),
        (torch.tensor([[0], [4]]), None, r"must name the N = 4 nodes .* \(got nodes 0 to 4\)"),
        (torch.tensor([[-1], [0]]), None, r"\(got nodes -1 to 0\)"),
        (torch.tensor([[0], [2]]), None, r"it looks like \[N, T, C\]"),
        (torch.tensor([[0], [1]]), torch.ones(2), r"'edge_weight' must be \[E\] = \[1\]"),
        (torch.tensor([[0], [1]]), torch.tensor([-1.0]), "'edge_weight' must be finite and not"),
        (None, torch.ones(1), "'edge_weight' needs an 'edge_index'"),
    ],
)
def test_check_graph_refuses(
    index: torch.Tensor | None, weight: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_graph(index, weight, (3, 4, 1))


def test_check_graph_guesses_axes_only_where_asked() -> None:
    index = torch.tensor([[0], [2]])
    assert check_graph(index, None, (3, 4, 1), guess_axes=False)[0] is index


def test_check_values() -> None:
    values = torch.tensor([[[1.0], [torch.nan]]])
    read, mask = check_values(values, torch.tensor([[True, False]]))
    assert read[0, 0].item() == 1
    assert read[0, 1].isnan()
    assert mask.tolist() == [[[True], [False]]]
    with pytest.raises(ValueError, match=r"\(got nan at step 0, node 1, channel 0, and 0 more\)"):
        check_values(values, None)
    with pytest.raises(ValueError, match=r"'mask' must be boolean and \[T, N, C\]"):
        check_values(values, torch.ones(1, 2))


def test_time_stamps() -> None:
    assert time_stamps(None, 2, 5) is None
    stamps = time_stamps("2024-01-01", 3, 5)
    assert stamps is not None
    assert (stamps[2] - stamps[0]) / np.timedelta64(1, "m") == 10
    with pytest.raises(ValueError, match=r"'times' must be \[T\] = \[3\] or one \(got \(2,\)\)"):
        time_stamps(stamps[:2], 3, 5)
    for bad in (stamps[[0, 2, 1]], stamps[[0, 0, 1]], np.array(["NaT"] * 3, dtype="M8[m]")):
        with pytest.raises(ValueError, match="'times' must rise by 5 minutes or more a step"):
            time_stamps(bad, 3, 5)


@pytest.mark.parametrize("zone", ["aware", "text"])
def test_time_stamps_of_a_zone_are_not_those_of_a_day(zone: str) -> None:
    west = timezone(timedelta(hours=-8))
    times: object = "2024-01-01T00:00-08:00"
    if zone == "aware":
        times = [datetime(2024, 1, 1, tzinfo=west) + i * timedelta(minutes=5) for i in range(3)]
    with pytest.raises(ValueError, match="'times' must be time stamps, of no time zone"):
        time_stamps(times, 3, 5)  # type: ignore[arg-type]


def test_time_stamps_between_minutes_are_not_rounded() -> None:
    times = np.datetime64("2024-01-01T00:00:00") + np.arange(3) * np.timedelta64(5, "m")
    assert time_stamps(times, 3, 5) is not None
    with pytest.raises(ValueError, match=r"whole minutes.*\(got 2024-01-01T00:05:30"):
        time_stamps(times + np.array([0, 30, 0], dtype="timedelta64[s]"), 3, 5)


def test_arrays_of_any_layout_are_numbers() -> None:
    values = np.arange(6.0).reshape(3, 2)
    whole = np.array(3.0)  # of no axis
    for given in (values[::-1], values.astype(">f8")[::-1], values[:, ::-1], values.T, whole):
        assert as_numbers("x", given).tolist() == given.tolist()
    for bad in (values.astype(np.longdouble), values.astype(object), values + 0j, values.tolist()):
        with pytest.raises(TypeError, match="'x' must be a tensor of real numbers"):
            as_numbers("x", bad)


def test_of_file() -> None:
    assert str(of_file(PATH, ValueError("'x' must"))) == "'set/a.csv': 'x' must"
    named = ValueError("'set/a.csv' must")
    assert of_file(PATH, named) is named


def test_check_matrix_and_weights() -> None:
    check_matrix(PATH, np.ones((2, 2)), 2)
    with pytest.raises(ValueError, match=r"'set/a.csv' must be \[N, N\] = \[3, 3\].*got \(2, 2\)"):
        check_matrix(PATH, np.ones((2, 2)), 3)
    check_weights(PATH, np.array([[0.0, 1.0]]))
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="must hold weights from 0 to 1"):
            check_weights(PATH, np.array([[0.0, bad]]))


def test_check_distance_matrix() -> None:
    good = np.abs(np.subtract.outer([0, 0, 900, 2500], [0, 0, 900, 2500])).astype(float)
    check_distance_matrix(PATH, good)
    check_distance_matrix(PATH, good + 1e-5 * good * np.tri(4))  # printed with few digits
    one_way = good.copy()
    one_way[3, 2] = 1700
    with pytest.raises(ValueError, match=r"\(got 1600 from 2 to 3, 1700 back\)"):
        check_distance_matrix(PATH, one_way)
    no_road = good.copy()
    no_road[2, 3] = no_road[3, 2] = 0
    with pytest.raises(ValueError, match=r"got 0 from 2 to 3, which are not as far from others"):
        check_distance_matrix(PATH, no_road)


def test_speed_readings() -> None:
    values, mask = speed_readings(np.array([[0.0, 60.5], [np.nan, 200.0]]), PATH)
    assert values.shape == (2, 2, 1)
    assert values.dtype == torch.float32
    assert mask[..., 0].tolist() == [[False, True], [False, True]]
    for bad, why in ((-1.0, "a marker of what is missing"), (200.5, "not in mph"), (np.inf, "mph")):
        with pytest.raises(
            ValueError, match=rf"a speed from 0 to 200 mph \(got .* 0 more: .*{why}"
        ):
            speed_readings(np.array([[60.0, bad]]), PATH)


def test_check_range_counts() -> None:
    with pytest.raises(ValueError, match=r"\(got -2 at step 1, node 0, and 1 more"):
        check_range(PATH, "flow", np.array([[1.0, 2.0], [-2.0, 99.0]]), 10, "vehicles")


@pytest.mark.parametrize(
    ("ids", "known", "expected"),
    [
        ([[0, 2]], None, [[0, 2]]),
        ([[1, 3]], None, [[0, 2]]),
        ([[77, 55]], [55, 66, 77], [[2, 0]]),
        ([[0, 1]], [55, 66, 77], [[0, 1]]),
        ([[1, 2]], [3, 2, 1], [[2, 1]]),
    ],
)
def test_number_stations(
    ids: list[list[int]], known: list[int] | None, expected: list[list[int]]
) -> None:
    listed = None if known is None else np.array(known)
    assert number_stations(np.array(ids), (4, 3, 1), listed).tolist() == expected


@pytest.mark.parametrize(
    ("ids", "known", "message"),
    [
        ([[0, 3]], None, "ids 0 to 3 and no list"),
        ([[-1, 2]], None, "ids -1 to 2 and no list"),
        ([[55, 99]], [55, 66, 77], "a list without some of them"),
        ([[55, 66]], [55, 66], r"must name the N = 3 stations .* \(got 2 ids\)"),
    ],
)
def test_number_stations_refuses(
    ids: list[list[int]], known: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        number_stations(np.array(ids), (4, 3, 1), None if known is None else np.array(known))
