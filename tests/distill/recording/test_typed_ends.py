from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import HeteroConv, SAGEConv

from pyg_stkd import Distiller
from pyg_stkd.distill import LSPLoss
from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.typed_ends import by_edge_type
from pyg_stkd.functional import lsp

WRITES, CITES = ("a", "writes", "p"), ("p", "cites", "p")
EDGES = {WRITES: torch.tensor([[0, 2], [1, 0]]), CITES: torch.tensor([[0], [1]])}
A, P = torch.randn(3, 4), torch.randn(2, 4)


def capture(p: torch.Tensor = P, typed: bool = True) -> Capture:
    return Capture({"a": A, "p": p}, {"edges": EDGES} if typed else {"x": A}, layer="conv")


def test_sources_and_targets_are_rows_of_one_capture() -> None:
    whole = capture()
    ends = by_edge_type(whole, whole.parts())
    assert list(ends) == [WRITES, CITES]
    between, within = ends[WRITES], ends[CITES]
    torch.testing.assert_close(between.value, torch.cat([A, P]))
    assert between.edge_index.tolist() == [[2, 0], [3, 4]]  # by target, behind the 3 sources
    assert between.node_index is not None
    assert between.node_index.tolist() == [3, 4]  # the targets alone count
    torch.testing.assert_close(between.rows, P)
    torch.testing.assert_close(within.value, P)
    assert within.edge_index is EDGES[CITES]
    assert within.node_index is None


def test_only_wanted_types_are_joined() -> None:
    whole = capture(torch.randn(2, 5))
    assert list(by_edge_type(whole, whole.parts(), {CITES: 1.0})) == [CITES]
    with pytest.raises(ValueError, match=r"one width at both ends .*\(got \[3, 4\] and \[2, 5\]\)"):
        by_edge_type(whole, whole.parts())


@pytest.mark.parametrize("kind", ["p", ("p", "by", "a")])
def test_wanted_types_are_those_of_edges(kind: object) -> None:
    whole = capture()
    with pytest.raises(ValueError, match=r"'weights' must name types of edges.*'writes'.*\(got \["):
        by_edge_type(whole, whole.parts(), {CITES: 1.0, kind: 1.0})


def test_parts_stay_as_they_are_without_edges_by_type() -> None:
    whole = capture(typed=False)
    parts = whole.parts()
    assert by_edge_type(whole, parts) is parts
    one = {"p": parts["p"]}
    assert by_edge_type(capture(), one) is one


@pytest.mark.parametrize("empty", ["a", "p"])
def test_a_type_without_nodes_adds_nothing(empty: str) -> None:
    torch.manual_seed(0)
    edges = {CITES: torch.tensor([[0, 1, 1], [1, 0, 1]]), ("a", "to", "a"): EDGES[WRITES]}
    x_dict = {"a": torch.randn(3, 4), "p": torch.randn(3, 4)}
    x_dict[empty] = x_dict[empty][:0]
    edges = {
        kind: index[:, :0] if empty in kind else index
        for kind, index in {**edges, WRITES: EDGES[WRITES], ("p", "by", "a"): EDGES[WRITES]}.items()
    }
    teacher, student = (
        HeteroConv({kind: SAGEConv((4, 4), width) for kind in edges}) for width in (6, 5)
    )
    distiller = Distiller(teacher, student, [LSPLoss("", "")])
    _, losses = distiller(x_dict, edges)
    (other,) = {"a", "p"} - {empty}
    s, t = student(x_dict, edges)[other], teacher(x_dict, edges)[other]
    (kind,) = (kind for kind in edges if kind[0] == kind[2] == other)
    torch.testing.assert_close(losses["lsp"], lsp(s, t, edges[kind]) / len(edges))
    losses["lsp"].backward()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)
