from __future__ import annotations

import math

import pytest
import torch

from pyg_stkd.datasets.traffic.adjacency import (
    GaussianAdjacency,
    adjacency_to_edges,
    distances_to_edges,
    in_float32,
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
        ({"sigma2": 0.0}, r"'sigma2' must be finite and above 0 \(got 0.0"),
        ({"scale": -1.0}, r"'scale' must be finite and above 0 \(got -1.0"),
        ({"threshold": 1.5}, r"'threshold' must be at least 0 and at most 1 \(got 1.5\)"),
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


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_whole_distances_make_weights_below_one(dtype: torch.dtype) -> None:
    # Cast back to integers, every weight would be 0 and every edge lost.
    weight = GaussianAdjacency(scale=100.0)(torch.tensor([0, 10, 20, 200], dtype=dtype))
    assert weight.tolist() == pytest.approx([1.0, math.exp(-0.1), math.exp(-0.4), 0.0])
    links, distance = torch.tensor([[0], [1]]), torch.tensor([10], dtype=dtype)
    assert links_to_edges(links, distance, GaussianAdjacency(scale=100.0))[1].tolist() == (
        pytest.approx([math.exp(-0.1)] * 2)
    )
    matrix = torch.tensor([[0, 10], [20, 0]], dtype=dtype)
    assert distances_to_edges(matrix, GaussianAdjacency(scale=100.0))[1].tolist() == (
        pytest.approx([math.exp(-0.1), math.exp(-0.4)])
    )


WEIGHTS = torch.tensor([[0.0, 0.9, 0.0], [0.9, 0.0, 0.5], [0.0, 0.5, 0.0]])


def test_weights_are_not_read_as_metres() -> None:
    # As metres they would be a complete graph of weights 1.
    with pytest.raises(ValueError, match=r"values='weights' must say .* at most 0.9: .* weights\?"):
        distances_to_edges(WEIGHTS)
    edge_index, edge_weight = distances_to_edges(WEIGHTS, values="weights")
    assert edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert edge_weight.tolist() == pytest.approx([0.9, 0.9, 0.5, 0.5])
    edge_index, edge_weight = distances_to_edges(WEIGHTS, values="metres")
    assert edge_index.size(1) == 6
    assert edge_weight.tolist() == pytest.approx([1.0] * 6)
    with pytest.raises(ValueError, match="'values' must be one of 'metres', 'weights', None"):
        distances_to_edges(WEIGHTS, values="miles")  # type: ignore[arg-type]


def test_kilometres_are_not_read_as_metres() -> None:
    metres = torch.tensor([[0.0, 1e3, 3e3], [1e3, 0.0, 2e3], [3e3, 2e3, 0.0]])
    with pytest.raises(ValueError, match=r"an entry of 500 or more.* at most 3: .* kilometres\?"):
        distances_to_edges(metres / 1e3)
    kernel = GaussianAdjacency(scale=10.0)
    for given, wanted in zip(
        distances_to_edges(metres / 1e3, kernel), distances_to_edges(metres), strict=True
    ):
        torch.testing.assert_close(given, wanted)
    with pytest.raises(ValueError, match="an entry of 500 or more"):
        distances_to_edges(torch.zeros(2, 2))

    links = torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match=r"a link of 20 or more \(got at most 0.4: .* kilometres"):
        links_to_edges(links, torch.tensor([0.3, 0.4]), GaussianAdjacency())
    assert links_to_edges(links, torch.tensor([0.3, 0.4]), kernel)[0].size(1) == 4
    assert links_to_edges(links, torch.tensor([0.3, 0.4]))[0].size(1) == 4  # their lengths: unused


def test_a_zero_one_matrix_may_be_metres() -> None:
    matrix = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert distances_to_edges(matrix, values="metres")[0].size(1) == 2


@pytest.mark.parametrize("bad", [None, [[0.0]], 3])
def test_what_is_no_tensor_is_a_type_error(bad: object) -> None:
    for function in (GaussianAdjacency(), distances_to_edges, adjacency_to_edges):
        with pytest.raises(TypeError, match="must be a tensor of real numbers"):
            function(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="of real numbers"):
        adjacency_to_edges(torch.ones(1, 1, dtype=torch.cfloat))


def test_links_between_nodes_of_huge_numbers() -> None:
    links = torch.tensor([[10**12, 3], [3, 10**12 - 1]])
    edge_index, _ = links_to_edges(links, torch.ones(2))
    assert edge_index.tolist() == [
        [3, 3, 10**12 - 1, 10**12],
        [10**12 - 1, 10**12, 3, 3],
    ]
    for bad in (torch.tensor([[0], [-1]]), torch.tensor([[0.0], [1.0]])):
        with pytest.raises(ValueError, match="'links' must hold whole numbers of nodes from 0"):
            links_to_edges(bad, torch.ones(1))


def test_weights_that_vanish_in_float32_are_no_edges() -> None:
    weight = torch.tensor([0.5, 1e-320, 1e-40], dtype=torch.double)
    index, single = in_float32(torch.tensor([[0, 1, 2], [1, 2, 0]]), weight)
    assert index.tolist() == [[0, 2], [1, 0]]
    assert single.dtype == torch.float32
    assert (single > 0).all()


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
    with pytest.raises(ValueError, match="'links' must be"):
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


def test_a_matrix_without_nodes_has_no_edges() -> None:
    for kernel in (None, GaussianAdjacency(scale=1.0)):
        edge_index, weight = distances_to_edges(torch.empty(0, 0), kernel)
        assert edge_index.shape == (2, 0)
        assert weight.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32, torch.bool])
def test_links_of_other_kinds_are_refused(dtype: torch.dtype) -> None:
    links = torch.zeros(2, 3).to(dtype)
    match = rf"'links' must hold whole numbers of nodes from 0 \(got {dtype}\)"
    with pytest.raises(ValueError, match=match):
        links_to_edges(links, torch.full((3,), 500.0))
