"""Every function of traffic series, with arguments of which one or two are odd.

``TARGETS`` are as in ``readers``: each makes one call, which ends in a sound result (``"made"``) or
in ``ValueError``, ``TypeError`` or ``IndexError`` (``"refused"``). Anything else raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mutations import Pick
from torch import Tensor

from pyg_stkd.datasets import (
    GaussianAdjacency,
    StandardScaler,
    TrafficSeries,
    WindowDataset,
    adjacency_to_edges,
    distances_to_edges,
    links_to_edges,
)

REFUSALS = (ValueError, TypeError, IndexError)
DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.uint8, torch.bool, torch.complex64),
]
NUMBERS = [
    0.0,
    1.0,
    -1.0,
    0.5,
    60.0,
    1e4,
    1e-30,
    1e30,
    1e300,
    -1e300,
    math.nan,
    math.inf,
    -math.inf,
]
ODD: list[Any] = [
    *(None, True, False, "", "1", "2024-01-01", [], {}, (1, 2), object()),
    *(-1, 0, 1, 2, 3, 5, 7, 60, 1440, 10**6, 10**12, 10**30, -(10**30)),
    *(0.0, -0.5, 0.5, 1.5, 1e300, 1e-300, math.nan, math.inf, -math.inf),
]


def tensor(pick: Pick) -> Any:
    """Return a tensor of an odd shape, type, content or layout, or none at all."""
    if pick(6) == 0:
        return ODD[pick(len(ODD))]
    shape = [pick(5) for _ in range(pick(5))]
    content = [NUMBERS[pick(len(NUMBERS))] for _ in range(math.prod(shape))]
    made = torch.tensor(content, dtype=torch.float64).view(shape)
    if pick(3):
        made = made.nan_to_num(1.0, 9.0, -9.0).clamp(-9, 9)
    made = made.to(DTYPES[pick(len(DTYPES))])
    if pick(4) == 0 and made.dim() > 1:
        made = made.transpose(0, -1)
    return made.numpy() if pick(8) == 0 and made.dtype != torch.bfloat16 else made


def odd(pick: Pick, arguments: dict[str, Any], tensors: set[str]) -> dict[str, Any]:
    """Return arguments of which one or two, or none, are odd."""
    changed = dict(arguments)
    for _ in range(pick(3)):
        name = sorted(changed)[pick(len(changed))]
        changed[name] = tensor(pick) if name in tensors else ODD[pick(len(ODD))]
    return changed


def series_arguments(pick: Pick) -> dict[str, Any]:
    steps, nodes = 1 + pick(40), 1 + pick(4)
    minutes = [5, 60, 480, 720][pick(4)]
    times = np.datetime64("2024-01-04", "m") + np.arange(steps) * np.timedelta64(minutes, "m")
    jump = pick(steps)
    times[jump:] += np.timedelta64(minutes * pick(3), "m")  # a gap, perhaps
    values = torch.arange(1.0, steps * nodes + 1).view(steps, nodes, 1)
    mask = torch.tensor([pick(8) > 0 for _ in range(values.numel())]).view_as(values)
    edge = torch.tensor([[pick(nodes) for _ in range(3)] for _ in range(2)])
    return {
        "values": values,
        "mask": mask if pick(2) else None,
        "edge_index": edge if pick(2) else None,
        "edge_weight": None,
        "names": [f"s{i}" for i in range(nodes)] if pick(2) else None,
        "channels": ("speed",),
        "units": ("mph",),
        "step_minutes": minutes,
        "times": times if pick(2) else None,
        "days_per_week": 7 - 2 * pick(2),
        "pos": torch.zeros(nodes, 2) if pick(2) else None,
        "drop_dead": bool(pick(2)),
    }


def check_series(series: TrafficSeries) -> None:
    assert series.values.shape == series.mask.shape
    assert series.values[series.mask].isfinite().all()
    assert series.values[~series.mask].isnan().all()
    assert series.mask.any(dim=0).all()
    if series.edge_index.numel():
        assert 0 <= int(series.edge_index.min()) <= int(series.edge_index.max()) < series.num_nodes
    assert series.edge_weight.shape == series.edge_index.shape[1:]
    assert isinstance(repr(series), str)


def make_series(pick: Pick) -> None:
    tensors = {"values", "mask", "edge_index", "edge_weight", "pos", "times"}
    series = TrafficSeries(**odd(pick, series_arguments(pick), tensors))
    check_series(series)
    parts = [[0.5, 0.5], [1.0], [0.7, 0.1, 0.2], [3, 4], [tensor(pick)], [ODD[pick(len(ODD))]]]
    for part in series.split(*parts[pick(len(parts))], overlap=[0, 1, -1, 5][pick(4)]):
        assert 0 < part.num_steps <= series.num_steps
    if pick(2):
        check_series(series.select(tensor(pick)))


def make_windows(pick: Pick) -> None:
    made = {**series_arguments(pick), "mask": None}
    series = TrafficSeries(**made)
    arguments = {
        "series": series,
        "input_steps": 1 + pick(6),
        "output_steps": 1 + pick(4),
        "scaler": StandardScaler(torch.ones(1), torch.ones(1)) if pick(2) else None,
        "target_channel": 0,
        "scale_target": False,
        "stride": 1 + pick(3),
        "days": pick(3),
        "weeks": pick(2),
        "within_day": bool(pick(2)),
    }
    windows = WindowDataset(**odd(pick, arguments, set()))
    first, last = windows[0], windows[-1]
    assert first.x.shape == last.x.shape == (sum(windows.parts), *series.values.shape[1:])
    assert first.y.shape == last.mask.shape == (windows.output_steps, series.num_nodes)
    assert first.x.isfinite().all()
    windows[ODD[pick(len(ODD))]]


def make_edges(pick: Pick) -> None:
    kernel = {"sigma2": 0.1, "threshold": 0.5, "scale": 1e4}
    weigh = GaussianAdjacency(**odd(pick, kernel, set()))
    function = pick(4)
    if function == 0:
        weight: Tensor = weigh(tensor(pick))
        assert ((weight >= 0) & (weight <= 1)).all()
        return
    if function == 1:
        given = {"links": torch.tensor([[0, 1], [1, 2]]), "distance": torch.tensor([350.0, 400.0])}
        changed = odd(pick, given, set(given))
        index, weight = links_to_edges(**changed, kernel=weigh if pick(2) else None)
    else:
        matrix = torch.tensor([[0.0, 900.0], [900.0, 0.0]])
        matrix = tensor(pick) if pick(2) else matrix
        if function == 2:
            index, weight = adjacency_to_edges(matrix)
        else:
            values = ["metres", "weights", None, ODD[pick(len(ODD))]][pick(4)]
            index, weight = distances_to_edges(matrix, weigh, values)
    assert index.dtype == torch.long
    assert index.shape == (2, len(weight))
    assert ((weight > 0) & weight.isfinite()).all()


def scale(pick: Pick) -> None:
    if pick(2):
        scaler = StandardScaler(tensor(pick), tensor(pick))
    else:
        scaler = StandardScaler.fit(TrafficSeries(**series_arguments(pick)))
    x = tensor(pick)
    scaled = scaler.transform(x)
    assert scaled.shape == x.shape


def target(function: Callable[[Pick], None]) -> Callable[[Pick], str]:
    def run(pick: Pick) -> str:
        try:
            function(pick)
        except REFUSALS as error:
            if type(error) not in REFUSALS:
                raise
            return "refused"
        return "made"

    return run


TARGETS = {
    "TrafficSeries": target(make_series),
    "WindowDataset": target(make_windows),
    "road graphs": target(make_edges),
    "StandardScaler": target(scale),
}
