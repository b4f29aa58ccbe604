"""Weights that are computed from others: what of these belongs to the channels of a weight."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

__all__ = ["is_computed", "parts_of", "unmasked_dims"]


def is_computed(module: nn.Module, name: str) -> bool:
    """Tell whether a weight is computed by :mod:`torch.nn.utils.parametrize`.

    Example:
        >>> lin = parametrizations.weight_norm(nn.Linear(2, 3))
        >>> is_computed(lin, "weight"), is_computed(lin, "bias")
        (True, False)
    """
    return is_parametrized(module, name)


def parts_of(module: nn.Module, name: str, dim: int) -> list[tuple[nn.Module, str, int]]:
    r"""Return the modules, tensors and dimensions that a dimension of a computed weight is made of.

    Of a weight norm :math:`\mathbf{W} = g \mathbf{V} / \Vert \mathbf{V} \Vert` these are
    :math:`\mathbf{V}`, and :math:`g` along the dimension whose slices it scales. Of a spectral
    norm :math:`\mathbf{W} / \sigma(\mathbf{W})` the weight itself and a vector of the power
    iteration, whose masked entries vanish as masked rows and columns do.

    Raises:
        ValueError: If it is computed in another way, or in several.

    Example:
        >>> lin = parametrizations.weight_norm(nn.Linear(2, 3))
        >>> [(name, dim) for _, name, dim in parts_of(lin, "weight", 0)]
        [('original0', 0), ('original1', 0)]
        >>> [(name, dim) for _, name, dim in parts_of(lin, "weight", 1)]
        [('original1', 1)]
    """
    steps = module.parametrizations[name]  # type: ignore[index]
    assert isinstance(steps, ParametrizationList)
    dim = dim % getattr(module, name).dim()
    if len(steps) == 1 and isinstance(steps[0], parametrizations._WeightNorm):
        scaled = [(steps, "original0", dim)] if _norm_dim(steps) == dim else []
        return [*scaled, (steps, "original1", dim)]
    if len(steps) == 1 and isinstance(steps[0], parametrizations._SpectralNorm):
        norm = steps[0]
        matrix = steps.original.dim() == 2
        vectors = {norm.dim: "_u", 1 - norm.dim: "_v"} if matrix else {}
        if dim in vectors:
            return [(steps, "original", dim), (norm, vectors[dim], 0)]
    raise ValueError(
        f"'{name}' must be a plain parameter, or one with weight_norm or, if it has two "
        f"dimensions, spectral_norm, for its channels to be pruned; give ignore=[layer] to leave "
        f"it as it is (got a parametrization by {', '.join(type(step).__name__ for step in steps)})"
    )


def unmasked_dims(model: nn.Module) -> set[tuple[str, int]]:
    r"""Return the names and dimensions of parameters that lose slices, but are not masked there.

    Where :math:`g` is 0 the slice of :math:`\mathbf{V}` does not count, and must not be 0: nothing
    can be divided by its norm then.

    Example:
        >>> unmasked_dims(nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 3))))
        {('0.parametrizations.weight.original1', 0)}
    """
    return {
        (f"{prefix}.original1".lstrip("."), _norm_dim(module))
        for prefix, module in model.named_modules()
        if isinstance(module, ParametrizationList)
        and len(module) == 1
        and isinstance(module[0], parametrizations._WeightNorm)
    }


def _norm_dim(steps: ParametrizationList) -> int:
    """Return the dimension whose slices have norms of their own: -1 for one norm of all."""
    dim = steps[0].dim
    assert isinstance(dim, int)
    return dim
