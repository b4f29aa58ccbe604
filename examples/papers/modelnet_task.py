"""The data side of the point cloud example: shapes, splits, batches, scores and Figure 4."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torchmetrics.functional.classification import multiclass_accuracy

from pyg_stkd.datasets import (
    ModelNet149,
    ModelNetHDF5,
    ModelNetNormals,
    ModelNetOFF,
    ModelNetVoxels,
    RandomScaleTranslate,
    SyntheticShapes,
)

# Data set, training or test part, points of a cloud.
LOADERS: dict[str, Callable[[Any, bool, int], Any]] = {
    "modelnet10-vox24": lambda root, train, points: ModelNetVoxels(root, train, points),
    "modelnet10-149": lambda root, train, points: ModelNet149(root, train),
    "modelnet40-h5": lambda root, train, points: ModelNetHDF5(root, train),
    "modelnet40-normal": lambda root, train, points: ModelNetNormals(root, "40", train, points),
    "modelnet10": lambda root, train, points: ModelNetOFF(root, "10", train, points),
    "modelnet40": lambda root, train, points: ModelNetOFF(root, "40", train, points),
}
NAMES = {
    "synthetic": "synthetic shapes",
    "modelnet10-vox24": "ModelNet10-vox24",
    "modelnet10-149": "ModelNet10-149",
    "modelnet10": "ModelNet10",
}
HELD_OUT = 0.2  # of the training shapes of each class, for validation
SHOWN = ("chair", "table", "toilet", "torus", "cone", "pyramid")  # the first three there are


class Clouds(NamedTuple):
    """A batch of clouds, one after another."""

    pos: Tensor  # [P_1 + ... + P_B, 3]
    batch: Tensor  # [P_1 + ... + P_B]
    y: Tensor  # [B]


class Task:
    """Point clouds in three parts, in batches that stay the same, and scores on them."""

    def __init__(
        self, name: str, train: Any, test: Any, args: argparse.Namespace, device: str = "cpu"
    ) -> None:
        self.name, self.device, self.amp = name, device, args.amp
        self.classes, self.num_classes = list(train.classes), train.num_classes
        self.batch_size = args.batch_size
        self.augment = RandomScaleTranslate() if args.augment else None
        shapes = _clouds(train, args.points)
        kept, held = _deal(torch.stack([y for _, y in shapes]), args.shapes_per_class)
        self.parts = {
            "train": [shapes[i] for i in kept],
            "val": [shapes[i] for i in held],
            "test": _clouds(test, args.points),
        }
        count = len(kept) if args.labelled is None else args.labelled
        self.parts |= _with_labels(self.parts["train"], count)
        self.parts["scene"] = self._scene_shapes()
        self._batches: dict[str, list[Clouds]] = {}

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.amp)

    def train_batches(self, seed: int, part: str = "train") -> list[Clouds]:
        """Deal the training shapes to batches: what a teacher says of one can then be kept.

        The part is :obj:`"train"`, or what of it has labels for students, or what has none.
        """
        shapes = self.parts[part]
        order = torch.randperm(len(shapes), generator=torch.Generator().manual_seed(seed))
        if not shapes:
            return []
        # As even as can be: batch normalisation refuses a batch of one shape.
        parts = order.tensor_split(-(-len(shapes) // self.batch_size))
        return [self._collate([shapes[i] for i in part.tolist()]) for part in parts]

    def augmented(self, clouds: Clouds) -> Clouds:
        """Stretch and shift each cloud at random, if the experiment does."""
        if self.augment is None:
            return clouds
        sizes = clouds.batch.bincount().tolist()
        moved = [self.augment(Data(pos=pos)).pos for pos in clouds.pos.split(sizes)]
        return clouds._replace(pos=torch.cat(moved))

    def unpack(self, clouds: Clouds) -> tuple[Any, dict[str, Any], Tensor]:
        """Return the arguments of a model, and the target."""
        pos, batch, y = self.augmented(clouds)
        return (pos, batch), {}, y

    def batches(self, part: str) -> list[Clouds]:
        if part not in self._batches:
            shapes = self.parts[part]
            starts = range(0, len(shapes), 32)
            self._batches[part] = [self._collate(shapes[i : i + 32]) for i in starts]
        return self._batches[part]

    def _collate(self, shapes: list[tuple[Tensor, Tensor]]) -> Clouds:
        sizes = torch.tensor([pos.size(0) for pos, _ in shapes])
        pos, y = torch.cat([pos for pos, _ in shapes]), torch.stack([y for _, y in shapes])
        batch = torch.arange(len(shapes)).repeat_interleave(sizes)
        return Clouds(pos.to(self.device), batch.to(self.device), y.to(self.device))

    @torch.no_grad()
    def score(self, model: nn.Module, part: str) -> dict[str, float]:
        """Return the accuracy over all shapes, and the mean of those of the classes."""
        model.eval()
        with self.autocast():
            outs = [model(pos, batch).float() for pos, batch, _ in self.batches(part)]
        out, y = torch.cat(outs), torch.cat([clouds.y for clouds in self.batches(part)])
        return {
            name: multiclass_accuracy(out, y, self.num_classes, average=average).item()
            for name, average in (("acc", "micro"), ("macc", "macro"))
        }

    @torch.no_grad()
    def distances(self, model: nn.Module, layer: str) -> list[list[int]]:
        """Return how far each point of a shown cloud is from its highest, in % of the farthest.

        The space is that of the features that the layer gives.
        """
        seen: list[Tensor] = []
        hook = model.get_submodule(layer).register_forward_hook(
            lambda module, args, out: seen.append(out.float())
        )
        try:
            self.score(model, "scene")
        finally:
            hook.remove()
        found = []
        sizes = [pos.size(0) for pos, _ in self.parts["scene"]]
        for z, (pos, _) in zip(torch.cat(seen).split(sizes), self.parts["scene"], strict=True):
            gap = (z - z[pos[:, 2].argmax()]).norm(dim=1)
            found.append((100 * gap / gap.max().clamp(min=1e-12)).round().int().tolist())
        return found

    def scene(self) -> list[dict[str, Any]]:
        """Describe the clouds that Figure 4 shows: coordinates are in thousandths."""
        return [
            {
                "label": self.classes[int(y)],
                "pos": (1000 * pos).round().int().tolist(),
                "anchor": int(pos[:, 2].argmax()),
            }
            for pos, y in self.parts["scene"]
        ]

    def _scene_shapes(self) -> list[tuple[Tensor, Tensor]]:
        """Take the first test shape of each of three classes."""
        names = [name for name in SHOWN if name in self.classes] or self.classes
        labels = [self.classes[int(y)] for _, y in self.parts["test"]]
        return [self.parts["test"][labels.index(name)] for name in names if name in labels][:3]

    def about(self) -> dict[str, Any]:
        """Describe the data in numbers."""
        sizes = {part: len(self.parts[part]) for part in ("train", "val", "test")}
        labelled = len(self.parts["labelled"])
        more = {"labelled": labelled} if labelled < sizes["train"] else {}
        return {"name": self.name, "classes": self.num_classes, **sizes, **more}


def _clouds(dataset: Any, points: int) -> list[tuple[Tensor, Tensor]]:
    """Return points and class of each shape, a fixed random part of larger clouds."""
    shuffle = torch.Generator().manual_seed(0)
    found = []
    for data in dataset:
        pos = data.pos
        if pos.size(0) > points:
            pos = pos[torch.randperm(pos.size(0), generator=shuffle)[:points]]
        found.append((pos, data.y.view(())))
    return found


def _deal(y: Tensor, per_class: int | None) -> tuple[list[int], list[int]]:
    """Split the shapes of each class, at most so many, into those to train on and the held out."""
    shuffle = torch.Generator().manual_seed(0)
    kept: list[int] = []
    held: list[int] = []
    for label in y.unique():
        index = (y == label).nonzero().view(-1)
        index = index[torch.randperm(index.numel(), generator=shuffle)][:per_class].tolist()
        if len(index) < 2:
            raise SystemExit(f"A class needs 2 training shapes, one for validation (got {index})")
        count = max(1, round(HELD_OUT * len(index)))
        held += index[:count]
        kept += index[count:]
    return sorted(kept), sorted(held)


def _with_labels(shapes: list[Any], count: int) -> dict[str, list[Any]]:
    """Split training shapes into those whose labels students have, of each class alike, and not."""
    shuffle = torch.Generator().manual_seed(1)
    y = torch.stack([y for _, y in shapes])
    order = torch.randperm(len(shapes), generator=shuffle)
    rank = torch.empty(len(shapes))  # of each shape within its class
    for label in y.unique():
        members = order[y[order] == label]
        rank[members] = torch.arange(members.numel(), dtype=rank.dtype)
    chosen = rank[order].argsort(stable=True)[:count]
    known = set(order[chosen].tolist())
    return {
        "labelled": [shape for i, shape in enumerate(shapes) if i in known],
        "unlabelled": [shape for i, shape in enumerate(shapes) if i not in known],
    }


def load(args: argparse.Namespace) -> Task:
    """Read the data set that the arguments name."""
    if args.dataset == "synthetic":
        train: Any = SyntheticShapes(True, args.shapes, args.points)
        test: Any = SyntheticShapes(False, args.shapes, args.points)
    elif args.root is None:
        raise SystemExit(f"--dataset {args.dataset} needs --root, the folder of its files")
    else:
        train, test = (LOADERS[args.dataset](args.root, t, args.points) for t in (True, False))
    return Task(NAMES.get(args.dataset, "ModelNet40"), train, test, args, args.device)
