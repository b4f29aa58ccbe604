"""The loader of PeMSD7, as matrices of distances and speeds; it reads the files, never writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pyg_stkd.datasets.traffic.adjacency import (
    GaussianAdjacency,
    adjacency_to_edges,
    distances_to_edges,
)
from pyg_stkd.datasets.traffic.series_checks import axis_hint, check_matrix, speed_readings
from pyg_stkd.datasets.traffic.traffic_files import (
    find_file,
    read_sparse,
    read_stations,
    read_table,
)
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries


class PeMSD7(TrafficSeries):
    r"""PeMSD7(M) and PeMSD7(L) of `"Spatio-Temporal Graph Convolutional Networks"
    <https://arxiv.org/abs/1709.04875>`_: speeds in mph of 228 or 1,026 stations in California's
    District 7 on the 44 working days of May and June 2012, every 5 minutes.

    Reads, from :obj:`root` or :obj:`root/raw`, the first of these pairs that is there:
    :obj:`PeMSD7_V_228.csv` and :obj:`PeMSD7_W_228.csv`; :obj:`V_228.csv` and :obj:`W_228.csv`;
    :obj:`vel.csv` and :obj:`adj.npz` (weights made by `hazdzz/STGCN`, taken as they are). Station
    names and coordinates come from :obj:`PeMSD7_M_Station_Info.csv` if that is there.
    Zeros and empty fields are missing readings.

    Args:
        root (str or Path): The folder with the files; nothing is written to it.
        num_nodes (int): :obj:`228` for (M), :obj:`1026` for (L). (default: :obj:`228`)
        kernel (GaussianAdjacency, optional): Makes edge weights from the distances. :obj:`None`:
            STGCN's. (default: :obj:`None`)
        drop_dead (bool): Leave out stations without any reading instead of raising.
            (default: :obj:`False`)

    Shapes:
        - **values:** :math:`[T, N, 1]`, :math:`T = 12672`

    Raises:
        FileNotFoundError: If no pair of files is there.
        ValueError: If a file is corrupt or truncated or the two do not fit each other.

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
    ) -> None:
        speed = find_file(root, f"PeMSD7_V_{num_nodes}.csv", f"V_{num_nodes}.csv", "vel.csv")
        table, header = read_table(speed, id_header=True)
        if table.shape[1] != num_nodes:
            raise ValueError(
                f"{speed} must be [T, N]: a row a time step, a column for each of the N = "
                f"{num_nodes} stations{axis_hint((*table.shape, 1), num_nodes)} (got {table.shape})"
            )
        if speed.name == "vel.csv":
            graph = find_file(root, "adj.npz")
            matrix = read_sparse(graph, num_nodes)
        else:
            graph = find_file(root, speed.name.replace("V_", "W_"))
            matrix, _ = read_table(graph)
        check_matrix(graph, matrix, num_nodes)
        dense = torch.from_numpy(matrix)
        try:
            if graph.name == "adj.npz":
                edge_index, edge_weight = adjacency_to_edges(dense)
            else:
                edge_index, edge_weight = distances_to_edges(dense, kernel)
        except ValueError as error:
            raise ValueError(f"{graph}: {error}") from error
        names, pos = header, None
        info = f"PeMSD7_{'L' if num_nodes == 1026 else 'M'}_Station_Info.csv"
        if (speed.parent / info).is_file():
            names, place = read_stations(speed.parent / info)
            pos = torch.from_numpy(place)
        values, mask = speed_readings(table)
        steps = np.arange(len(values))
        first = np.array(["2012-05-01"], dtype="datetime64[D]")
        days = np.busday_offset(first, steps // 288, roll="forward").astype("datetime64[m]")
        super().__init__(
            values,
            mask,
            edge_index,
            edge_weight.float(),
            names=names,
            times=days + steps % 288 * np.timedelta64(5, "m"),
            days_per_week=5,
            pos=pos,
            drop_dead=drop_dead,
        )
