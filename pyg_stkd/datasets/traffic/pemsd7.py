"""The loader of PeMSD7, as matrices of distances and speeds; it reads the files, never writes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.datasets.tables import read_table
from pyg_stkd.datasets.traffic.adjacency import (
    GaussianAdjacency,
    distances_to_edges,
    in_float32,
)
from pyg_stkd.datasets.traffic.series_checks import (
    axis_hint,
    check_distance_matrix,
    check_matrix,
    check_weights,
    of_file,
    speed_readings,
)
from pyg_stkd.datasets.traffic.traffic_files import find_file, read_sparse, read_stations
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries

__all__ = ["PeMSD7"]

Values = Literal["metres", "weights"] | None


class PeMSD7(TrafficSeries):
    r"""PeMSD7(M) and PeMSD7(L) of `"Spatio-Temporal Graph Convolutional Networks"
    <https://arxiv.org/abs/1709.04875>`_: speeds in mph of 228 or 1,026 stations in California's
    District 7 on the 44 working days of May and June 2012, every 5 minutes.

    Reads, from :obj:`root` or :obj:`root/raw`, the first of these pairs that is there:
    :obj:`PeMSD7_V_228.csv` and :obj:`PeMSD7_W_228.csv`; :obj:`V_228.csv` and :obj:`W_228.csv`;
    :obj:`vel.csv` and :obj:`adj.npz` (weights made by `hazdzz/STGCN`, taken as they are). Station
    names and coordinates come from :obj:`PeMSD7_M_Station_Info.csv` if that is there.
    Zeros, empty fields, ``-``, ``NA``, ``NaN`` and ``NULL`` are missing readings.

    Matrices of distances and of weights go by the same names. Where :obj:`values` does not say
    which it is, zeros and ones are taken as weights, and a ``W`` is refused that is no plausible
    matrix of metres: one without an entry of 500 or more (weights, or kilometres), one that is not
    symmetric, or with zeros between stations that are not at one place.

    Args:
        root (str or Path): The folder with the files; nothing is written to it.
        num_nodes (int): :obj:`228` for (M), :obj:`1026` for (L). (default: :obj:`228`)
        kernel (GaussianAdjacency, optional): Makes edge weights from the distances. :obj:`None`:
            STGCN's. (default: :obj:`None`)
        drop_dead (bool): Leave out stations without any reading instead of raising.
            (default: :obj:`False`)
        values (str, optional): What the matrix holds: :obj:`"metres"`, whatever the entries are,
            or :obj:`"weights"` from 0 to 1, taken as they are. :obj:`None`: told from the matrix;
            :obj:`adj.npz` holds weights. (default: :obj:`None`)

    Shapes:
        - **values:** :math:`[T, N, 1]`, :math:`T = 12672`

    Raises:
        FileNotFoundError: If no pair of files is there.
        ValueError: If a file is damaged, two do not fit each other, a speed is below 0 or above
            200, or :obj:`values` is needed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     np.savetxt(f"{root}/V_2.csv", [[60.0, 61.5], [0.0, 62.0]], delimiter=",")
        ...     np.savetxt(f"{root}/W_2.csv", [[0.0, 1500.0], [1500.0, 0.0]], delimiter=",")
        ...     PeMSD7(root, num_nodes=2)
        PeMSD7(T=2, N=2, C=1, edges=2, missing=25.0 %, 5 min, speed [mph])
    """

    def __init__(
        self,
        root: str | Path,
        num_nodes: int = 228,
        kernel: GaussianAdjacency | None = None,
        drop_dead: bool = False,
        values: Values = None,
    ) -> None:
        checks.count("num_nodes", num_nodes)
        checks.choice("values", values, ("metres", "weights", None))
        speed = find_file(root, f"PeMSD7_V_{num_nodes}.csv", f"V_{num_nodes}.csv", "vel.csv")
        table, names = read_table(speed, columns=num_nodes, missing=True, id_header=True)
        if table.shape[1] != num_nodes:
            raise ValueError(
                f"'{speed}' must be [T, N]: a row a time step, a column for each of the N = "
                f"{num_nodes} stations{axis_hint((*table.shape, 1), num_nodes)} (got {table.shape})"
            )
        readings, mask = speed_readings(table, speed)
        pos = None
        info = f"PeMSD7_{'L' if num_nodes == 1026 else 'M'}_Station_Info.csv"
        if (speed.parent / info).is_file():
            names, place = read_stations(speed.parent / info, num_nodes)
            pos = torch.from_numpy(place)
        sparse = speed.name == "vel.csv"
        graph = find_file(root, "adj.npz" if sparse else speed.name.replace("V_", "W_"))
        edges = _edges(graph, num_nodes, kernel, values)
        steps = np.arange(len(readings))
        first = np.array(["2012-05-01"], dtype="datetime64[D]")
        days = np.busday_offset(first, steps // 288, roll="forward").astype("datetime64[m]")
        try:
            super().__init__(
                readings,
                mask,
                *edges,
                names=names,
                times=days + steps % 288 * np.timedelta64(5, "m"),
                days_per_week=5,
                pos=pos,
                drop_dead=drop_dead,
            )
        except ValueError as error:
            raise of_file(speed, error) from error


def _edges(
    graph: Path, num_nodes: int, kernel: GaussianAdjacency | None, values: Values
) -> tuple[Tensor, Tensor]:
    if graph.suffix == ".npz":
        matrix, values = read_sparse(graph, num_nodes), values or "weights"
    else:
        matrix = read_table(graph, columns=num_nodes).values
    check_matrix(graph, matrix, num_nodes)
    if values == "weights":
        check_weights(graph, matrix)
    try:
        edges = distances_to_edges(torch.from_numpy(matrix), kernel, values)
    except ValueError as error:
        raise of_file(graph, error) from error
    if values is None and not (matrix**2 == matrix).all():
        check_distance_matrix(graph, matrix)
    return in_float32(*edges)
