from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.graph import Graph
from pyg_stkd.nn.models.astgcn import ASTGCN
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1], [1, 2, 0, 0, 1, 2]])


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def naive(stack: torch.nn.Module, x: Tensor, laplacian: Tensor) -> Tensor:
    """Follows the paper in the published layout [B, N, C, T], one time step after the other."""
    x = x.permute(0, 2, 3, 1)
    for block in stack.blocks:
        at, sp = block.temporal_attention, block.spatial_attention
        left = torch.matmul(torch.matmul(x.permute(0, 3, 2, 1), at.w1), at.w2)  # [B, T, N]
        product = torch.matmul(left, torch.matmul(at.w3, x))
        e = F.softmax(torch.matmul(at.scale, torch.sigmoid(product + at.bias)), dim=1)
        b, n, c, t = x.shape
        attended = torch.matmul(x.reshape(b, -1, t), e).reshape(b, n, c, t)
        left = torch.matmul(torch.matmul(attended, sp.w1), sp.w2)  # [B, N, T]
        product = torch.matmul(left, torch.matmul(sp.w3, attended).transpose(1, 2))
        s = F.softmax(torch.matmul(sp.scale, torch.sigmoid(product + sp.bias)), dim=1)
        terms = [torch.eye(n, dtype=x.dtype), laplacian.t()]
        terms.append(2 * laplacian.t() @ terms[1] - terms[0])
        steps = []
        for i in range(t):
            parts = [
                (terms[k] * s).permute(0, 2, 1).matmul(x[..., i]).matmul(block.conv.weight[k])
                for k in range(3)
            ]
            steps.append(F.relu(sum(parts)))
        h = torch.stack(steps, dim=-1).permute(0, 2, 1, 3)  # [B, C, N, T]
        weight = block.time_conv.weight.transpose(2, 3)
        stride = block.time_conv.stride[::-1]
        h = F.conv2d(h, weight, block.time_conv.bias, stride=stride, padding=(0, 1))
        r = F.conv2d(
            x.permute(0, 2, 1, 3), block.residual.weight, block.residual.bias, stride=stride
        )
        x = block.norm(F.relu(h + r).permute(0, 3, 2, 1)).permute(0, 2, 3, 1)
    return stack.final(x.permute(0, 3, 1, 2))[..., -1]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_a_loop_over_time(stride: int, weighted: bool) -> None:
    model = ASTGCN(2, 4, 3, 5, num_steps=6, time_stride=stride).double()
    weight = torch.rand(6, dtype=torch.double) if weighted else None
    x = torch.randn(2, 6, 5, 2, dtype=torch.double)
    laplacian = cheb_operator(EDGES, weight, 5, dtype=torch.double).to_dense()
    out, expected = model(x, EDGES, weight), naive(model.parts["recent"], x, laplacian)
    torch.testing.assert_close(out, expected)
    a = torch.autograd.grad(out.square().sum(), list(model.parameters()))
    b = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    torch.testing.assert_close(a, b)


def test_three_components_are_weighed() -> None:
    model = ASTGCN(1, 4, 3, 5, num_steps=6, daily_steps=4, weekly_steps=2).double()
    inputs = [torch.randn(2, t, 5, 1, dtype=torch.double) for t in (6, 4, 2)]
    torch.nn.init.normal_(model.fusion)
    laplacian = cheb_operator(EDGES, num_nodes=5, dtype=torch.double).to_dense()
    expected = sum(
        w * naive(part, x, laplacian)
        for w, part, x in zip(model.fusion, model.parts.values(), inputs, strict=True)
    )
    out = model(inputs[0], EDGES, daily=inputs[1], weekly=inputs[2])
    torch.testing.assert_close(out, expected)
    two = ASTGCN(1, 4, 3, 5, num_steps=6, weekly_steps=2).double()
    assert two(inputs[0], EDGES, weekly=inputs[2]).shape == (2, 3, 5)
    assert list(two.parts) == ["recent", "weekly"]


def test_presets_and_their_parameters() -> None:
    assert count(ASTGCN.published(170)) == 179_456
    assert count(ASTGCN.published(307)) == 450_031


@pytest.mark.parametrize("nodes", [1, 5])
def test_no_edges_and_one_node(nodes: int) -> None:
    model = ASTGCN(1, 4, 3, nodes)
    out = model(torch.randn(2, 12, nodes, 1), EDGES[:, :0])
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is not None for p in model.parameters())


def test_edges_of_any_kind() -> None:
    model, x = ASTGCN(1, 4, 3, 5), torch.randn(2, 12, 5, 1)
    expected = model(x, EDGES)
    torch.testing.assert_close(model(x, Graph(EDGES, 5)), expected)
    for propagation in ("dense", "sparse"):
        operator = cheb_operator(EDGES, None, 5, propagation=propagation)
        torch.testing.assert_close(model(x, operator), expected)


def test_bfloat16_copies_and_weights() -> None:
    model, x = ASTGCN(1, 4, 3, 5), torch.randn(2, 12, 5, 1)
    out = model(x, EDGES)
    out.sum().backward()
    other = ASTGCN(1, 4, 3, 5)
    other.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        torch.testing.assert_close(twin(x, EDGES), out, rtol=0, atol=0)
    half = other.bfloat16()(x.bfloat16(), EDGES)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), out, rtol=0.1, atol=0.1)
    model.reset_parameters()
    assert not torch.equal(model(x, EDGES), out)
    assert repr(model) == "ASTGCN(1, 4, 3, num_nodes=5, steps={'recent': 12})"


@pytest.mark.full
def test_compiles_whole() -> None:
    model, x = ASTGCN(1, 4, 3, 5), torch.randn(2, 12, 5, 1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, EDGES), model(x, EDGES))


def test_errors() -> None:
    x = torch.zeros(2, 12, 5, 1)
    with pytest.raises(ValueError, match=r"'daily' must be given \(got NoneType\)"):
        ASTGCN(1, 4, 3, 5, daily_steps=4)(x, EDGES)
    with pytest.raises(ValueError, match="'weekly' must be None, the model has no such part"):
        ASTGCN(1, 4, 3, 5)(x, EDGES, weekly=x)
    with pytest.raises(ValueError, match=r"N=5 nodes \(got 4\)"):
        ASTGCN(1, 4, 3, 5)(x[:, :, :4], EDGES)
    with pytest.raises(ValueError, match=r"T=12 time steps and N=5 nodes \(got T=11 and N=5\)"):
        ASTGCN(1, 4, 3, 5)(x[:, 1:], EDGES)
    with pytest.raises(ValueError, match="the channels seem to be on axis 1"):
        ASTGCN(3, 4, 3, 5)(torch.zeros(2, 3, 12, 5), EDGES)
    with pytest.raises(ValueError, match=r"positive multiple of time_stride=2 \(got 5\)"):
        ASTGCN(1, 4, 3, 5, num_steps=5, time_stride=2)
    with pytest.raises(ValueError, match=r"'num_steps' must be at least 1 \(got 0\)"):
        ASTGCN(1, 4, 3, 5, num_steps=0)
    with pytest.raises(ValueError, match=r"'num_blocks' must be at least 1 \(got 0\)"):
        ASTGCN(1, 4, 3, 5, num_blocks=0)


# Weights of public codes --------------------------------------------------------------------------

AUTHORS = {
    "block": "BlockList.{}.", "time": "TAt.", "space": "SAt.", "conv": "cheb_conv_SAt.Theta.",
    "time conv": "time_conv.", "residual": "residual_conv.", "norm": "ln.", "final": "final_conv.",
    "mark": "",
}  # fmt: skip
TEMPORAL = {
    "block": "_blocklist.{}.", "time": "_temporal_attention.", "space": "_spatial_attention.",
    "conv": "_chebconv_attention.", "time conv": "_time_convolution.",
    "residual": "_residual_convolution.", "norm": "_layer_norm.", "final": "_final_conv.",
    "mark": "_",
}  # fmt: skip


def public_state(
    names: dict[str, str], K: int, stride: int, hidden: int = 5
) -> dict[str, torch.Tensor]:
    """Draw weights of a model of two blocks, 4 nodes, 6 steps and 2 inputs, named by a code."""
    state, mark = {}, names["mark"]
    for i, (width, steps) in enumerate(((2, 6), (hidden, 6 // stride))):
        block = names["block"].format(i)
        shapes = {
            names["time"]: {"U1": (4,), "U2": (width, 4), "U3": (width,), "be": (1, steps, steps),
                            "Ve": (steps, steps)},
            names["space"]: {"W1": (steps,), "W2": (width, steps), "W3": (width,), "bs": (1, 4, 4),
                             "Vs": (4, 4)},
        }  # fmt: skip
        for module, shapes_of in shapes.items():
            for name, shape in shapes_of.items():
                state[block + module + mark + name] = torch.randn(shape).double()
        if mark:
            state[block + names["conv"] + "_weight"] = torch.randn(K, width, hidden).double()
            state[block + names["conv"] + "_bias"] = torch.randn(hidden).double()
        else:
            for k in range(K):
                state[block + names["conv"] + str(k)] = torch.randn(width, hidden).double()
        for module, shape in (
            (names["time conv"], (hidden, hidden, 1, 3)),
            (names["residual"], (hidden, width, 1, 1)),
            (names["norm"], (hidden,)),
        ):
            state[block + module + "weight"] = torch.randn(shape).double()
            state[block + module + "bias"] = torch.randn(hidden).double()
    state[names["final"] + "weight"] = torch.randn(3, 6 // stride, 1, hidden).double()
    state[names["final"] + "bias"] = torch.randn(3).double()
    return state


def public_forward(
    state: dict[str, torch.Tensor],
    names: dict[str, str],
    x: Tensor,
    lap: Tensor,
    K: int,
    stride: int,
) -> Tensor:
    """Compute what that code does with them, on its layout [B, N, C, T]."""
    mark, eye = names["mark"], torch.eye(lap.size(0)).double()
    for i in range(2):
        block = names["block"].format(i)
        at = {k: state[block + names["time"] + mark + k] for k in ("U1", "U2", "U3", "be", "Ve")}
        sp = {k: state[block + names["space"] + mark + k] for k in ("W1", "W2", "W3", "bs", "Vs")}
        b, n, c, t = x.shape
        left = (x.permute(0, 3, 2, 1) @ at["U1"]) @ at["U2"]
        e = (at["Ve"] @ torch.sigmoid(left @ (at["U3"] @ x) + at["be"])).softmax(1)
        seen = (x.reshape(b, -1, t) @ e).reshape(b, n, c, t)
        left = (seen @ sp["W1"]) @ sp["W2"]
        s = sp["Vs"] @ torch.sigmoid(left @ (sp["W3"] @ seen).transpose(1, 2) + sp["bs"])
        s = s.softmax(1)
        if mark:
            weight = state[block + names["conv"] + "_weight"]
        else:
            weight = [state[block + names["conv"] + str(k)] for k in range(K)]
        steps = []
        for j in range(t):
            if mark:  # one after the other, attention on the first two
                z = [(eye * s).transpose(1, 2) @ x[..., j]]
                z.append((lap * s) @ z[0])
                while len(z) < K:
                    z.append(2 * lap @ z[-1] - z[-2])
            else:  # products element by element
                terms = [eye, lap]
                while len(terms) < K:
                    terms.append(2 * lap * terms[-1] - terms[-2])
                z = [(term * s).transpose(1, 2) @ x[..., j] for term in terms]
            h = sum(z[k] @ weight[k] for k in range(K))
            steps.append(h + state[block + names["conv"] + "_bias"] if mark else h)
        h = torch.relu(torch.stack(steps, dim=-1)).permute(0, 2, 1, 3)
        step = (1, stride if i == 0 else 1)
        h = F.conv2d(
            h, *(state[block + names["time conv"] + k] for k in ("weight", "bias")), step, (0, 1)
        ) + F.conv2d(
            x.permute(0, 2, 1, 3),
            *(state[block + names["residual"] + k] for k in ("weight", "bias")),
            step,
        )
        h = F.layer_norm(
            torch.relu(h).permute(0, 3, 2, 1),
            (h.size(1),),
            *(state[block + names["norm"] + k] for k in ("weight", "bias")),
        )
        x = h.permute(0, 2, 3, 1)
    final = (state[names["final"] + k] for k in ("weight", "bias"))
    return F.conv2d(x.permute(0, 3, 1, 2), *final)[..., -1].permute(0, 2, 1)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("K", [2, 3, 4])
@pytest.mark.parametrize("names", [AUTHORS, TEMPORAL], ids=["authors", "temporal"])
def test_weights_of_public_codes(names: dict[str, str], K: int, stride: int) -> None:
    state = public_state(names, K, stride)
    model = ASTGCN.from_public(state)
    assert (model.K, model.num_steps, model.num_nodes) == (K, 6, 4)
    edges = torch.cat([EDGES, EDGES.flip(0)], dim=1)
    operator = cheb_operator(edges, None, 4, dtype=torch.double, normalization=None, lambda_max=3.7)
    x = torch.randn(2, 6, 4, 2).double()
    out = model.double()(x, operator)
    expected = public_forward(state, names, x.permute(0, 2, 3, 1), operator.to_dense(), K, stride)
    torch.testing.assert_close(out.transpose(1, 2), expected)


def test_weights_of_other_models() -> None:
    state = public_state(AUTHORS, 3, 1)
    with pytest.raises(
        ValueError, match=r"'state' must be that of .* \(got a tensor 'lin.weight'\)"
    ):
        ASTGCN.from_public({**state, "lin.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"'state' must hold all weights .*final.weight"):
        ASTGCN.from_public({k: v for k, v in state.items() if "final" not in k})
    state["final_conv.weight"] = state["final_conv.weight"][..., :4]
    with pytest.raises(ValueError, match=r"as many Chebyshev as time filters \(got 5 and 4"):
        ASTGCN.from_public(state)
