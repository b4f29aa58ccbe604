"""The distiller on PyG's own models, unedited."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    EdgeCNN,
    GATConv,
    GCNConv,
    GraphSAGE,
    Sequential,
    global_mean_pool,
)
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE, SparseTensor

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import AttentionTransferLoss, HintLoss, LSPLoss, SoftTargetLoss
from pyg_stkd.functional import lsp

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    pytest.mark.filterwarnings("ignore:Using 'Neighbor.*' without a 'pyg-lib'"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
]
needs_sampler = pytest.mark.skipif(
    not (WITH_PYG_LIB or WITH_TORCH_SPARSE), reason="needs pyg-lib or torch-sparse"
)

N, F, C = 12, 6, 3
KERNEL = kernels.Cosine()
MODELS = [GCN, GraphSAGE, GAT, GIN, EdgeCNN]


@pytest.fixture
def data():
    edge_index = torch.randint(N, (2, 40)).unique(dim=1).contiguous()
    return torch.randn(N, F), edge_index


def all_losses():
    return [
        SoftTargetLoss(2.0),
        HintLoss("convs.0", "convs.0"),
        AttentionTransferLoss("convs.1", "convs.0"),
        LSPLoss("convs.1", "convs.0", KERNEL),
    ]


def lsp_of(student, teacher, x, edge_index, **kwargs):
    """The loss on the outputs of the first (student) and second (teacher) convolution."""
    seen = []
    hooks = [
        model.convs[i].register_forward_hook(lambda m, a, out: seen.append(out))
        for model, i in ((student, 0), (teacher, 1))
    ]
    student(x, edge_index)
    teacher(x, edge_index)
    for hook in hooks:
        hook.remove()
    return lsp(*seen, edge_index, KERNEL, **kwargs)


@pytest.mark.parametrize("model", MODELS)
def test_models(model, data):
    x, edge_index = data
    teacher, student = model(F, 8, 3, C, norm="batch_norm"), model(F, 4, 2, C, dropout=0.0)
    distiller = Distiller(teacher, student, all_losses())
    assert distiller.check(x, edge_index).ok
    out, losses = distiller(x, edge_index)
    torch.testing.assert_close(out, student(x, edge_index))
    torch.testing.assert_close(losses["lsp"], lsp_of(student, teacher, x, edge_index))
    named, by_name = distiller(x=x, edge_index=edge_index)
    assert torch.equal(named, out)
    for name, value in losses.items():
        assert torch.equal(by_name[name], value)
    (out.sum() + sum(losses.values())).backward()
    assert all(p.grad is not None for p in distiller.parameters())


@pytest.mark.parametrize("form", ["csr", "edge_index", "sparse_tensor"])
def test_every_form_of_edges(form, data):
    x, edge_index = data
    teacher, student = GraphSAGE(F, 8, 2, C), GraphSAGE(F, 4, 2, C)
    expected = lsp_of(student, teacher, x, edge_index)
    if form == "csr":
        adj = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.size(1)), (N, N))
        adj = adj.to_sparse_csr()
    elif form == "edge_index":
        adj = EdgeIndex(edge_index, sparse_size=(N, N))
    elif not WITH_TORCH_SPARSE:
        pytest.skip("needs torch-sparse")
    else:
        adj = SparseTensor(row=edge_index[1], col=edge_index[0], sparse_sizes=(N, N))
    _, losses = Distiller(teacher, student, [LSPLoss("convs.1", "convs.0", KERNEL)])(x, adj)
    torch.testing.assert_close(losses["lsp"], expected)


def test_convolutions_called_by_keyword(data):
    class Model(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = GATConv(F, width)
            self.head = nn.Linear(width, C)

        def forward(self, features, links):
            out, attention = self.conv(x=features, edge_index=links, return_attention_weights=True)
            return self.head(out), attention

    x, edge_index = data
    teacher, student = Model(8), Model(4)
    losses = [LSPLoss("conv", "conv", KERNEL), LSPLoss("head", "head", KERNEL, name="head")]
    _, values = Distiller(teacher, student, losses)(features=x, links=edge_index)
    s, t = (model.conv(x, edge_index) for model in (student, teacher))
    # The loops that GATConv adds inside are not edges given to it.
    torch.testing.assert_close(values["lsp"], lsp(s, t, edge_index, KERNEL))
    s, t = (model(x, edge_index)[0] for model in (student, teacher))
    torch.testing.assert_close(values["head"], lsp(s, t, edge_index, KERNEL))


def test_sequential_and_data_objects(data):
    x, edge_index = data

    class OnData(nn.Module):
        def __init__(self, width):
            super().__init__()
            convs = [(GCNConv(F, width), "x, edge_index -> x"), nn.ReLU(), nn.Linear(width, C)]
            self.net = Sequential("x, edge_index", convs)

        def forward(self, batch):
            return global_mean_pool(self.net(batch.x, batch.edge_index), batch.batch)

    batch = Batch.from_data_list([Data(x=x, edge_index=edge_index)] * 2)
    losses = [
        LSPLoss("net.module_0", "net.module_0", KERNEL),
        AttentionTransferLoss("net.module_2", "net.module_2"),
        SoftTargetLoss(),
    ]
    teacher, student = OnData(8), OnData(4)
    out, values = Distiller(teacher, student, losses)(batch)
    assert out.shape == (2, C)
    s, t = (model.net[0](x, edge_index) for model in (student, teacher))
    torch.testing.assert_close(values["lsp"], lsp(s, t, edge_index, KERNEL))
    # Two equal graphs: the mean over graphs is the value of one.
    s, t = (model.net(x, edge_index).square().sum(1) for model in (student, teacher))
    expected = (s / s.norm() - t / t.norm()).norm()
    torch.testing.assert_close(values["attention_transfer"], expected)


def test_graph_built_inside_a_layer(data):
    class Ring(nn.Module):
        def __init__(self, step):
            super().__init__()
            self.step = step

        def forward(self, x):
            node = torch.arange(x.size(0))
            return torch.stack([node, (node + self.step) % x.size(0)])

    class DynamicConv(nn.Module):
        def __init__(self, width, step):
            super().__init__()
            self.graph, self.conv = Ring(step), GCNConv(F, width)

        def forward(self, x):
            return self.conv(x, self.graph(x))

    x, _ = data
    teacher, student = (nn.Sequential(DynamicConv(*a)) for a in ((8, 1), (4, 2)))
    losses = [LSPLoss("0", "0", KERNEL), LSPLoss("0", "0", KERNEL, graph="teacher", name="t")]
    _, values = Distiller(teacher, student, losses)(x)
    union = torch.cat([Ring(1)(x), Ring(2)(x)], dim=1)
    torch.testing.assert_close(values["lsp"], lsp(student(x), teacher(x), union, KERNEL))
    assert values["lsp"] > 0
    assert values["t"] == 0  # one neighbour each


@needs_sampler
def test_neighbor_loader_seeds(data):
    x, edge_index = data
    loader = NeighborLoader(
        Data(x=x, edge_index=edge_index, y=torch.arange(N)), [-1, -1, -1], batch_size=4
    )
    teacher, student = GraphSAGE(F, 8, 2, C).eval(), GraphSAGE(F, 4, 2, C).eval()
    losses = [SoftTargetLoss(), HintLoss("convs.0", "convs.0"), LSPLoss("convs.1", "convs.0")]
    distiller = Distiller(teacher, student, losses)
    distiller.losses["lsp"].kernel = KERNEL
    distiller.check(x, edge_index)
    batch = next(iter(loader))
    seeds = torch.arange(batch.batch_size)
    _, sampled = distiller(batch.x, batch.edge_index, nodes=seeds)
    _, mask = distiller(batch.x, batch.edge_index, nodes=torch.arange(batch.num_nodes) < 4)
    # Seeds see all their neighbours, so the full graph says the same of them.
    _, full = distiller(x, edge_index, nodes=batch.n_id[seeds])
    for name, value in full.items():
        torch.testing.assert_close(sampled[name], value)
        assert torch.equal(mask[name], sampled[name])


def test_trimmed_layers_of_sampled_subgraphs():
    # Two seeds, three nodes one hop away, three nodes two hops away, as a sampler orders them.
    edge_index = torch.tensor([[2, 3, 3, 4, 5, 6, 6, 7, 7, 5], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]])
    x, seeds = torch.randn(8, F), torch.arange(2)
    teacher, student = GraphSAGE(F, 8, 2, C), GraphSAGE(F, 4, 2, C)
    losses = [LSPLoss("convs.1", "convs.1", KERNEL), SoftTargetLoss()]
    distiller = Distiller(teacher, student, losses).eval()
    trimmed = {"num_sampled_nodes_per_hop": [2, 3, 3], "num_sampled_edges_per_hop": [4, 6]}
    _, values = distiller(x, edge_index, nodes=seeds, **trimmed)
    assert values["lsp"] > 0
    known = distiller.capture_teacher(x, edge_index, **trimmed)
    assert known["convs.1"][0].graph.num_edges == 4
    _, whole = distiller(x, edge_index, nodes=seeds)
    torch.testing.assert_close(values["soft_target"], whole["soft_target"])


def test_one_step_of_training_lowers_the_loss(data):
    x, edge_index = data
    torch.manual_seed(1)
    distiller = Distiller(GAT(F, 8, 2, C, heads=2), GCN(F, 4, 2, C), all_losses())
    distiller.check(x, edge_index)
    optimizer = torch.optim.Adam(distiller.parameters(), lr=0.02)
    totals = []
    for _ in range(20):
        _, losses = distiller(x, edge_index)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]
