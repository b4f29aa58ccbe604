"""What 3 % of an STGCN costs as masks, as zeros, as CSR weights and as a compacted model.

Run ``python benchmarks/pruning.py``. One thread, CPU seconds, candidates in turn (median and
interquartile range). The teacher is the 64-16-64 STGCN with random weights, N = 170, T = 12, the 8
nearest neighbours of random points as edges; times do not depend on what was learned. Pruned to
3 % of its parameters, at once or in the stages 40, 15, 6, 3 %, by channels (structured) or by
single weights. FLOPs are those of one window, propagation over the edges included; zeros are
counted as a dense kernel does them. Bytes are those of the saved state. Forms of the same model
are checked to have the same outputs first. Their worth: examples/papers/prune_traffic.py.
"""

from __future__ import annotations

import argparse
import copy
import gc
import io
from collections.abc import Callable
from typing import Any

import harness
import torch
from st_conv import neighbours
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd import Distiller
from pyg_stkd.distill import ResponseLoss
from pyg_stkd.nn import STGCN
from pyg_stkd.nn.sequence.cheb_conv import ChebConv
from pyg_stkd.nn.sequence.operators.graph_operator import propagate
from pyg_stkd.nn.sequence.time_conv import TimeConv
from pyg_stkd.prune import KDIS, Importance, Magnitude, Pruner, Random
from pyg_stkd.prune.compaction.compact import plain_copy
from pyg_stkd.prune.masked.cost import count_flops

NODES, STEPS = 170, 12
SHARE, STAGES = 0.03, (0.4, 0.15, 0.06, 0.03)
CALLS = {1: 8, 32: 1}  # in a row for one time, by the batch size
BARS = {1: 4.0, 32: 8.0}


def to_csr(weight: Tensor) -> Tensor:
    return weight.detach().to_sparse_csr()


class CSRLinear(nn.Module):
    """A linear map whose weight is a CSR matrix."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", to_csr(weight))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        y = (self.weight @ x.reshape(-1, x.size(-1)).t()).t()
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], -1)


class CSRTimeConv(nn.Module):
    """A convolution along time whose taps are one CSR matrix."""

    def __init__(self, conv: TimeConv) -> None:
        super().__init__()
        self.taps = conv.weight.size(2)
        self.lin = CSRLinear(conv.weight[..., 0].transpose(1, 2).flatten(1), conv.bias)

    def forward(self, x: Tensor, gate: str = "linear", residual: int = 0) -> Tensor:
        steps = x.size(1) - self.taps + 1
        windows = torch.cat([x[:, k : k + steps] for k in range(self.taps)], dim=-1)
        y = self.lin(windows)  # [B, T', N, C']
        if residual:
            width = min(residual, x.size(-1))
            y[..., :width] += x[:, self.taps - 1 :, :, :width]
        return F.glu(y, dim=-1) if gate == "glu" else y


class CSRChebConv(ChebConv):
    """A Chebyshev filter whose matrices are one CSR matrix."""

    def __init__(self, conv: ChebConv) -> None:
        super().__init__(conv.in_channels, conv.out_channels, conv.K, propagation=conv.propagation)
        self.lins, self.bias = nn.ModuleList(), None
        self.lin = CSRLinear(torch.cat([lin.weight for lin in conv.lins], dim=1), conv.bias)

    def forward(self, x: Tensor, *graph: Any, residual: Tensor | None = None) -> Tensor:
        columns = x.permute(2, 0, 1, 3).reshape(x.size(2), -1)  # [N, B * T * C]
        operator = self.operator_for(x, *graph).tensors
        terms = [columns, propagate(columns, operator)]
        while len(terms) < self.K:
            terms.append(2 * propagate(terms[-1], operator) - terms[-2])
        y = self.lin(torch.cat([term.view(-1, x.size(-1)) for term in terms], dim=-1))
        y = y.view(x.size(2), x.size(0), x.size(1), -1).permute(1, 2, 0, 3)
        return y if residual is None else y + x


def csr_twin(model: nn.Module) -> nn.Module:
    """Return a copy whose weight matrices are all CSR."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, TimeConv):
                setattr(module, name, CSRTimeConv(child))
            elif isinstance(child, ChebConv):
                setattr(module, name, CSRChebConv(child))
            elif type(child) is nn.Linear:
                setattr(module, name, CSRLinear(child.weight, child.bias))
    return model


def prune(teacher: nn.Module, importance: Importance, granularity: Any, keep: Any) -> Pruner:
    """Prune a copy of the teacher, which is not trained, with a random target."""
    student = copy.deepcopy(teacher).requires_grad_()
    with torch.no_grad():  # else it has nothing to learn from the teacher
        for parameter in student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    distiller = Distiller(teacher, student, [ResponseLoss(alpha=0.3, gate=None)])
    pruner = Pruner(student, importance, granularity, keep)
    edges = neighbours(NODES)
    for _ in pruner.keep:
        pruner.step(
            sum(distiller(x, edges, target=y)[1].values())
            for x, y in ((torch.randn(8, STEPS, NODES, 1), torch.randn(8, STEPS, NODES)),) * 4
        )
    return pruner


def forward(model: nn.Module, x: Tensor, edges: Tensor, calls: int) -> Callable[[], None]:
    """Return so many forecasts in a row."""

    def run() -> None:
        for _ in range(calls):
            model(x, edges)

    return run


def size(model: nn.Module) -> int:
    """Return the bytes of the saved state."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()


def stored(model: nn.Module) -> int:
    """Return the number of weights that are stored, masks and indices not counted."""
    tensors = [p for p in model.parameters() if p is not None]
    tensors += [b for name, b in model.named_buffers() if not name.endswith("_mask")]
    return sum(t._nnz() if t.layout == torch.sparse_csr else t.numel() for t in tensors)


def candidates(teacher: nn.Module) -> dict[str, tuple[nn.Module, int]]:
    """Return each model with the number of its weights that are not pruned."""
    total = sum(p.numel() for p in teacher.parameters())
    found: dict[str, tuple[nn.Module, int]] = {"teacher": (teacher, total)}
    importances = {"KDIS": KDIS(), "Magnitude": Magnitude(), "Random": Random(0)}
    for name, importance in importances.items():
        for keep, how in (((SHARE,), "one-shot"), (STAGES, "iterative")):
            torch.manual_seed(0)
            pruner = prune(teacher, importance, "channel", keep)
            left = pruner.num_parameters
            if (name, how) == ("KDIS", "iterative"):
                zeros = plain_copy(pruner.model)
                found["channels masked, live masks"] = pruner.model, left
                found["channels masked, zeros without masks"] = zeros, left
                found["channels masked, CSR weights"] = csr_twin(zeros), left
            found[f"compacted, {name} {how}"] = pruner.compact(), left
    for name, importance in importances.items():
        torch.manual_seed(0)
        pruner = prune(teacher, importance, "weight", STAGES)
        left, zeros = pruner.num_parameters, pruner.compact()
        found[f"weights masked, live masks, {name}"] = pruner.model, left
        if name == "KDIS":
            found["weights masked, zeros without masks, KDIS"] = zeros, left
            found["weights masked, CSR weights, KDIS"] = csr_twin(zeros), left
    return found


def main(repeats: int) -> None:
    torch.manual_seed(0)
    edges = neighbours(NODES)
    models = candidates(STGCN.teacher(1, STEPS).eval())
    inputs = {b: torch.randn(b, STEPS, NODES, 1) for b in CALLS}
    for model, _ in models.values():
        model.eval()
    check(models, inputs[1], edges)
    gc.collect()
    gc.freeze()  # the harness collects before every time; what was imported need not be searched
    times: dict[int, Any] = {}
    for batch, x in inputs.items():
        with torch.no_grad():
            runs = {name: forward(m, x, edges, CALLS[batch]) for name, (m, _) in models.items()}
            times[batch] = harness.interleave(runs, repeats)
    base = {b: harness.summary(times[b]["teacher"]["cpu"])[0] for b in CALLS}
    whole = count_flops(models["teacher"][0], (inputs[1], edges))
    rows = []
    for name, (model, left) in models.items():
        # The counter knows dense products: zeros in CSR are skipped, the rest is as without.
        count = None if "CSR" in name else count_flops(model, (inputs[1], edges))
        row = {
            "model": name,
            "parameters": f"{left:,}",
            "stored": f"{stored(model):,}",
            "share": f"{100 * left / models['teacher'][1]:.1f} %",
            "MFLOPs": "" if count is None else f"{count / 1e6:.2f}",
            "fewer": "" if count is None else f"{whole / count:.1f}x",
            "kB": f"{size(model) / 1e3:.0f}",
        }
        for b, calls in CALLS.items():
            median, iqr = harness.summary(times[b][name]["cpu"])
            row |= {f"ms at {b}": f"{median / calls:.2f} ({iqr / calls:.2f})"}
            row |= {f"faster at {b}": f"{base[b] / median:.2f}x"}
            row |= {f"bar at {b}": f"{BARS[b]:g}x" if name == "compacted, KDIS iterative" else ""}
        rows.append(row)
        print(row, flush=True)
    harness.write("pruning", rows, times, __doc__.partition("\n\n")[2].replace("\n", " ").strip())


def check(models: dict[str, tuple[nn.Module, int]], x: Tensor, edges: Tensor) -> None:
    """Forms of one pruned model have the same outputs.

    Without masks, zeroed channels count in the statistics of norms over channels.
    """
    live, zeros, csr = "live masks", "zeros without masks", "CSR weights"
    pairs = {
        f"channels masked, {live}": "compacted, KDIS iterative",
        f"channels masked, {zeros}": f"channels masked, {csr}",
        f"weights masked, {live}, KDIS": f"weights masked, {zeros}, KDIS",
        f"weights masked, {zeros}, KDIS": f"weights masked, {csr}, KDIS",
    }
    with torch.no_grad():
        for first, second in pairs.items():
            a, b = models[first][0](x, edges), models[second][0](x, edges)
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=31)
    torch.set_num_threads(1)
    main(parser.parse_args().repeats)
