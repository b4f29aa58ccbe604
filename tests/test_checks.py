from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.distill import Capture, Distiller, HintLoss, LSPLoss, ResponseLoss, STCDLoss
from pyg_stkd.functional import (
    lsp,
    spatial_correlation,
    temporal_correlation,
    temporal_structure,
)


@pytest.mark.parametrize("value", ["a", None, 2])
def test_choice_takes_what_is_offered(value: object) -> None:
    assert checks.choice("x", value, ("a", None, 2)) is value


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("b", "'b'"),
        (True, "True"),
        (2.0, r"2\.0"),
        (["a"], r"\['a'\]"),
        (torch.tensor([1, 2]), "Tensor"),
        (np.array(["a", "b"]), "ndarray"),
        ((torch.ones(2), 1), "tuple of Tensor, 1"),
        ([torch.ones(2), "a"], "list of Tensor, 'a'"),
    ],
)
def test_choice_takes_nothing_else(value: object, got: str) -> None:
    with pytest.raises(ValueError, match=rf"^'x' must be one of 'a', None, 2 \(got {got}\)$"):
        checks.choice("x", value, ("a", None, 2))
    with pytest.raises(ValueError, match=r"^'x' must be 'a' \(got 3\)$"):
        checks.choice("x", 3, ("a",))


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_count_takes_integers_of_numpy(value: Any) -> None:
    assert checks.count("k", value, 3) == 3
    assert type(checks.count("k", value)) is int


def test_count_without_a_least() -> None:
    assert checks.count("axis", -3, least=None) == -3


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (2.0, TypeError, r"an integer \(got 2.0\)"),
        ("2", TypeError, r"an integer \(got '2'\)"),
        (None, TypeError, r"an integer \(got None\)"),
        (True, TypeError, r"an integer \(got True\)"),
        (np.True_, TypeError, r"an integer \(got bool"),
        (torch.tensor(2), TypeError, r"an integer \(got Tensor\)"),
        (1, ValueError, r"at least 2 \(got 1\)"),
        (np.int32(-1), ValueError, r"at least 2 \(got -1\)"),
    ],
)
def test_count_refuses(value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^'k' must be {text}"):
        checks.count("k", value, 2)


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.5), np.int64(1), Fraction(1, 2)])
def test_number_takes_what_is_within_its_bounds(value: Any) -> None:
    taken = checks.number("p", value, least=0, most=1)
    assert taken == float(value)
    assert type(taken) in (int, float)


NUMBERS: list[tuple[Any, dict[str, float], type[Exception], str]] = [
    ("1", {}, TypeError, r"a number \(got '1'\)"),
    (True, {}, TypeError, r"a number \(got True\)"),
    (1j, {}, TypeError, r"a number \(got 1j\)"),
    (torch.tensor(1.0), {}, TypeError, r"a number \(got Tensor\)"),
    (math.nan, {}, ValueError, r"finite \(got nan\)"),
    (math.nan, {"least": 0, "most": 1}, ValueError, r"at least 0 and at most 1 \(got nan\)"),
    (-math.inf, {}, ValueError, r"finite \(got -inf\)"),
    (math.inf, {"above": 0}, ValueError, r"finite and above 0 \(got inf\)"),
    (0, {"above": 0}, ValueError, r"finite and above 0 \(got 0\)"),
    (-0.1, {"least": 0}, ValueError, r"finite and at least 0 \(got -0.1\)"),
    (1.5, {"above": 0, "most": 1}, ValueError, r"above 0 and at most 1 \(got 1.5\)"),
    (1.0, {"least": 0, "below": 1}, ValueError, r"at least 0 and below 1 \(got 1.0\)"),
]


@pytest.mark.parametrize(("value", "bounds", "error", "text"), NUMBERS)
def test_number_refuses(
    value: Any, bounds: dict[str, float], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^'p' must be {text}$"):
        checks.number("p", value, **bounds)


def test_number_may_be_infinite() -> None:
    assert checks.number("t", math.inf, above=0, finite=False) == math.inf
    for value in (math.nan, -math.inf, 0):
        with pytest.raises(ValueError, match=rf"^'t' must be above 0 \(got {value}\)$"):
            checks.number("t", value, above=0, finite=False)


def test_a_number_beyond_floats_is_not_finite() -> None:
    for value in (10**400, Fraction(10**400, 3)):
        with pytest.raises(ValueError, match=r"^'p' must be finite and above 0 \(got "):
            checks.number("p", value, above=0)


def test_instance() -> None:
    checks.instance("model", nn.Linear(1, 1), nn.Module)
    for value, got in [(None, "None"), (torch.ones(3), "Tensor"), (nn.ReLU(), "ReLU")]:
        with pytest.raises(TypeError, match=rf"^'model' must be a GRU \(got {got}\)$"):
            checks.instance("model", value, nn.GRU)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ([1.0], "list"),
        (torch.ones(2).long(), "torch.int64"),
        (torch.ones(2).bool(), "torch.bool"),
        (torch.ones(2, dtype=torch.complex64), "torch.complex64"),
    ],
)
@pytest.mark.parametrize("check", [checks.floating, checks.features, checks.sequence])
def test_floating_refuses(check: Callable[[str, Any], None], value: Any, got: str) -> None:
    text = rf"^'x' must be a tensor of real floating point numbers \(got {got}\)$"
    with pytest.raises(TypeError, match=text):
        check("x", value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_takes_every_precision(dtype: torch.dtype) -> None:
    checks.floating("x", torch.ones(2, dtype=dtype))


NESTED = torch.nested.nested_tensor([torch.eye(2)], layout=torch.jagged)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (torch.eye(2).to_sparse(), "torch.float32 in torch.sparse_coo"),
        (torch.eye(2).double().to_sparse_csr(), "torch.float64 in torch.sparse_csr"),
        (torch.eye(2).to(torch.float8_e4m3fn), "torch.float8_e4m3fn in torch.strided"),
        (
            torch.nested.nested_tensor([torch.eye(2)], layout=torch.jagged),
            "torch.float32 in a nested tensor",
        ),
    ],
    ids=["coo", "csr", "8 bits", "nested"],
)
@pytest.mark.parametrize("check", [checks.dense, checks.features, checks.sequence])
def test_dense_refuses(check: Callable[[str, Any], None], value: Any, got: str) -> None:
    text = rf"^'x' must be a dense tensor of 16 bits a number or more \(got {got}\)$"
    with pytest.raises(TypeError, match=text):
        check("x", value)


def test_features() -> None:
    checks.features("z", torch.ones(0, 3))
    for shape in ([3], [1, 2, 3]):
        with pytest.raises(ValueError, match=rf"^'z' must have shape \[N, F\] \(got \{shape}\)$"):
            checks.features("z", torch.ones(shape))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ([3], r"have shape \[B, T, N, C\] \(batch, time, nodes, channels\) \(got \[3\]\)"),
        ([1, 4, 5, 2], r"have shape \[B, T, N, C\] \(.*\) with C=3 last \(got \[1, 4, 5, 2\]\)"),
        ([1, 3, 5, 2], r".*\(got \[1, 3, 5, 2\]; the channels seem to be on axis 1\)"),
        ([1, 1, 5, 3], r"have at least 2 time steps \(got 1\)"),
    ],
)
def test_sequence_refuses(shape: list[int], text: str) -> None:
    with pytest.raises(ValueError, match=rf"^'x'( \[B, T, N, C\])? must {text}$"):
        checks.sequence("x", torch.ones(shape), steps=2, channels=3)


def test_sequence_takes_enough() -> None:
    checks.sequence("x", torch.ones(0, 2, 0, 3), steps=2, channels=3)


# The one table of what nodes may be: the operators and the losses raise the same.
BAD_NODES: list[tuple[Any, type[Exception], str]] = [
    ([1], TypeError, r"be a tensor of indices or a boolean mask \(got list\)"),
    (torch.ones(3), TypeError, r"be a tensor of indices or a boolean mask \(got torch.float32\)"),
    (torch.ones(3).byte(), TypeError, r"be a tensor of indices .* \(got torch.uint8\)"),
    (torch.ones(1, 3).long(), ValueError, r"have one axis \(got shape \[1, 3\]\)"),
    (torch.tensor(1), ValueError, r"have one axis \(got shape \[\]\)"),
    (torch.ones(2).bool(), ValueError, r"have one entry for each of the 3 \w+.* \(got 2\)"),
    (torch.arange(9) < 3, ValueError, r"have one entry for each of the 3 \w+.* \(got 9\)"),
    (torch.zeros(3).bool(), ValueError, r"choose at least one node \(got none\)"),
    (torch.ones(0).long(), ValueError, r"choose at least one node \(got none\)"),
    (torch.tensor([0, 3]), IndexError, r"be below the 3 \w+.* \(got 3\)"),
    (torch.tensor([2, -1]), IndexError, r"not hold negative indices \(got -1\)"),
]


@pytest.mark.parametrize(("value", "error", "text"), BAD_NODES)
def test_nodes_refuses(value: Any, error: type[Exception], text: str) -> None:
    for check in (checks.nodes, checks.node_index):
        with pytest.raises(error, match=rf"^'nodes'( as a mask)? must {text}$"):
            check("nodes", value, 3)


def test_nodes_whose_number_is_not_known_yet() -> None:
    checks.nodes("nodes", torch.tensor([7]))
    checks.nodes("nodes", torch.tensor([True, False]))
    with pytest.raises(ValueError, match="at least one node"):
        checks.nodes("nodes", torch.tensor([False]))


def test_all_nodes_of_an_empty_graph_are_none() -> None:
    for none in (torch.empty(0).long(), torch.empty(0).bool()):
        assert checks.node_index("nodes", none, 0).tolist() == []
    with pytest.raises(IndexError, match=r"below the 0 nodes \(got 0\)"):
        checks.nodes("nodes", torch.tensor([0]), 0)


def test_nodes_say_of_what_they_are() -> None:
    with pytest.raises(IndexError, match=r"below the 3 rows of the student output \(got 3\)"):
        checks.nodes("nodes", torch.tensor([3]), 3, of="rows of the student output")


@pytest.mark.parametrize(
    "value", [[0, 2], [2, 0, 2], [True, False, True]], ids=["index", "repeated", "mask"]
)
def test_node_index(value: list[Any]) -> None:
    given = torch.tensor(value)
    expected = [0, 2] if given.dtype == torch.bool else value
    assert checks.node_index("nodes", given, 3).tolist() == expected


def test_nodes_under_compile_are_checked_by_shape_alone() -> None:
    @torch.compile(backend="eager", fullgraph=True)
    def chosen(x: Tensor, nodes: Tensor) -> Tensor:
        checks.nodes("nodes", nodes, 3)
        return x.masked_fill(~nodes, 0)

    assert chosen(torch.ones(3), torch.tensor([True, False, True])).tolist() == [1, 0, 1]


EDGES = torch.tensor([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]])


class Steps(nn.Module):
    """A model of sequences [B, T, N, C]."""

    def __init__(self, forecast: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.forecast = forecast  # [B, T, N], without the axis of channels

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.layer(x)
        return out[..., 0] if self.forecast else out


def distil(x: Tensor, nodes: Any, *losses: nn.Module, target: Tensor | None = None) -> Tensor:
    torch.manual_seed(0)
    distiller = Distiller(*(Steps(target is not None) for _ in range(2)), list(losses))
    return sum(distiller(x, EDGES, target=target, nodes=nodes)[1].values(), torch.zeros(()))


# All that take sequences [B, T, N, C] and nodes.
TAKE_NODES: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "lsp": lambda s, t, nodes: lsp(s[0, 0], t[0, 0], EDGES, nodes=nodes),
    "spatial": lambda s, t, nodes: spatial_correlation(s, t, EDGES, nodes=nodes),
    "temporal": lambda s, t, nodes: temporal_correlation(s, t, nodes=nodes),
    "temporal, known": lambda s, t, nodes: temporal_correlation(
        s, None, nodes=nodes, teacher_structure=temporal_structure(t)
    ),
    "response": lambda s, t, nodes: ResponseLoss()(
        Capture(s[..., 0], nodes=nodes), Capture(t[..., 0], owner="teacher"), t[..., 0] + 1
    ),
    "rows": lambda s, t, nodes: Capture(s, nodes=nodes).rows.sum().abs(),
    "distil lsp": lambda s, t, nodes: distil(s[0, 0], nodes, LSPLoss("layer", "layer")),
    "distil feature": lambda s, t, nodes: distil(s, nodes, HintLoss("layer", "layer")),
    "distil response": lambda s, t, nodes: distil(s, nodes, ResponseLoss(), target=t[..., 0]),
    "distil stcd": lambda s, t, nodes: distil(
        s, nodes, STCDLoss("layer", "layer"), target=t[..., 0]
    ),
}


@pytest.mark.filterwarnings("ignore:.*is blind here")
@pytest.mark.parametrize("call", TAKE_NODES)
@pytest.mark.parametrize(("value", "error", "text"), BAD_NODES)
def test_nodes_are_refused_alike_everywhere(
    call: str, value: Any, error: type[Exception], text: str
) -> None:
    if isinstance(value, list) and call.startswith("distil"):
        pytest.skip("the Distiller makes tensors of lists")
    with pytest.raises(error, match=rf"'nodes'( as a mask)? must {text}$"):
        TAKE_NODES[call](torch.randn(2, 4, 3, 2), torch.randn(2, 4, 3, 5), value)


@pytest.mark.filterwarnings("ignore:.*is blind here")
@pytest.mark.parametrize("call", TAKE_NODES)
def test_indices_and_their_mask_are_one(call: str) -> None:
    torch.manual_seed(1)
    s, t = torch.randn(2, 4, 3, 2), torch.randn(2, 4, 3, 5)
    given = [torch.tensor([0, 2]), torch.tensor([2, 0]).int(), torch.tensor([True, False, True])]
    first, *others = (TAKE_NODES[call](s, t, nodes) for nodes in given)
    assert first.item() > 0
    for other in others:
        torch.testing.assert_close(other, first)
