"""torch's transformers, in eval mode with and without the kernel for a whole layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.utils import to_dense_batch

from pyg_stkd.prune import Pruner, Random

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
GRAPHS = torch.tensor([0] * 3 + [1] * 5 + [2] * 4)
X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Encoder(nn.Module):
    """A transformer over the nodes of each graph, which are not equally many."""

    def __init__(self, layers: int, norm_first: bool, activation: str) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            16, 4, 24, activation=activation, batch_first=True, norm_first=norm_first
        )
        self.first, self.out, self.layers = nn.Linear(6, 16), nn.Linear(16, 2), layers
        self.body: Any = layer
        if layers:
            self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=not norm_first)

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        x, mask = to_dense_batch(self.first(x), batch)
        out: Tensor = self.out(self.body(x, src_key_padding_mask=~mask)[mask])
        return out


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 16), nn.Linear(16, 2)
        self.body = nn.Transformer(16, 4, 1, 1, 24, batch_first=True)

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        x, mask = to_dense_batch(self.first(x), batch)
        out: Tensor = self.out(self.body(x, x.flip(1))[mask])
        return out


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_is_pruned_at_all_widths(layers: int, norm_first: bool, activation: str) -> None:
    check(Encoder(layers, norm_first, activation), 1 + max(layers, 1))


def test_a_decoder_too() -> None:
    check(Translator(), 3)


def check(model: nn.Module, groups: int) -> None:
    torch.manual_seed(0)
    model = model.double()
    pruner = Pruner(
        model, Random(0), keep=0.5, example=(X, GRAPHS), min_width=1, rho=0.1, strict=True
    )
    assert torch.backends.mha.get_fastpath_enabled()  # as it was
    assert len(pruner.groups) == groups
    pruner.step()
    small = pruner.compact()
    for train in (True, False):
        model.train(train)
        small.train(train)
        for module in [*model.modules(), *small.modules()]:
            if isinstance(module, (nn.Dropout, nn.MultiheadAttention)):
                module.eval()  # which would draw others
        with_gradients = model(X, GRAPHS)
        torch.testing.assert_close(with_gradients, small(X, GRAPHS))
        with torch.no_grad():
            torch.testing.assert_close(model(X, GRAPHS), with_gradients)
            torch.testing.assert_close(small(X, GRAPHS), with_gradients)
