"""How much each weight and each channel matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.prune.structure.layout import Layout

__all__ = ["KDIS", "Importance", "Magnitude", "Random"]


class Importance:
    r"""Base class of all scores: subclass it and write :meth:`score`."""

    def score(
        self, weights: Mapping[str, Tensor], losses: Iterable[Tensor] | None
    ) -> dict[str, Tensor]:
        """Return the score of each weight, by the names of the parameters."""
        raise NotImplementedError

    def reduce(self, layout: Layout, scores: Mapping[str, Tensor]) -> Tensor:
        """Return the score of each unit (a channel, a head), the sum over its slices."""
        return layout.reduce(scores)

    def finish(self, score: Tensor) -> Tensor:
        """Return the final score of a weight or unit, the larger the more important."""
        return score

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class KDIS(Importance):
    r"""The first-order change of the distillation loss where a weight is set to zero.

    .. math::
        s_w = \frac{1}{B} \sum_{b=1}^{B} \left| w \, \frac{\partial \mathcal{L}_b}{\partial w}
        \right|, \qquad s_c = \sum_{w \in c} s_w

    with :math:`\mathcal{L}_b` the full loss of batch :math:`b`, distillation included, and the
    sum over all slices that go with channel :math:`c`: its rows, bias and norm, and the columns
    of its consumers.

    Args:
        signed (bool): Whether terms may cancel, :math:`|\sum w \, g|`, over batches and slices.
            (default: :obj:`False`)
        squared (bool): Whether terms are squared, :math:`\sum (w \, g)^2`.
            (default: :obj:`False`)

    Raises:
        ValueError: If both are set.

    Example:
        >>> w = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
        >>> KDIS().score({"w": w}, [w.sum(), (w * w).sum()])["w"]
        tensor([ 1.5000,  5.0000, 10.5000])
    """

    def __init__(self, signed: bool = False, squared: bool = False) -> None:
        if signed and squared:
            raise ValueError("'signed' and 'squared' must not both be set (got True and True)")
        self.signed = signed
        self.squared = squared

    def score(
        self, weights: Mapping[str, Tensor], losses: Iterable[Tensor] | None
    ) -> dict[str, Tensor]:
        if losses is None:
            raise ValueError("'losses' must hold a scalar loss for each batch (got None)")
        if isinstance(losses, Tensor):
            losses = [losses]
        trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
        if not trained:
            raise ValueError(
                "'weights' must hold some that require gradients, for KDIS: a copy of a teacher "
                "that a Distiller froze needs .requires_grad_() (got none)"
            )
        scores = {name: torch.zeros_like(_wide(w, self.squared)) for name, w in weights.items()}
        count = 0
        for loss in losses:
            for name, grad in _gradients(loss, trained).items():
                term = _wide(weights[name].detach(), self.squared) * grad
                scores[name] += (
                    term if self.signed else term.square() if self.squared else term.abs()
                )
            count += 1
        if count == 0:
            raise ValueError("'losses' must hold at least one loss (got none)")
        return {name: score / count for name, score in scores.items()}

    def finish(self, score: Tensor) -> Tensor:
        return score.abs()

    def __repr__(self) -> str:
        return f"KDIS(signed={self.signed}, squared={self.squared})"


class Magnitude(Importance):
    r"""The size of the weights, :math:`\sum |w|^p`.

    Args:
        p (float): The exponent, positive. (default: :obj:`1.0`)

    Raises:
        ValueError: If :obj:`p` is not positive.

    Example:
        >>> Magnitude(p=2).score({"w": torch.tensor([1.0, -3.0])}, None)["w"]
        tensor([1., 9.])
    """

    def __init__(self, p: float = 1.0) -> None:
        self.p = checks.number("p", p, above=0)

    def score(
        self, weights: Mapping[str, Tensor], losses: Iterable[Tensor] | None
    ) -> dict[str, Tensor]:
        return {name: weight.detach().abs() ** self.p for name, weight in weights.items()}

    def __repr__(self) -> str:
        return f"Magnitude(p={self.p})"


class Random(Importance):
    r"""A random order, uniform over weights or channels.

    Args:
        seed (int, optional): The seed of its own generator. (default: that of torch)

    Example:
        >>> w = {"w": torch.ones(3)}
        >>> a, b = Random(seed=0).score(w, None), Random(seed=0).score(w, None)
        >>> bool((a["w"] == b["w"]).all())
        True
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def score(
        self, weights: Mapping[str, Tensor], losses: Iterable[Tensor] | None
    ) -> dict[str, Tensor]:
        return {
            name: self._rand(tuple(weight.shape)).to(weight) for name, weight in weights.items()
        }

    def reduce(self, layout: Layout, scores: Mapping[str, Tensor]) -> Tensor:
        return self._rand((len(layout.units),))

    def __repr__(self) -> str:
        return f"Random(seed={self.seed})"

    def _rand(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self._generator, dtype=torch.float64)


def _wide(x: Tensor, wide: bool) -> Tensor:
    """Return float64 where squares of small numbers would be 0, and so without an order."""
    return x.double() if wide and x.device.type != "mps" else x


def _gradients(loss: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"'losses' must hold scalars, one for each batch (got {got})")
    if not loss.requires_grad:
        raise ValueError("'losses' must depend on the model's parameters (got one without grad)")
    if not bool(torch.isfinite(loss)):
        raise ValueError(f"'losses' must be finite (got {loss.item()})")
    grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    found = {name: g for name, g in zip(weights, grads, strict=True) if g is not None}
    if not found:
        raise ValueError("'losses' must depend on the model's parameters (got one that does not)")
    return found
