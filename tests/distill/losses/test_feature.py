from __future__ import annotations

import copy
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn
from torch.autograd import gradcheck

from pyg_stkd.distill import AttentionTransferLoss, Capture, HintLoss
from pyg_stkd.distill.losses.feature import attention_map


def naive_hint(s, t, weight, bias):
    total = 0.0
    for s_row, t_row in zip(s, t, strict=True):
        for k in range(t.size(1)):
            r = sum(weight[k, c] * s_row[c] for c in range(s.size(1))) + bias[k]
            total += float((t_row[k] - r) ** 2)
    return total / t.numel()


def naive_attention_transfer(s, t, p, batch):
    total, graphs = 0.0, sorted(set(batch))
    for graph in graphs:
        maps = []
        for h in (s, t):
            rows = [row for row, b in zip(h.tolist(), batch, strict=True) if b == graph]
            q = [sum(abs(v) ** p for v in row) for row in rows]
            norm = math.sqrt(sum(v**2 for v in q))
            maps.append([v / norm for v in q])
        total += math.dist(*maps)
    return total / len(graphs)


def test_hint_projects_to_the_teachers_width():
    s, t = torch.randn(4, 3).double(), torch.randn(4, 5).double()
    loss = HintLoss("a", "a")
    value = loss(Capture(s), Capture(t))
    assert type(loss.projection) is nn.Linear
    weight, bias = loss.projection.weight, loss.projection.bias
    exact = naive_hint(s, t, weight.detach(), bias.detach())
    assert weight.dtype == torch.float64
    assert value.item() == pytest.approx(exact, abs=1e-12)
    value.backward()
    expected = 2 * (loss.projection(s) - t).detach().sum(0) / t.numel()
    torch.testing.assert_close(bias.grad, expected)
    assert weight.grad.abs().sum() > 0


def test_hint_gradient():
    s, t = torch.randn(4, 3).double(), torch.randn(4, 5).double()
    loss = HintLoss("a", "a", in_channels=3, out_channels=5).double()
    assert gradcheck(lambda s: loss(Capture(s), Capture(t)), s.requires_grad_())


def test_hint_projection_can_be_anything():
    s, t = torch.randn(4, 3), torch.randn(4, 3)
    plain = HintLoss("a", "a", projection=False)
    assert plain(Capture(s), Capture(t)).item() == pytest.approx(((s - t) ** 2).mean().item())
    assert not list(plain.parameters())
    mlp = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3))
    loss = HintLoss("a", "a", projection=mlp)
    expected = ((mlp(s) - t) ** 2).mean()
    torch.testing.assert_close(loss(Capture(s), Capture(t)), expected)


def test_hint_in_an_optimizer_built_before_the_first_batch():
    s, t = torch.randn(8, 3), torch.randn(8, 5)
    loss = HintLoss("a", "a")
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    values = []
    for _ in range(30):
        value = loss(Capture(s), Capture(t))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.6 * values[0]


def test_hint_state_loads_into_a_new_loss():
    s, t = Capture(torch.randn(4, 3)), Capture(torch.randn(4, 5))
    old, new = HintLoss("a", "a"), HintLoss("a", "a")
    value = old(s, t)
    new.load_state_dict(old.state_dict())
    assert torch.equal(new(s, t), value)
    assert repr(new.projection) == "Linear(in_features=3, out_features=5, bias=True)"
    fresh = HintLoss("a", "a")
    fresh.load_state_dict(HintLoss("a", "a").state_dict())  # both before their first batch
    assert fresh(s, t).isfinite()
    assert torch.equal(copy.deepcopy(old)(s, t), value)


def test_hint_in_half_precision_is_computed_in_it_and_summed_in_single():
    loss = HintLoss("a", "a", in_channels=3, out_channels=2).bfloat16()
    s, t = torch.randn(4, 3).bfloat16(), torch.randn(4, 2).bfloat16()
    value = loss(Capture(s), Capture(t))
    expected = ((loss.projection(s).float() - t.float()) ** 2).mean()
    torch.testing.assert_close(value, expected)


def test_hint_bad_input():
    with pytest.raises(ValueError, match=r"must be given together \(got 3 and None\)"):
        HintLoss("a", "a", in_channels=3)
    t = Capture(torch.ones(4, 5), layer="b", owner="teacher")
    with pytest.raises(ValueError, match=r"3 channels.*'hint' was made for \(got shape \[4, 2\]\)"):
        HintLoss("a", "a", in_channels=3, out_channels=5)(Capture(torch.ones(4, 2)), t)
    with pytest.raises(ValueError, match=r"teacher layer 'b' \(got \[4, 3\] and \[4, 5\]\)"):
        HintLoss("a", "a", projection=False)(Capture(torch.ones(4, 3)), t)


def test_hint_bad_projection():
    for bad in ("a", None, 1, nn.Linear):
        with pytest.raises(TypeError, match=r"'projection' must be a bool or a module \(got "):
            HintLoss("a", "a", projection=bad)
    for projection in (False, nn.Linear(4, 7)):
        for widths in ({"in_channels": 4}, {"in_channels": 4, "out_channels": 7}):
            with pytest.raises(ValueError, match=r"'in_channels' and.*of projection=True.*\(got 4"):
                HintLoss("a", "a", projection=projection, **widths)
    with pytest.raises(TypeError, match=r"'out_channels' must be an integer \(got 'a'\)"):
        HintLoss("a", "a", in_channels=4, out_channels="a")
    with pytest.raises(ValueError, match=r"'in_channels' must be at least 1 \(got 0\)"):
        HintLoss("a", "a", in_channels=0, out_channels=3)


@given(st.integers(1, 12), st.integers(1, 4), st.sampled_from([1, 2]), st.integers(1, 4))
def test_attention_transfer_against_the_formula(num_nodes, width, p, num_graphs):
    s = torch.randn(num_nodes, width, dtype=torch.float64)
    t = torch.randn(num_nodes, width + 2, dtype=torch.float64)
    batch = torch.randint(0, num_graphs, (num_nodes,)).sort()[0]  # graphs may be missing
    loss = AttentionTransferLoss("a", "a", p=p)
    whole = loss(Capture(s), Capture(t))
    assert whole.item() == pytest.approx(naive_attention_transfer(s, t, p, [0] * len(s)))
    value = loss(Capture(s, context={"batch": batch}), Capture(t))
    assert value.item() == pytest.approx(naive_attention_transfer(s, t, p, batch.tolist()))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("batch", [None, torch.tensor([0, 0, 1, 1, 1])])
def test_attention_transfer_gradient(p, batch):
    s, t = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    loss, inputs = AttentionTransferLoss("a", "a", p=p), {"batch": batch}
    assert gradcheck(lambda s: loss(Capture(s, inputs), Capture(t)), s.requires_grad_())


@pytest.mark.parametrize("batch", [None, torch.tensor([0, 0, 1])])
def test_attention_transfer_at_zero(batch):
    s = torch.zeros(3, 2, requires_grad=True)
    same = torch.ones(3, 2, requires_grad=True)
    loss = AttentionTransferLoss("a", "a")
    loss(Capture(s, {"batch": batch}), Capture(torch.ones(3, 2))).backward()
    loss(Capture(same, {"batch": batch}), Capture(torch.ones(3, 4))).backward()
    assert torch.equal(s.grad, torch.zeros(3, 2))
    assert torch.equal(same.grad, torch.zeros(3, 2))


def test_attention_transfer_of_chosen_nodes():
    s, t = torch.randn(5, 3), torch.randn(5, 2)
    nodes, batch = torch.tensor([0, 3, 4]), torch.tensor([0, 0, 1, 2, 2])
    loss = AttentionTransferLoss("a", "a")
    expected = naive_attention_transfer(s[nodes], t[nodes], 2, [0, 2, 2])
    value = loss(Capture(s, {"batch": batch}, nodes=nodes), Capture(t, nodes=nodes))
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_attention_transfer_takes_leading_axes_as_graphs():
    s, t = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    loss = AttentionTransferLoss("a", "a")
    slices = [loss(Capture(a), Capture(b)) for a, b in zip(s, t, strict=True)]
    torch.testing.assert_close(loss(Capture(s), Capture(t)), torch.stack(slices).mean())


def test_attention_transfer_bad_input():
    with pytest.raises(ValueError, match=r"'p' must be one of 1, 2 \(got 3\)"):
        AttentionTransferLoss("a", "a", p=3)
    s = Capture(torch.ones(3, 2), {"batch": torch.zeros(4).long()})
    with pytest.raises(ValueError, match=r"'batch' must have one entry.*3 rows.*\(got shape \[4\]"):
        AttentionTransferLoss("a", "a")(s, Capture(torch.ones(3, 2)))
    with pytest.raises(ValueError, match=r"must be \[\*, N, F\] \(got \[3\]\)"):
        AttentionTransferLoss("a", "a")(Capture(torch.ones(3)), Capture(torch.ones(3)))


def test_attention_map_is_of_unit_length():
    x = torch.randn(6, 3)
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    q = attention_map(x, 2, batch)
    torch.testing.assert_close(q.view(2, 3).norm(dim=1), torch.ones(2))


def test_hint_of_no_rows():
    s, t = torch.randn(0, 3, requires_grad=True), torch.randn(0, 5)
    loss = HintLoss("a", "a")
    value = loss(Capture(s), Capture(t))
    assert value.item() == 0
    value.backward()  # reaches the projection: what trains in parallel waits for its gradient
    assert s.grad.shape == (0, 3)
    assert loss.projection.weight.grad.abs().sum() == 0
