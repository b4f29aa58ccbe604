"""Random networks of interacting proteins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["interactome"]

# PPI has 1,587,264 directed edges over 56,944 nodes.
MEAN_DEGREE = 27.87
SPREAD = 1.1  # sigma of the log-normal propensity
MIXING = 0.15  # share of the edges that ignore the modules


def interactome(
    module: NDArray[np.int64],
    member: NDArray[np.float64],
    num_modules: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    r"""Return an undirected graph drawn from a degree-corrected block model with overlapping blocks
    (`"Stochastic blockmodels and community structure in networks"
    <https://arxiv.org/abs/1008.3926>`_, with the mixed memberships of `"Efficient and principled
    method for detecting communities" <https://arxiv.org/abs/1104.3590>`_).

    A node has a log-normal propensity :math:`\theta_i` (the degrees of measured tissue networks
    spread as much) and belongs to a module by a share. The first end of an edge is drawn in
    proportion to :math:`\theta_i` and one of its modules by share; the second end from that
    module, or, for 15 % of the edges, from all nodes.

    Args:
        module (ndarray): The modules of each node, from 0; one may come twice.
        member (ndarray): The shares of the node in them, a sum of 1 each.
        num_modules (int): The number of modules.
        rng (numpy.random.Generator): The source of chance.

    Returns:
        ndarray: Both directions of each edge, sorted, without duplicates and loops. The mean
        degree is 27.87, or half that of the complete graph where that is less.

    Shapes:
        - **input:** module :math:`(N, k)`, member :math:`(N, k)`
        - **output:** :math:`(2, E)`, int64

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> interactome(np.zeros((100, 1), int), np.ones((100, 1)), 1, rng).shape
        (2, 2786)
    """
    num_nodes, num_slots = module.shape
    propensity = np.exp(SPREAD * rng.standard_normal(num_nodes))
    slot = np.argsort(module.ravel(), kind="stable")  # (node, module) pairs by module
    node, module_of = slot // num_slots, module.ravel()[slot]
    mass = np.concatenate([[0.0], np.cumsum((propensity[:, None] * member).ravel()[slot])])
    first = np.searchsorted(module_of, np.arange(num_modules + 1))
    overall = np.concatenate([[0.0], np.cumsum(propensity)])

    target = int(min(MEAN_DEGREE * num_nodes, num_nodes * (num_nodes - 1) / 2) / 2)
    key = np.empty(0, dtype=np.int64)
    for _ in range(12):  # duplicates are dropped, so draw again; hubs of tiny graphs saturate
        missing = target - len(key)
        if missing == 0:
            break
        size = int(1.3 * missing) + 16
        start = _draw(mass, 0.0, mass[-1], rng, size)
        low, high = (mass[first[module_of[start] + i]] for i in (0, 1))
        u, v = node[start], node[_draw(mass, low, high, rng, size)]
        v = np.where(rng.random(size) < MIXING, _draw(overall, 0.0, overall[-1], rng, size), v)
        new = np.setdiff1d((np.minimum(u, v) * num_nodes + np.maximum(u, v))[u != v], key)
        # sorted: versions of numpy differ in the order of sets
        key = np.concatenate([key, rng.permutation(np.sort(new))[:missing]])
    u, v = key // num_nodes, key % num_nodes
    both = np.sort(np.concatenate([key, v * num_nodes + u]))
    return np.stack([both // num_nodes, both % num_nodes]).astype(np.int64)


def _draw(
    mass: NDArray[np.float64],
    low: NDArray[np.float64] | float,
    high: NDArray[np.float64] | float,
    rng: np.random.Generator,
    size: int,
) -> NDArray[np.int64]:
    """Return places drawn from a cumulative mass between two of its values."""
    point = low + rng.random(size) * (high - low)
    place = np.searchsorted(mass, point, side="right") - 1
    return np.asarray(np.clip(place, 0, len(mass) - 2), dtype=np.int64)
