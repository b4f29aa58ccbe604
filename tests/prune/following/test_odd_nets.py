"""Nets of odd kinds, unedited: what is found in them, and what is kept with which reason."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import GCNConv, GraphNorm

from pyg_stkd.prune import Pruner, Random

N = 14
GENERATOR = torch.Generator().manual_seed(0)
X, EDGES = torch.randn(N, 6, generator=GENERATOR), torch.randint(N, (2, 40), generator=GENERATOR)
NETS: dict[str, tuple[Callable[[], nn.Module], set[str], str]] = {}


class Net(nn.Module):
    """A net whose layers and code are given."""

    def __init__(self, code: Callable[..., Any], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        self.code = code
        for name, layer in layers.items():
            if isinstance(layer, nn.Module):
                self.add_module(name, layer)
            elif isinstance(layer, nn.Parameter):
                self.register_parameter(name, layer)
            else:
                self.register_buffer(name, layer)

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        return self.code(self, x, edge_index)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * grad * ctx.saved_tensors[0]


def net(groups: str, kept: str = "", **make: Callable[[], Any]) -> Any:
    """Registers a net by the name of its code: its groups, and a pattern of what is said."""

    def decorator(code: Callable[..., Any]) -> Callable[..., Any]:
        def build() -> nn.Module:
            return Net(code, **{name: one() for name, one in make.items()})

        NETS[code.__name__] = (build, set(groups.split()), kept)
        return code

    return decorator


def lin(inputs: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inputs, outputs)


def raw(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))


@net("a+b conv", a=lin(6, 12), b=lin(6, 12), conv=lambda: GCNConv(12, 12), out=lin(24, 3))
def shared_layer_of_two_inputs(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out(torch.cat([s.conv(s.a(x), e).relu(), s.conv(s.b(x).tanh(), e.flip(0))], -1))


@net("a+b", a=lin(6, 12), b=lin(12, 12), out=lin(6, 3))
def weights_used_again_transposed(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out(F.linear(s.b(s.a(x)).relu(), s.a.weight.t()))


@net("q+k v", q=lin(6, 12), k=lin(6, 12), v=lin(6, 12), out=lin(12, 3))
def attention_by_einsum(s: Any, x: Tensor, e: Tensor) -> Tensor:
    q, k, v = (f(x).view(x.size(0), 3, -1) for f in (s.q, s.k, s.v))
    weight = torch.einsum("nhd,mhd->hnm", q, k).softmax(-1)
    return s.out(torch.einsum("hnm,mhd->nhd", weight, v).reshape(x.size(0), -1))


@net("a", a=lin(6, 36), out=lin(12, 3))
def parts_by_unbind(s: Any, x: Tensor, e: Tensor) -> Tensor:
    q, k, v = s.a(x).view(x.size(0), 3, -1).unbind(1)
    return s.out(torch.sigmoid(q) * k + v)


@net(
    "b",
    r"a \(it fails with fewer channels: RuntimeError: split_with_sizes",
    a=lin(6, 24),
    b=lin(8, 12),
    out=lin(12, 3),
)
def split_by_numbers(s: Any, x: Tensor, e: Tensor) -> Tensor:
    p, q, r = s.a(x).split([8, 8, 8], -1)
    return s.out(s.b(p * q + r).relu())


@net("a+b c", a=lin(6, 12), b=lin(6, 12), c=lin(12, 12), out=lin(12, 3))
def rows_changed_in_place_through_views(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.a(x)
    h[:7].add_(1.0)
    h[7:] += s.b(x)[7:]
    return s.out(s.c(h).relu_())


@net("c", r"a.*differ", a=lin(6, 12), b=lin(6, 12), c=lin(6, 12), out=lin(12, 3), mix=lin(6, 12))
def values_made_not_zero_through_a_view(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h, k = s.a(x), s.b(x)
    h.t().exp_(), k.t().exp_()  # 1 where a channel is masked
    return s.out(s.c(x) * (h * k).sum(-1, keepdim=True).tanh())


@net("a", a=lin(6, 12), out=lin(12, 3))
def index_add_in_place(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.a(x).relu()
    out = torch.zeros_like(h)
    out.index_add_(0, e[1], h[e[0]])
    return s.out(out + h)


@net("a+b", a=lin(6, 12), b=lin(6, 12), out=lin(12, 3))
def rows_and_values_by_boolean_masks(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h, rows = s.a(x).clone(), x[:, 0] > 0
    h[rows] = s.b(x)[rows].relu()
    h[h < -1] = 0.5
    return s.out(torch.where(h > 0.2, h, torch.zeros_like(h)))


@net("w v", w=raw(12, 6), bias=raw(12), v=raw(12, 12), out=lin(12, 3))
def parameters_of_ones_own(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = F.linear(x, s.w, s.bias).relu()
    return s.out(F.linear(h, s.v) + h @ s.v.t())


@net(
    "a b", a=lin(6, 12), b=lin(12, 12), out=lin(12, 3),
    positions=lambda: torch.randn(20, 12), mean=lambda: torch.randn(12),
)  # fmt: skip
def buffers_as_wide_as_channels(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.b(s.a(x) + s.positions[: x.size(0)])
    if s.training:
        with torch.no_grad():
            s.mean.mul_(0.9).add_(h.mean(0), alpha=0.1)
    return s.out((h - s.mean).relu())


@net("z+r+c", z=lin(18, 12), r=lin(18, 12), c=lin(18, 12), out=lin(12, 3))
def recurrence_by_hand(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = x.new_zeros(x.size(0), s.z.bias.size(0))
    for _ in range(3):
        z, r = (torch.sigmoid(f(torch.cat([x, h], -1))) for f in (s.z, s.r))
        h = z * h + (1 - z) * torch.tanh(s.c(torch.cat([x, r * h], -1)))
    return s.out(h)


@net("a+b", a=lin(6, 12), b=lin(12, 16), out=lin(16, 3))
def residual_that_is_padded(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.a(x).relu()
    return s.out(s.b(h).relu() + F.pad(h, (0, 4)))


@net("c+up down d", c=lambda: nn.Conv1d(6, 16, 3, padding=1), down=lin(16, 4), up=lin(4, 16),
     d=lambda: nn.Conv1d(16, 8, 3, padding=1), out=lin(8, 3))  # fmt: skip
def squeeze_and_excite(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.c(x.t().unsqueeze(0))
    weight = torch.sigmoid(s.up(s.down(h.mean(-1)).relu()))
    return s.out(s.d(h * weight.unsqueeze(-1))[0].t())


@net("", r"a.*Tensor\.view", a=lin(6, 12), w=raw(3, 4, 5), out=lin(15, 3))
def grouped_layer_by_hand(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out(torch.einsum("ngi,gio->ngo", s.a(x).view(-1, 3, 4), s.w).reshape(-1, 15))


@net("a", r"b.*Tensor\.view", a=lin(6, 8), b=lin(8, 72), out=lin(12, 3))
def weights_made_by_a_network(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out(F.linear(x, s.b(s.a(x.mean(0)).relu()).view(12, 6)).relu())


@net("a+b", a=lin(6, 12), b=lin(6, 12), out=lin(12, 3))
def complex_numbers(s: Any, x: Tensor, e: Tensor) -> Tensor:
    z = torch.complex(s.a(x), s.b(x))
    z = z * torch.exp(1j * z.real)
    return s.out(z.abs() + z.imag)


@net("a", a=lin(6, 12), w=raw(8, 12), out=lin(12, 3))
def fourier_over_nodes(s: Any, x: Tensor, e: Tensor) -> Tensor:
    found = torch.fft.rfft(s.a(x), dim=0) * s.w
    return s.out(torch.fft.irfft(found, n=x.size(0), dim=0))


@net("b", r"a \(its result depends on channels that are gone", a=lin(6, 12), b=lin(12, 12),
     out=lin(12, 3))  # fmt: skip
def fourier_over_channels(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out(s.b(torch.fft.fft(s.a(x), dim=-1).real).relu())


@net("a b", a=lin(6, 12), b=lin(12, 12), out=lin(12, 3))
def functions_of_autograd(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out(s.b(Square.apply(s.a(x))).relu())


@net("a", r"b .*expanded size", a=lin(6, 12), b=lin(12, 12), out=lin(6, 3),
     index=lambda: torch.arange(12) // 2)  # fmt: skip
def scatter_over_channels(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.b(s.a(x).relu())
    zeros = torch.zeros(x.size(0), 6, dtype=h.dtype)
    return s.out(zeros.scatter_add(-1, s.index.expand_as(h), h))


@net("d", r"b .*sort.*c .*topk", b=lin(6, 12), c=lin(6, 12), d=lin(12, 12), out=lin(12, 3),
     end=lin(4, 3))  # fmt: skip
def sorted_channels(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.d(s.b(x).sort(-1).values).cumsum(0)
    return s.out(h) + s.end(s.c(x).topk(4, -1).values)


@net("a b", "", a=lin(6, 12), b=lin(12, 12), out=lin(12, 3),
     instance=lambda: nn.InstanceNorm1d(12, affine=True), graph=lambda: GraphNorm(12),
     layer=lambda: nn.LayerNorm(12), gn=lambda: nn.GroupNorm(3, 12))  # fmt: skip
def norms_of_all_kinds(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.instance(s.a(x).t().unsqueeze(0))[0].t()
    return s.out(s.gn(s.b(s.layer(s.graph(h)))).relu())


@net("c", r"a .*Tensor\.mean", a=lin(6, 12), c=lin(6, 12), out=lin(12, 3), end=lin(12, 3))
def norms_by_hand(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.a(x)
    h = h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return s.out(h) + s.end(F.normalize(s.c(x), dim=-1))


@net("a b", a=lambda: nn.Embedding(5, 12), c=lambda: nn.EmbeddingBag(4, 12), b=lin(12, 12),
     out=lin(12, 3))  # fmt: skip
def sums_of_embeddings(s: Any, x: Tensor, e: Tensor) -> Tensor:
    index = torch.arange(x.size(0))
    return s.out(s.b(s.a(index % 5) + s.c((index % 4).view(-1, 1))).relu())


@net("c", r"a \(a number is made of the width, following", a=lin(6, 12), b=lin(6, 12), c=lin(6, 10),
     out=lin(10, 3))  # fmt: skip
def scores_scaled_by_a_size(s: Any, x: Tensor, e: Tensor) -> Tensor:
    q = s.a(x)
    return s.out((q @ s.b(x).t() * q.shape[-1] ** -0.5).softmax(-1) @ s.c(x))


@net("", r"all channels of a are tied to one another", a=lin(6, 5), b=lin(6, 4), out=lin(20, 3))
def outer_products(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out((s.a(x).unsqueeze(2) * s.b(x).unsqueeze(1)).flatten(1))


@net("b", r"a \(the compacted model differs", a=lin(6, 12), b=lin(12, 12), out=lin(12, 3))
def loops_as_long_as_a_width(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.a(x)
    for _ in range(h.size(-1) // 4):
        h = h + 0.1
    return s.out(s.b(h).relu())


@net("a b", a=lin(6, 4), b=lin(6, 4), out=lin(12, 3), end=lin(8, 3))
def channels_repeated(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out(s.a(x).repeat(1, 3)) + s.end(s.b(x).repeat_interleave(2, -1))


@net("a", a=lin(6, 12), value=lin(12, 1), out=lin(6, 3))
def gradients_inside(s: Any, x: Tensor, e: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        energy = s.value(torch.tanh(s.a(x))).sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
    return s.out(force)


@net("a", r"out \(the compacted model differs", a=lin(6, 12), out=lin(12, 3))
def mapped_over_rows(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return torch.func.vmap(lambda row: s.out(s.a(row).relu()))(x)


@net("a b", a=lambda: GCNConv(6, 12), b=lambda: GCNConv(12, 12), out=lin(12, 3))
def run_again_in_the_backward_pass(s: Any, x: Tensor, e: Tensor) -> Tensor:
    return s.out(checkpoint(s.b, s.a(x, e).relu(), e, use_reentrant=False))


@net("a b", a=lin(6, 12), b=lin(12, 12), out=lin(12, 3), end=lin(12, 1))
def several_outputs(s: Any, x: Tensor, e: Tensor) -> Any:
    h = s.b(s.a(x).relu())
    return {"nodes": s.out(h), "more": [s.end(h), (h.sum(),)]}


@net("", r"channels of zeros give values that are not finite", a=lin(6, 12), out=lin(12, 3))
def divisions_by_what_a_mask_makes_zero(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.a(x)
    return s.out(torch.nan_to_num(h / h.abs()))


@net("", r"depends on channels that are gone \(Tensor.__getitem__", a=lin(6, 12), out=lin(12, 3))
def one_channel_added_to_the_next(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.a(x)
    h[:, 1] = h[:, 1] + h[:, 0]
    return s.out(h)


KINDS = torch.arange(40) % 3


@net("a comp weight b", a=lin(6, 12), comp=raw(3, 2), weight=raw(2, 12, 10), b=lin(10, 10),
     out=lin(10, 3))  # fmt: skip
def matrices_of_bases(s: Any, x: Tensor, e: Tensor) -> Tensor:
    w = torch.einsum("rb,bio->rio", s.comp, s.weight)[KINDS]  # a unit of bases, one of channels
    sent = torch.einsum("ei,eio->eo", s.a(x)[e[0]], w)
    return s.out(s.b(sent.new_zeros(N, sent.size(-1)).index_add(0, e[1], sent).relu()))


@net("b", r"a \(.*comp \(.*Tensor\.view", a=lin(6, 12), comp=raw(3, 2), weight=raw(2, 12, 10),
     b=lin(10, 10), out=lin(10, 3))  # fmt: skip
def matrices_of_bases_side_by_side(s: Any, x: Tensor, e: Tensor) -> Tensor:
    w = (s.comp @ s.weight.reshape(2, 120)).view(3, 12, 10)[KINDS]
    sent = torch.einsum("ei,eio->eo", s.a(x)[e[0]], w)
    return s.out(s.b(torch.zeros(N, 10, dtype=x.dtype).index_add(0, e[1], sent).relu()))


@net("b", r"a \(.*Tensor\.view.*weight \(", a=lin(6, 12), weight=raw(3, 2, 6, 5), b=lin(10, 8),
     out=lin(8, 3))  # fmt: skip
def blocks_of_matrices(s: Any, x: Tensor, e: Tensor) -> Tensor:
    h = s.a(x).view(-1, 2, 6)[e[0]]
    sent = torch.einsum("ebi,ebio->ebo", h, s.weight[KINDS]).reshape(-1, 10)
    return s.out(s.b(torch.zeros(N, 10, dtype=x.dtype).index_add(0, e[1], sent).relu()))


def flat(out: Any) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    return [t for part in (out.values() if isinstance(out, dict) else out) for t in flat(part)]


@pytest.mark.parametrize("name", NETS)
def test_odd_nets(name: str) -> None:
    build, groups, kept = NETS[name]
    for share, rho in ((0.5, 0.6), (0.01, 0.0)):
        torch.manual_seed(0)
        model = build()
        options: dict[str, Any] = {"keep": share, "rho": rho, "min_width": 1}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            if not groups:
                with pytest.raises(ValueError, match=f"(?s)that can be pruned.*{kept}"):
                    Pruner(model, Random(0), example=(X, EDGES), **options)
                continue
            pruner = Pruner(model, Random(0), example=(X, EDGES), **options)
            text = "; ".join(str(one.message) for one in told)
            pruner.step()
        assert bool(kept) == ("are kept" in text), text
        assert re.search(kept, text), text
        assert {group.name for group in pruner.groups} == groups
        if rho == 0.0:
            assert set(pruner.widths.values()) == {1}
        masked, small = (copy.deepcopy(m).double() for m in (model, pruner.compact()))
        for training in (False, True):
            masked.train(training), small.train(training)
            outs = [flat(one(X.double(), EDGES)) for one in (masked, small)]
            for a, b in zip(*outs, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-10 * (1 + a.abs().max().item()))
