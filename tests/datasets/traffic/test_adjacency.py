from __future__ import annotations

import math

import pytest
import torch

from pyg_stkd.datasets.traffic.adjacency import (
    GaussianAdjacency,
    adjacency_to_edges,
    distances_to_edges,
    links_to_edges,
)


def test_kernel_is_the_rule_of_stgcn() -> None:
    # 2,632 m and 2,633 m lie on the two sides of exp(-(d / 1e4)^2 / 0.1) = 0.5.
    distance = torch.tensor([0.0, 1500.0, 2632.0, 2633.0], dtype=torch.double)
    expected = [1.0, math.exp(-0.225), math.exp(-(0.2632**2) / 0.1), 0.0]
    assert GaussianAdjacency()(distance).tolist() == pytest.approx(expected, abs=1e-15)


def test_kernel_options() -> None:
    kernel = GaussianAdjacency(sigma2=4.0, threshold=0.0, scale=1.0)
    assert kernel(torch.tensor([2.0, 4.0])).tolist() == pytest.approx(
        [math.exp(-1), math.exp(-4)], rel=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma2": 0.0}, r"positive \(got sigma2=0.0"),
        ({"scale": -1.0}, r"scale=-1.0"),
        ({"threshold": 1.5}, r"`threshold` must lie in \[0, 1\] \(got 1.5\)"),
    ],
)
def test_kernel_refuses(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianAdjacency(**arguments)


def test_distances_keep_direction_and_drop_the_diagonal() -> None:
    distances = torch.tensor(
        [[0.0, 1e3, 9e3], [2e3, 0.0, 9e3], [9e3, 0.0, 0.0]], dtype=torch.double
    )
    edge_index, edge_weight = distances_to_edges(distances)
    assert edge_index.tolist() == [[0, 1, 2], [1, 0, 1]]
    assert edge_weight.tolist() == pytest.approx([math.exp(-0.1), math.exp(-0.4), 1.0])


def test_zero_one_matrix_is_an_adjacency() -> None:
    edge_index, edge_weight = distances_to_edges(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    assert edge_index.tolist() == [[0], [1]]
    assert edge_weight.tolist() == [1.0]


def test_one_node_has_no_edges() -> None:
    edge_index, edge_weight = distances_to_edges(torch.zeros(1, 1))
    assert edge_index.shape == (2, 0)
    assert edge_weight.shape == (0,)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_distances_must_be_finite_and_not_negative(bad: float) -> None:
    distances = torch.tensor([[0.0, bad], [1.0, 0.0]])
    with pytest.raises(ValueError, match=rf"finite and not negative \(got {bad} at \[0, 1\]"):
        distances_to_edges(distances)
    with pytest.raises(ValueError, match="finite and not negative"):
        adjacency_to_edges(distances)
    with pytest.raises(ValueError, match=r"at \[0\], and 0 more"):
        links_to_edges(torch.tensor([[0], [1]]), torch.tensor([bad]))


def test_matrix_must_be_square() -> None:
    with pytest.raises(ValueError, match=r"square \[N, N\] matrix \(got \(2, 3\)\)"):
        distances_to_edges(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="`links` must be"):
        links_to_edges(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2))


def test_links_repeats_loops_and_reverses() -> None:
    # 0 -> 1 twice (the shorter counts), 1 -> 2 in both directions, a loop at 2.
    links = torch.tensor([[0, 0, 1, 2, 2], [1, 1, 2, 1, 2]])
    distance = torch.tensor([2e3, 1e3, 1e3, 2e3, 5.0], dtype=torch.double)
    edge_index, edge_weight = links_to_edges(links, distance, GaussianAdjacency())
    near, far = math.exp(-0.1), math.exp(-0.4)
    assert edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert edge_weight.tolist() == pytest.approx([near, near, near, far])

    edge_index, edge_weight = links_to_edges(links, distance, undirected=False)
    assert edge_index.tolist() == [[0, 1, 2], [1, 2, 1]]
    assert edge_weight.tolist() == [1.0, 1.0, 1.0]


def test_links_beyond_the_threshold_are_no_edges() -> None:
    links, distance = torch.tensor([[0, 1], [1, 2]]), torch.tensor([1e3, 1e4])
    assert links_to_edges(links, distance, GaussianAdjacency())[0].tolist() == [[0, 1], [1, 0]]
    assert links_to_edges(links[:, :0], distance[:0])[0].shape == (2, 0)
