"""Distillation with Lightning (optional: the extra ``lightning``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pyg_stkd.distill import Distiller
from pyg_stkd.distill.training import (
    Criterion,
    OnRows,
    Unpack,
    of_models,
    task_loss,
    total_loss,
    unpack,
)

__all__ = ["DistillationModule"]


class DistillationModule(lightning.LightningModule):
    r"""A :class:`~pyg_stkd.distill.Distiller` as a :class:`lightning.LightningModule`.

    Trains the student on the task loss plus the losses of the distiller, and validates and tests
    it on the task loss alone. The teacher is in no checkpoint and in no optimizer. All terms are
    logged: ``train/loss``, ``train/task``, ``train/<loss>``, ``val/task``, ``test/task``. The
    schedules of the losses go by Lightning's epoch.

    Args:
        distiller (Distiller): Teacher, student and losses.
        criterion (callable): The task loss, of output and target.
        optimizer (callable): Makes an optimizer (or what
            :meth:`~lightning.LightningModule.configure_optimizers` may return) of parameters.
        unpack (callable, optional): Returns :obj:`(args, kwargs, target)` of a batch. (default:
            a tuple :obj:`(*inputs, target)`, or :obj:`x`, :obj:`edge_index` and :obj:`y` of a
            :class:`~torch_geometric.data.Data`: in training its :obj:`train_mask` counts, if
            there is one, and of a sampled neighbourhood the seeds alone, here and in evaluation)

    Raises:
        TypeError: If :obj:`distiller` is not a distiller.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from pyg_stkd.distill import SoftTargetLoss
        >>> distiller = Distiller(GCN(4, 16, 2, 3), GCN(4, 8, 2, 3), [SoftTargetLoss()])
        >>> module = DistillationModule(
        ...     distiller, torch.nn.functional.cross_entropy, torch.optim.Adam
        ... )
        >>> any(name.startswith("distiller.teacher") for name, _ in module.named_parameters())
        False
    """

    def __init__(
        self,
        distiller: Distiller,
        criterion: Criterion,
        optimizer: Callable[[Iterable[nn.Parameter]], Any],
        unpack: Unpack = unpack,
    ) -> None:
        super().__init__()
        if not isinstance(distiller, Distiller):
            raise TypeError(f"'distiller' must be a Distiller (got {type(distiller).__name__})")
        self.distiller = distiller
        self.criterion = criterion
        self.optimizer = optimizer
        self.unpack = unpack

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the student's output."""
        return self.distiller.student(*args, **kwargs)

    def on_train_epoch_start(self) -> None:
        self.distiller.set_epoch(self.current_epoch)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, terms = total_loss(self.distiller, self.unpack(batch), self.criterion)
        for name, value in {"loss": loss, **terms}.items():
            self.log(f"train/{name}", value.detach(), batch_size=_size(batch))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        out, seeds, _ = self._run(batch)
        return out if seeds is None else out[seeds]

    def configure_optimizers(self) -> Any:
        return self.optimizer(p for p in self.parameters() if p.requires_grad)

    def _evaluate(self, split: str, batch: Any) -> None:
        out, seeds, target = self._run(batch)
        if seeds is None and isinstance(target, OnRows):
            raise ValueError(
                "'unpack' must be given to validate or test on Data with a train_mask: which nodes "
                "count there it does not say (got the default)"
            )
        loss = task_loss(self.criterion, out, target)
        self.log(f"{split}/task", loss, batch_size=_size(batch), sync_dist=True)

    def _run(self, batch: Any) -> tuple[Any, Tensor | None, Any]:
        """Return the student's output, the seeds of a sampled neighbourhood and the target."""
        args, kwargs, target = self.unpack(batch)
        seeds = kwargs.get("nodes") if self.unpack is unpack else None
        return self(*args, **of_models(kwargs)), seeds, target


def _size(batch: Any) -> int:
    """Graphs, else the first axis: Lightning cannot guess it from the shapes of a graph."""
    first = batch[0] if isinstance(batch, (tuple, list)) else batch
    return int(getattr(first, "num_graphs", 0) or (len(first) if torch.is_tensor(first) else 1))
