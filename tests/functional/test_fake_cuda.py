"""Kernels on fake CUDA tensors: none of their tensors is made on another device, GPU or not.

Fake tensors have a shape, a type and a device, and no values: an operation between a CUDA tensor
and one that was left on the CPU fails as it would on a GPU. Three operations do not run on fake
tensors and have stand-ins that check their arguments' devices. The search of neighbours reads
values, and is not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from pyg_stkd.functional.sparse import (
    attention_kernels,
    edge_norm_max,
    manhattan,
    neighbour_max,
    sparse_ops,
)

N, E, H, F, K = 7, 20, 2, 6, 2
CUDA = torch.device("cuda", 0)


def same_device(*tensors: Tensor | None) -> None:
    devices = {x.device for x in tensors if x is not None}
    assert devices == {CUDA}, f"tensors of one call are on {devices}"


def segment_reduce(value: Tensor, reduce: str, *, offsets: Tensor, **kwargs: Any) -> Tensor:
    same_device(value, offsets)
    assert offsets.dtype == torch.int64
    return value.new_empty(offsets.size(0) - 1, *value.shape[1:])


def sparse_csr_tensor(pointer: Tensor, index: Tensor, value: Tensor, size: Any, **_: Any) -> Any:
    same_device(pointer, index, value)
    assert pointer.dtype == index.dtype
    return SimpleNamespace(value=value, size=size)


def sampled_addmm(pattern: Any, a: Tensor, b: Tensor, **kwargs: Any) -> Any:
    same_device(pattern.value, a, b)
    assert (a.size(0), b.size(1)) == tuple(pattern.size)
    assert a.is_contiguous()
    return SimpleNamespace(values=lambda: torch.empty_like(pattern.value))


def view(x: Tensor, key: Any) -> tuple[Tensor, list[Tensor | None]]:
    """Apply numbers, slices and None; return the view, and the tensors that index it."""
    tensors: list[Tensor | None] = []
    dim = 0
    for item in key if isinstance(key, tuple) else (key,):
        if isinstance(item, Tensor):
            same_device(x, item)
            tensors += [None] * (dim - len(tensors)) + [item]
        elif isinstance(item, int):
            x = x.select(dim, item)
            continue
        elif item is None:
            x = x.unsqueeze(dim)
        else:
            x = torch.ops.aten.slice(x, dim, item.start, item.stop)
        dim += 1
    return x, tensors


class WithoutDriver(TorchFunctionMode):
    """What torch asks the driver of the device for, as operations that do not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.contiguous:
            return args[0] if args[0].is_contiguous() else torch.ops.aten.clone(args[0])
        if func in (Tensor.long, Tensor.float, Tensor.double):
            return args[0].to(getattr(torch, func.__name__))
        if func is Tensor.__getitem__:
            x, tensors = view(*args)
            return torch.ops.aten.index(x, tensors) if tensors else x
        if func is Tensor.__setitem__:
            x, tensors = view(*args[:2])
            if not isinstance(args[2], Tensor):
                return None
            same_device(x, args[2])
            assert tensors or torch.broadcast_shapes(x.shape, args[2].shape) == x.shape
            return torch.ops.aten.index_put_(x, tensors, args[2]) if tensors else None
        return func(*args, **(kwargs or {}))


@pytest.fixture
def cuda(
    monkeypatch: pytest.MonkeyPatch,
    disable_extensions: None,  # torch-scatter's kernels want a real GPU
) -> Iterator[Callable[..., Tensor]]:
    """Makes fake tensors on a GPU that need not be there."""
    monkeypatch.setattr(torch, "segment_reduce", segment_reduce)
    monkeypatch.setattr(torch, "sparse_csr_tensor", sparse_csr_tensor)
    monkeypatch.setattr(torch.sparse, "sampled_addmm", sampled_addmm)

    def make(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(size, dtype=dtype, device=CUDA)

    with FakeTensorMode(), WithoutDriver():
        yield make


def index_of(cuda: Callable[..., Tensor], heads: int = 1) -> list[Tensor]:
    """The arrays of a graph and of its transpose, as ``graph_index`` lists them."""
    whole = {"dtype": torch.int32}
    one_way = [cuda(N * heads + 1, **whole), cuda(E * heads, **whole), cuda(E * heads, **whole)]
    return [*one_way, *(torch.empty_like(x) for x in one_way)]


def check(out: Any, *shapes: tuple[int, ...], dtype: torch.dtype) -> None:
    outs = out if isinstance(out, tuple) else (out,)
    assert [tuple(x.shape) for x in outs] == list(shapes)
    same_device(*outs)
    assert outs[0].dtype == dtype


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(), (H,)])
def test_primitives(cuda: Callable[..., Tensor], heads: tuple[int, ...], dtype: Any) -> None:
    index, x = index_of(cuda), cuda(N, *heads, F, dtype=dtype)
    weight = cuda(E, *heads, dtype=dtype)
    check(sparse_ops._sddmm(index, x, x), (E, *heads), dtype=dtype)
    for transpose in (False, True):
        check(sparse_ops._spmm(index, weight, x, transpose), (N, *heads, F), dtype=dtype)
    check(sparse_ops._segment_sum(index[0], weight), (N, *heads), dtype=dtype)
    out = sparse_ops._segment_log_softmax(index[0], index[2], weight)
    check(out, (E, *heads), dtype=dtype)


def test_more_edges_than_places_are_gathered(cuda: Callable[..., Tensor]) -> None:
    index = [cuda(3, dtype=torch.int32), *(cuda(E, dtype=torch.int32) for _ in range(2))]
    x = cuda(2, F)
    check(sparse_ops._sddmm(index, x, x), (E,), dtype=torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("more", [False, True])
def test_attention(cuda: Callable[..., Tensor], more: bool, dtype: torch.dtype) -> None:
    index, x = index_of(cuda, H), cuda(N, H, F, dtype=dtype)
    att = cuda(2 if not more else 1, H, F, dtype=dtype)
    score_dst = cuda(N, H, dtype=dtype) if more else None
    extra = cuda(E * H, dtype=dtype) if more else None
    out = attention_kernels._attention(index[:3], x, att, score_dst, extra, extra, 0.2)
    check(out, (N, H * F), (E * H,), (E * H,), dtype=dtype)
    grad = cuda(N, H * F, dtype=dtype)
    alpha, positive = out[1:]
    back = attention_kernels._attention_backward(
        index, grad, extra, x, att, alpha, positive, extra, 0.2, [True, True]
    )
    check(back, (N, H, F), tuple(att.shape), (N, H), (E * H,), dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("argmax", [False, True])
def test_neighbour_max(cuda: Callable[..., Tensor], argmax: bool, dtype: torch.dtype) -> None:
    pointer, col, _ = index_of(cuda)[:3]
    value, index = neighbour_max._neighbour_max(cuda(N, F, dtype=dtype), pointer, col, argmax)
    check((value, index), (N, F), (N, F) if argmax else (0,), dtype=dtype)
    grad = neighbour_max.scatter_to_argmax(cuda(N, F), cuda(N, F, dtype=torch.int32), N)
    check(grad, (N, F), dtype=torch.float32)


def test_edge_norm_max(cuda: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    operators = SimpleNamespace(neighbour_max=neighbour_max._neighbour_max)
    monkeypatch.setattr(torch.ops, "pyg_stkd", operators)
    kept: list[Tensor] = []
    ctx = SimpleNamespace(  # autograd itself wants a real GPU
        mark_non_differentiable=lambda *x: None,
        save_for_backward=lambda *x: kept.extend(x),
        needs_input_grad=[True] * 4,
    )
    index = index_of(cuda)
    inputs = cuda(N, F), cuda(N, F), cuda(F), cuda(F), 1e-5
    out = edge_norm_max._EdgeNormMax.forward(ctx, *inputs, *index[:3], *index[3:5])
    check(out, (N, F), (F,), (F,), (F,), dtype=torch.float32)
    ctx.saved_tensors = kept
    back = edge_norm_max._EdgeNormMax._gradients(ctx, cuda(N, F))
    check(back[:4], (N, F), (N, F), (F,), (F,), dtype=torch.float32)


def test_manhattan(cuda: Callable[..., Tensor]) -> None:
    z, (col, row) = cuda(N, F), index_of(cuda)[1:3]
    check(manhattan._manhattan(z, z, col, row), (E,), dtype=torch.float32)
    check(manhattan._manhattan(z, cuda(N, F), col, row), (E,), dtype=torch.float32)
    check(manhattan._manhattan_backward(cuda(E), z, col, row), (N, F), dtype=torch.float32)


def test_a_tensor_of_another_device_is_seen(cuda: Callable[..., Tensor]) -> None:
    index = index_of(cuda)
    weight = torch.empty(E, device="cpu")
    with pytest.raises((AssertionError, RuntimeError), match=r"device|cpu"):
        sparse_ops._spmm(index, weight, cuda(N, F), False)
    with pytest.raises((AssertionError, RuntimeError), match=r"device|cpu"):
        sparse_ops._segment_log_softmax(index[0].cpu(), index[2], cuda(E))
