"""The data side of the protein example: graphs, who has their labels, and micro-averaged scores."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch_geometric.data import Data
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_f1_score,
    binary_precision_recall_curve,
)

from pyg_stkd.datasets import Proteins, SyntheticProteins, load_ppi
from pyg_stkd.graph import Graph
from pyg_stkd.nn import GAT

UNLABELLED = 60  # graphs of the generated data
THRESHOLDS = torch.linspace(0.05, 0.95, 19)


class Task:
    """The graphs of a data set on a device, each sorted once, and micro-averaged scores on them."""

    def __init__(self, splits: dict[str, list[Data]], device: str, amp: bool, kind: str) -> None:
        self.device, self.amp, self.kind = device, amp, kind
        # The paper's F1 is at 0.5; where labels are rare, at the best threshold on validation.
        self.tune = kind == "transductive"
        self.falls = kind == "inductive"  # the learning rate, by half a cosine
        self.splits: dict[str, list[Data]] = {}
        graphs: dict[int, Graph] = {}
        for split, items in splits.items():
            self.splits[split] = []
            for data in items:
                key = data.edge_index.data_ptr()
                if key not in graphs:
                    graphs[key] = Graph(data.edge_index, data.num_nodes).to(device)
                rows = data[f"{split}_mask"] if "train_mask" in data else slice(None)
                item = Data(x=data.x.to(device), y=data.y.float().to(device), graph=graphs[key])
                item.rows = rows.to(device) if isinstance(rows, Tensor) else rows
                self.splits[split].append(item)
        self.in_channels = self.splits["train"][0].x.size(1)
        self.out_channels = self.splits["train"][0].y.size(1)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.amp)

    @torch.no_grad()
    def outputs(self, model: GAT, split: str) -> tuple[Tensor, Tensor]:
        model.eval()
        with self.autocast():
            out = [model(d.x, d.graph)[d.rows].float() for d in self.splits[split]]
        return torch.cat(out).sigmoid(), torch.cat([d.y[d.rows] for d in self.splits[split]]).int()

    def validate(self, model: GAT) -> tuple[float, float]:
        """Return the micro-F1 on validation and the threshold that it is at."""
        out, y = (z.flatten() for z in self.outputs(model, "val"))
        if not self.tune:
            return binary_f1_score(out, y).item(), 0.5
        precision, recall, at = binary_precision_recall_curve(out, y, thresholds=THRESHOLDS)
        f1 = (2 * precision * recall / (precision + recall)).nan_to_num()  # 0 / 0: no positives
        best = int(f1[:-1].argmax())
        return f1[best].item(), at[best].item()

    def test(self, model: GAT, threshold: float) -> dict[str, float]:
        out, y = (z.flatten() for z in self.outputs(model, "test"))
        ap = binary_average_precision(out, y).item()
        return {"f1": binary_f1_score(out, y, threshold).item(), "ap": ap}


def load(args: argparse.Namespace) -> Task:
    """Read the data set that the arguments name."""
    if args.dataset == "synthetic":
        splits = {s: list(SyntheticProteins(s, scale=args.scale)) for s in ("train", "val", "test")}
        splits["extra"] = list(SyntheticProteins("extra", args.scale, num_graphs=UNLABELLED))
    elif args.root is None:
        raise SystemExit(f"--dataset {args.dataset} needs --root, the folder of its files")
    elif args.dataset == "ppi":
        splits = {s: list(load_ppi(args.root, s)) for s in ("train", "val", "test")}
    else:
        whole = list(Proteins(args.root, args.dataset))  # one graph, masks tell the splits
        splits = dict.fromkeys(("train", "val", "test"), whole)
    kind = "inductive" if args.dataset in ("synthetic", "ppi") else "transductive"
    return Task(splits, args.device, args.amp, kind)
