"""Generated protein graphs of the shape of PPI."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data, InMemoryDataset

from pyg_stkd import checks
from pyg_stkd.datasets.proteins.interactome import interactome

__all__ = ["SyntheticProteins"]

Array = NDArray[np.float64]

# Nodes of the 24 tissue graphs of PPI: counts of its `{train,valid,test}_graph_id.npy`.
PPI_SIZES = (1767, 1377, 2263, 2339, 1578, 1021, 1823, 2488, 591, 3312, 2401, 1878,
             1819, 3480, 2794, 2326, 2650, 2815, 3163, 3021, 3230, 3284, 3224, 2300)  # fmt: skip

NUM_FEATURES, NUM_LABELS = 50, 121
MODULES, LATENT = 24, 4  # functional modules, shared by all graphs, and the width of their profile
VIEWS, VIEW_WIDTH, HIDDEN = 4, 2, 64  # neighbourhood views, and the width of the label function
SHARPNESS, GAIN = 2.0, 1.0  # standard deviation of the attention logits and of tanh's input
HIDDEN_SHARE = 0.4  # share of the proteins without any feature (42 % in PPI)
PROFILE_NOISE, FEATURE_NOISE = 1.0, 0.1  # of a protein's profile, and of each feature


class SyntheticProteins(InMemoryDataset):
    r"""A generated twin of PPI (`"Inductive Representation Learning on Large Graphs"
    <https://arxiv.org/abs/1706.02216>`_, Section 4.3): 24 graphs with the true node counts, 50
    features and 121 labels, made in the constructor from a seed, without any file.

    It has the **shape** of PPI and a task of the same kind; figures measured on it say nothing
    about PPI itself. Proteins belong to up to three of 24 functional modules, which all graphs
    share. Edges follow a degree-corrected block model with overlapping modules: both ends are
    drawn in proportion to a log-normal propensity (heavy-tailed degrees with the mean of PPI,
    27.87), inside one module for 85 % of the edges. With module profiles :math:`\mathbf{z}_i`
    the features are :math:`\mathbf{x}_i = v_i (\mathbf{P}^{\top} (\mathbf{z}_i + \eta_i) +
    \epsilon_i)` with noise :math:`\eta, \epsilon`, and :math:`v_i = 0` for 40 % of the proteins.
    A label is a threshold on one fixed network

    .. math::
        \mathbf{s}_i = \mathbf{W}^{\top} \tanh\Big(\mathbf{U}^{\top}
        \Big[ \mathbf{A}_0 \mathbf{x}_i \,\Vert\,
        \sum_j \alpha^{1}_{ij} \mathbf{A}_1 \mathbf{x}_j \,\Vert\, \dots \,\Vert\,
        \sum_j \bar{\alpha}_{ij} \sum_k \bar{\alpha}_{jk} \mathbf{A}_3 \mathbf{x}_k \Big]
        + \mathbf{b} \Big)

    of a protein's own features (a small part), of attention-weighted means over its neighbours,
    and of the mean over its neighbours' neighbours (:math:`\bar{\alpha}` uniform; all means
    include the protein itself). Most of what decides a label is thus out of reach of a model
    that does not see the graph. The thresholds aim at label frequencies between 0.05 and 0.9,
    about 37 labels a protein; a seed's own graphs scatter around that.

    The label function depends on the seed alone and graph number *i* on the seed, the scale and
    *i*: the task is inductive, and a graph is bit for bit the same in whichever call it appears.
    Graphs are undirected and coalesced, without self-loops; some proteins are isolated.

    Args:
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`: graphs 1-20, 21-22
            and 23-24 of 24; or :obj:`"extra"`: further graphs of the same task, none of which is
            in another split, to distil on without their labels. (default: :obj:`"train"`)
        scale (float, optional): Factor on the node count of every graph; at least 16 nodes
            remain. The mean degree stays, up to half of a complete graph. (default: :obj:`1.0`)
        seed (int, optional): The seed of everything. (default: :obj:`0`)
        num_graphs (int, optional): The number of graphs of all three splits together, at least
            3: a twelfth each (one at least) for validation and test. Sizes repeat after 24. Splits
            of one task must be asked for with one number: among 96 graphs, those that are for
            validation and test of 24 are training graphs. Of :obj:`"extra"`, the number of its own
            graphs, at least 1. (default: :obj:`24`)
        transform (callable, optional): Applied to a :class:`~torch_geometric.data.Data` at every
            access. (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(|\mathcal{V}|, 50)`, float32
        - **y:** :math:`(|\mathcal{V}|, 121)`, float32 of 0 and 1
        - **edge_index:** :math:`(2, |\mathcal{E}|)`, int64, both directions

    Raises:
        TypeError: If :obj:`seed` or :obj:`num_graphs` is no integer or :obj:`scale` no number.
        ValueError: If an argument is out of its range.

    Example:
        >>> from pyg_stkd.datasets import SyntheticProteins
        >>> dataset = SyntheticProteins("val", scale=0.02)
        >>> dataset
        SyntheticProteins(2)
        >>> [data.num_nodes for data in dataset], dataset.num_features, dataset.num_classes
        ([65, 66], 50, 121)
        >>> dataset[0].is_undirected(), dataset[0].has_self_loops()
        (True, False)
    """

    def __init__(
        self,
        split: str = "train",
        scale: float = 1.0,
        seed: int = 0,
        num_graphs: int = len(PPI_SIZES),
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        checks.choice("split", split, ("train", "val", "test", "extra"))
        checks.number("scale", scale, above=0)
        checks.count("seed", seed, least=0)
        checks.count("num_graphs", num_graphs, least=1 if split == "extra" else 3)
        self.split, self.scale, self.seed, self.num_graphs = split, scale, seed, num_graphs
        super().__init__(None, transform)
        held_out = max(1, num_graphs // 12)
        start, stop = {
            "extra": (0, num_graphs),
            "train": (0, num_graphs - 2 * held_out),
            "val": (num_graphs - 2 * held_out, num_graphs - held_out),
            "test": (num_graphs - held_out, num_graphs),
        }[split]
        self.data, self.slices = self.collate([self._generate(i) for i in range(start, stop)])

    def get(self, idx: int) -> Data:
        data = super().get(idx)
        data.edge_index = data.edge_index.contiguous()  # PyG gives a slice of all graphs' edges
        return data

    def _generate(self, index: int) -> Data:
        num_nodes = max(16, round(PPI_SIZES[index % len(PPI_SIZES)] * self.scale))
        task = _Task.of(self.seed)
        stream = 3 if self.split == "extra" else 1  # never a graph of another split
        x, edge_index = task.graph(num_nodes, np.random.default_rng([self.seed, stream, index]))
        return Data(
            x=torch.from_numpy(x).float(),
            edge_index=torch.from_numpy(edge_index),
            y=torch.from_numpy(task.score(x, edge_index) > task.threshold).float(),
        )


@dataclass
class _Task:
    """What all graphs of a seed share: modules, feature map and label function."""

    profile: Array  # [M, D] of the modules
    to_x: Array  # [D, F]
    query: Array  # [F, V] attention of each view
    view: Array  # [V + 2, F, d] own, views, two hops
    inner: Array  # [(V + 2) * d, K]
    bias: Array  # [K]
    outer: Array  # [K, L]
    center: Array | float = 0.0  # of the views, [(V + 2) * d]
    spread: Array | float = 1.0
    threshold: Array | float = 0.0  # [L]

    @staticmethod
    @lru_cache(maxsize=8)
    def of(seed: int) -> _Task:
        rng = np.random.default_rng([seed, 0])
        width = (VIEWS + 2) * VIEW_WIDTH
        # own features, views, two hops: their parts in the label function
        part = np.repeat([0.3, *[1.0] * VIEWS, 0.7], VIEW_WIDTH)[:, None]
        profile = rng.standard_normal((MODULES, LATENT))
        to_x = rng.standard_normal((LATENT, NUM_FEATURES)) / math.sqrt(LATENT)
        query = rng.standard_normal((NUM_FEATURES, VIEWS))
        query *= SHARPNESS / (profile @ to_x @ query).std(axis=0)
        task = _Task(
            profile=profile,
            to_x=to_x,
            query=query,
            view=rng.standard_normal((VIEWS + 2, NUM_FEATURES, VIEW_WIDTH)),
            inner=part * rng.standard_normal((width, HIDDEN)) * GAIN / math.sqrt(width),
            bias=rng.uniform(-1.0, 1.0, HIDDEN),
            outer=rng.standard_normal((HIDDEN, NUM_LABELS)) / math.sqrt(HIDDEN),
        )
        # from 0.05 to 0.9, mean 0.31: 37 labels a protein
        frequency = rng.permutation(0.05 + 0.85 * np.linspace(0, 1, NUM_LABELS) ** 2.3)
        # Reference graphs of their own fix scales and thresholds: no graph depends on another.
        reference = [task.graph(800, np.random.default_rng([seed, 2, i])) for i in range(3)]
        views = np.concatenate([task.views(*graph) for graph in reference])
        task.center, task.spread = views.mean(axis=0), views.std(axis=0)
        score = np.concatenate([task.score(*graph) for graph in reference])
        task.threshold = np.array(
            [np.quantile(s, 1 - f) for s, f in zip(score.T, frequency, strict=True)]
        )
        return task

    def graph(self, num_nodes: int, rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
        popularity = rng.dirichlet(np.full(MODULES, 2.0))  # a tissue uses some modules more
        module = rng.choice(MODULES, size=(num_nodes, 3), p=popularity)  # [N, 3]
        member = rng.dirichlet([3.0, 1.5, 0.5], size=num_nodes)  # [N, 3]
        edge_index = interactome(module, member, MODULES, rng)
        z = np.einsum("nk,nkd->nd", member, self.profile[module])
        z += PROFILE_NOISE * rng.standard_normal(z.shape)
        x = _matmul(z, self.to_x) + FEATURE_NOISE * rng.standard_normal((num_nodes, NUM_FEATURES))
        x[rng.random(num_nodes) < HIDDEN_SHARE] = 0.0
        return x.astype(np.float32).astype(np.float64), edge_index  # labels see what models see

    def views(self, x: Array, edge_index: NDArray[np.int64]) -> Array:
        loops = np.arange(len(x))
        source = np.concatenate([edge_index[0], loops])
        target = np.concatenate([edge_index[1], loops])
        order = np.argsort(target, kind="stable")
        source, start = source[order], np.searchsorted(target[order], loops)

        def mean(value: Array, weight: Array) -> Array:
            total = np.add.reduceat((weight[:, None] * value)[source], start, axis=0)  # [N, d]
            return total / np.add.reduceat(weight[source], start)[:, None]

        weight = np.exp(_matmul(x, self.query))  # [N, V]
        uniform = np.ones(len(x))
        own, *near, far = (_matmul(x, view) for view in self.view)
        near = [mean(value, w) for value, w in zip(near, weight.T, strict=True)]
        return np.concatenate([own, *near, mean(mean(far, uniform), uniform)], axis=1)

    def score(self, x: Array, edge_index: NDArray[np.int64]) -> Array:
        views = (self.views(x, edge_index) - self.center) / self.spread
        return _matmul(np.tanh(_matmul(views, self.inner) + self.bias), self.outer)  # [N, L]


def _matmul(a: Array, b: Array) -> Array:
    # not BLAS, whose last bits change with the number of threads
    return np.asarray(np.einsum("nf,fk->nk", a, b))
