"""The data side of the traffic example: series, windows, scores, baselines and one scene."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from pyg_stkd.datasets.traffic.metr_la import METRLAWeek
from pyg_stkd.datasets.traffic.pems import PeMSD4, PeMSD8
from pyg_stkd.datasets.traffic.pemsd7 import PeMSD7
from pyg_stkd.datasets.traffic.scaler import StandardScaler
from pyg_stkd.datasets.traffic.synthetic_traffic import SyntheticTraffic
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries
from pyg_stkd.datasets.traffic.windows import Window, WindowDataset
from pyg_stkd.graph import Graph
from pyg_stkd.metrics import MaskedMAE, MaskedMAPE, MaskedRMSE

STEPS = 12  # to read, and to forecast
HORIZONS = (15, 30, 45, 60)  # minutes
SHARES = {  # of training, validation and test, as the papers have them
    "synthetic": (0.7, 0.1, 0.2),
    "metr-la-week": (0.7, 0.1, 0.2),
    "pemsd7m": (34 * 288, 5 * 288, 5 * 288),
    "pemsd4": (0.6, 0.2, 0.2),
    "pemsd8": (0.6, 0.2, 0.2),
}
LOADERS: dict[str, Callable[[Any], TrafficSeries]] = {
    "metr-la-week": lambda root: METRLAWeek(root, drop_dead=True),
    "pemsd7m": lambda root: PeMSD7(root, 228, drop_dead=True),
    "pemsd4": lambda root: PeMSD4(root, drop_dead=True),
    "pemsd8": lambda root: PeMSD8(root, drop_dead=True),
}
# Of a generated month: with a week each, validation has as many incidents as test.
MONTH, MONTH_SHARES = 4 * 2016, (0.5, 0.25, 0.25)
SCENE = 72  # steps that the plotted forecast covers


class Task:
    """A series cut in time, its windows, and scores in original units."""

    def __init__(
        self, name: str, series: TrafficSeries, shares: Any, stride: int, device: str, amp: bool,
        val_stride: int = 1, labelled_days: float | None = None,
    ) -> None:  # fmt: skip
        self.name, self.device, self.amp = name, device, amp
        self.plain = series
        self.series = with_calendar(series)
        self.output_steps, self.step_minutes = STEPS, series.step_minutes
        self.num_nodes, self.in_channels = series.num_nodes, self.series.num_channels
        # The inputs of the first windows of a part reach back; no target is in two parts.
        parts = self.series.split(*shares, overlap=STEPS)
        self.scaler = StandardScaler.fit(parts[0])
        strides = {"train": stride, "val": val_stride, "test": 1}
        self.windows = {
            split: WindowDataset(
                part, STEPS, STEPS, self.scaler,
                scale_target=split == "train", stride=strides[split],
            )
            for split, part in zip(("train", "val", "test"), parts, strict=True)
        }  # fmt: skip
        self.num_train = parts[0].num_steps
        # Students have what follows the windows of the first days, their teacher what follows all.
        ends = self.windows["train"].origins + STEPS
        known = torch.ones_like(ends, dtype=torch.bool)
        if labelled_days is not None:
            known = ends <= labelled_days * series.steps_per_day
        self.parts = {
            "train": torch.arange(len(ends)),
            "labelled": known.nonzero().view(-1),
            "unlabelled": (~known).nonzero().view(-1),
        }
        self.test_start = series.num_steps - parts[2].num_steps
        graph = Graph(series.edge_index, series.num_nodes)
        weight = graph.sort_edges(series.edge_weight)
        self.graph = graph.to(device), weight.to(device)
        self.average = historical_average(self.series, self.num_train)  # [T, N]

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.amp)

    def fixed_batches(self, size: int, seed: int, part: str = "train") -> list[list[int]]:
        """Deal the training windows to batches: what a teacher says of one can then be kept.

        The part is :obj:`"train"`, or the windows that have labels for students, or the others.
        """
        shuffle = torch.Generator().manual_seed(seed)
        windows = self.parts[part]
        order = windows[torch.randperm(len(windows), generator=shuffle)]
        return [index.tolist() for index in order.split(size)] if len(order) else []

    def train_batch(self, index: list[int]) -> Window:
        return self._collate("train", index)

    def batches(self, split: str, size: int = 64) -> Iterator[Window]:
        """Go through the windows of a part in order of time."""
        for part in torch.arange(len(self.windows[split])).split(size):
            yield self._collate(split, part.tolist())

    def _collate(self, split: str, index: list[int]) -> Window:
        items = zip(*(self.windows[split][i] for i in index), strict=True)
        return Window(*(torch.stack(item).to(self.device) for item in items))

    def score(self, out: Tensor, split: str) -> dict[str, float]:
        """Return MAE, RMSE and MAPE at each horizon and the mean over all steps."""
        scores: dict[str, float] = {}
        for kind in (MaskedMAE, MaskedRMSE, MaskedMAPE):
            metric = kind(STEPS, HORIZONS, self.step_minutes)
            metric.update(out.cpu(), *self._truth(split))
            scores |= {key: round(float(value), 4) for key, value in metric.compute().items()}
        return scores

    def _truth(self, split: str) -> tuple[Tensor, Tensor]:
        ahead = self.windows[split].origins[:, None] + torch.arange(STEPS)  # [windows, T_out]
        part = self.windows[split].series
        return part.values[ahead, :, 0], part.mask[ahead, :, 0]

    def details(self, out: Tensor) -> dict[str, Any]:
        """Return the test error of each sensor, and the forecast of the scene an hour ahead."""
        truth, mask = self._truth("test")
        error = (out.cpu().where(mask, 0) - truth.where(mask, 0)).abs()
        error = error.sum(dim=(0, 1)) / mask.sum(dim=(0, 1)).clamp(min=1)
        node, windows = self._scene_at()
        return {
            "node_mae": [round(v, 3) for v in error.tolist()],
            "forecast": [round(v, 2) for v in out[windows, -1, node].tolist()],
        }

    def baselines(self) -> dict[str, dict[str, Any]]:
        """Score the last reading, and the historical average of the time of day, on test."""
        origins = self.windows["test"].origins + self.test_start
        last = self.series.values[origins - 1, :, 0]  # [windows, N]
        last = last.where(~last.isnan(), self.average[origins - 1])
        average = self.average[origins[:, None] + torch.arange(STEPS)]
        outs = {"persistence": last[:, None].expand_as(average), "historical average": average}
        return {key: self.score(out, "test") | self.details(out) for key, out in outs.items()}

    def scene(self) -> dict[str, Any]:
        """Describe the road, and the worst incident of the test part at one sensor."""
        node, windows = self._scene_at()
        at = (self.windows["test"].origins[windows] + STEPS - 1).numpy()
        truth = self.windows["test"].series.values[at, node, 0]
        pos = self.plain.pos
        if pos is None:
            road = nx.Graph(self.plain.edge_index.t().tolist())
            road.add_nodes_from(range(self.num_nodes))
            layout = nx.spring_layout(road, seed=0)
            pos = torch.tensor(np.stack([layout[i] for i in range(self.num_nodes)]))
        return {
            "sensor": self.plain.names[node] if self.plain.names else str(node),
            "truth": [None if v != v else round(v, 2) for v in truth.tolist()],
            "minutes": [self.step_minutes * i for i in range(len(at))],
            "channel": f"{self.plain.channels[0]} ({self.plain.unit})",
            "unit": self.plain.unit,
            "pos": [[round(v, 4) for v in p] for p in pos.tolist()],
            "edges": self.plain.edge_index.t().tolist(),
        }

    def _scene_at(self) -> tuple[int, slice]:
        """Find where traffic is, for half an hour, furthest below what is usual at that time."""
        origins = self.windows["test"].origins + self.test_start + STEPS - 1  # an hour ahead
        excess = self.average[origins] - self.series.values[origins, :, 0]
        excess = excess.nan_to_num(0.0).unfold(0, 6, 1).mean(-1)  # [windows - 5, N]
        step, node = divmod(int(excess.argmax()), excess.size(1))
        first = max(0, min(step - SCENE // 3, len(origins) - SCENE))
        return node, slice(first, min(first + SCENE, len(origins)))


def load(args: argparse.Namespace) -> Task:
    """Read the data set that the arguments name."""
    if args.dataset == "synthetic":
        series: TrafficSeries = SyntheticTraffic(args.nodes, args.steps)
    elif args.root is None:
        raise SystemExit(f"--dataset {args.dataset} needs --root, the folder of its files")
    else:
        series = LOADERS[args.dataset](args.root)
    name = args.dataset if args.dataset == "synthetic" else args.dataset.upper()
    name = {"METR-LA-WEEK": "METR-LA-week", "PEMSD7M": "PeMSD7(M)"}.get(name, name)
    month = args.dataset == "synthetic" and args.steps >= MONTH
    shares = MONTH_SHARES if month else SHARES[args.dataset]
    val_stride = args.stride if month else 1  # what a month leaves is enough to choose by
    days = getattr(args, "labelled_days", None)
    return Task(name, series, shares, args.stride, args.device, args.amp, val_stride, days)


def calendar(series: TrafficSeries) -> tuple[Tensor, Tensor]:
    """Return the step of the day and whether it is a working day, for each step."""
    step = torch.arange(series.num_steps) % series.steps_per_day
    if series.times is None:
        return step, torch.ones_like(step)
    day = series.times.astype("datetime64[D]")
    minute = (series.times - day).astype("timedelta64[m]").astype(np.int64)
    working = torch.from_numpy(np.is_busday(day).astype(np.int64))
    return torch.from_numpy(minute // series.step_minutes), working


def with_calendar(series: TrafficSeries) -> TrafficSeries:
    """Append the time of day, as a point on a circle, and the working days as channels."""
    step, working = calendar(series)
    angle = 2 * torch.pi * step / series.steps_per_day
    extra = torch.stack([angle.sin(), angle.cos(), working.float()], dim=-1)  # [T, 3]
    extra = extra[:, None].expand(-1, series.num_nodes, -1).to(series.values.dtype)
    return TrafficSeries(
        torch.cat([series.values, extra], dim=-1),
        torch.cat([series.mask, torch.ones_like(extra, dtype=torch.bool)], dim=-1),
        series.edge_index,
        series.edge_weight,
        names=series.names,
        channels=(*series.channels, "sine of day", "cosine of day", "working day"),
        units=(*series.units, "1", "1", "1"),
        step_minutes=series.step_minutes,
        times=series.times,
        days_per_week=series.days_per_week,
    )


def historical_average(series: TrafficSeries, num_train: int) -> Tensor:
    """Average the training readings of each sensor at a time of day, working days apart."""
    step, working = calendar(series)
    slot = step + series.steps_per_day * working
    values, mask = series.values[:num_train, :, 0], series.mask[:num_train, :, 0]
    shape = (2 * series.steps_per_day, series.num_nodes)
    total = values.new_zeros(shape).index_add(0, slot[:num_train], values.where(mask, 0.0))
    count = values.new_zeros(shape).index_add(0, slot[:num_train], mask.to(values.dtype))
    overall = total.sum(0) / count.sum(0).clamp(min=1)
    average = (total / count.clamp(min=1)).where(count > 0, overall)
    return average[slot]
