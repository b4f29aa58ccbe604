"""PCG, HumLoc and EukLoc: protein graphs with multi-label targets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.utils import index_to_mask, to_undirected

from pyg_stkd.files import read_npz

__all__ = ["Proteins"]

SOURCE = "https://github.com/Tianqi-py/MLGNC"
NUM_SPLITS = {"pcg": 3, "humloc": 1, "eukloc": 1}
_LARGEST = np.finfo(np.float32).max
PARTS = ("train", "val", "test")


class Proteins(InMemoryDataset):
    r"""The protein graphs PCG (phenotypes), HumLoc and EukLoc (locations in human and eukaryote
    cells) with multi-label targets of `"Multi-label Node Classification on Graph-Structured
    Data" <https://arxiv.org/abs/2304.10398>`_ (Zhao et al., TMLR 2023), from a local folder.

    One transductive graph each. The arrays are those of the paper's repository,
    https://github.com/Tianqi-py/MLGNC, stored as ``{name}.npz``: ``x`` :math:`(N, F)`, ``y``
    :math:`(N, L)` of 0 and 1, ``edge_index`` :math:`(2, E)`, for HumLoc and EukLoc ``edge_attr``
    :math:`(E, D)`, and the node indices ``train_idx``, ``val_idx``, ``test_idx`` (PCG: one of
    each for the splits 0, 1 and 2, ``train_idx_0`` and so on). Nothing is written to
    :obj:`root`, nothing is unpickled.

    PCG holds both directions of each edge; that is checked. HumLoc and EukLoc hold an edge once
    (a few both ways): both directions are made, both carry the edge's attributes, and the
    attributes of duplicates are averaged. Self-loops stay.

    Args:
        root (str): The folder with the file.
        name (str): :obj:`"pcg"`, :obj:`"humloc"` or :obj:`"eukloc"`.
        split (int, optional): The random split, 0 to 2; HumLoc and EukLoc have only split 0.
            (default: :obj:`0`)
        transform (callable, optional): Applied to the :class:`~torch_geometric.data.Data` at
            every access. (default: :obj:`None`)
        standardize (bool, optional): Shift and scale each feature to mean 0 and standard
            deviation 1 over the training nodes. (default: :obj:`True`)

    Shapes:
        - **x:** :math:`(|\mathcal{V}|, 32)`, float32
        - **y:** :math:`(|\mathcal{V}|, L)`, float32, with :math:`L` = 15, 14, 22
        - **edge_index:** :math:`(2, |\mathcal{E}|)`, int64, sorted, both directions
        - **edge_attr:** :math:`(|\mathcal{E}|, D)`, float32, with :math:`D` = 21 (HumLoc), 19
          (EukLoc); PCG has none
        - **train_mask, val_mask, test_mask:** :math:`(|\mathcal{V}|)`, bool

    Raises:
        FileNotFoundError: If the folder or the file is missing.
        ValueError: If an argument is out of its range or the file is damaged.

    Example:
        >>> import numpy as np, tempfile
        >>> from pyg_stkd.datasets import Proteins
        >>> root = tempfile.mkdtemp()
        >>> np.savez(f"{root}/humloc.npz", x=np.eye(3), y=np.eye(3), edge_index=[[0], [1]],
        ...          edge_attr=[[0.5]], train_idx=[0], val_idx=[1], test_idx=[2])
        >>> Proteins(root, "humloc")[0].edge_index
        tensor([[0, 1],
                [1, 0]])
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str,
        split: int = 0,
        transform: Callable[[Data], Data] | None = None,
        standardize: bool = True,
    ) -> None:
        self.name = str(name).lower()
        if self.name not in NUM_SPLITS:
            raise ValueError(f"'name' must be one of {', '.join(NUM_SPLITS)} (got {name!r})")
        if isinstance(split, bool) or split not in range(NUM_SPLITS[self.name]):
            allowed = ", ".join(map(str, range(NUM_SPLITS[self.name])))
            raise ValueError(f"'split' of {self.name!r} must be one of {allowed} (got {split!r})")
        self.split = split
        path = _find(Path(root), self.name)
        super().__init__(None, transform)
        self.data, self.slices = self.collate([_Archive(path, split).graph(standardize)])

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.name!r}, split={self.split})"


def _find(root: Path, name: str) -> Path:
    path = root / f"{name}.npz"
    if not path.is_file():
        missing = "no such folder" if not root.is_dir() else f"'{name}.npz' is not in it"
        files = ", ".join(f"{n}.npz" for n in NUM_SPLITS)
        raise FileNotFoundError(
            f"'root' must be a folder with {name}.npz (got '{root}': {missing}). The files "
            f"{files} hold the arrays of the data folder of {SOURCE}; the documentation of "
            f"Proteins lists their keys"
        )
    return path


class _Archive:
    """The arrays of one file, each checked as it is taken."""

    def __init__(self, path: Path, split: int) -> None:
        self.path = path
        suffix = f"_{split}" if path.stem == "pcg" else ""
        self.parts = {part: f"{part}_idx{suffix}" for part in PARTS}
        self.arrays = read_npz(
            path, "x", "y", "edge_index", *self.parts.values(), optional=["edge_attr"]
        )

    def take(self, key: str, ndim: int) -> NDArray[np.generic]:
        array = self.arrays[key]
        if array.ndim != ndim or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{key!r} of '{self.path}' must be a numeric array with {ndim} dimensions "
                f"(got shape {array.shape} of {array.dtype})"
            )
        if array.dtype.kind == "f" and (odd := ~(np.abs(array) <= _LARGEST)).any():
            raise ValueError(
                f"{key!r} of '{self.path}' must be finite in float32 (got "
                f"{np.count_nonzero(odd)} values that are not)"
            )
        return array

    def index(self, key: str, ndim: int, num_nodes: int) -> Tensor:
        array = self.take(key, ndim)
        if array.size and (array.min() < 0 or array.max() >= num_nodes or array.dtype.kind == "f"):
            raise ValueError(
                f"{key!r} of '{self.path}' must hold node indices 0 to {num_nodes - 1} "
                f"(got {array.dtype} values from {array.min()} to {array.max()})"
            )
        return torch.from_numpy(array.astype(np.int64))

    def rows(self, key: str, num_rows: int, of: str) -> Tensor:
        array = self.take(key, ndim=2)
        if len(array) != num_rows:
            raise ValueError(
                f"{key!r} of '{self.path}' must have a row for each of the {num_rows} {of} "
                f"(got {len(array)})"
            )
        return torch.from_numpy(array.astype(np.float64))

    def graph(self, standardize: bool) -> Data:
        x = torch.from_numpy(self.take("x", ndim=2).astype(np.float64))
        num_nodes = x.size(0)
        data = Data(y=self.rows("y", num_nodes, "nodes").float())
        if not ((data.y == 0) | (data.y == 1)).all():
            raise ValueError(f"'y' of '{self.path}' must hold 0 and 1 only")

        index = {part: self.index(key, 1, num_nodes) for part, key in self.parts.items()}
        for part in PARTS:
            data[f"{part}_mask"] = index_to_mask(index[part], num_nodes)
        members = sum(data[f"{part}_mask"].long() for part in PARTS)
        if isinstance(members, Tensor) and (members > 1).any():
            raise ValueError(
                f"the splits of '{self.path}' must not overlap "
                f"(got {int((members > 1).sum())} nodes in more than one)"
            )

        if standardize and index["train"].numel():
            seen = x[data.train_mask]
            std = seen.std(dim=0, unbiased=False)
            x = (x - seen.mean(dim=0)) / torch.where(std > 0, std, 1.0)
        data.x = x.float()
        if not data.x.isfinite().all():
            raise ValueError(
                f"'x' of '{self.path}' must be finite in units of the training nodes' standard "
                f"deviation (got {int((~data.x.isfinite()).sum())} values that are not)"
            )
        self._add_edges(data, num_nodes)
        return data

    def _add_edges(self, data: Data, num_nodes: int) -> None:
        edge_index = self.index("edge_index", 2, num_nodes)
        if edge_index.size(0) != 2:
            raise ValueError(
                f"'edge_index' of '{self.path}' must have two rows "
                f"(got shape {tuple(edge_index.shape)})"
            )
        attr = None
        if "edge_attr" in self.arrays:
            attr = self.rows("edge_attr", edge_index.size(1), "edges")
        both = to_undirected(edge_index, attr, num_nodes, reduce="mean")
        data.edge_index = both if isinstance(both, Tensor) else both[0]
        if not isinstance(both, Tensor):
            data.edge_attr = None if attr is None else both[1].float()
        if self.path.stem == "pcg" and data.num_edges != edge_index.size(1):
            raise ValueError(
                f"'edge_index' of '{self.path}' must hold both directions of each edge once "
                f"(got {edge_index.size(1)} entries for {data.num_edges} directed edges)"
            )
