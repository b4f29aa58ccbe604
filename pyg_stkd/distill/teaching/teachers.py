"""Several teachers of one student."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.recording.artefact import Artefact, Table, as_model, may_teach
from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.recorder import named_layers, unknown_layer
from pyg_stkd.distill.teaching.confidence import Error, confidence, error_of

__all__ = ["Teachers", "Weight"]

Weight: TypeAlias = float | Tensor


class Teachers(nn.Module):
    r"""Several teachers of one student: :obj:`Distiller(Teachers([...]), student, losses)`.

    Every loss is computed between the student and each of the :math:`K` teachers and combined,

    .. math::
        \mathcal{L} = \sum_{k=1}^K w_k \, \mathcal{L}(s, t_k), \qquad \sum_k w_k = 1 .

    Teachers may be of different classes and widths, as long as each has the layers that the
    losses name. A loss with parameters of its own, such as the projection of
    :class:`~pyg_stkd.distill.HintLoss`, has one copy of itself for each further teacher: widths
    are fitted one by one. The layers of the :math:`k`-th teacher, from 0, are called
    :obj:`"k.<layer>"`, and its output :obj:`"k"`, in captures, reports and errors. A single
    teacher here is the same as without :class:`Teachers`.

    **Weights.** :obj:`None` is :math:`w_k = 1 / K`; numbers are divided by their sum.
    :obj:`"confidence"` weighs the teachers anew in each forward by their errors :math:`e_k` on
    the batch, from `"Confidence-Aware Multi-Teacher Knowledge Distillation"
    <https://arxiv.org/abs/2201.00007>`_ (there sample by sample),

    .. math::
        w_k = \frac{1}{K - 1} \left( 1 - \frac{\exp(e_k)}{\sum_{j=1}^K \exp(e_j)} \right) .

    :math:`e_k` is a mean over the nodes that the losses are restricted to, without gradients.
    What it is follows from the :obj:`target` given to the distiller:

    - integers :math:`(*, N)`: cross entropy of logits :math:`(*, N, C)`. Labels of -100 do not
      count.
    - 0 and 1 only, of the shape of the output: binary cross entropy of logits.
    - any other floating point values of the shape of the output: squared error. In forecasts
      :math:`(B, T, N)` the nodes are the last axis, as for :class:`~pyg_stkd.distill.ResponseLoss`.
    - no target: the entropy :math:`-\sum_c p_c \log p_c` of :math:`p = \mathrm{softmax}` of the
      output, taken as logits :math:`(*, N, C)` of classes.

    Labels that are NaN do not count. :obj:`error` takes the place of all but the last. The
    exponential makes :math:`w` depend on the units of a squared error: scale the labels.

    Args:
        teachers (list of torch.nn.Module): The trained teachers. The distiller freezes them where
            they are.
        weights (list of float or str, optional): A number for each teacher, not negative, or
            :obj:`"confidence"`. (default: equal weights)
        error (callable, optional): The error of :obj:`weights="confidence"`, a scalar of the
            output and the target. (default: as above)

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If there is no teacher, one is given twice, or the weights are not as said
            above.

    Example:
        >>> from torch_geometric.nn import GAT, GCN
        >>> from pyg_stkd.distill import Distiller, HintLoss, SoftTargetLoss
        >>> teachers = Teachers([GAT(8, 32, 2, 3), GCN(8, 64, 3, 3)], weights=[3.0, 1.0])
        >>> distiller = Distiller(teachers, GCN(8, 16, 2, 3), [
        ...     SoftTargetLoss(),
        ...     HintLoss("convs.0", "convs.0"),  # 16 to 32 channels, and 16 to 64
        ... ])
        >>> x, edge_index = torch.randn(4, 8), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> out, losses = distiller(x, edge_index)
        >>> list(losses), teachers.weights
        (['soft_target', 'hint'], (0.75, 0.25))
    """

    def __init__(
        self,
        teachers: Iterable[nn.Module],
        weights: Sequence[float] | Literal["confidence"] | None = None,
        error: Error | None = None,
    ) -> None:
        super().__init__()
        for name, teacher in enumerate(_check_teachers(teachers)):
            self.add_module(str(name), teacher)
        self.weights = _check_weights(weights, len(self))
        if error is not None and not callable(error):
            raise TypeError(f"'error' must be a function of output and target (got {error!r})")
        if error is not None and not isinstance(weights, str):
            raise ValueError(f"'error' must come with weights='confidence' (got {weights!r})")
        self.error = error

    @classmethod
    def of(cls, teacher: Any) -> Teachers:
        """Return several teachers as they are, or the only one of a distiller."""
        return teacher if isinstance(teacher, Teachers) else cls([as_model(teacher)])

    @property
    def names(self) -> tuple[str, ...]:
        """What goes before the names of each teacher's layers: nothing where there is one."""
        return tuple(self._modules) if len(self) > 1 else ("",)

    @property
    def gated(self) -> bool:
        """Whether the weights go by the outputs of the teachers."""
        return isinstance(self.weights, str)

    def weigh(self, outputs: Sequence[Capture], target: Any = None) -> tuple[Weight, ...]:
        """Return the weight of each teacher; the outputs are looked at where these are gated."""
        if not isinstance(self.weights, str):
            return self.weights
        with torch.no_grad():
            errors = [error_of(output, target, self.error) for output in outputs]
            return tuple(confidence(torch.stack(errors)).unbind())

    def check_layers(self, losses: Mapping[str, DistillationLoss]) -> None:
        """Raise unless each teacher has every layer that the losses name."""
        for place, teacher in zip(self.names, self, strict=True):
            valid = named_layers(teacher)
            for name, loss in losses.items():
                if loss.teacher_layer and isinstance(teacher, (Artefact, Table)):
                    raise ValueError(
                        f"'teacher_layer' of loss {name!r} must be '', the output, of a teacher "
                        f"whose layers nobody sees (got {loss.teacher_layer!r} of {teacher}): "
                        f"compare outputs, or distil from the module that it was made of"
                    )
                if loss.teacher_layer not in valid:
                    which = f" in teacher {place} ({type(teacher).__name__})" if place else ""
                    raise ValueError(
                        f"'teacher_layer' of loss {name!r}{which} "
                        f"{unknown_layer(loss.teacher_layer, valid)}"
                    )

    def forward(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the output of each teacher."""
        return [teacher(*args, **kwargs) for teacher in self]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[nn.Module]:
        return self.children()

    def __getitem__(self, index: int) -> nn.Module:
        return list(self)[index]

    def extra_repr(self) -> str:
        return f"weights={self.weights!r}"


def _check_teachers(teachers: Iterable[nn.Module]) -> list[nn.Module]:
    single = isinstance(teachers, nn.Module) and not isinstance(teachers, nn.ModuleList)
    if single or isinstance(teachers, (str, Mapping)) or not isinstance(teachers, Iterable):
        raise TypeError(
            f"'teachers' must be a list of torch.nn.Module (got {type(teachers).__name__})"
        )
    given = list(teachers)
    if not given:
        raise ValueError(f"'teachers' must hold at least one teacher (got {given})")
    for teacher in given:
        if isinstance(teacher, Teachers) or not may_teach(teacher):
            raise TypeError(f"'teachers' must hold trained models (got {type(teacher).__name__})")
    for i, teacher in enumerate(given):
        if any(teacher is other for other in given[:i]):
            raise ValueError(
                f"'teachers' must hold each teacher once (got number {i}, "
                f"{type(teacher).__name__}, twice): give it a larger weight"
            )
    return [as_model(teacher) for teacher in given]


def _check_weights(weights: Any, count: int) -> tuple[float, ...] | Literal["confidence"]:
    rule = "'weights' must be None, 'confidence' or a list of one number for each teacher"
    if weights is None:
        return (1 / count,) * count
    if isinstance(weights, str):
        if weights != "confidence":
            raise ValueError(f"{rule} (got {weights!r})")
        return "confidence" if count > 1 else (1.0,)
    try:
        given = [float(weight) for weight in weights]
    except (TypeError, ValueError) as error:
        raise TypeError(f"{rule} (got {weights!r})") from error
    if len(given) != count:
        raise ValueError(f"{rule}, of which there are {count} (got {len(given)})")
    if not all(0 <= weight < math.inf for weight in given) or not 0 < sum(given) < math.inf:
        raise ValueError(f"'weights' must be finite, not negative and not all 0 (got {given})")
    return tuple(weight / sum(given) for weight in given)
