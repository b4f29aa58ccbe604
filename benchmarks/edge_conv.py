"""Times edge convolutions, nearest neighbours, DGCNN and the union loss against their peers.

Peers: the published DGCNN composition (``published_dgcnn.py``), PyG's ``EdgeConv`` on the
neighbours of torch-cluster (left out where that is not installed), expanded distances with
``topk``, and the naive gather formula on a coalesced union. Before anything is timed, outputs are
compared.

Run ``python benchmarks/edge_conv.py [--device cuda] [--only NAME ...]``.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import harness
import torch
import torch_geometric.nn
from published_dgcnn import GridDGCNN, GridEdgeConv, nearest
from torch import Tensor, nn
from torch_geometric.utils import coalesce

from pyg_stkd.functional.knn import knn_graph
from pyg_stkd.functional.structure import lsp
from pyg_stkd.graph import union_edges
from pyg_stkd.nn.conv.edge_conv import DynamicEdgeConv
from pyg_stkd.nn.models.dgcnn import DGCNN

try:
    from torch_cluster import knn_graph as cluster_knn_graph
except ImportError:
    cluster_knn_graph = None

B, N = 8, 1024
Run = Callable[[], Any]
Case = tuple[str, dict[str, Run], bool]  # name, candidates (ours first), whether memory counts


class ClusterEdgeConv(nn.Module):
    """PyG's layer on torch-cluster's neighbours, as DynamicEdgeConv was before pyg-lib."""

    def __init__(self, network: nn.Module, k: int) -> None:
        super().__init__()
        self.conv = torch_geometric.nn.EdgeConv(network, aggr="max")
        self.k = k

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        return self.conv(x, cluster_knn_graph(x, self.k, batch, loop=True))


def block(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * width_in, width_out, bias=False),
        nn.BatchNorm1d(width_out),
        nn.LeakyReLU(0.2),
    )


def step(model: nn.Module, *inputs: Tensor) -> Run:
    """Forward and backward of a fixed scalar."""
    weight = torch.randn_like(model(*inputs))

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        inputs[0].grad = None
        (model(*inputs) * weight).sum().backward()

    return run


def forward(model: nn.Module, *inputs: Tensor) -> Run:
    @torch.no_grad()
    def run() -> Tensor:
        return model(*inputs)

    return run


def layers(width_in: int, width_out: int, k: int, device: str) -> Iterator[Case]:
    grid = GridEdgeConv(width_in, width_out, k)
    ours = DynamicEdgeConv(block(width_in, width_out), k)
    # The grid has its differences first and the centre second.
    weight = grid.net[0].weight.detach().view(width_out, 2, width_in)
    ours.nn[0].weight.data = weight.flip(1).reshape(width_out, -1)
    models = {"ours": ours, "published": grid}
    if cluster_knn_graph is not None:
        models["PyG + torch-cluster"] = ClusterEdgeConv(block(width_in, width_out), k)
        models["PyG + torch-cluster"].conv.nn.load_state_dict(copy.deepcopy(ours.nn.state_dict()))
    x = torch.randn(B, width_in, N, device=device)
    flat = x.transpose(1, 2).reshape(B * N, width_in)
    batch = torch.arange(B, device=device).repeat_interleave(N)
    for model in models.values():
        model.to(device)

    def inputs(name: str) -> tuple[Tensor, ...]:
        if name == "published":
            return (x.clone().requires_grad_(),)
        return (flat.clone().requires_grad_(), batch)

    out = {name: model(*inputs(name)) for name, model in models.items()}
    out["published"] = out["published"].transpose(1, 2).reshape(B * N, width_out)
    for name, value in out.items():  # a near tie may pick another neighbour in float32
        wrong = ((value - out["ours"]).abs() > 1e-3).float().mean()
        assert wrong < 1e-3, f"{name} differs from ours in {wrong:.2%} of the values"

    title = f"EdgeConv {width_in} to {width_out}, k={k}"
    steps = {name: step(model, *inputs(name)) for name, model in models.items()}
    yield f"{title}, train step", steps, True
    for model in models.values():
        model.eval()
    runs = {name: forward(model, *inputs(name)) for name, model in models.items()}
    yield f"{title}, eval forward", runs, True


def models(device: str) -> Iterator[Case]:
    x = torch.randn(B, 3, N, device=device)
    flat = x.transpose(1, 2).reshape(B * N, 3)
    batch = torch.arange(B, device=device).repeat_interleave(N)
    for name, ours in (("student", DGCNN.student()), ("teacher", DGCNN.teacher())):
        grid = GridDGCNN(40, ours.channels, ours.mlp_channels, ours.k)
        sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, grid)]
        assert sizes[0] == sizes[1], f"the peer has another size: {sizes}"
        runs = {"ours": step(ours.to(device), flat, batch), "published": step(grid.to(device), x)}
        yield f"DGCNN {name}, train step", runs, True


def neighbours(device: str) -> Iterator[Case]:
    for width in (3, 64):
        num_clouds = 32
        x = torch.randn(num_clouds, width, N, device=device)
        flat = x.transpose(1, 2).reshape(-1, width).contiguous()
        sizes = torch.full((num_clouds,), N)
        spread = torch.randint(0, N // 2, (num_clouds // 2,))
        ragged = sizes + torch.stack([spread, -spread], dim=1).view(-1)
        cloud = torch.arange(num_clouds, device=device)
        even, uneven = (cloud.repeat_interleave(s.to(device)) for s in (sizes, ragged))
        runs: dict[str, Run] = {
            "ours": lambda f=flat, b=even: knn_graph(f, 20, b, loop=True),
            "distances + topk": lambda x=x: nearest(x, 20),
            "ours, ragged": lambda f=flat, b=uneven: knn_graph(f, 20, b, loop=True),
        }
        yield f"knn_graph 32 x 1,024, C={width}, k=20", runs, True


def naive_union_lsp(z_s: Tensor, z_t: Tensor, a: Tensor, b: Tensor) -> Tensor:
    source, target = coalesce(torch.cat([a, b], dim=1), num_nodes=z_s.size(0))

    def structure(z: Tensor) -> Tensor:
        score = (-(z[target] - z[source]).square().sum(-1) / 2).exp()
        score = score.exp()
        total = score.new_zeros(z.size(0)).index_add(0, target, score)
        return score / total[target]

    with torch.no_grad():
        teacher = structure(z_t)
    student = structure(z_s)
    return (student * (student / teacher).log()).sum() / z_s.size(0)


def union(device: str) -> Iterator[Case]:
    teacher = torch.randn(B * N, 256, device=device) / 16
    student = (torch.randn(B * N, 64, device=device) / 8).requires_grad_()
    batch = torch.arange(B, device=device).repeat_interleave(N)
    a = knn_graph(teacher, 20, batch, loop=True)
    b = knn_graph(student, 10, batch, loop=True)

    def ours() -> None:
        student.grad = None
        lsp(student, teacher, union_edges(a, b, B * N)).backward()

    def naive() -> None:
        student.grad = None
        naive_union_lsp(student, teacher, a, b).backward()

    # Random features of many channels are about equally far apart; only the time matters here.
    warnings.filterwarnings("ignore", message=".* is blind here")
    ours()
    grad = student.grad
    naive()
    torch.testing.assert_close(student.grad, grad, rtol=1e-3, atol=1e-8)
    yield (
        "Union LSP, k 20 and 10, F 256 and 64",
        {"ours": ours, "coalesce + gather": naive},
        True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=["layers", "models", "neighbours", "union"])
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    groups: dict[str, Callable[[], Iterator[Case]]] = {
        "layers": lambda: (
            case
            for widths in ((64, 64, 20), (128, 256, 20), (32, 64, 10))
            for case in layers(*widths, args.device)
        ),
        "models": lambda: models(args.device),
        "neighbours": lambda: neighbours(args.device),
        "union": lambda: union(args.device),
    }
    rows, raw = [], {}
    clock = "wall" if torch.device(args.device).type == "cuda" else "cpu"
    for group in args.only:
        for name, candidates, with_memory in groups[group]():
            raw[name] = harness.interleave(candidates, args.repeats, device=args.device)
            base = harness.summary(raw[name]["ours"][clock])[0]
            memory = {}
            if with_memory:
                memory = {c: harness.peak_memory(f, args.device) for c, f in candidates.items()}
            for candidate in candidates:
                time, spread = harness.summary(raw[name][candidate][clock])
                row: dict[str, Any] = {"work": name, "code": candidate}
                row |= {"ms": f"{time:.1f}", "IQR": f"{spread:.1f}", "time": f"{time / base:.1f}x"}
                if with_memory:
                    row["peak MB"] = f"{memory[candidate] / 1e6:.1f}"
                    row["memory"] = f"{memory[candidate] / max(1, memory['ours']):.1f}x"
                rows.append(row)
                print(row, flush=True)
    note = f"8 clouds of 1,024 points unless stated, neighbours included, {clock} time, median."
    suffix = "" if clock == "cpu" else "_cuda"
    harness.write(f"edge_conv{suffix}", rows, raw, note, args.device)


if __name__ == "__main__":
    main()
