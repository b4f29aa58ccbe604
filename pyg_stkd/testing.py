r"""Assertions for the tests of your own layers, models and rules of pruning.

Each raises :obj:`AssertionError` with what differs, and draws nothing at random but from the seeds
it is given. Outputs may be tensors, or tuples, lists and dictionaries of them; they are compared
relative to the largest entry, within :obj:`tolerance` (by default 1e-12 in double, 1e-5 in single
and 1e-2 in half precision).
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from pyg_stkd.modes import eval_mode
from pyg_stkd.prune import Pruner
from pyg_stkd.prune.mask_hooks.skipping import CHANNEL_MASK

__all__ = [
    "assert_exports",
    "assert_masked_equals_compacted",
    "assert_permutation_equivariant",
    "assert_round_trips",
]

_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def assert_masked_equals_compacted(
    pruner: Pruner,
    *args: Any,
    run: Callable[[nn.Module], Any] | None = None,
    training: bool = False,
    tolerance: float | None = None,
    **kwargs: Any,
) -> nn.Module:
    r"""Assert that a pruner's masked model and its compacted twin are one function.

    Both give equal outputs and equal gradients of the inputs in eval mode; with :obj:`training`
    also in training mode, and in eval mode afterwards, when the statistics of norms have moved.
    The compacted model is of the same class, has as many parameters as the pruner says and the
    state of a model that never had a mask. The pruner's own model stays as it is.

    Args:
        pruner (Pruner): The pruner, after some :meth:`~pyg_stkd.prune.Pruner.step`.
        *args: The inputs of the model.
        run (callable, optional): Runs a model in another way than :obj:`model(*args, **kwargs)`.
            (default: :obj:`None`)
        training (bool): Whether to compare in training mode too: not with dropout, which draws
            other numbers for fewer channels. (default: :obj:`False`)
        tolerance (float, optional): How far outputs may differ. (default: by their precision)
        **kwargs: The inputs of the model by name.

    Returns:
        The compacted model, in eval mode.

    Raises:
        AssertionError: If the two differ.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from pyg_stkd.prune import Random
        >>> pruner = Pruner(GCN(4, 16, 2, 3), Random(0), keep=0.5)
        >>> _ = pruner.step()
        >>> x, edge_index = torch.randn(5, 4), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
        >>> assert_masked_equals_compacted(pruner, x, edge_index).convs[0]
        GCNConv(4, 7)
    """
    masked, small = copy.deepcopy(pruner.model), pruner.compact()
    assert type(small) is type(masked), f"compacted to {type(small).__name__}"
    keys = {key for key in masked.state_dict() if key.rpartition(".")[2] != CHANNEL_MASK}
    under = {key.removesuffix("_mask") for key in keys if key.endswith("_mask")}
    under = {key for key in under if f"{key}_orig" in keys}
    plain = keys - {f"{key}{end}" for key in under for end in ("_mask", "_orig")} | under
    assert set(small.state_dict()) == plain, "the compacted state has other entries"
    if pruner.granularity != "weight":
        count = sum(parameter.numel() for parameter in small.parameters())
        assert count == pruner.num_parameters, f"{count} parameters, not {pruner.num_parameters}"
    for mode in (False, True, False) if training else (False,):
        values = []
        for model in (masked.train(mode), small.train(mode)):
            given = _leaves_of_their_own((args, kwargs))
            out = run(model) if run is not None else model(*given[0], **given[1])
            values.append((out, _gradients(out, given)))
        (ours, grads), (theirs, grads_of_small) = values
        where = "training mode" if mode else "eval mode"
        _assert_close(theirs, ours, tolerance, f"the compacted model, in {where}")
        _assert_close(grads_of_small, grads, tolerance, f"the gradients of the inputs, in {where}")
    return small


def assert_round_trips(
    model: nn.Module,
    *args: Any,
    run: Callable[[nn.Module], Any] | None = None,
    tolerance: float = 0.0,
    **kwargs: Any,
) -> None:
    r"""Assert that a model survives being copied, pickled and saved.

    A deep copy, an unpickled one and a copy that is emptied and given the saved
    :obj:`state_dict` give the same outputs in eval mode, to the last bit by default. They are
    made while the graph of a call is alive, as it is within a training loop.

    Args:
        model (torch.nn.Module): The model: a plain, a masked or a compacted one.
        *args: The inputs of the model.
        run (callable, optional): Runs a model in another way than :obj:`model(*args, **kwargs)`.
            (default: :obj:`None`)
        tolerance (float): How far outputs may differ. (default: :obj:`0.0`)
        **kwargs: The inputs of the model by name.

    Raises:
        AssertionError: If one of them differs.

    Example:
        >>> from pyg_stkd.nn import GATConv
        >>> edge_index = torch.tensor([[0, 1], [1, 2]])
        >>> assert_round_trips(GATConv(4, 8), torch.randn(3, 4), edge_index)
    """
    call = run or (lambda one: one(*args, **kwargs))
    with eval_mode(model):
        expected = call(model)  # its graph stays alive
        copied = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other = copy.deepcopy(model)
        with torch.no_grad():
            for tensor in other.state_dict().values():
                tensor.zero_()
        other.load_state_dict(torch.load(file, weights_only=True))
        found = {"copy": copied, "pickle": pickle.loads(pickle.dumps(model)), "state": other}
        for name, one in found.items():
            _assert_close(call(one), expected, tolerance, f"the {name}")


def assert_permutation_equivariant(
    layer: Callable[..., Any],
    x: Tensor,
    edge_index: Tensor | None = None,
    *edge_values: Tensor,
    node_dim: int = -2,
    invariant: bool = False,
    seed: int = 0,
    tolerance: float | None = None,
    **kwargs: Any,
) -> None:
    r"""Assert that a layer does not depend on how nodes are numbered and edges are listed.

    With the permutation matrix :math:`\mathbf{P}` of the nodes, and the edges in another order,

    .. math::
        f(\mathbf{P} \mathbf{X}, \mathbf{P} \mathbf{A} \mathbf{P}^\top)
        = \mathbf{P} f(\mathbf{X}, \mathbf{A}).

    Args:
        layer (callable): The layer or function, deterministic (in eval mode where it has dropout).
        x (Tensor): Features of nodes.
        edge_index (Tensor, optional): The edges; not given to layers that build their graph.
            (default: :obj:`None`)
        *edge_values (Tensor): A row for each edge: weights, features.
        node_dim (int): The axis of the nodes in :obj:`x` and in outputs. (default: :obj:`-2`)
        invariant (bool): Whether the output is one of the whole graph, which must not change.
            (default: :obj:`False`)
        seed (int): The seed of the permutation. (default: :obj:`0`)
        tolerance (float, optional): How far outputs may differ. (default: by their precision)
        **kwargs: What else the layer is given.

    Shapes:
        - **x:** :math:`(N, F)`, :math:`(B, T, N, C)`, or any with :math:`N` at :obj:`node_dim`
        - **edge_index:** :math:`(2, |\mathcal{E}|)`

    Raises:
        AssertionError: If outputs differ.

    Example:
        >>> from pyg_stkd.nn import GATConv
        >>> edge_index = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]])
        >>> assert_permutation_equivariant(GATConv(4, 8), torch.randn(3, 4), edge_index)
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(x.size(node_dim), generator=draw).to(x.device)
    place = order.argsort()
    given: list[Tensor] = []
    moved = [x.index_select(node_dim, order)]
    if edge_index is not None:
        shuffle = torch.randperm(edge_index.size(1), generator=draw).to(x.device)
        given.append(edge_index)
        moved.append(place[edge_index][:, shuffle])
        given.extend(edge_values)
        moved.extend(value.index_select(0, shuffle) for value in edge_values)
    expected, out = layer(x, *given, **kwargs), layer(*moved, **kwargs)
    if not invariant:
        expected = tree_map_only(Tensor, lambda y: y.index_select(node_dim, order), expected)
    _assert_close(out, expected, tolerance, "the output for permuted nodes")


def assert_exports(
    model: nn.Module,
    args: tuple[Any, ...],
    *others: tuple[Any, ...],
    dynamic_shapes: Any = None,
    strict: bool = False,
    onnx: bool = False,
    tolerance: float | None = None,
) -> torch.export.ExportedProgram:
    r"""Assert that :func:`torch.export.export` keeps a model, for inputs of other sizes too.

    The program must give the model's outputs and hold operators of torch alone, which every
    runtime has. With :obj:`onnx` it is also converted and run in onnxruntime.

    Args:
        model (torch.nn.Module): The model, in eval mode.
        args (tuple): Its inputs, the example of the export.
        *others (tuple): Other inputs, of other sizes where :obj:`dynamic_shapes` leaves them open.
        dynamic_shapes (optional): As in :func:`torch.export.export`. (default: :obj:`None`)
        strict (bool): Whether to export in strict mode. (default: :obj:`False`)
        onnx (bool): Whether to convert to ONNX as well: needs :obj:`onnx`, :obj:`onnxscript` and
            :obj:`onnxruntime`. (default: :obj:`False`)
        tolerance (float, optional): How far outputs may differ. (default: by their precision, and
            1e-4 in onnxruntime)

    Returns:
        The exported program.

    Raises:
        AssertionError: If outputs differ or the program holds operators that are not torch's.

    Example:
        >>> from torch.export import Dim
        >>> from pyg_stkd.nn import GAT
        >>> model = GAT(3, 4, 2, num_layers=2, heads=2).eval()
        >>> inputs = [
        ...     (torch.randn(n, 3), torch.randint(n, (2, e))) for n, e in ((6, 14), (9, 31))
        ... ]
        >>> shapes = ({0: Dim("N")}, {1: Dim("E")})
        >>> program = assert_exports(model, *inputs, dynamic_shapes=shapes)
    """
    program = torch.export.export(model, args, dynamic_shapes=dynamic_shapes, strict=strict)
    targets = {node.target for node in program.graph.nodes}
    operators = {target for target in targets if isinstance(target, torch._ops.OpOverload)}
    own = sorted(str(op) for op in operators if op.namespace not in ("aten", "prim", "prims"))
    assert not own, f"the program holds operators that only this process has: {own}"
    run = program.module()
    with torch.no_grad():
        for inputs in (args, *others):
            sizes = [list(x.shape) for x in tree_leaves(inputs) if isinstance(x, Tensor)]
            where = f"the exported program, for inputs of shapes {sizes}"
            _assert_close(run(*inputs), model(*inputs), tolerance, where)
    if onnx:
        _assert_runs_in_onnx(
            model, program, (args, *others), 1e-4 if tolerance is None else tolerance
        )
    return program


def _assert_runs_in_onnx(
    model: nn.Module,
    program: torch.export.ExportedProgram,
    examples: Sequence[tuple[Any, ...]],
    tolerance: float,
) -> None:
    import onnxruntime

    made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString())
    names = [each.name for each in session.get_inputs()]
    for inputs in examples:
        given = [x.numpy() for x in tree_leaves(inputs) if isinstance(x, Tensor)]
        found = session.run(None, dict(zip(names, given, strict=True)))
        with torch.no_grad():
            expected = tree_leaves(model(*inputs))
        out = [torch.from_numpy(x) for x in found]
        _assert_close(out, expected, tolerance, "the model in onnxruntime")


def _leaves_of_their_own(inputs: Any) -> Any:
    """Copy inputs, so that each run has its own gradients and changes nothing of the other's."""

    def own(x: Tensor) -> Tensor:
        return x.detach().clone().requires_grad_(x.is_floating_point())

    return tree_map_only(Tensor, own, inputs)


def _gradients(out: Any, inputs: Any) -> list[Tensor]:
    """Return the gradients of a sum over all outputs, each entry with another weight."""
    wanted = [x for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.requires_grad]
    found = [y for y in tree_leaves(out) if isinstance(y, Tensor) and y.requires_grad]
    if not wanted or not found:
        return []
    total = torch.stack(
        [(y * torch.linspace(0.5, 1.5, y.numel()).to(y).view(y.shape)).sum() for y in found]
    ).sum()
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    return [x.new_zeros(()) if g is None else g for x, g in zip(wanted, grads, strict=True)]


def _assert_close(found: Any, expected: Any, tolerance: float | None, where: str) -> None:
    """Compare relative to the largest entry: sums are in another order, no more."""
    (ours, form), (theirs, form_expected) = tree_flatten(found), tree_flatten(expected)
    assert form == form_expected, f"{where} has another structure: {form}, not {form_expected}"
    for a, b in zip(ours, theirs, strict=True):
        if not isinstance(b, Tensor):
            assert a == b, f"{where} gives {a!r}, not {b!r}"
            continue
        assert a.shape == b.shape, f"{where} has shape {list(a.shape)}, not {list(b.shape)}"
        assert a.dtype == b.dtype, f"{where} is of {a.dtype}, not {b.dtype}"
        if not b.is_floating_point():
            assert torch.equal(a, b), f"{where} differs"
            continue
        most = _TOLERANCE.get(b.dtype, 1e-2) if tolerance is None else tolerance
        scale = max(1.0, b.detach().abs().nan_to_num(0, 0, 0).max().item()) if b.numel() else 1.0
        torch.testing.assert_close(
            a / scale, b / scale, rtol=0, atol=most, equal_nan=True,
            msg=lambda text: f"{where} differs\n{text}",
        )  # fmt: skip
