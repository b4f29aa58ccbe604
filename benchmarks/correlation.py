"""L_SCD and L_TCD against naive gathers, and against a student's step. Writes correlation.*"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import harness
import torch
from torch import Tensor
from torch_geometric.utils import softmax

from pyg_stkd.functional import local_structure, lsp
from pyg_stkd.functional.structures.spatial import rows, spatial_correlation
from pyg_stkd.functional.structures.temporal import temporal_correlation, temporal_structure
from pyg_stkd.graph import Graph
from pyg_stkd.graph.slices import slice_blocks
from pyg_stkd.nn.models.stgcn import STGCN

Step = Callable[[], list[Tensor]]
B, T, N, C, E = 32, 8, 228, 64, 1664  # the first block of STGCN on PeMSD7(M)
SCD, TCD, STUDENT = "L_SCD", "L_TCD", "student's own step"
NAIVE = "naive gather"


def naive_spatial(h: Tensor, edge_index: Tensor) -> Tensor:
    src, dst = edge_index
    sim = torch.exp(-0.5 * ((h[:, :, src] - h[:, :, dst]) ** 2).sum(dim=-1))  # [B, T, E]
    return softmax(sim, dst, num_nodes=N, dim=2)


def naive_scd(student: Tensor, teacher: Tensor, edge_index: Tensor) -> Tensor:
    with torch.no_grad():
        known = naive_spatial(teacher, edge_index)
    ours = naive_spatial(student, edge_index)
    return (ours * (ours.log() - known.log())).sum() / student[..., 0].numel()


def naive_temporal(h: Tensor) -> Tensor:
    h = h.transpose(1, 2)
    sim = torch.exp(-0.5 * ((h[:, :, :, None] - h[:, :, None]) ** 2).sum(-1))  # [B, N, T, T]
    loops = torch.eye(h.size(2), dtype=torch.bool, device=h.device)
    return sim.masked_fill(loops, -torch.inf).softmax(-1)[..., ~loops]


def naive_tcd(student: Tensor, teacher: Tensor) -> Tensor:
    with torch.no_grad():
        known = naive_temporal(teacher)
    ours = naive_temporal(student)
    return (ours * (ours.log() - known.log())).sum() / student[..., 0].numel()


def step(loss: Callable[..., Tensor], *inputs: Tensor) -> Step:
    def run() -> list[Tensor]:
        out = loss(*inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs[0])]

    return run


def loop(student: Tensor, teacher: Tensor, graph: Graph) -> Tensor:
    slices = zip(student.flatten(0, 1), teacher.flatten(0, 1), strict=True)
    return torch.stack([lsp(s, t, graph) for s, t in slices]).mean()


def student_step(edge_index: Tensor, device: str) -> Step:
    model = STGCN(1, 16, 12).to(device)  # 64-16-64 twice: its first block gives [B, T, N, C]
    x, graph = torch.randn(B, 12, N, 1, device=device), Graph(edge_index, N)

    def run() -> list[Tensor]:
        model.zero_grad()
        out = model(x, graph)
        out.square().mean().backward()
        return [out.detach()]

    return run


def candidates(device: str) -> dict[str, dict[str, Step]]:
    edge_index = torch.randint(N, (2, E), device=device)
    teacher = torch.randn(B, T, N, C, device=device) / 8  # distances of about 1
    student = teacher + torch.randn_like(teacher) / 30
    student.requires_grad_()
    graph, pair = Graph(edge_index, N), (student, teacher)
    blocks = slice_blocks(graph, B * T)
    local, temporal = local_structure(rows(teacher), blocks), temporal_structure(teacher)
    work: dict[str, dict[str, Step]] = {
        SCD: {
            NAIVE: step(lambda s, t: naive_scd(s, t, edge_index), *pair),
            "lsp, a loop over slices": step(lambda s, t: loop(s, t, graph), *pair),
            "Graph given": step(lambda s, t: spatial_correlation(s, t, graph), *pair),
            "raw edge_index": step(lambda s, t: spatial_correlation(s, t, edge_index), *pair),
            "teacher's structure kept": step(
                lambda s: spatial_correlation(s, None, graph, teacher_structure=local), student
            ),
        },
        TCD: {
            NAIVE: step(naive_tcd, *pair),
            "Gram matrices": step(temporal_correlation, *pair),
            "teacher's structure kept": step(
                lambda s: temporal_correlation(s, None, teacher_structure=temporal), student
            ),
        },
    }
    naive = torch.compile(lambda s, t: naive_scd(s, t, edge_index), dynamic=False)
    for part, formula in {SCD: naive, TCD: torch.compile(naive_tcd, dynamic=False)}.items():
        compiled = step(formula, *pair)
        if harness.runs(compiled):
            work[part][f"{NAIVE}, torch.compile"] = compiled
    own = {"STGCN 64-16-64, forward + backward": student_step(edge_index, device)}
    return work | {STUDENT: own}


def error(got: list[Tensor], naive: list[Tensor]) -> str:
    """Return the differences of loss and gradient from the naive ones, relative to their size."""
    pairs = zip(got, naive, strict=True)
    return " / ".join(f"{float((a - b).norm() / b.norm()):.0e}" for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message=".*is blind here")
    work = candidates(args.device)
    flat = {(part, name): run for part, group in work.items() for name, run in group.items()}
    times = harness.interleave(
        {f"{part}: {name}": run for (part, name), run in flat.items()}, args.repeats,
        device=args.device,
    )  # fmt: skip
    clock = "wall" if args.device.startswith("cuda") else "cpu"
    ms = {key: harness.summary(times[f"{key[0]}: {key[1]}"][clock]) for key in flat}
    own = next(ms[key][0] for key in flat if key[0] == STUDENT)
    rows_: list[dict[str, Any]] = []
    for (part, name), run in flat.items():
        median, spread = ms[part, name]
        naive = ms.get((part, NAIVE))
        rows_.append(
            {
                "work": part,
                "candidate": name,
                "ms": f"{median:.1f}",
                "spread": f"{spread:.1f}",
                "speed": "" if naive is None else f"{naive[0] / median:.1f}x",
                "of the student's step": f"{median / own:.1%}",
                "peak MiB": f"{harness.peak_memory(run, args.device) / 2**20:.0f}",
                "difference of loss / gradient": ""
                if naive is None or name == NAIVE
                else error(run(), work[part][NAIVE]()),
            }
        )
        print(" | ".join(str(cell) for cell in rows_[-1].values()), flush=True)
    notes = []
    for what, names in {
        "with the teacher's side": ("Graph given", "Gram matrices"),
        "with the teacher's structures kept": ("teacher's structure kept",) * 2,
    }.items():
        both = ms[SCD, names[0]][0] + ms[TCD, names[1]][0]
        notes.append(f"{what} {both / own:.1%}")
    note = (
        f"B {B}, T {T}, N {N}, C {C}, E {E:,} ({B * T} slices); forward + backward in float32, "
        f"candidates in turn: median and interquartile range of {args.repeats} repeats, CPU time "
        "(wall time on a GPU). Peak memory is what a call adds. L_SCD + L_TCD of the student's "
        f"own step: {', '.join(notes)}."
    )
    print(note)
    harness.write("correlation", rows_, times, note, args.device)


if __name__ == "__main__":
    main()
