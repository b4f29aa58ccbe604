"""What functions make of tensors that lie otherwise in memory: the same, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_stkd import functional, kernels
from pyg_stkd.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here", "ignore:.*in beta state")

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 2, 2], [1, 2, 3, 4, 5, 0, 2, 0, 2, 0]])
GRAPH = Graph(EDGES, 6)
Function = Callable[[Tensor, Tensor], Tensor]


def of_steps(function: Callable[..., Tensor], *more: Any) -> Function:
    return lambda s, t: function(s.unflatten(0, (1, 3, 2)), t.unflatten(0, (1, 3, 2)), *more)


FUNCTIONS: dict[str, Function] = {
    "contrast": functional.contrast,
    "gsp": functional.gsp,
    "knn_graph": lambda s, t: functional.knn_graph(s, 2) + 0 * t.sum().long(),
    "local_structure": lambda s, t: functional.local_structure(s, EDGES) + 0 * t.sum(),
    "lsp": lambda s, t: functional.lsp(s, t, EDGES),
    "lsp of a polynomial": lambda s, t: functional.lsp(s, t, EDGES, kernels.Polynomial()),
    "lsp of a laplacian": lambda s, t: functional.lsp(s, t, EDGES, kernels.Laplacian(2.0)),
    "response": lambda s, t: functional.response(s, t, t),
    "sddmm": lambda s, t: functional.sddmm(GRAPH, s, t),
    "similarity": lambda s, t: functional.similarity(s, EDGES, kernels.RBF()) + 0 * t.sum(),
    "spatial_correlation": of_steps(functional.spatial_correlation, EDGES % 2),
    "spmm": lambda s, t: functional.spmm(GRAPH, functional.sddmm(GRAPH, s, s), t),
    "temporal_correlation": of_steps(functional.temporal_correlation),
}


class Labelled(Tensor):
    """A class of one's own, as libraries have."""


SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "columns first": lambda z: z.t().contiguous().t(),
    "every other column": lambda z: torch.stack([z, z + 9], dim=-1)[..., 0],
    "negated view": lambda z: torch._neg_view(-z),
    "one column": lambda z: z[:, :1].expand(-1, 4),
    "one row": lambda z: z[:1].expand(6, -1),
    "sub-class": lambda z: z.as_subclass(Labelled),
    "parameter": torch.nn.Parameter,
}
OTHER: dict[str, Callable[[Tensor], Tensor]] = {
    "coo": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
    "8 bits": lambda z: z.to(torch.float8_e4m3fn),
    "nested": lambda z: torch.nested.nested_tensor([z, z], layout=torch.jagged),
}


@pytest.mark.parametrize("layout", SAME)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_layouts_change_no_value_and_no_gradient(name: str, layout: str) -> None:
    torch.manual_seed(0)
    outs = []
    s, t = torch.randn(2, 6, 4)
    given = [SAME[layout](z).detach() for z in (s, t)]
    for pair in (given, [z.as_subclass(Tensor).clone().contiguous() for z in given]):
        x = pair[0].requires_grad_(name != "knn_graph")
        out = FUNCTIONS[name](x, pair[1])
        grads = torch.autograd.grad(out.sum(), x) if x.requires_grad else ()
        outs.append([part.as_subclass(Tensor) for part in (out, *grads)])
    for ours, theirs in zip(*outs, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", OTHER)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_no_kernel_takes_is_refused_by_name(name: str, layout: str) -> None:
    z = torch.ones(6, 4)
    first, *rest = (OTHER[layout](z), z)
    run = FUNCTIONS[name]
    if name in ("spatial_correlation", "temporal_correlation"):
        more = [EDGES % 2] * (name == "spatial_correlation")
        steps = z.view(1, 3, 2, 4)
        first, rest = OTHER[layout](z if layout == "csr" else steps), [steps]  # CSR has two axes

        def run(s: Tensor, t: Tensor) -> Tensor:
            return getattr(functional, name)(s, t, *more)

    with pytest.raises(TypeError, match=r"^'\w+' must be a dense tensor of 16 bits"):
        run(first, *rest)
