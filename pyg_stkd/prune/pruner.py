"""The pruner: scores, masks, and a smaller model, stage by stage."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.modes import eval_mode
from pyg_stkd.prune.following.explain import Explanation, tell
from pyg_stkd.prune.masked.cost import Budget, find_cost
from pyg_stkd.prune.masked.importance import KDIS, Importance
from pyg_stkd.prune.masked.model import LayerChannels
from pyg_stkd.prune.masked.processes import average, check_same, together
from pyg_stkd.prune.masked.pruned import Pruned
from pyg_stkd.prune.masked.schedule import check_shares
from pyg_stkd.prune.masked.snapshot import Snapshot
from pyg_stkd.prune.options import Granularity, check_options, masked_model
from pyg_stkd.prune.structure.example import Example, unwrap
from pyg_stkd.prune.structure.layout import Group

__all__ = ["Pruner"]


class Pruner:
    r"""Prunes a model in stages: by KDIS, the importance for the distillation loss.

    Channels are found by running the model once on :obj:`example`, unedited: what belongs to which
    channel is followed from tensor to tensor (rules of layers, see
    :func:`~pyg_stkd.prune.register`, say more where there are some). They are dropped in groups: a
    channel goes with all rows, biases, norms and columns that belong to it. What cannot be followed
    is kept, and :meth:`explain` says why. Masks are those of
    :mod:`torch.nn.utils.prune`; :meth:`compact` gives the smaller model. Between two calls of
    :meth:`step` train :attr:`model` as ever.

    A group never falls below :math:`\max(w_{\min}, \lceil \rho \sqrt{s} \, w \rceil)` of its
    :math:`w` channels, with :math:`s` the share of the stage (a weight tensor not below
    :math:`\rho^2 s` of its entries). The model's inputs and outputs are kept.

    Masks live in the model: copies, pickles and :meth:`~torch.nn.Module.state_dict` carry them.
    To load the state of a masked model, call :meth:`load_state_dict` with that of the pruner
    first. Masked weights make nothing smaller or faster; :obj:`granularity="weight"` never does.

    Args:
        model (torch.nn.Module): The model, pruned where it is.
        importance (Importance, optional): The score: :class:`KDIS`, :class:`Magnitude` or
            :class:`Random`. (default: :obj:`KDIS()`)
        granularity (str): :obj:`"channel"`, :obj:`"head"` or :obj:`"weight"`.
            (default: :obj:`"channel"`)
        keep (float or list of float): The share of the model's parameters, those that cannot be
            pruned included, to keep at each stage. (default: :obj:`(0.4, 0.15, 0.06, 0.03)`)
        rho (float): The factor :math:`\rho` of the floor. (default: :obj:`0.6`)
        min_width (int): The fewest channels of a group. (default: :obj:`2`)
        ignore (list of str): Names of modules to leave as they are. (default: :obj:`()`)
        budget (str or callable): What the shares of :obj:`keep` are of: :obj:`"parameters"`,
            :obj:`"flops"` or :obj:`"latency"` (the median of some calls in eval mode) of the
            compacted model, or a function of that model. (default: :obj:`"parameters"`)
        example (Any, optional): Inputs of the model: a tuple of arguments, a mapping of keyword
            arguments, or the only argument. A model of a class without a rule needs them; with
            them the masked and the compacted model are compared.
        call (callable, optional): A function of the model and the example, for a model without
            a :obj:`forward`. (default: the model itself)
        strict (bool): Whether to raise where channels must be kept because nothing says what
            becomes of them, in place of a warning. (default: :obj:`False`)
        verify (bool): Whether the masked and the compacted model are compared on the example,
            when channels are followed, at the first :meth:`step`, and by :meth:`compact`.
            (default: :obj:`True`)

    Attributes:
        model: The masked model.
        stage: The number of stages done.

    Raises:
        ValueError: If an option is not as said above, a class has no rule and there is no
            example, or nothing can be pruned.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from pyg_stkd.prune import Magnitude
        >>> model = GCN(4, 32, num_layers=3, out_channels=2)
        >>> pruner = Pruner(model, Magnitude(), keep=0.5)
        >>> pruner.step().share <= 0.5
        True
        >>> sum(pruner.widths.values()), pruner.compact().convs[0].in_channels
        (43, 4)

        A class of one's own:

        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.hidden, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        ...     def forward(self, x):
        ...         return self.out(self.hidden(x).relu())
        >>> pruner = Pruner(Net(), Magnitude(), keep=0.5, example=(torch.ones(2, 3),))
        >>> pruner.groups
        [Group(name='hidden', width=8, members=('hidden.bias', 'hidden.weight', 'out.weight'))]
    """

    def __init__(
        self,
        model: nn.Module,
        importance: Importance | None = None,
        granularity: Granularity = "channel",
        keep: float | Iterable[float] = (0.4, 0.15, 0.06, 0.03),
        *,
        rho: float = 0.6,
        min_width: int = 2,
        ignore: Iterable[str] = (),
        budget: Budget = "parameters",
        example: Any = None,
        call: Callable[..., Any] | None = None,
        strict: bool = False,
        verify: bool = True,
    ) -> None:
        importance = KDIS() if importance is None else importance
        model = unwrap(model)
        check_options(model, importance, granularity, rho, min_width, ignore)
        self.keep = check_shares(keep)
        self.model = model
        self.importance = importance
        self.granularity = granularity
        self.rho = rho
        self.min_width = min_width
        self.stage = 0
        inputs = None if example is None else Example(example, call)
        cost = find_cost(budget, inputs)
        self._masked = masked_model(model, granularity, ignore, cost, inputs, verify)
        tell(self.explain(), strict)

    @property
    def groups(self) -> list[Group]:
        """The groups of channels, as they are in the model now (none of single weights)."""
        return self._masked.groups

    @property
    def num_parameters(self) -> int:
        """The number of parameters that are left."""
        return self._masked.left().num_parameters

    @property
    def share(self) -> float:
        """The number of parameters that are left, as a share of those at first."""
        return self.num_parameters / self._masked.total

    @property
    def spent(self) -> float:
        """What is left of the budget: of the parameters, or of the FLOPs or the seconds."""
        return self.share if self._masked.spent is None else self._masked.spent

    @property
    def widths(self) -> dict[str, int]:
        """The number of channels (or weights) that are left in each group."""
        return self._masked.left().widths

    def step(
        self,
        losses: Iterable[Tensor] | None = None,
        *,
        share: float | None = None,
    ) -> Pruned:
        """Do one stage: score on calibration batches, in eval mode, then mask.

        Under :mod:`torch.distributed` every process must call it, each with the losses of its own
        batches: the scores are averaged over the processes, and all keep the same channels.

        Args:
            losses (iterable of Tensor, optional): The full loss of each calibration batch, best a
                generator, so that each is made in eval mode and freed again. Only scores such as
                :class:`KDIS` need them. (default: :obj:`None`)
            share (float, optional): The share to keep instead of the next of :obj:`keep`; no
                stage of it is used up.

        Raises:
            ValueError: If losses or scores are missing, not finite or without gradients. The
                model is left as it was.
            RuntimeError: If all stages are done, or the processes have different models.
        """
        if share is None and self.stage >= len(self.keep):
            raise RuntimeError(
                f"All {len(self.keep)} stages of 'keep' are done: keep=(0.5, 0.3) makes two, and "
                "step(share=0.3) is one more"
            )
        target = self.keep[self.stage] if share is None else check_shares(share)[0]
        check_same("model and 'keep'", lambda: (repr(self), target, self._masked.state_dict()))
        scores = self._score(losses)
        self._masked.prune(self.importance, scores, target, self.rho, self.min_width)
        check_same("channels kept", self._masked.state_dict)
        self.stage += share is None
        report = self.report(target)
        spent = report.share if self._masked.spent is None else self._masked.spent
        if spent > target * (1.0 + 1e-9):
            of = "parameters" if self._masked.spent is None else "budget"
            warnings.warn(
                f"The floors of the groups leave {spent:.1%} of the {of}, more than "
                f"the {target:.1%} of 'keep'; lower 'rho' or 'min_width' for less",
                stacklevel=2,
            )
        return report

    def explain(self) -> Explanation:
        """Return what is kept and why: an empty table where all channels can be pruned.

        Print it, or read its rows.
        """
        return self._masked.explain()

    def report(self, target: float | None = None) -> Pruned:
        """Return what is left now."""
        left = self._masked.left()
        share = left.num_parameters / self._masked.total
        return Pruned(
            self.stage,
            share if target is None else target,
            left.num_parameters,
            share,
            left.prunable_share,
            left.widths,
        )

    def mask(self, kept: Mapping[str, Tensor]) -> None:
        """Mask by hand: for each group (or parameter, for weights) by name, what to keep.

        Raises:
            ValueError: If a name is unknown, a mask has the wrong shape, drops what must stay, or
                leaves a layer without channels. The model is left as it was.
        """
        self._masked.mask(kept)

    def compact(self) -> nn.Module:
        """Return a copy without masks: a plain module with smaller tensors and equal outputs.

        With :obj:`granularity="weight"` tensors keep their shapes, and zeros are only zeros:
        further training would revive them. Before the first stage, where nothing is masked, a
        warning says so.
        """
        if self.stage == 0 and self.num_parameters == self._masked.total:
            warnings.warn(
                "Nothing is masked, so that compact() returns a copy as large as the model: step() "
                "masks",
                stacklevel=2,
            )
        return self._masked.compact()

    def shrink(self) -> None:
        """Compact :attr:`model` where it is, between stages, so that training gets faster.

        Parameters are new objects afterwards: make a new optimizer.
        """
        self._masked.shrink()

    def channels_of(self, layer: str) -> LayerChannels:
        """Return which output channels of a layer are left, and which may still go.

        Args:
            layer (str): The layer by its name in :obj:`named_modules()`.
        """
        return self._masked.channels_of(layer)

    def snapshot(self) -> Snapshot:
        """Return which masks there are, for :meth:`restore`."""
        return Snapshot.of(self._masked)

    def restore(self, snapshot: Snapshot) -> None:
        """Take off the masks that came after a snapshot, as long as nothing was shrunk.

        Masked values are 0 until a state of the model at that time is loaded.
        """
        snapshot.restore(self._masked)

    def reset_parameters(self) -> None:
        """Draw all weights anew, under the masks."""
        self._masked.with_originals(_reset)

    @torch.no_grad()
    def rewind(self, state: Mapping[str, Tensor]) -> None:
        """Set the weights back to those of an earlier :obj:`state_dict`, under the masks.

        Args:
            state (dict): The state of the model before it was pruned.
        """
        self._masked.rewind(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the stage and what is kept of the first model, as plain values and tensors."""
        return {
            "granularity": self.granularity,
            "stage": self.stage,
            **self._masked.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, shrink: bool = False) -> None:
        """Give the model, as it was at first, the masks of a saved pruner.

        Load the weights afterwards, by :obj:`model.load_state_dict`.

        Args:
            state (dict): What :meth:`state_dict` returned.
            shrink (bool): Whether the saved model had been shrunk. (default: :obj:`False`)

        Raises:
            ValueError: If the state is that of another model. The model is left as it was.
        """
        if state.get("granularity") != self.granularity:
            raise ValueError(
                f"'state' must be of granularity {self.granularity!r} "
                f"(got {state.get('granularity')!r})"
            )
        self._masked.load_state_dict(state)
        self.stage = int(state["stage"])
        if shrink:
            self.shrink()

    def __repr__(self) -> str:
        return (
            f"Pruner({type(self.model).__name__}, {self.importance}, {self.granularity!r}, "
            f"keep={self.keep}, stage={self.stage})"
        )

    def _score(self, losses: Iterable[Tensor] | None) -> dict[str, Tensor]:
        with eval_mode(self.model), together():
            scores = self.importance.score(self._masked.weights(), losses)
            for name, score in scores.items():
                if not bool(torch.isfinite(score).all()):
                    raise ValueError(f"'importance' must give finite scores (got NaN for {name!r})")
        return average(scores)


def _reset(model: nn.Module) -> None:
    reset = getattr(model, "reset_parameters", None)
    if reset is not None:
        reset()
        return
    for child in model.children():
        _reset(child)
