"""The warning of a kernel that sees no difference among neighbours, or nothing but one of them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from pyg_stkd.functional.structures.similarities.prepared import Normalize
from pyg_stkd.kernels import RBF, Cosine, Kernel, Laplacian, Polynomial

__all__ = ["SAMPLE", "warn_if_blind"]

SAMPLE = 512  # structures that are looked at, the first: enough to tell, and cheap
# A kernel within (0, 1] can never be far from uniform: only what hardly varies is blind.
_SPREAD, _SHARE = 0.02, 0.01


def warn_if_blind(
    what: str, spread: Tensor, share: Tensor, kernel: Kernel, normalize: Normalize
) -> None:
    """Warn the caller of the function that asks, once for a kernel.

    Args:
        what (str): The structures, :obj:`"local"` or :obj:`"temporal"`.
        spread (Tensor): The range of the similarities to a node or step, on average.
        share (Tensor): The entropy of the structures as a share of the largest there is.
        kernel (Kernel): The kernel.
        normalize (str, optional): How the features were normalised.
    """
    width, entropy = torch.stack([spread, share]).tolist()  # NaN where there is nothing to see
    if width < _SPREAD:
        kind = f"uniform (SIM varies by less than {_SPREAD} among neighbours, on average)"
    elif entropy < _SHARE:
        kind = "one-hot (their mean entropy is below 1 % of the maximum)"
    else:
        return
    # One text for a kernel, so that Python's own filter shows it once.
    warnings.warn(
        f"{kernel} is blind here: the teacher's {what} structures are {kind}. "
        f"{_advice(width < _SPREAD, kernel, normalize)}.",
        stacklevel=4,
    )


def _advice(uniform: bool, kernel: Kernel, normalize: Normalize) -> str:
    bounded = isinstance(kernel, (RBF, Laplacian, Cosine)) or (
        isinstance(kernel, Polynomial) and kernel.cosine
    )
    ways = []
    if normalize is None:
        ways.append("normalise the features (normalize='l2' or 'layer')")
    if isinstance(kernel, Laplacian) or (isinstance(kernel, RBF) and kernel.sigma != "median"):
        ways.append("choose another width, such as that of RBF(sigma='median')")
    if not uniform and not bounded:
        ways.append("take a bounded kernel, such as RBF(sigma='median')")
    if uniform and bounded:
        ways.append("take an unbounded one (SquaredEuclidean, Linear, Polynomial)")
    if uniform and normalize is not None:
        ways.append("give the loss a larger weight")
    text = ", or ".join(ways) or "choose another kernel"
    return text[0].upper() + text[1:]
