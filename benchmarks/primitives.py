"""The sparse primitives and LSP against naive gathers: time, memory, error. Writes primitives.*"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import harness
import torch
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from pyg_stkd.functional import local_structure, lsp, sddmm, segment_log_softmax, spmm
from pyg_stkd.graph import Graph

Step = Callable[[], list[Tensor]]
# name: nodes and edges of one graph, copies of it, self-loops, the teacher's and student's width
WORK = {
    "N 4,744, E 66k + loops, F 1024/136": (4_744, 66_000, 1, True, 1024, 136),
    "N 170k, E 1.17M, F 256/128": (170_000, 1_170_000, 1, False, 256, 128),
    "256 slices of N 228, E 2,280, F 64/64": (228, 2_280, 256, False, 64, 64),
}
NAIVE, COMPILED = "naive gather", "naive gather, torch.compile"


def make(nodes: int, edges: int, copies: int, loops: bool) -> tuple[Tensor, int]:
    edge_index = torch.randint(nodes, (2, edges))
    if loops:
        edge_index = torch.cat([edge_index, torch.arange(nodes).expand(2, -1)], dim=1)
    shift = torch.arange(copies).repeat_interleave(edge_index.size(1)) * nodes
    return edge_index.repeat(1, copies) + shift, nodes * copies


def naive_structure(z: Tensor, edge_index: Tensor) -> Tensor:
    src, dst = edge_index
    sim = torch.exp(-0.5 * ((z[src] - z[dst]) ** 2).sum(dim=-1))
    return softmax(sim, dst, num_nodes=z.size(0))


def naive_lsp(z_student: Tensor, z_teacher: Tensor, edge_index: Tensor) -> Tensor:
    with torch.no_grad():
        teacher = naive_structure(z_teacher, edge_index)
    student = naive_structure(z_student, edge_index)
    return (student * (student.log() - teacher.log())).sum() / z_student.size(0)


def step(loss: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor | None = None) -> Step:
    """Return a call that does forward and backward, with respect to what requires it."""
    wanted = [x for x in inputs if x.requires_grad]

    def run() -> list[Tensor]:
        out = loss(*inputs)
        return [out.detach(), *torch.autograd.grad(out, wanted, grad)]

    return run


def reference(
    z_student: Tensor, z_teacher: Tensor, graph: Graph, chunk: int = 2_000
) -> list[Tensor]:
    """Evaluate the naive formula in float64, some target nodes at a time."""
    student, teacher = (z.detach().double() for z in (z_student, z_teacher))
    student.requires_grad_()
    total, gradient = torch.zeros_like(student[0, 0]), torch.zeros_like(student)
    for i in range(0, graph.num_nodes, chunk):
        first, last = graph.rowptr[[i, min(i + chunk, graph.num_nodes)]].tolist()
        loss = naive_lsp(student, teacher, graph.edge_index[:, first:last])
        gradient += torch.autograd.grad(loss, student)[0]
        total += loss.detach()
    return [total, gradient]


def error(got: list[Tensor], correct: list[Tensor]) -> str:
    """Return the errors of loss and gradient, relative to their size."""
    return " / ".join(
        f"{float((a - b).norm() / b.norm()):.0e}" for a, b in zip(got, correct, strict=True)
    )


def lsp_candidates(name: str, device: str) -> tuple[dict[str, Step], dict[str, str]]:
    nodes, edges, copies, loops, wide, narrow = WORK[name]
    edge_index, num_nodes = make(nodes, edges, copies, loops)
    edge_index = edge_index.to(device)
    # Two dimensions spread over all: distances of about 1 that vary, as the kernel's width needs.
    latent = torch.randn(num_nodes, 2, device=device)
    z_teacher = latent @ torch.randn(2, wide, device=device) / wide**0.5
    z_student = latent.flip(1) @ torch.randn(2, narrow, device=device) / narrow**0.5
    z_student += 0.05 * torch.randn_like(z_student)
    z_student.requires_grad_()
    graph = Graph(edge_index, num_nodes)
    kept = local_structure(z_teacher, graph)
    pair = [z_student, z_teacher]
    candidates = {
        NAIVE: step(naive_lsp, [*pair, edge_index]),
        "lsp, Graph given": step(lambda s, t: lsp(s, t, graph), pair),
        "lsp, raw edge_index": step(lambda s, t: lsp(s, t, edge_index), pair),
        "lsp, teacher's structure kept": step(
            lambda s: lsp(s, None, graph, teacher_structure=kept), [z_student]
        ),
    }
    compiled = step(torch.compile(naive_lsp, dynamic=False), [*pair, edge_index])
    if harness.runs(compiled):
        candidates[COMPILED] = compiled
    correct = reference(z_student, z_teacher, graph)
    double = [z.detach().double() for z in pair]
    double[0].requires_grad_()
    float64 = error(step(lambda s, t: lsp(s, t, graph), double)(), correct)
    errors = {n: error(run(), correct) for n, run in candidates.items()}
    return candidates, {**errors, "float64": float64}


def primitive_candidates(name: str, device: str) -> dict[str, dict[str, Step]]:
    nodes, edges, copies, loops, _, width = WORK[name]
    edge_index, num_nodes = make(nodes, edges, copies, loops)
    graph = Graph(edge_index.to(device), num_nodes)
    src, dst = graph.edge_index
    a, b = (torch.randn(num_nodes, width, device=device, requires_grad=True) for _ in range(2))
    score = torch.randn(graph.num_edges, device=device, requires_grad=True)
    on_edges, on_nodes = torch.randn_like(score), torch.randn_like(a)

    def naive_sum(weight: Tensor, x: Tensor) -> Tensor:
        return scatter(weight[:, None] * x[src], dst, 0, num_nodes, "sum")

    def naive_log_softmax(score: Tensor) -> Tensor:
        return softmax(score, dst, num_nodes=num_nodes).log()

    return {
        f"sddmm, F {width}": {
            NAIVE: step(lambda a, b: (a[dst] * b[src]).sum(-1), [a, b], on_edges),
            "sddmm": step(lambda a, b: sddmm(graph, a, b), [a, b], on_edges),
        },
        f"spmm, F {width}": {
            NAIVE: step(naive_sum, [score, b], on_nodes),
            "spmm": step(lambda w, x: spmm(graph, w, x), [score, b], on_nodes),
        },
        "segment_log_softmax": {
            NAIVE: step(naive_log_softmax, [score], on_edges),
            "segment_log_softmax": step(lambda s: segment_log_softmax(graph, s), [score], on_edges),
        },
    }


def measure(
    title: str, candidates: dict[str, Step], errors: dict[str, str], repeats: int, device: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time all candidates in turn; return rows of the table and the raw figures."""
    clock = "wall" if device.startswith("cuda") else "cpu"
    memory = {name: harness.peak_memory(run, device) for name, run in candidates.items()}
    times = harness.interleave(candidates, repeats, device=device)
    base = harness.summary(times[NAIVE][clock])[0]
    rows = []
    for name in candidates:
        median, spread = harness.summary(times[name][clock])
        rows.append(
            {
                "work": title if name == NAIVE else "",
                "candidate": name,
                "ms": f"{median:.1f}",
                "spread": f"{spread:.1f}",
                "speed": f"{base / median:.1f}x",
                "peak MiB": f"{memory[name] / 2**20:.1f}",
                "memory": f"{memory[name] / memory[NAIVE]:.1%}",
                "error of loss / gradient": errors.get(name, ""),
            }
        )
        print(" | ".join([title, *map(str, list(rows[-1].values())[1:])]), flush=True)
    return rows, {"times": times, "memory": memory, "errors": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    notes = []
    for name in WORK:
        candidates, errors = lsp_candidates(name, args.device)
        notes.append(errors["float64"])
        more, raw[f"lsp, {name}"] = measure(
            f"lsp, {name}", candidates, errors, args.repeats, args.device
        )
        rows += more
        del candidates
    for name in WORK:
        work = name.rpartition(", ")[0]
        for primitive, candidates in primitive_candidates(name, args.device).items():
            title = f"{primitive}, {work}"
            more, raw[title] = measure(title, candidates, {}, args.repeats, args.device)
            rows += more
    note = (
        "Forward + backward in float32, candidates in turn: median and interquartile range of "
        f"{args.repeats} repeats, CPU time (wall time on a GPU). Peak memory is what a call adds. "
        "Errors are relative to the naive formula in float64; those of lsp in float64 are "
        f"{', '.join(notes)} in the order of the table."
    )
    harness.write("primitives", rows, raw, note, args.device)


if __name__ == "__main__":
    main()
