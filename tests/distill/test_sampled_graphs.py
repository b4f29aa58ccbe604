"""Losses on sampled graphs: what a sample says of the whole, for every loader of PyG."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import (
    ClusterData,
    ClusterLoader,
    GraphSAINTNodeSampler,
    GraphSAINTRandomWalkSampler,
    NeighborLoader,
    ShaDowKHopSampler,
)
from torch_geometric.nn import GraphSAGE
from torch_geometric.typing import WITH_TORCH_SPARSE
from torch_geometric.utils import coalesce

from pyg_stkd import Distiller
from pyg_stkd.distill import HintLoss, LSPLoss, SoftTargetLoss, TeacherCache
from pyg_stkd.functional import lsp
from pyg_stkd.kernels import RBF, Cosine

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    pytest.mark.filterwarnings("ignore:Using 'Neighbor.*' without a 'pyg-lib'"),
    pytest.mark.filterwarnings("ignore:Sparse .*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:"),
]
needs_sparse = pytest.mark.skipif(not WITH_TORCH_SPARSE, reason="needs torch-sparse")
N, F, C = 60, 6, 3


def star(neighbours: Tensor) -> Tensor:
    """Return edges from some nodes to node 0."""
    return torch.stack([neighbours, torch.zeros_like(neighbours)])


@pytest.mark.parametrize(("degree", "sampled"), [(6, 2), (6, 3), (6, 5), (8, 4)])
def test_a_soft_structure_is_smaller_in_a_sample_by_a_known_factor(
    degree: int, sampled: int
) -> None:
    # The loss is half a variance among neighbours where structures are soft and students near, and
    # the variance within m of n values, in the mean over samples, is (1 - 1/m) / (1 - 1/n) of it.
    teacher = torch.randn(degree + 1, 4, dtype=torch.float64)
    student = teacher + 1e-3 * torch.randn_like(teacher)
    kernel = RBF(sigma=30.0)
    whole = lsp(student, teacher, star(torch.arange(1, degree + 1)), kernel)
    samples = [
        lsp(student, teacher, star(torch.tensor(chosen)), kernel)
        for chosen in itertools.combinations(range(1, degree + 1), sampled)
    ]
    factor = (1 - 1 / sampled) / (1 - 1 / degree)
    torch.testing.assert_close(torch.stack(samples).mean(), factor * whole, rtol=0.02, atol=0)


def test_a_peaked_structure_is_not() -> None:
    teacher = 3 * torch.randn(9, 4, dtype=torch.float64)
    student = teacher + torch.randn_like(teacher)
    kernel = Cosine()
    whole = lsp(student, teacher, star(torch.arange(1, 9)), kernel)
    every = [
        lsp(student, teacher, star(torch.tensor(chosen)), kernel)
        for chosen in itertools.combinations(range(1, 9), 8)
    ]
    torch.testing.assert_close(torch.stack(every).mean(), whole)  # all neighbours: no bias


@pytest.fixture
def data() -> Data:
    edge_index = coalesce(torch.randint(N, (2, 6 * N)))
    return Data(x=torch.randn(N, F), edge_index=edge_index, y=torch.arange(N) % C, num_nodes=N)


def pair() -> Distiller:
    teacher, student = GraphSAGE(F, 8, 2, C).eval(), GraphSAGE(F, 4, 2, C).eval()
    losses = [
        SoftTargetLoss(),
        HintLoss("convs.0", "convs.0"),
        LSPLoss("convs.1", "convs.1", Cosine()),
    ]
    return Distiller(teacher, student, losses)


def loaders(data: Data) -> dict[str, Any]:
    """Return loaders of sub-graphs, and which rows of a batch count."""
    saint = {"batch_size": 20, "num_steps": 2, "sample_coverage": 0}
    return {
        "neighbours": (
            NeighborLoader(data, [3, 3], batch_size=10),
            lambda batch: torch.arange(batch.batch_size),
        ),
        "saint, nodes": (GraphSAINTNodeSampler(data, **saint), lambda batch: None),
        "saint, walks": (
            GraphSAINTRandomWalkSampler(data, walk_length=2, **saint),
            lambda batch: None,
        ),
        "shadow": (
            ShaDowKHopSampler(data, depth=2, num_neighbors=3, batch_size=5),
            lambda batch: batch.root_n_id,
        ),
    }


@needs_sparse
@pytest.mark.parametrize("name", ["neighbours", "saint, nodes", "saint, walks", "shadow"])
def test_losses_of_a_batch_are_those_of_its_sub_graph(name: str, data: Data) -> None:
    loader, rows_of = loaders(data)[name]
    distiller = pair()
    batch = next(iter(loader))
    rows = rows_of(batch)
    distiller.check(batch.x, batch.edge_index, nodes=rows)
    _, losses = distiller(batch.x, batch.edge_index, nodes=rows)
    said = {}
    for side in ("teacher", "student"):
        model, seen = getattr(distiller, side), []
        hook = model.convs[1].register_forward_hook(lambda *call, to=seen: to.append(call[-1]))
        out = model(batch.x, batch.edge_index)
        hook.remove()
        said[side] = seen[0], out
    # By hand: the local structures of the rows that count, over the edges of the batch.
    inside = torch.arange(batch.num_nodes) if rows is None else rows
    kept = batch.edge_index[:, torch.isin(batch.edge_index[1], inside)]
    known = set(kept[1].tolist())
    expected = lsp(said["student"][0], said["teacher"][0], kept, Cosine()) * batch.num_nodes
    assert known <= set(inside.tolist())
    torch.testing.assert_close(losses["lsp"], expected / inside.numel(), rtol=1e-4, atol=1e-6)
    soft = torch.nn.functional.kl_div(
        said["student"][1][inside].log_softmax(-1),
        said["teacher"][1][inside].softmax(-1),
        reduction="batchmean",
    )
    _, alone = Distiller(distiller.teacher, distiller.student, [SoftTargetLoss(1.0)])(
        batch.x, batch.edge_index, nodes=rows
    )
    torch.testing.assert_close(alone["soft_target"], soft, rtol=1e-4, atol=1e-6)


@needs_sparse
def test_clusters(data: Data, tmp_path: Any) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clusters = ClusterData(data, num_parts=4, save_dir=None, log=False)
    except (RuntimeError, ImportError) as error:
        pytest.skip(f"no METIS: {error}")
    distiller = pair()
    count = 0
    for batch in ClusterLoader(clusters, batch_size=2):
        distiller.check(batch.x, batch.edge_index)
        _, losses = distiller(batch.x, batch.edge_index)
        assert all(torch.isfinite(value) for value in losses.values())
        count += batch.num_nodes
    assert count == N


@needs_sparse
def test_the_seeds_are_a_key_of_the_teachers_cache(data: Data) -> None:
    # With all neighbours a batch of the same seeds is the same sub-graph, whenever it is drawn.
    distiller = pair()
    cache = TeacherCache(distiller)
    loader = NeighborLoader(data, [-1, -1], batch_size=10)
    found = []
    for _ in range(2):
        for batch in loader:
            seeds = torch.arange(batch.batch_size)
            key = tuple(batch.input_id.tolist())
            known = cache(key, batch.x, batch.edge_index)
            _, losses = distiller(batch.x, batch.edge_index, nodes=seeds, teacher=known)
            found.append(losses)
    half = len(found) // 2
    for first, second in zip(found[:half], found[half:], strict=True):
        for name, value in first.items():
            torch.testing.assert_close(second[name], value)
    assert len(cache) == half
