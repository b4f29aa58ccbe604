"""The published DGCNN as it is usually written, on a dense grid: the peer of our layers.

Features are [B, C, N], each block builds its [B, 2C, N, k] edge features and runs a 1x1
convolution, batch normalisation and a leaky ReLU over them. Further peers are at the end:
PyG's layer on the neighbours of torch-cluster, and the union loss by gathering.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch_geometric.utils import coalesce

try:
    from torch_cluster import knn_graph as cluster_knn_graph
except ImportError:
    cluster_knn_graph = None


def nearest(x: Tensor, k: int) -> Tensor:
    """Expanded distances of all pairs, then topk: [B, C, N] -> [B, N, k]."""
    inner = -2 * torch.matmul(x.transpose(2, 1), x)
    norm = (x**2).sum(dim=1, keepdim=True)
    distance = -norm - inner - norm.transpose(2, 1)
    return distance.topk(k=k, dim=-1)[1]


def edge_features(x: Tensor, k: int) -> Tensor:
    """Pair each point with the differences to its neighbours: [B, C, N] -> [B, 2C, N, k]."""
    num_clouds, width, n = x.shape
    start = torch.arange(0, num_clouds * n, n, device=x.device).view(-1, 1, 1)
    index = (nearest(x, k) + start).view(-1)
    points = x.transpose(2, 1).contiguous().view(num_clouds * n, width)
    near = points[index, :].view(num_clouds, n, k, width)
    centre = points.view(num_clouds, n, 1, width).repeat(1, 1, k, 1)
    return torch.cat([near - centre, centre], dim=3).permute(0, 3, 1, 2).contiguous()


class GridEdgeConv(nn.Module):
    """One block: edge features, 1x1 convolution, normalisation, activation, maximum."""

    def __init__(self, width_in: int, width_out: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.net = nn.Sequential(
            nn.Conv2d(2 * width_in, width_out, 1, bias=False),
            nn.BatchNorm2d(width_out),
            nn.LeakyReLU(0.2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(edge_features(x, self.k)).max(dim=-1)[0]


class GridDGCNN(nn.Module):
    """The whole classifier."""

    def __init__(
        self,
        out_channels: int,
        channels: Sequence[int],
        mlp_channels: Sequence[int],
        k: int,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        convs = zip([3, *channels[:-2]], channels[:-1], strict=True)
        self.convs = nn.ModuleList(GridEdgeConv(a, b, k) for a, b in convs)
        self.embedding = nn.Sequential(
            nn.Conv1d(sum(channels[:-1]), channels[-1], 1, bias=False),
            nn.BatchNorm1d(channels[-1]),
            nn.LeakyReLU(0.2),
        )
        head: list[nn.Module] = []
        width = 2 * channels[-1]
        for i, hidden in enumerate(mlp_channels):
            head += [nn.Linear(width, hidden, bias=i > 0), nn.BatchNorm1d(hidden)]
            head += [nn.LeakyReLU(0.2), nn.Dropout(dropout)]
            width = hidden
        self.head = nn.Sequential(*head, nn.Linear(width, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for conv in self.convs:
            x = conv(x)
            features.append(x)
        x = self.embedding(torch.cat(features, dim=1))
        return self.head(torch.cat([x.amax(dim=2), x.mean(dim=2)], dim=1))


class ClusterEdgeConv(nn.Module):
    """PyG's layer on torch-cluster's neighbours, as DynamicEdgeConv was before pyg-lib."""

    def __init__(self, network: nn.Module, k: int) -> None:
        super().__init__()
        self.conv = torch_geometric.nn.EdgeConv(network, aggr="max")
        self.k = k

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        return self.conv(x, cluster_knn_graph(x, self.k, batch, loop=True))


def naive_union_lsp(z_s: Tensor, z_t: Tensor, a: Tensor, b: Tensor) -> Tensor:
    source, target = coalesce(torch.cat([a, b], dim=1), num_nodes=z_s.size(0))

    def structure(z: Tensor) -> Tensor:
        score = (-(z[target] - z[source]).square().sum(-1) / 2).exp()
        score = score.exp()
        total = score.new_zeros(z.size(0)).index_add(0, target, score)
        return score / total[target]

    with torch.no_grad():
        teacher = structure(z_t)
    student = structure(z_s)
    return (student * (student / teacher).log()).sum() / z_s.size(0)
