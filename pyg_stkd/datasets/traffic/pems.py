"""Loaders of PeMSD4 and PeMSD8, as links and flows; they read the official files, never write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pyg_stkd.datasets.traffic.adjacency import GaussianAdjacency, in_float32, links_to_edges
from pyg_stkd.datasets.traffic.series_checks import check_range, number_stations, of_file
from pyg_stkd.datasets.traffic.traffic_files import find_file, read_ids, read_links, read_signal
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries

__all__ = ["PeMSD4", "PeMSD8"]

_FEATURES = {
    1: (("flow",), ("vehicles / 5 min",)),
    3: (("flow", "occupancy", "speed"), ("vehicles / 5 min", "share of time", "mph")),
}

_MOST = {"flow": 1e4, "occupancy": 1.0, "speed": 200.0}


class PeMSD4(TrafficSeries):
    r"""PeMSD4 of `"Attention Based Spatial-Temporal Graph Convolutional Networks for Traffic Flow
    Forecasting" <https://ojs.aaai.org/index.php/AAAI/article/view/3881>`_: flow, occupancy and
    speed of 307 stations in the San Francisco Bay Area from 1 January to 28 February 2018, every
    5 minutes.

    Reads, from :obj:`root` or :obj:`root/raw`, :obj:`pems04.npz` with :obj:`distance.csv` (the
    names of ASTGCN) or :obj:`PEMS04.npz` with :obj:`PEMS04.csv` (of STSGCN), and the id list
    :obj:`PEMS04.txt` if it is there. The stations of the links may be numbered from 0, from 1, or
    by the ids of that list. Empty (NaN) entries are missing, and so are a speed of zero and a step
    at which all three features are zero; a flow of zero alone is a reading.

    Args:
        root (str or Path): The folder with the files; nothing is written to it.
        kernel (GaussianAdjacency, optional): Makes edge weights from the distances in metres.
            :obj:`None`: ones, as STSGCN and ASTGCN have it. (default: :obj:`None`)
        undirected (bool): Also add the reverse of a link that is listed one way only.
            (default: :obj:`True`)
        signal (str, optional): Another name of the archive. (default: :obj:`None`)
        drop_dead (bool): Leave out stations without any reading instead of raising.
            (default: :obj:`False`)

    Shapes:
        - **values:** :math:`[16992, 307, 3]`: flow in vehicles per 5 minutes, occupancy as a share
          of time, speed in mph

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is damaged, they do not fit each other, or a reading is below 0 or
            above 10,000 vehicles, a share of 1, or 200 mph.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     np.savez(f"{root}/pems04.npz", data=np.ones((4, 2, 3)))
        ...     _ = Path(f"{root}/distance.csv").write_text("from,to,cost\n0,1,350.5\n")
        ...     series = PeMSD4(root)
        >>> series.channels, series.edge_index.tolist()
        (('flow', 'occupancy', 'speed'), [[0, 1], [1, 0]])
    """

    _stem = "pems04"
    _start = "2018-01-01"

    def __init__(
        self,
        root: str | Path,
        kernel: GaussianAdjacency | None = None,
        *,
        undirected: bool = True,
        signal: str | None = None,
        drop_dead: bool = False,
    ) -> None:
        stem = self._stem
        path = find_file(root, *((signal,) if signal else (f"{stem}.npz", f"{stem.upper()}.npz")))
        data = read_signal(path)
        if data.shape[2] not in _FEATURES:
            raise ValueError(
                f"'data' of '{path}' must be [T, N, C]: time steps, stations, and C = 1 or 3 "
                f"features (got shape {data.shape})"
            )
        channels, units = _FEATURES[data.shape[2]]
        for c, (channel, unit) in enumerate(zip(channels, units, strict=True)):
            check_range(path, channel, data[..., c], _MOST[channel], unit)
        data = data.astype(np.float32)
        graph = find_file(root, "distance.csv", f"{stem.upper()}.csv", f"{stem}.csv")
        ids, cost = read_links(graph)
        try:
            known = read_ids(find_file(root, f"{stem.upper()}.txt", f"{stem}.txt"))
        except FileNotFoundError:
            known = None
        try:
            links = torch.from_numpy(number_stations(ids, data.shape, known)).t()
            edges = links_to_edges(links, torch.from_numpy(cost), kernel, undirected)
        except ValueError as error:
            raise of_file(graph, error) from error
        try:
            super().__init__(
                data,
                _observed(data),
                *in_float32(*edges),
                names=None if known is None else [str(i) for i in known],
                channels=channels,
                units=units,
                times=self._start,
                drop_dead=drop_dead,
            )
        except ValueError as error:
            raise of_file(path, error) from error


class PeMSD8(PeMSD4):
    r"""PeMSD8 of `"Attention Based Spatial-Temporal Graph Convolutional Networks for Traffic Flow
    Forecasting" <https://ojs.aaai.org/index.php/AAAI/article/view/3881>`_: flow, occupancy and
    speed of 170 stations in the San Bernardino area from 1 July to 31 August 2016, every 5 minutes.

    The files are :obj:`pems08.npz` with :obj:`distance.csv`, or :obj:`PEMS08.npz` with
    :obj:`PEMS08.csv`, and the id list :obj:`PEMS08.txt` if it is there. What counts as missing is
    that of :class:`PeMSD4`.

    Args:
        root (str or Path): The folder with the files; nothing is written to it.
        kernel (GaussianAdjacency, optional): Makes edge weights from the distances in metres.
            :obj:`None`: ones, as STSGCN and ASTGCN have it. (default: :obj:`None`)
        undirected (bool): Also add the reverse of a link that is listed one way only.
            (default: :obj:`True`)
        signal (str, optional): Another name of the archive. (default: :obj:`None`)
        drop_dead (bool): Leave out stations without any reading instead of raising.
            (default: :obj:`False`)

    Shapes:
        - **values:** :math:`[17856, 170, 3]`: flow in vehicles per 5 minutes, occupancy as a share
          of time, speed in mph

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is damaged, they do not fit each other, or a reading is below 0 or
            above 10,000 vehicles, a share of 1, or 200 mph.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     np.savez(f"{root}/PEMS08.npz", data=np.ones((4, 2, 3)))
        ...     _ = Path(f"{root}/PEMS08.csv").write_text("from,to,cost\n9,7,350.5\n")
        ...     _ = Path(f"{root}/PEMS08.txt").write_text("7\n9\n")
        ...     PeMSD8(root, undirected=False).edge_index.tolist()
        [[1], [0]]
    """

    _stem = "pems08"
    _start = "2016-07-01"


def _observed(data: np.ndarray) -> np.ndarray:
    mask = ~np.isnan(data)
    if data.shape[2] == 3:
        mask &= ~(data == 0).all(axis=2, keepdims=True)
        mask[..., 2] &= data[..., 2] != 0
    return mask
