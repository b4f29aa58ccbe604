"""One week of METR-LA."""

from __future__ import annotations

from pathlib import Path

import torch

from pyg_stkd.datasets.tables import read_table
from pyg_stkd.datasets.traffic.adjacency import adjacency_to_edges, in_float32
from pyg_stkd.datasets.traffic.series_checks import (
    check_matrix,
    check_weights,
    of_file,
    speed_readings,
)
from pyg_stkd.datasets.traffic.traffic_files import find_file
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries

__all__ = ["METRLAWeek"]


class METRLAWeek(TrafficSeries):
    r"""METR-LA-week: one week of METR-LA, speeds in mph of 207 detectors in Los Angeles County
    from 1 to 7 March 2012, every 5 minutes, as released with `"T-GCN"
    <https://arxiv.org/abs/1811.05320>`_ under the name Los-loop.

    Reads :obj:`los_speed.csv` (its first row names the sensors) and :obj:`los_adj.csv` (Gaussian
    weights, taken as they are) from :obj:`root` or :obj:`root/raw`. Zeros, empty fields, ``-``,
    ``NA``, ``NaN`` and ``NULL`` are missing readings; in the released files the authors have
    interpolated them away.
    Results are not comparable with those on the four months of METR-LA.

    Args:
        root (str or Path): The folder with the files; nothing is written to it.
        drop_dead (bool): Leave out sensors without any reading instead of raising.
            (default: :obj:`False`)

    Shapes:
        - **values:** :math:`[2016, 207, 1]`

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is damaged, the two do not fit each other, a speed is below 0 or
            above 200, or a weight above 1.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     _ = Path(f"{root}/los_speed.csv").write_text("773869,767541\n64.4,67.6\n")
        ...     _ = Path(f"{root}/los_adj.csv").write_text("1,0.26\n0.26,1\n")
        ...     METRLAWeek(root)
        METRLAWeek(T=1, N=2, C=1, edges=2, missing=0.0 %, 5 min, speed [mph])
    """

    def __init__(self, root: str | Path, drop_dead: bool = False) -> None:
        speed = find_file(root, "los_speed.csv")
        graph = find_file(root, "los_adj.csv")
        table, header = read_table(speed, missing=True, id_header=True)
        matrix = read_table(graph, columns=table.shape[1]).values
        check_matrix(graph, matrix, table.shape[1])
        check_weights(graph, matrix)
        edges = in_float32(*adjacency_to_edges(torch.from_numpy(matrix)))
        try:
            super().__init__(
                *speed_readings(table, speed),
                *edges,
                names=header,
                times="2012-03-01",
                drop_dead=drop_dead,
            )
        except ValueError as error:
            raise of_file(speed, error) from error
