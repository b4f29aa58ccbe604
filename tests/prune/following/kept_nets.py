"""Nets of which something is kept, and the same ones free: the page "What is kept, and why".

The first line of a docstring is the heading; the rest says what the reason means and what helps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["CASES", "INPUTS", "Case"]

INPUTS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    """Two hidden layers; what is between them is to be seen in each net."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.channels = 4


class Returned(Base):
    """The model returns them.

    Outputs are kept, and so is what the last functions, such as ``log_softmax``, make of them.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(x).relu()
        return self.c(self.b(h).relu()).log_softmax(dim=-1), h


class Mixed(Base):
    """Its result depends on channels that are gone.

    A function mixes channels so that a zero counts: softmax, means, norms and sorts over channels.
    Norms of PyTorch and PyG as *modules* leave masked channels out, so they keep none. Sums, dot
    products and matrices over channels are free wherever masked channels are 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h - h.mean(dim=-1, keepdim=True)
        return self.c(self.b(h).relu())


class MixedByModule(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x))
        return self.c(self.b(h).relu())


class Root(Base):
    """A number is made of the width.

    The code divides by the root of its width, say; fewer channels would change the scale. Use a
    constant or a parameter, or a rule (:func:`~pyg_stkd.prune.register`) that makes up for it.
    """

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.b(h / h.size(-1) ** 0.5).relu())


class RootOfAConstant(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.b(h / 8**0.5).relu())


class Sizes(Base):
    """Its result shrinks by other channels, or an error about sizes.

    The code writes a width as a number. Read it from a shape, or from an attribute that is an
    integer: attributes that sizes are made of are set anew in the compacted model.
    """

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).view(-1, 2, 4).tanh().flatten(1)
        return self.c(self.b(h).relu())


class SizesFromAttributes(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).view(-1, 2, self.channels).tanh().flatten(1)
        return self.c(self.b(h).relu())


class Numbers(Base):
    """Its values are read as numbers.

    ``item()``, ``tolist()`` or ``numpy()``: what happens then is not seen. Stay with tensors.
    """

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = torch.from_numpy(h.detach().cpu().numpy().clip(0.0)).to(x)
        return self.c(self.b(h).relu())


class NumbersAsTensors(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).clip(0.0)
        return self.c(self.b(h).relu())


class Infinite(Base):
    """Channels of zeros give values that are not finite.

    A division by the size of a channel, or a logarithm, which masks would break.
    """

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h / h.norm(dim=0)
        return self.c(self.b(h).relu())


class InfiniteNoMore(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h / (1e-6 + h.norm(dim=0))
        return self.c(self.b(h).relu())


class Branch(Base):
    """The compacted model differs.

    All functions could be followed, but the comparison of the whole model failed when this group
    was pruned; the first layer that differs is named. A branch that depends on widths, a batch norm
    over other axes in training mode, or a number from outside of the model are such cases.
    """

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if len(self.a.weight) > 7:
            h = h * 2.0
        return self.c(self.b(h).relu())


class WithInputs(nn.Module):
    """An error about sizes, where inputs are added.

    The inputs cannot shrink, so what is added to them, compared with them or multiplied by a fixed
    matrix is as wide as they are. A linear layer on the inputs, or none, frees it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(x + self.a(x)).relu())


class WithAMap(WithInputs):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.map(x) + self.a(x)).relu())


@dataclass(frozen=True)
class Case:
    """A net, which of its layers are kept and a part of why, and the same net with them free."""

    net: type[nn.Module]
    kept: str
    why: str
    freed: type[nn.Module] | None = None


CASES = [
    Case(Returned, "a", "the model returns them"),
    Case(Mixed, "a", "its result depends on channels that are gone", MixedByModule),
    Case(Root, "a", "a number is made of the width", RootOfAConstant),
    Case(Sizes, "a", "dimension 0 of its result shrinks by other channels", SizesFromAttributes),
    Case(Numbers, "a", "its values are read as numbers", NumbersAsTensors),
    Case(Infinite, "a", "not finite", InfiniteNoMore),
    Case(Branch, "a", "the compacted model differs"),
    Case(WithInputs, "a", "must match the size", WithAMap),
]
