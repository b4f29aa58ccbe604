"""Serve a traffic forecaster: train, distil, prune, export, measure, answer over HTTP.

    python examples/serve_traffic.py export --out runs/serve        # models, in minutes
    python examples/serve_traffic.py measure --out runs/serve       # latency, memory, error
    python examples/serve_traffic.py load --out runs/serve          # the same through HTTP
    python examples/serve_traffic.py http --out runs/serve --model pruned.onnx --port 8000

``export`` trains an STGCN on generated speeds, distils a small one, prunes the teacher, and writes
each as an ONNX file (and with 8-bit weights), for torch, and as weights. The others need NumPy and
onnxruntime (``http`` also FastAPI and uvicorn), not torch: see ``examples/serving/``.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import resource
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "serving"))
from forecaster import Forecaster, load_model, read_meta

if TYPE_CHECKING:
    from torch import nn

STEPS = 12


def export(args: argparse.Namespace) -> None:
    """Train the three models and write what serving needs."""
    import eager
    import torch
    from torch.utils.data import DataLoader

    from pyg_stkd import Distiller, Pruner
    from pyg_stkd.datasets import StandardScaler, SyntheticTraffic, WindowDataset
    from pyg_stkd.distill import STCDLoss
    from pyg_stkd.graph import Graph
    from pyg_stkd.kernels import Linear
    from pyg_stkd.metrics import masked_mae
    from pyg_stkd.nn import STGCN, cheb_operator
    from pyg_stkd.prune import Magnitude

    torch.manual_seed(args.seed)
    series = SyntheticTraffic(args.nodes, args.steps, seed=args.seed)
    train, _, test = series.split(0.7, 0.1, 0.2, overlap=STEPS)
    scaler = StandardScaler.fit(train)
    windows = WindowDataset(train, STEPS, STEPS, scaler, scale_target=True, stride=4)
    loader = DataLoader(windows, batch_size=32, shuffle=True)
    graph = Graph(series.edge_index, args.nodes)
    roads = graph, graph.sort_edges(series.edge_weight)

    def fit(model: nn.Module, distiller: Distiller | None = None, epochs: int = 1) -> nn.Module:
        optimizer = torch.optim.Adam((distiller or model).parameters(), lr=0.005)
        for _ in range(epochs):
            for x, y, mask in loader:
                optimizer.zero_grad()
                if distiller is None:
                    loss = masked_mae(model(x, *roads), y, mask)
                else:
                    loss = sum(distiller(x, *roads, target=y)[1].values())
                loss.backward()
                optimizer.step()
        return model.eval()

    def distil(student: nn.Module) -> nn.Module:
        loss = STCDLoss("blocks.0", "blocks.0", alpha=0.3, error="mae", kernel=Linear())
        distiller = Distiller(teacher, student, loss)
        fit(student, distiller, args.epochs)
        distiller.remove_hooks()
        return student

    print("training the teacher, distilling the student, pruning the teacher ...")
    teacher = fit(STGCN.teacher(1, STEPS), epochs=args.epochs)
    student = distil(STGCN.student(1, STEPS))
    pruner = Pruner(copy.deepcopy(teacher).requires_grad_(), Magnitude(), keep=0.05)
    pruner.step()
    pruned = distil(pruner.compact().train())

    args.out.mkdir(parents=True, exist_ok=True)
    meta = {
        "sensors": [str(i) for i in range(args.nodes)], "input_steps": STEPS,
        "output_steps": STEPS, "step_minutes": series.step_minutes, "unit": series.unit,
        "mean": float(scaler.mean[0]), "std": float(scaler.std[0]), "highest": 120.0,
    }  # fmt: skip
    (args.out / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    np.save(args.out / "test.npy", test.values[..., 0].numpy())  # [T, N], for `measure`
    eager.save_roads(args.out / "roads.npz", series.edge_index, series.edge_weight, args.nodes)
    for name, model in (("teacher", teacher), ("student", student), ("pruned", pruned)):
        eager.save(model, args.out / f"{name}.safetensors")
        write(model, cheb_operator(*roads), args, name)


def write(model: nn.Module, roads: Any, args: argparse.Namespace, name: str) -> None:
    """Export one model: ONNX, the same with 8-bit weights, and what torch runs."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxscript import optimizer

    class OnRoads(torch.nn.Module):
        """The road network is a constant of the exported model."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.roads = model, roads

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x, self.roads)

    x = (torch.randn(1, STEPS, args.nodes, 1),)
    program = torch.export.export(OnRoads().eval(), x)
    path = args.out / f"{name}.onnx"
    logging.disable(logging.WARNING)  # of what the exporters did not fold
    warnings.simplefilter("ignore", FutureWarning)  # torch's own
    made = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
    # Weights that the model puts together at each call become constants, which alone have 8 bits.
    made = optimizer.optimize(made, input_size_limit=1 << 30, output_size_limit=1 << 30)
    for node in made.graph.node:
        del node.metadata_props[:]  # where in Python it came from: ten times the weights
    path.write_bytes(made.SerializeToString())
    quantize_dynamic(path, args.out / f"{name}.int8.onnx", weight_type=QuantType.QUInt8)
    torch.export.save(program, args.out / f"{name}.pt2")
    if args.aoti:
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(args.out / f"{name}.aoti.pt2")
        )
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters")


def measure(args: argparse.Namespace) -> None:
    """Compare the models of a folder, each in a process of its own, in turn."""
    read_meta(args.out)  # says what is missing
    models = [
        args.out / f"{name}{end}"
        for name in ("teacher", "student", "pruned")
        for end in (".safetensors", ".pt2", ".aoti.pt2", ".onnx", ".int8.onnx")
        if (args.out / f"{name}{end}").exists()
    ]
    runs: dict[str, list[dict[str, float]]] = {path.name: [] for path in models}
    for _ in range(args.rounds):
        for path in models:
            command = [
                sys.executable,
                __file__,
                "one",
                "--out",
                str(args.out),
                "--model",
                path.name,
            ]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs[path.name].append(json.loads(out))
    rows = []
    for name, results in runs.items():
        best = {key: float(np.median([result[key] for result in results])) for key in results[0]}
        size = (args.out / name).stat().st_size / 1e3
        rows.append({"model": name, "kB": round(size)} | {k: round(v, 3) for k, v in best.items()})
    (args.out / "serving.json").write_text(json.dumps({"rows": rows, "runs": runs}, indent=1))
    table = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


def one(args: argparse.Namespace) -> None:
    """Measure one model: time from a new row to the forecast, memory, error an hour ahead."""
    meta = read_meta(args.out)
    series = np.load(args.out / "test.npy")  # [T, N]
    forecaster = Forecaster(load_model(args.out / args.model), meta)
    start = np.datetime64("2024-01-01T00:00", "m")
    seconds, errors = [], []
    for i, row in enumerate(series):
        begin = time.perf_counter()
        forecaster.update(str(start + i * forecaster.step), row.tolist())
        if forecaster.filled < meta.input_steps or i + meta.output_steps >= len(series):
            continue
        out = forecaster.forecast()
        seconds.append(time.perf_counter() - begin)
        errors.append(np.abs(out.values - series[i + 1 : i + 1 + meta.output_steps]))
    p50, p99 = np.percentile(seconds[len(seconds) // 10 :], [50, 99]) * 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB, on Linux
    mae = float(np.nanmean(errors))
    print(json.dumps({"p50 ms": p50, "p99 ms": p99, "peak MiB": peak, f"MAE {meta.unit}": mae}))


def load(args: argparse.Namespace) -> None:
    """Start the HTTP front on a free port of this machine and ask it 500 times."""
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, __file__, "http", "--out", str(args.out), "--model", args.model]
    series = np.load(args.out / "test.npy")[:500]
    seconds: dict[str, list[float]] = {"readings": [], "forecast": []}
    with tempfile.TemporaryDirectory() as state:
        server = subprocess.Popen([*command, "--port", str(port), "--state", state])
        try:
            with httpx.Client(base_url=url, timeout=10) as client:
                for _ in range(100):  # until it is up
                    try:
                        client.get("/health")
                        break
                    except httpx.ConnectError:
                        time.sleep(0.1)
                start = np.datetime64("2024-01-01T00:00", "m")
                for i, row in enumerate(series):
                    values = [None if v != v else v for v in row.tolist()]
                    body = {"time": str(start + 5 * i), "values": values}
                    begin = time.perf_counter()
                    client.post("/readings", json=body).raise_for_status()
                    middle = time.perf_counter()
                    answer = client.get("/forecast")
                    if i >= STEPS:
                        answer.raise_for_status()
                        seconds["readings"].append(middle - begin)
                        seconds["forecast"].append(time.perf_counter() - middle)
        finally:
            server.terminate()
            server.wait()
    for name, values in seconds.items():
        p50, p99 = np.percentile(values, [50, 99]) * 1e3
        print(f"{args.model} /{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms of {len(values)} requests")


def http(args: argparse.Namespace) -> None:
    """Answer over HTTP on this machine; the window outlives a restart."""
    import uvicorn
    from app import make_app

    model = load_model(args.out / args.model)
    forecaster = Forecaster(model, read_meta(args.out), (args.state or args.out) / "window.npz")
    uvicorn.run(make_app(forecaster), host=args.host, port=args.port, log_level="warning")


def main() -> None:
    """Read the arguments and run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = {"export": export, "measure": measure, "one": one, "load": load, "http": http}
    parser.add_argument("command", choices=list(commands))
    parser.add_argument("--out", type=Path, default=Path("runs/serve"))
    parser.add_argument("--model", default="pruned.onnx", help="a file of --out")
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4032)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--aoti", action="store_true", help="also compile with AOTInductor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--state", type=Path, help="folder of the kept window (default: --out)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    commands[args.command](args)


if __name__ == "__main__":
    main()
