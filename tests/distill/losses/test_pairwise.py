from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN

from pyg_stkd import Distiller
from pyg_stkd.distill import Capture, ContrastiveLoss, GSPLoss
from pyg_stkd.functional import contrast, gsp
from pyg_stkd.kernels import RBF


def test_gsp_takes_every_row_for_a_node() -> None:
    s, t = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    loss = GSPLoss("a", "b", kernel=RBF(2.0))
    expected = gsp(s.view(8, 3), t.view(8, 5), RBF(2.0))
    torch.testing.assert_close(loss(Capture(s), Capture(t)), expected)
    assert loss.name == "gsp"
    assert "kernel=RBF(sigma=2.0)" in repr(loss)
    assert not list(loss.parameters())


def test_contrast_of_projected_features() -> None:
    s, t = torch.randn(6, 3), torch.randn(6, 5)
    loss = ContrastiveLoss("a", "b", channels=4)
    value = loss(Capture(s), Capture(t))
    assert [type(m) for m in loss.student_head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert loss.student_head[0].weight.shape == (4, 3)
    assert loss.teacher_head[0].weight.shape == (4, 5)
    loss.eval()
    expected = contrast(loss.student_head(s), loss.teacher_head(t))
    torch.testing.assert_close(loss(Capture(s), Capture(t)), expected)
    value.backward()
    assert all(p.grad is not None for p in loss.parameters())

    other = ContrastiveLoss("a", "b", channels=4, in_channels=(3, 5))
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other.eval()(Capture(s), Capture(t)), expected)
    again = ContrastiveLoss("a", "b", channels=4)  # widths from the weights
    again.load_state_dict(copy.deepcopy(loss.state_dict()))
    torch.testing.assert_close(again.eval()(Capture(s), Capture(t)), expected)


def test_contrast_in_double_precision_and_of_one_node() -> None:
    loss = ContrastiveLoss("a", "b", channels=2)
    value = loss(Capture(torch.randn(3, 3).double()), Capture(torch.randn(3, 5).double()))
    assert value.dtype == torch.float64
    assert next(loss.parameters()).dtype == torch.float64
    one = torch.ones(1, 3, requires_grad=True)
    assert loss(Capture(one), Capture(torch.ones(1, 5))).item() == 0


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("widths", [None, (3, 5)])
def test_contrast_of_a_shard_without_pairs_has_gradients(
    rows: int, widths: tuple[int, int] | None
) -> None:
    s, t = torch.randn(rows, 3, requires_grad=True), torch.randn(rows, 5)
    loss = ContrastiveLoss("a", "b", channels=4, in_channels=widths)
    value = loss(Capture(s), Capture(t))
    value.backward()
    assert value.item() == 0
    assert s.grad is not None
    assert not s.grad.any()
    assert [tuple(p.shape) for p in loss.parameters()][::4] == [(4, 3), (4, 5)]
    for parameter in loss.parameters():  # DDP waits for each of them
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_contrast_of_other_widths() -> None:
    loss = ContrastiveLoss("a", "b", in_channels=(5, 7))
    match = r"student output must have the 5 channels.*'contrastive' was made.*got shape \[4, 3\]"
    with pytest.raises(ValueError, match=match):
        loss(Capture(torch.ones(4, 3)), Capture(torch.ones(4, 7)))
    match = r"teacher output must have the 7 channels.*\(got shape \[4, 5\]\)"
    with pytest.raises(ValueError, match=match):
        loss(Capture(torch.ones(4, 5)), Capture(torch.ones(4, 5), owner="teacher"))


def test_options_of_other_types() -> None:
    two = "'in_channels' must be two widths, of student and teacher"
    for bad in (3, "ab"):
        with pytest.raises(TypeError, match=rf"{two} \(got {bad!r}\)"):
            ContrastiveLoss("a", "b", in_channels=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"{two} \(got \[1\]\)"):
        ContrastiveLoss("a", "b", in_channels=[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'in_channels' must be at least 1 \(got 0\)"):
        ContrastiveLoss("a", "b", in_channels=(3, 0))
    with pytest.raises(ValueError, match=r"'in_channels' must come with 'channels' \(got \(3, 5"):
        ContrastiveLoss("a", "b", channels=None, in_channels=(3, 5))
    for bad in ("a", 1.5, True):
        for name in ("channels", "max_samples"):
            with pytest.raises(TypeError, match=rf"'{name}' must be an integer \(got {bad!r}\)"):
                ContrastiveLoss("a", "b", **{name: bad})
    for bad in ("a", None):
        with pytest.raises(TypeError, match=rf"'temperature' must be a number \(got {bad!r}\)"):
            ContrastiveLoss("a", "b", temperature=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'temperature' must be finite and above 0 \(got nan\)"):
        ContrastiveLoss("a", "b", temperature=float("nan"))


@pytest.mark.parametrize("loss", [GSPLoss, ContrastiveLoss])
def test_learns_to_agree_with_a_teacher_of_another_width(loss: type) -> None:
    torch.manual_seed(0)
    x, edge_index = torch.randn(30, 4), torch.randint(30, (2, 90))
    distiller = Distiller(GCN(4, 16, 2), GCN(4, 6, 2), [loss("convs.0", "convs.0", weight=2.0)])
    assert distiller.check(x, edge_index).losses
    optimizer = torch.optim.Adam(distiller.parameters(), lr=0.02)
    values = []
    for _ in range(40):
        total = sum(distiller(x, edge_index)[1].values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.6 * values[0]


def test_refuse_what_does_not_fit() -> None:
    with pytest.raises(TypeError, match=r"'kernel' must be a Kernel \(got 'rbf'\)"):
        GSPLoss("a", "b", kernel="rbf")
    for loss in (GSPLoss, ContrastiveLoss):
        with pytest.raises(ValueError, match=r"'max_samples' must be at least 1 \(got 0\)"):
            loss("a", "b", max_samples=0)
        with pytest.raises(ValueError, match=r"must be \[\*, N, F\] \(got \[3\]\)"):
            loss("a", "b")(Capture(torch.ones(3)), Capture(torch.ones(3)))
    with pytest.raises(ValueError, match=r"'channels' must be at least 1 \(got 0\)"):
        ContrastiveLoss("a", "b", channels=0)
    with pytest.raises(ValueError, match="'temperature' must be "):
        ContrastiveLoss("a", "b", temperature=0.0)
    with pytest.raises(ValueError, match="must have the same width"):
        ContrastiveLoss("a", "b", channels=None)(
            Capture(torch.ones(3, 2)), Capture(torch.ones(3, 4))
        )
