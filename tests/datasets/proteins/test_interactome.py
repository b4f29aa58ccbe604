from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.datasets.proteins.interactome import interactome


@given(
    num_nodes=st.integers(2, 60),
    num_modules=st.integers(1, 9),
    num_slots=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_interactome_is_a_simple_graph(
    num_nodes: int, num_modules: int, num_slots: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    module = rng.integers(num_modules, size=(num_nodes, num_slots))
    member = rng.dirichlet(np.ones(num_slots), size=num_nodes)
    u, v = interactome(module, member, num_modules, rng)
    pairs = list(zip(u.tolist(), v.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert set(pairs) == {(b, a) for a, b in pairs}
    assert (u != v).all()
    assert len(pairs) <= min(27.87 * num_nodes, num_nodes * (num_nodes - 1) / 2)
    if pairs:
        assert min(u) >= 0
        assert max(u) < num_nodes


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_interactome_follows_the_modules(share: float) -> None:
    n = 3000
    module = np.stack([np.arange(n) % 10, (np.arange(n) // 10) % 10], axis=1)
    member = np.tile([share, 1 - share], (n, 1))
    u, v = interactome(module, member, 10, np.random.default_rng(0))
    assert len(u) == 2 * int(27.87 * n / 2)
    same = float((module[u, 0] == module[v, 0]).mean())
    # module edges meet in the first module with probability share^2 within a module; chance 0.1
    inside = share**2 + (1 - share**2) * 0.1
    expected = 0.85 * inside + 0.15 * 0.1
    assert same == pytest.approx(expected, abs=0.05)
    degree = np.bincount(v, minlength=n)
    assert 1.0 < degree.std() / degree.mean() < 1.7
