"""Every function of features, kernels and graphs, with arguments of which some are odd.

``TARGETS`` are as in ``readers``: each makes one call, which ends in a sound result (``"made"``) or
in ``ValueError``, ``TypeError`` or ``IndexError`` (``"refused"``). Anything else raises.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mutations import Pick
from torch import Tensor

from pyg_stkd import functional, kernels
from pyg_stkd.graph import Graph, union_edges

REFUSALS = (ValueError, TypeError, IndexError)
DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.uint8, torch.bool, torch.complex64),
]
NUMBERS = [
    *(0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 60.0, 1e4, 1e-8, 1e-20, 1e-30, 1e-45, 1e18, 1e25, 3e38),
    *(-3e38, 1e300, math.nan, math.inf, -math.inf),
]
ODD: list[Any] = [
    *(None, True, False, "", "l2", "median", [], {}, (1, 2), [[0], [1]], object()),
    *(-1, 0, 1, 2, 3, 7, 100, 2**33, 2**63, 10**12, 10**30, -(10**30)),
    *(0.0, -0.5, 0.5, 1e300, 1e-300, math.nan, math.inf, -math.inf),
    *(np.ones((3, 2), np.float32), np.float32(2), np.int64(2), np.zeros((2, 2), np.int64)),
]


def odd(pick: Pick) -> Any:
    """Return a tensor of an odd shape, type, content or layout, or none at all."""
    if pick(3) == 0:
        return ODD[pick(len(ODD))]
    shape = [pick(5) for _ in range(pick(5))]
    content = [NUMBERS[pick(len(NUMBERS))] for _ in range(math.prod(shape))]
    dtype = DTYPES[pick(len(DTYPES))]
    out = torch.tensor(content, dtype=torch.float64).reshape(shape)
    out = (out if dtype.is_floating_point or dtype.is_complex else out.nan_to_num(0)).to(dtype)
    return laid_out(pick, out)


def laid_out(pick: Pick, x: Tensor) -> Tensor:
    """Return the same values in another layout."""
    ways = (
        lambda: x,
        lambda: torch.stack([x, x], dim=-1)[..., 0],
        lambda: x.mT.contiguous().mT if x.dim() > 1 else x,
        lambda: x.clone().requires_grad_(x.is_floating_point()),
    )
    return ways[pick(len(ways))]()


def features(pick: Pick, *shape: int) -> Tensor:
    """Return features of a usual shape: of some scale and offset, with a few odd numbers."""
    dtype = DTYPES[pick(4)] if pick(3) == 0 else torch.float32
    generator = torch.Generator().manual_seed(pick(1 << 16))
    x = torch.randn(shape, generator=generator)
    x = x * 10.0 ** (pick(7) * 6 - 18) if pick(3) == 0 else x
    x = x + 10.0 ** (pick(6) * 2) if pick(3) == 0 else x
    if x.numel() > 0 and pick(4) == 0:
        x.view(-1)[pick(x.numel())] = torch.tensor(NUMBERS[pick(len(NUMBERS))]).float()
    return laid_out(pick, x.to(dtype))


def edges(pick: Pick, num_nodes: int) -> Any:
    """Return edges of so many nodes, as a graph or a tensor."""
    count = pick(9) if num_nodes else 0
    index = torch.tensor(
        [[pick(max(1, num_nodes)) for _ in range(count)] for _ in range(2)], dtype=torch.long
    ).view(2, count)
    return Graph(index, num_nodes) if pick(2) else index.to(DTYPES[4 + pick(2)])


def kernel(pick: Pick) -> kernels.Kernel:
    made = (
        lambda: kernels.Linear(),
        lambda: kernels.Polynomial(1 + pick(4), [0.0, 1.0, -1e30][pick(3)], bool(pick(2))),
        lambda: kernels.RBF([1.0, 1e-18, 1e18, "median"][pick(4)]),
        lambda: kernels.SquaredEuclidean(),
        lambda: kernels.Euclidean(),
        lambda: kernels.Cosine(),
        lambda: kernels.Laplacian([100.0, 1e-30, 1e30][pick(3)]),
    )
    return made[pick(len(made))]()


def call(pick: Pick, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a function with none, one or two of its arguments replaced."""
    for _ in range(pick(3)):
        arguments[list(arguments)[pick(len(arguments))]] = odd(pick)
    return function(**arguments)


def check(out: Any, *inputs: Any) -> None:
    """Fail if NaN came of numbers, or gradients of nothing."""
    sound = all(not isinstance(x, Tensor) or bool(x.isfinite().all()) for x in inputs)
    if sound and bool(out.isnan().any()):
        raise AssertionError(f"NaN came of {inputs}")
    if out.requires_grad:
        out.double().sum().backward()


def primitives(pick: Pick) -> None:
    num_nodes = pick(6)
    graph = Graph(edges(pick, num_nodes), num_nodes)
    heads = (3,) * pick(2)
    x, y = (features(pick, num_nodes, *heads, pick(3) + 1) for _ in range(2))
    score = features(pick, graph.num_edges, *heads)
    name = ("sddmm", "spmm", "segment_sum", "segment_softmax", "segment_log_softmax")[pick(5)]
    arguments: dict[str, Any] = {"graph": graph}
    if name == "sddmm":
        arguments |= {"a": x, "b": y if pick(2) and y.shape == x.shape else x}
    elif name == "spmm":
        arguments |= {"weight": score if pick(4) else None, "x": x}
    else:
        arguments |= {"value" if name == "segment_sum" else "score": score}
    call(pick, getattr(functional, name), arguments)


def neighbours(pick: Pick) -> None:
    num_points, width = pick(14), pick(8)
    x = features(pick, num_points, width)
    batch = torch.tensor(sorted(pick(3) for _ in range(num_points)), dtype=torch.long)
    arguments = {
        "x": x,
        "k": 1 + pick(6),
        "batch": batch if pick(2) else None,
        "loop": bool(pick(2)),
    }
    out = call(pick, functional.knn_graph, arguments)
    x, k, batch, loop = arguments.values()
    x = torch.as_tensor(x)
    wide = x.detach().double()
    gap = (wide[:, None] - wide).square().sum(-1)
    if isinstance(batch, Tensor):
        gap[batch[:, None] != batch] = math.inf
    if x.dtype == torch.float64 and not bool(wide.square().sum().isfinite()):
        return
    gap.fill_diagonal_(-1 if loop else math.inf)
    for centre in range(x.size(0)):  # of float16 and 32, float64 has all squares
        found = out[0][out[1] == centre]
        best = gap[centre].sort().values[: int(k)]
        given = gap[centre][found].sort().values
        torch.testing.assert_close(given, best[best < math.inf], rtol=1e-6, atol=0)


def local(pick: Pick) -> None:
    num_nodes = pick(6)
    z = features(pick, num_nodes, pick(4))
    arguments: dict[str, Any] = {
        "z": z,
        "graph": edges(pick, num_nodes),
        "kernel": kernel(pick),
        "normalize": (None, "l2", "layer")[pick(3)],
    }
    call(pick, (functional.similarity, functional.local_structure)[pick(2)], arguments)


def losses(pick: Pick) -> None:
    num_nodes = pick(6)
    s, t = (features(pick, num_nodes, pick(4)) for _ in range(2))
    arguments: dict[str, Any] = {"z_student": s, "z_teacher": t}
    function: Callable[..., Tensor] = (functional.lsp, functional.gsp, functional.contrast)[pick(3)]
    if function is functional.lsp:
        nodes = torch.tensor([pick(max(1, num_nodes)) for _ in range(pick(3))], dtype=torch.long)
        arguments |= {
            "edge_index": edges(pick, num_nodes),
            "kernel": kernel(pick),
            "direction": ("student", "teacher")[pick(2)],
            "normalize": (None, "l2", "layer")[pick(3)],
            "reduction": ("node", "edge")[pick(2)],
            "nodes": nodes if pick(2) else None,
        }
    elif function is functional.gsp:
        arguments |= {"kernel": kernel(pick) if pick(2) else None, "max_samples": 1 + pick(5)}
    else:
        arguments |= {"temperature": 0.1}
    out = call(pick, function, arguments)
    if not bool(out.isfinite()):
        raise AssertionError(f"{out} of {arguments}")


def sequences(pick: Pick) -> None:
    batch, steps, num_nodes = pick(3), pick(5), pick(4)
    s, t = (features(pick, batch, steps + pick(2), num_nodes, pick(4)) for _ in range(2))
    options = {"kernel": kernel(pick), "normalize": (None, "l2", "layer")[pick(3)]}
    which = pick(3)
    if which == 0:
        call(pick, functional.temporal_structure, {"h": s, **options})
        return
    arguments = {"h_student": s, "h_teacher": t, **options}
    if which == 1:
        arguments["edge_index"] = edges(pick, num_nodes)
    function = (functional.spatial_correlation, functional.temporal_correlation)[which - 1]
    out = call(pick, function, arguments)
    if not bool(out.isfinite()):
        raise AssertionError(f"{out} of {arguments}")


def respond(pick: Pick) -> None:
    shape = [pick(4) for _ in range(pick(4))]
    s, t, y = (features(pick, *shape) for _ in range(3))
    arguments: dict[str, Any] = {
        "student": s,
        "teacher": t,
        "target": y,
        "alpha": pick(3) / 2,
        "gate": (None, "outlier", "bounded")[pick(3)],
        "error": ("mse", "mae", "huber")[pick(3)],
        "mask": None,
    }
    call(pick, functional.response, arguments)


def graphs(pick: Pick) -> None:
    num_nodes = pick(6)
    if pick(2):
        out = call(pick, Graph, {"edge_index": edges(pick, num_nodes), "num_nodes": None})
    else:
        arguments = {"a": edges(pick, num_nodes), "b": edges(pick, num_nodes)}
        out = call(pick, union_edges, arguments | {"num_nodes": num_nodes})
    index = out.edge_index
    assert (index[1].diff() >= 0).all()
    assert out.rowptr[-1] == out.num_edges
    out.csc()


def widths(pick: Pick) -> None:
    made = (kernels.RBF, kernels.Laplacian, kernels.Polynomial)[pick(3)](odd(pick))
    out = made(torch.tensor([0.0, 1e-30, 1.0, 1e18]))
    assert not out.isnan().any()


def target(function: Callable[[Pick], None]) -> Callable[[Pick], str]:
    def run(pick: Pick) -> str:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is blind here")
            try:
                function(pick)
            except REFUSALS as error:
                if type(error) not in REFUSALS:
                    raise
                return "refused"
        return "made"

    return run


TARGETS = {
    "sparse primitives": target(primitives),
    "knn_graph": target(neighbours),
    "local structures": target(local),
    "losses of pairs": target(losses),
    "sequences": target(sequences),
    "response": target(respond),
    "graphs": target(graphs),
    "kernels": target(widths),
}
