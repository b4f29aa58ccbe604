"""The layers that benchmarks and tests compare STConv with, written from their descriptions.

``PublishedBlock`` and ``PublishedSTGCN`` follow the block and the model of the STGCN paper as the
public PyTorch code computes them: [B, C, T, N] tensors, a dense graph operator applied by
``einsum``, residuals aligned by 1x1 convolutions or zeros. ``TemporalBlock`` follows the STConv of
PyTorch Geometric Temporal: three convolutions a gate, PyG's ``ChebConv`` called for every sample
and step, batch norm over nodes; its own package is used instead where it is installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch_geometric.nn import ChebConv

from pyg_stkd.nn.models.stgcn import STGCN
from pyg_stkd.nn.sequence.st_conv import STConv


class Align(nn.Module):
    def __init__(self, width: int, new: int) -> None:
        super().__init__()
        self.width, self.new = width, new
        self.conv = nn.Conv2d(width, new, 1) if width > new else None

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            return self.conv(x)
        if self.width == self.new:
            return x
        batch, _, steps, nodes = x.shape
        return torch.cat([x, x.new_zeros(batch, self.new - self.width, steps, nodes)], dim=1)


class PublishedTemporal(nn.Module):
    def __init__(self, kernel: int, width: int, new: int) -> None:
        super().__init__()
        self.kernel, self.new = kernel, new
        self.align = Align(width, new)
        self.conv = nn.Conv2d(width, 2 * new, (kernel, 1))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.align(x)[:, :, self.kernel - 1 :]
        y = self.conv(x)
        return (y[:, : self.new] + residual) * torch.sigmoid(y[:, self.new :])


class PublishedGraph(nn.Module):
    def __init__(self, width: int, new: int, K: int, operator: Tensor) -> None:
        super().__init__()
        self.align = Align(width, new)
        self.K, self.operator = K, operator
        self.weight = nn.Parameter(torch.randn(K, new, new) / (K * new) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(new))

    def forward(self, x: Tensor) -> Tensor:
        x = self.align(x)
        terms = [x.permute(0, 2, 3, 1)]
        for k in range(1, self.K):
            factor = self.operator if k == 1 else 2 * self.operator
            term = torch.einsum("hi,btij->bthj", factor, terms[-1])
            terms.append(term if k == 1 else term - terms[-2])
        y = torch.einsum("btkhi,kij->bthj", torch.stack(terms, dim=2), self.weight) + self.bias
        return y.permute(0, 3, 1, 2) + x


class PublishedBlock(nn.Module):
    def __init__(
        self, width: int, widths: tuple[int, int, int], kernel: int, K: int, operator: Tensor
    ) -> None:
        super().__init__()
        self.temporal1 = PublishedTemporal(kernel, width, widths[0])
        self.graph = PublishedGraph(widths[0], widths[1], K, operator)
        self.temporal2 = PublishedTemporal(kernel, widths[1], widths[2])
        self.norm = nn.LayerNorm([operator.size(0), widths[2]], eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.graph(self.temporal1(x)))
        return self.norm(self.temporal2(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PublishedSTGCN(nn.Module):
    def __init__(self, width: int, horizons: int, steps: int, K: int, operator: Tensor) -> None:
        super().__init__()
        widths = (64, 16, 64)
        self.blocks = nn.Sequential(
            PublishedBlock(width, widths, 3, K, operator),
            PublishedBlock(64, widths, 3, K, operator),
        )
        self.head_conv = PublishedTemporal(steps - 8, 64, 128)
        self.head_norm = nn.LayerNorm([operator.size(0), 128], eps=1e-12)
        self.lin1, self.lin2 = nn.Linear(128, 128), nn.Linear(128, horizons)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head_norm(self.head_conv(self.blocks(x)).permute(0, 2, 3, 1))
        return self.lin2(torch.relu(self.lin1(x))).permute(0, 3, 1, 2)


class TemporalGate(nn.Module):
    def __init__(self, width: int, new: int, kernel: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, new, (1, kernel))
        self.conv_2 = nn.Conv2d(width, new, (1, kernel))
        self.conv_3 = nn.Conv2d(width, new, (1, kernel))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 2, 1)
        y = torch.relu(self.conv_1(x) * torch.sigmoid(self.conv_2(x)) + self.conv_3(x))
        return y.permute(0, 3, 2, 1)


class TemporalBlock(nn.Module):
    def __init__(
        self, num_nodes: int, width: int, hidden: int, new: int, kernel: int, K: int
    ) -> None:
        super().__init__()
        self._temporal_conv1 = TemporalGate(width, hidden, kernel)
        self._graph_conv = ChebConv(hidden, hidden, K)
        self._temporal_conv2 = TemporalGate(hidden, new, kernel)
        self._batch_norm = nn.BatchNorm2d(num_nodes)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        x = self._temporal_conv1(x)
        y = torch.zeros_like(x)
        for b in range(x.size(0)):
            for t in range(x.size(1)):
                y[b][t] = self._graph_conv(x[b][t], edge_index, edge_weight)
        y = self._temporal_conv2(torch.relu(y)).permute(0, 2, 1, 3)
        return self._batch_norm(y).permute(0, 2, 1, 3)


def temporal_block(*args: int) -> tuple[nn.Module, str]:
    """Return PyTorch Geometric Temporal's own block where installed, else ours of it; and which."""
    module = pyg_temporal()
    if module is None:
        return TemporalBlock(*args), "re-implemented"
    return module.STConv(*args), "torch-geometric-temporal"


def pyg_temporal() -> ModuleType | None:
    """Return the file of PyTorch Geometric Temporal's block, if it is installed.

    The file by itself: the whole package imports torch-sparse, which the block does not need.
    """
    package = importlib.util.find_spec("torch_geometric_temporal")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / "nn" / "attention" / "stgcn.py"
    spec = importlib.util.spec_from_file_location("pyg_temporal_stgcn", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def laplacian(edge_index: Tensor, num_nodes: int, edge_weight: Tensor | None = None) -> Tensor:
    """Return the dense scaled Laplacian that PyG's ChebConv propagates with (targets are rows)."""
    (source, target), value = ChebConv(1, 1, 3).__norm__(
        edge_index, num_nodes, edge_weight, "sym", 2.0, torch.get_default_dtype()
    )
    matrix = torch.zeros(num_nodes, num_nodes)
    return matrix.index_put((target, source), value, accumulate=True)


@torch.no_grad()
def copy_published(block: STConv, peer: PublishedBlock) -> None:
    """Give our block the published block's weights."""
    block.temporal1.conv.load_state_dict(peer.temporal1.conv.state_dict())
    block.temporal2.conv.load_state_dict(peer.temporal2.conv.state_dict())
    _copy_align(block.temporal1.align, peer.temporal1.align)
    _copy_align(block.temporal2.align, peer.temporal2.align)
    _copy_align(block.align, peer.graph.align)
    for lin, weight in zip(block.conv.lins, peer.graph.weight, strict=True):
        lin.weight.copy_(weight.t())
    block.conv.bias.copy_(peer.graph.bias)
    block.norm.load_state_dict(peer.norm.state_dict())


@torch.no_grad()
def copy_stgcn(model: STGCN, peer: PublishedSTGCN) -> None:
    """Give our model the published model's weights."""
    for block, other in zip(model.blocks, peer.blocks, strict=True):
        copy_published(block, other)
    model.head_conv.conv.load_state_dict(peer.head_conv.conv.state_dict())
    model.head_norm.load_state_dict(peer.head_norm.state_dict())
    model.lin1.load_state_dict(peer.lin1.state_dict())
    model.lin2.load_state_dict(peer.lin2.state_dict())


@torch.no_grad()
def copy_temporal(block: STConv, peer: nn.Module) -> None:
    """Give our block the weights of PyTorch Geometric Temporal's."""
    pairs = ((block.temporal1, peer._temporal_conv1), (block.temporal2, peer._temporal_conv2))
    for ours, theirs in pairs:
        convs = (theirs.conv_1, theirs.conv_2, theirs.conv_3)
        ours.conv.weight.copy_(torch.cat([conv.weight for conv in convs]).transpose(2, 3))
        ours.conv.bias.copy_(torch.cat([conv.bias for conv in convs]))
    for k, lin in enumerate(peer._graph_conv.lins):
        block.conv.lins[k].weight.copy_(lin.weight)
    block.conv.bias.copy_(peer._graph_conv.bias)
    block.norm.load_state_dict(peer._batch_norm.state_dict())


def _copy_align(ours: nn.Linear | None, theirs: Align) -> None:
    if ours is not None and theirs.conv is not None:
        ours.weight.copy_(theirs.conv.weight[:, :, 0, 0])
        ours.bias.copy_(theirs.conv.bias)
