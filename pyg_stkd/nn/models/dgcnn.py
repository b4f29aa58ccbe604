"""The point cloud classifiers that the local-structure paper distils."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MLP

from pyg_stkd import checks
from pyg_stkd.graph import is_exporting
from pyg_stkd.nn.conv.edge_conv import DynamicEdgeConv
from pyg_stkd.nn.scripting import refuse_script

__all__ = ["DGCNN"]


class DGCNN(torch.nn.Module):
    r"""The classifier from `"Dynamic Graph CNN for Learning on Point Clouds"
    <https://arxiv.org/abs/1801.07829>`_ (Fig. 3), as in Table 3 of `"Distilling Knowledge from
    Graph Convolutional Networks" <https://arxiv.org/abs/2003.10477>`_.

    .. math::
        \mathbf{H}^{(l+1)} = \mathrm{DynamicEdgeConv}(\mathbf{H}^{(l)}), \qquad
        \mathbf{E} = \mathrm{MLP}(\mathbf{H}^{(1)} \Vert \dots \Vert \mathbf{H}^{(L)}), \qquad
        \mathbf{y} = \mathrm{MLP} \left( \max_i \mathbf{E}_i \, \Vert \,
        \mathrm{mean}_i \, \mathbf{E}_i \right)

    All but the last of :obj:`channels` are :class:`~pyg_stkd.nn.DynamicEdgeConv` layers
    (:obj:`convs.0`, :obj:`convs.1`, ...); the last one is the point-wise :obj:`embedding` of all
    their features. Each linear layer but the last is followed by batch normalisation and a leaky
    ReLU, and has no bias where the authors' PyTorch code has none. With 40 classes the teacher
    has 1,809,576 parameters (the published 1.81 M) and the student 99,560 (0.1 M).

    Args:
        in_channels (int): Size of each input sample, 3 for points.
        out_channels (int): Number of classes.
        channels (list of int): Widths of the edge convolutions and, last, of the embedding.
        mlp_channels (list of int): Widths of the hidden layers of the classifier.
        k (int): Number of neighbours of a point, itself included.
        dropout (float): Probability to drop a hidden feature of the classifier.
            (default: :obj:`0.5`)
        negative_slope (float): Slope of the leaky ReLU below 0. (default: :obj:`0.2`)

    Shapes:
        - **input:** points :math:`(|\mathcal{V}|, F_{in})`, batch vector :math:`(|\mathcal{V}|)`
          *(optional)*, number of clouds *(optional)*; clouds may differ in size
        - **output:** scores :math:`(B, F_{out})`

    Raises:
        ValueError: If a width is not positive, :obj:`channels` names fewer than two, there are no
            points, :obj:`batch` is not sorted or skips a cloud, or :obj:`batch_size` is not the
            number of clouds.

    Example:
        >>> model = DGCNN.student(out_channels=40)
        >>> model
        DGCNN(3, 40, channels=[32, 32, 64, 128], mlp_channels=[256], k=10)
        >>> sum(p.numel() for p in model.parameters())
        99560
        >>> batch = torch.tensor([0] * 20 + [1] * 12)
        >>> model(torch.randn(32, 3), batch).shape
        torch.Size([2, 40])
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 64, 128, 256, 1024),
        mlp_channels: Sequence[int] = (512, 256),
        k: int = 20,
        dropout: float = 0.5,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        channels, mlp_channels = list(channels), list(mlp_channels)
        if len(channels) < 2:
            raise ValueError(
                f"'channels' must name an edge convolution and the embedding (got {channels})"
            )
        widths = {"channels": channels, "mlp_channels": mlp_channels}
        for name, width in {
            **widths,
            "in_channels": [in_channels],
            "out_channels": [out_channels],
        }.items():
            for w in width:
                checks.count(name, w)
        checks.number("dropout", dropout, least=0, most=1)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.channels = channels
        self.mlp_channels = mlp_channels
        self.k = k
        self.dropout = dropout
        self.negative_slope = negative_slope
        act: dict[str, Any] = {
            "act": "leaky_relu",
            "act_kwargs": {"negative_slope": negative_slope},
        }
        block = {**act, "plain_last": False, "bias": False}
        self.convs = torch.nn.ModuleList(
            DynamicEdgeConv(MLP([2 * width_in, width_out], **block), k)
            for width_in, width_out in zip(
                [in_channels, *channels[:-2]], channels[:-1], strict=True
            )
        )
        self.embedding = MLP([sum(channels[:-1]), channels[-1]], **block)
        self.mlp = MLP(
            [2 * channels[-1], *mlp_channels, out_channels],
            dropout=float(dropout),
            bias=[not mlp_channels, *[True] * len(mlp_channels)],
            **act,
        )

    @classmethod
    def teacher(cls, out_channels: int = 40, in_channels: int = 3, **kwargs: Any) -> DGCNN:
        """Build the paper's teacher: widths 64, 64, 128, 256, 1024, classifier 512, 256, k = 20."""
        preset = {"channels": (64, 64, 128, 256, 1024), "mlp_channels": (512, 256), "k": 20}
        return cls(in_channels, out_channels, **{**preset, **kwargs})

    @classmethod
    def student(cls, out_channels: int = 40, in_channels: int = 3, **kwargs: Any) -> DGCNN:
        """Build the paper's student: widths 32, 32, 64, 128, classifier 256, k = 10."""
        preset = {"channels": (32, 32, 64, 128), "mlp_channels": (256,), "k": 10}
        return cls(in_channels, out_channels, **{**preset, **kwargs})

    def reset_parameters(self) -> None:
        """Reset all learnable parameters."""
        for conv in self.convs:
            assert isinstance(conv, DynamicEdgeConv)
            conv.reset_parameters()
        self.embedding.reset_parameters()
        self.mlp.reset_parameters()

    def forward(
        self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Run the model.

        Args:
            x (Tensor): Points.
            batch (Tensor, optional): The cloud of each point, in ascending order.
            batch_size (int, optional): The number of clouds, which :func:`torch.export.export`
                cannot read from :obj:`batch`.
        """
        checks.features("x", x)
        if batch is not None:
            checks.instance("batch", batch, Tensor)
        sizes = _cloud_sizes(x, batch, batch_size)
        features = []
        for conv in self.convs:
            x = conv(x, batch)
            features.append(x)
        x = self.embedding(torch.cat(features, dim=-1))
        if batch is not None and batch_size is not None and is_exporting():
            return self.mlp(_plain_pool(x, batch, batch_size))
        return self.mlp(_pool(x, sizes))

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"channels={self.channels}, mlp_channels={self.mlp_channels}, k={self.k})"
        )


def _cloud_sizes(x: Tensor, batch: Tensor | None, batch_size: int | None) -> Tensor | None:
    """Return the number of points of each cloud, :obj:`None` if there is only one."""
    if x.size(0) == 0:
        raise ValueError("'x' must hold at least one point (got none)")
    if batch is None:
        if batch_size not in (None, 1):
            raise ValueError(f"'batch' must be given for {batch_size} clouds (got None)")
        return None
    if is_exporting():
        if batch_size is None:
            raise ValueError(
                "'batch_size' must be given under torch.export with a 'batch', from which the "
                "number of clouds cannot be read (got None)"
            )
        return None
    cloud, sizes = batch.unique_consecutive(return_counts=True)
    if not torch.equal(cloud, torch.arange(cloud.numel(), device=cloud.device, dtype=cloud.dtype)):
        raise ValueError(
            "'batch' must number the clouds 0, 1, ... in ascending order and skip none "
            f"(got {cloud.tolist()})"
        )
    if batch_size not in (None, sizes.numel()):
        raise ValueError(
            f"'batch_size' must be {sizes.numel()}, the number of clouds (got {batch_size})"
        )
    return sizes


def _pool(x: Tensor, sizes: Tensor | None) -> Tensor:
    """Return the maximum and the mean over each cloud, side by side."""
    if sizes is None or sizes.numel() == 1:
        return torch.cat([x.amax(dim=0), x.mean(dim=0)]).view(1, -1)
    if bool((sizes == sizes[0]).all()):
        x = x.view(sizes.numel(), -1, x.size(1))  # [B, n, F]
        return torch.cat([x.amax(dim=1), x.mean(dim=1)], dim=1)
    parts = [torch.segment_reduce(x, how, lengths=sizes, axis=0) for how in ("max", "mean")]
    return torch.cat(parts, dim=1)


def _plain_pool(x: Tensor, batch: Tensor, batch_size: int) -> Tensor:
    """Compute :func:`_pool` of so many clouds by scatters, which every runtime has."""
    index, zero = batch.view(-1, 1).expand_as(x), x.new_zeros(batch_size, x.size(1))
    top = zero.scatter_reduce(0, index, x, "amax", include_self=False)
    count = x.new_zeros(batch_size).index_add(0, batch, torch.ones_like(x[:, 0]))
    return torch.cat([top, zero.index_add(0, batch, x) / count.view(-1, 1)], dim=1)
