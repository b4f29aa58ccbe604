from __future__ import annotations

import pytest
import torch
import torch_geometric.typing
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_stkd.functional.neighbours import knn_search
from pyg_stkd.functional.neighbours.clouds import like_clouds
from pyg_stkd.functional.neighbours.knn import knn_graph

SIZES = [[1], [2, 2, 2], [300, 5, 1], [260, 260], [40] * 6, [0], [3, 1, 400]]
SIZES += [[1, 300], [600, 1, 1], [1, 1, 300, 5]]


def batch_of(sizes: list[int]) -> Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def brute_force(x: Tensor, k: int, batch: Tensor, loop: bool) -> Tensor:
    """Sorts all pairs by distance, then by index."""
    distance = (x.double()[:, None] - x.double()[None]).square().sum(-1)
    distance[batch[:, None] != batch[None]] = torch.inf
    distance.fill_diagonal_(-1 if loop else torch.inf)
    value, index = distance.sort(dim=1, stable=True)
    kept = value[:, :k] < torch.inf
    centre = torch.arange(x.size(0))[:, None].expand_as(kept)
    return torch.stack([index[:, :k][kept], centre[kept]])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("width", [1, 3, 7])
@pytest.mark.parametrize("loop", [True, False])
def test_equals_brute_force(sizes: list[int], width: int, loop: bool) -> None:
    batch = batch_of(sizes)
    x = torch.randn(batch.numel(), width, dtype=torch.float64)
    for k in (1, 5, 20):
        assert torch.equal(knn_graph(x, k, batch, loop), brute_force(x, k, batch, loop))


@pytest.mark.parametrize("sizes", [[500], [300, 150], [30, 30, 4]], ids=str)
@pytest.mark.parametrize("loop", [True, False])
def test_ties_and_duplicates_go_to_the_smaller_index(sizes: list[int], loop: bool) -> None:
    batch = batch_of(sizes)
    for spread in (0, 1, 4):
        x = (torch.randn(batch.numel(), 3) * spread).round() + 1000  # a lattice, far from 0
        for k in (3, 20):
            assert torch.equal(knn_graph(x, k, batch, loop), brute_force(x, k, batch, loop))


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    k=st.integers(1, 14),
    width=st.integers(1, 6),
    loop=st.booleans(),
)
def test_small_clouds(sizes: list[int], k: int, width: int, loop: bool) -> None:
    batch = batch_of(sizes)
    x = torch.randn(batch.numel(), width, dtype=torch.float64)
    assert torch.equal(knn_graph(x, k, batch, loop), brute_force(x, k, batch, loop))


@pytest.mark.parametrize("width", [3, 16])
def test_float32_far_from_the_origin(width: int) -> None:
    x = (torch.randn(400, width) + 1000).float()
    batch = batch_of([150, 250])
    given, expected = (f(x, 8, batch, False) for f in (knn_graph, brute_force))
    assert torch.equal(given, expected)


@pytest.mark.parametrize("width", [1, 3, 7])
@pytest.mark.parametrize("loop", [True, False])
def test_large_clouds_equal_brute_force(
    width: int, loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(knn_search._CHUNK, "cpu", 1 << 14)
    batch = batch_of([310, 2, 150, 257])
    x = torch.randn(batch.numel(), width, dtype=torch.float64) + 3.0 * batch[:, None]
    lattice = (x[:, :4] * 2).round().float()
    for k in (1, 20, 140):  # 140: sorted whole
        assert torch.equal(knn_graph(x, k, batch, loop), brute_force(x, k, batch, loop))
        given, expected = (f(lattice, k, batch, loop) for f in (knn_graph, brute_force))
        assert torch.equal(given, expected)


@pytest.mark.parametrize("chunk", [1 << 14, 1 << 24])
def test_whole_numbers_tie_in_any_number_of_columns(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(knn_search._CHUNK, "cpu", chunk)
    half = torch.randint(-2, 3, (150, 6)).float()
    x = torch.cat([half, -half])  # with its mean at 0
    batch = batch_of([300])
    assert torch.equal(knn_graph(x, 10, batch), brute_force(x, 10, batch, False))


def test_half_precision_is_compared_in_single() -> None:
    x = torch.randn(50, 5).bfloat16()
    assert torch.equal(knn_graph(x, 4), knn_graph(x.float(), 4))


def test_a_skipped_number_is_an_empty_cloud() -> None:
    x = torch.randn(6, 2)
    batch = torch.tensor([0, 0, 0, 5, 5, 5])
    assert torch.equal(knn_graph(x, 2, batch), knn_graph(x, 2, batch.clamp(max=1)))


def test_one_point_and_none() -> None:
    assert knn_graph(torch.ones(2, 3), 10**30).tolist() == [[1, 0], [0, 1]]
    assert knn_graph(torch.ones(1, 3), 4).tolist() == [[], []]
    assert knn_graph(torch.ones(1, 3), 4, loop=True).tolist() == [[0], [0]]
    assert knn_graph(torch.ones(0, 3), 4, loop=True).shape == (2, 0)


def test_points_without_coordinates_are_all_equally_near() -> None:
    assert knn_graph(torch.ones(3, 0), 1).tolist() == [[1, 0, 0], [0, 1, 2]]


@pytest.mark.parametrize("width", [1, 3, 6])
def test_the_points_given_stay_as_they_are(width: int) -> None:
    x = torch.randn(230, width, dtype=torch.float64)
    given = x.clone()
    knn_graph(x, 3, batch_of([140, 60, 30]))
    assert torch.equal(x, given)


def test_distances_just_below_overflow() -> None:
    x = torch.tensor([[0.0], [3e18], [5e18], [9e18]])
    for width in (1, 6):
        wide = torch.cat([x, torch.zeros(4, width - 1)], dim=1)
        assert knn_graph(wide, 1).tolist() == [[1, 2, 1, 2], [0, 1, 2, 3]]
    far = wide + 1e19  # as near to each other as before
    assert knn_graph(far, 1, torch.tensor([0, 0, 1, 1])).tolist() == [[1, 0, 3, 2], [0, 1, 2, 3]]


def check_nearest(x: Tensor, k: int) -> None:
    """Compare with all pairs of float32 points, measured by differences in float64."""
    num_points, width = x.shape
    x = x.double()  # whose squares are all in range
    found = knn_graph(x.float(), k)[0].view(num_points, k).sort(dim=1).values
    assert (found.diff() > 0).all()
    distance = torch.stack([(x - point).square().sum(1) for point in x]).fill_diagonal_(torch.inf)
    best = distance.sort(dim=1, stable=True)
    if width > 4:
        assert torch.equal(found, best.indices[:, :k].sort(dim=1).values)
    else:  # sums of up to four squares are right to float32
        given = distance.gather(1, found).sort(dim=1).values
        torch.testing.assert_close(given, best.values[:, :k], rtol=1e-6, atol=0.0)


HARD = {
    "an outlier": lambda x, far: torch.cat([x[:1] * far, x[1:]]),
    "two of them, opposite": lambda x, far: torch.cat([x[:1] * far, x[:1] * -far, x[2:]]),
    "two far clusters": lambda x, far: torch.cat([x[:90] + far, x[90:] - far]),
    "three far clusters": lambda x, far: torch.cat([x[:60], x[60:120] + far, x[120:] - 7 * far]),
    "an axis that is huge": lambda x, far: torch.cat([x[:, :1] * far, x[:, 1:]], dim=1),
    "an offset": lambda x, far: x + far,
    "a scale": lambda x, far: x * far,
    "a small scale": lambda x, far: x / far,
    "points of all scales": lambda x, far: x * torch.logspace(0, 1, 180, far).view(-1, 1),
}


@pytest.mark.parametrize("width", [2, 4, 5, 6, 64])
@pytest.mark.parametrize("shape", HARD)
def test_finds_what_float32_can_tell_apart(width: int, shape: str) -> None:
    for far in (1e2, 1e4, 1e6, 1e8, 1e12, 1e17):
        x = HARD[shape](torch.randn(180, width), far)
        check_nearest(x, 5)


@pytest.mark.parametrize("chunk", [1 << 12, 1 << 19])
@pytest.mark.parametrize("loop", [True, False])
def test_clouds_of_other_outliers(chunk: int, loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(knn_search._CHUNK, "cpu", chunk)
    sizes = [150, 3, 40, 40, 7, 150, 20, 1]
    batch = batch_of(sizes)
    x = torch.randn(batch.numel(), 9)
    for i, cloud in enumerate(x.split(sizes)):
        cloud[:: 2 + i] *= 10.0**i
        cloud[0] *= 1e7
    for k in (1, 4, 30):
        edges = [f(x, k, batch, loop) for f in (knn_graph, brute_force)]
        # Among them, the order is that of float32.
        near, truth = (part[:, (part[1] * 10**6 + part[0]).argsort()] for part in edges)
        assert torch.equal(near, truth)


@given(
    num_points=st.integers(2, 40),
    width=st.integers(1, 8),
    k=st.integers(1, 12),
    exponents=st.lists(st.integers(-38, 37), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
)
def test_any_finite_points(
    num_points: int, width: int, k: int, exponents: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([10.0**exponent for exponent in exponents])
    which = torch.randint(0, len(exponents), (num_points, 1), generator=generator)
    x = torch.randn(num_points, width, generator=generator) * scale[which]
    check_nearest(x, min(k, num_points - 1))


@pytest.mark.parametrize("width", [2, 4, 5, 16])
def test_points_that_vanish_beside_huge_ones(width: int) -> None:
    small = torch.randn(40, width) * 1e-38  # 0 where 1e25 is in the middle of the range
    huge = torch.randn(60, width) * 1e25
    check_nearest(torch.cat([huge, small]), 5)
    alone = knn_graph(small.double() * 1e38, 5)
    batch = batch_of([60, 40])  # of another cloud too
    found = knn_graph(torch.cat([huge, small]), 5, batch)[:, 300:] - 60
    distance = (small.double()[:, None] - small.double()).square().sum(-1) * 1e76
    near, truth = (distance[edges[1], edges[0]].view(40, 5) for edges in (found, alone))
    torch.testing.assert_close(near.sort(1).values, truth, rtol=1e-6, atol=0.0)


def test_no_gradient_flows() -> None:
    x = torch.randn(9, 2, requires_grad=True)
    assert not knn_graph(x, 3).requires_grad


def stand_in(x: Tensor, y: Tensor, ptr_x: Tensor, ptr_y: Tensor, k: int, *_: object) -> Tensor:
    """What pyg-lib returns, but ties and order are the worst."""
    cloud = torch.bucketize(torch.arange(x.size(0)), ptr_x[1:], right=True)
    distance = torch.cdist(y.double(), x.double())
    distance[cloud[:, None] != cloud[None]] = torch.inf
    index = distance.flip(1).topk(k, largest=False).indices.flip(1)
    row = torch.arange(y.size(0)).repeat_interleave(k)
    return torch.stack([row, (x.size(0) - 1 - index).view(-1)])


@pytest.mark.parametrize("loop", [True, False])
def test_pyg_lib_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, loop: bool) -> None:
    monkeypatch.setattr(torch_geometric.typing, "WITH_KNN", True, raising=False)
    monkeypatch.setattr(torch.ops, "pyg", type("pyg", (), {"knn": staticmethod(stand_in)}))
    monkeypatch.setattr(knn_search, "_TREE_POINTS", 50)
    batch = batch_of([60, 60, 80])
    x = torch.randn(200, 3)
    assert torch.equal(knn_graph(x, 7, batch, loop), brute_force(x, 7, batch, loop))
    x[:90] = 0  # a point may not be among its own nearest
    edge_index = knn_graph(x, 7, batch, loop)
    source, target = edge_index.view(2, 200, 7)
    assert ((source == target).sum(1) == int(loop)).all()
    assert (source.sort(1).values.diff() > 0).all()


@pytest.mark.full
def test_compiles() -> None:
    x, batch = torch.randn(990, 3), batch_of([10, 20, 160, 800])
    compiled = torch.compile(lambda x, batch: knn_graph(x, 4, batch) + 0, backend="eager")
    assert torch.equal(compiled(x, batch), knn_graph(x, 4, batch))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"k": 0}, ValueError, r"'k' must be at least 1 \(got 0\)"),
        ({"batch": [0, 0, 0, 0]}, TypeError, r"'batch' must be a tensor \(got list\)"),
        ({"k": 2.0}, TypeError, r"'k' must be an integer \(got 2.0\)"),
        ({"x": torch.ones(4)}, ValueError, r"'x' must have shape \[N, F\] \(got \[4\]\)"),
        ({"x": torch.ones(4, 2).long()}, TypeError, "'x' must be a tensor of real floating"),
        ({"x": torch.full((4, 2), torch.nan)}, ValueError, "'x' must be finite"),
        ({"x": torch.full((4, 2), torch.inf)}, ValueError, "'x' must be finite"),
        ({"batch": torch.tensor([0, 1, 0, 1])}, ValueError, "'batch' must be sorted"),
        ({"batch": torch.zeros(3).long()}, ValueError, "'batch' must have one entry for each of"),
        ({"batch": torch.zeros(4)}, TypeError, "'batch' must be of dtype torch.int64"),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], match: str) -> None:
    arguments = {"x": torch.ones(4, 2), "k": 2, **change}
    with pytest.raises(error, match=match):
        knn_graph(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [3, 7])
@pytest.mark.parametrize("loop", [True, False])
def test_clouds_of_about_one_size_are_searched_together(width: int, loop: bool) -> None:
    sizes = [30, 7, 31, 300, 31, 5, 290, 1, 300, 160, 150]
    groups = [[sizes[i] for i in clouds] for clouds in like_clouds(sizes, 1 << 19)]
    assert groups == [[300, 300, 290], [160, 150, 31, 31, 30, 7, 5, 1]]
    batch = batch_of(sizes)
    x = torch.randn(batch.numel(), width, dtype=torch.float64) + 5.0 * batch[:, None]
    for k in (4, 20):
        assert torch.equal(knn_graph(x, k, batch, loop), brute_force(x, k, batch, loop))
