from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    ASAPooling,
    EdgeConv,
    EdgePooling,
    GCNConv,
    GraphUNet,
    PointNetConv,
    SAGEConv,
    SAGPooling,
    TopKPooling,
    dense_diff_pool,
    global_mean_pool,
)
from torch_geometric.utils import subgraph

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import (
    AttentionTransferLoss,
    HintLoss,
    LSPLoss,
    OutputLoss,
    SoftTargetLoss,
    TeacherCache,
)
from pyg_stkd.functional import lsp

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    pytest.mark.filterwarnings("ignore:Sparse"),
]

torch.manual_seed(0)
X, EDGES = torch.randn(20, 8), torch.randint(20, (2, 70))
BATCH = torch.tensor([0] * 8 + [1] * 12)


class Pooled(nn.Module):
    def __init__(self, width: int, pool: type[nn.Module] = TopKPooling, same: bool = False) -> None:
        super().__init__()
        self.a, self.pool = GCNConv(8, width), pool(width, ratio=0.5)
        self.lin, self.b, self.head = nn.Linear(width, 6), GCNConv(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.a(x, edge_index).relu()
        x, edge_index, _, batch, self.perm, *_ = self.pool(x, edge_index, batch=batch)
        self.edges = edge_index
        self.h = self.lin(x)
        self.z = self.b(self.h, edge_index)
        return self.head(global_mean_pool(self.z, batch))


def common(teacher: Pooled, student: Pooled) -> tuple[list[int], list[int], list[int]]:
    s, t = student.perm.tolist(), teacher.perm.tolist()
    nodes = sorted(set(s) & set(t))
    return nodes, [s.index(n) for n in nodes], [t.index(n) for n in nodes]


@pytest.mark.filterwarnings("ignore:.*lie behind pools that chose")
@pytest.mark.parametrize("pool", [TopKPooling, SAGPooling, ASAPooling])
def test_layers_behind_a_pool_are_compared_at_the_nodes_that_both_chose(pool: Any) -> None:
    teacher, student = Pooled(16, pool), Pooled(4, pool)
    kernel = kernels.Cosine()
    losses = [
        HintLoss("b", "b", projection=False),
        HintLoss("lin", "lin", name="lin", projection=False),
        LSPLoss("b", "b", kernel, graph="student"),
        LSPLoss("lin", "lin", kernel, name="lsp_lin"),
        SoftTargetLoss(),
        HintLoss("a", "a", name="before", in_channels=4, out_channels=16),
    ]
    distiller = Distiller(teacher, student, losses).eval()
    _, losses = distiller(X, EDGES, BATCH)
    nodes, s, t = common(teacher, student)
    assert 0 < len(nodes) < 10
    torch.testing.assert_close(losses["hint"], (student.z[s] - teacher.z[t]).square().mean())
    torch.testing.assert_close(losses["lin"], (student.h[s] - teacher.h[t]).square().mean())
    # The student's graph behind the pool, and the model's own, both among the common nodes.
    index = torch.tensor(s)
    place = torch.full((10,), -1)
    place[index] = torch.arange(len(s))
    edges = place[student.edges]
    edges = edges[:, (edges >= 0).all(0)]
    torch.testing.assert_close(losses["lsp"], lsp(student.z[s], teacher.z[t], edges, kernel))
    edges, _ = subgraph(torch.tensor(nodes), EDGES, relabel_nodes=True, num_nodes=20)
    torch.testing.assert_close(losses["lsp_lin"], lsp(student.h[s], teacher.h[t], edges, kernel))
    sum(losses.values()).backward()
    # What is known of the teacher serves as well.
    known = TeacherCache(distiller)(0, X, EDGES, BATCH)
    _, again = distiller(X, EDGES, BATCH, teacher=known)
    for name, value in losses.items():
        torch.testing.assert_close(again[name], value)


@pytest.mark.filterwarnings("ignore:.*lie behind pools that chose")
@pytest.mark.parametrize("layer", ["b", "lin"])
def test_graphs_of_nodes_behind_a_pool_are_those_of_the_model(layer: str) -> None:
    teacher, student = Pooled(16), Pooled(4)
    distiller = Distiller(teacher, student, [AttentionTransferLoss(layer, layer)]).eval()
    _, losses = distiller(X, EDGES, BATCH)
    nodes, s, t = common(teacher, student)
    ours, theirs = (student.z[s], teacher.z[t]) if layer == "b" else (student.h[s], teacher.h[t])
    graph = BATCH[nodes]
    maps = [x.square().sum(-1) for x in (ours, theirs)]
    each = [
        torch.linalg.vector_norm(
            torch.nn.functional.normalize(maps[0][graph == g], dim=0)
            - torch.nn.functional.normalize(maps[1][graph == g], dim=0)
        )
        for g in graph.unique()
    ]
    torch.testing.assert_close(losses["attention_transfer"], torch.stack(each).mean())
    known = distiller.capture_teacher(X, EDGES, BATCH)
    torch.testing.assert_close(distiller(X, EDGES, BATCH, teacher=known)[1], losses)


def test_what_is_left_out_is_told() -> None:
    distiller = Distiller(Pooled(16), Pooled(4), [HintLoss("b", "b")])
    match = r"student layer 'b' and the teacher layer 'b' lie behind pools that chose other nodes"
    with pytest.warns(UserWarning, match=match):
        distiller(X, EDGES, BATCH)


@pytest.mark.filterwarnings("ignore:All parts of the student output are compared")
def test_scores_that_a_pool_keeps_all_of_are_told_from_the_rest_of_the_output() -> None:
    class Scored(Pooled):
        def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Any:
            x = self.a(x, edge_index)
            x, _, _, batch, _, score = self.pool(x, edge_index, batch=batch)  # sorted, all of them
            return global_mean_pool(x, batch), score

    def pool(width: int, ratio: float) -> nn.Module:
        return TopKPooling(width, min_score=1e-9)

    pair = Scored(6, pool), Scored(6, pool)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"part 1 lie behind pools.*another part of it, select=0"):
        Distiller(*pair, [OutputLoss()])(X, EDGES, BATCH)
    assert Distiller(*pair, [OutputLoss(select=0)])(X, EDGES, BATCH)[1]["output"].isfinite()


def test_nodes_are_those_of_the_model() -> None:
    teacher = Pooled(16)
    student = Pooled(16)
    student.a.load_state_dict(teacher.a.state_dict())
    student.pool.load_state_dict(teacher.pool.state_dict())
    distiller = Distiller(teacher, student, [HintLoss("b", "b", projection=False)])
    teacher(X, EDGES, BATCH)
    perm = teacher.perm
    chosen = torch.cat([perm[:3], torch.tensor([n for n in range(20) if n not in perm])[:2]])
    _, losses = distiller(X, EDGES, BATCH, nodes=chosen)  # warns of nothing: both chose the same
    rows = torch.tensor([0, 1, 2])
    assert torch.equal(student.perm, perm)
    torch.testing.assert_close(losses["hint"], (student.z - teacher.z)[rows].square().mean())


def test_up_again_all_nodes_are_there() -> None:
    teacher, student = (GraphUNet(8, width, 3, depth=2) for width in (16, 4))
    losses = [OutputLoss(), HintLoss("up_convs.1", "up_convs.1", projection=False)]
    distiller = Distiller(teacher, student, losses).eval()
    torch.manual_seed(1)
    out, losses = distiller(X, EDGES)
    torch.manual_seed(1)
    gap = out - teacher(X, EDGES)
    torch.testing.assert_close(losses["output"], gap.square().mean())
    torch.testing.assert_close(losses["hint"], gap.square().mean())


def test_merged_nodes_are_refused() -> None:
    class Merged(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.a, self.pool, self.b = GCNConv(8, width), EdgePooling(width), GCNConv(width, 3)

        def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
            x = self.a(x, edge_index)
            x, edge_index, batch, _ = self.pool(x, edge_index, batch)
            return global_mean_pool(self.b(x, edge_index), batch)

    distiller = Distiller(Merged(16), Merged(4), [HintLoss("b", "b", projection=False)])
    with pytest.raises(ValueError, match=r"'b' lie behind pools.*is not known which nodes their"):
        distiller(X, EDGES, BATCH)
    distiller = Distiller(Merged(16), Merged(4), [OutputLoss(), HintLoss("a", "a")])
    distiller(X, EDGES, BATCH)


def test_dense_clusters_are_refused() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.assign, self.lin = nn.Linear(8, 4), nn.Linear(8, 6)

        def forward(self, x: Tensor, adj: Tensor) -> Tensor:
            x, *_ = dense_diff_pool(x, adj, self.assign(x))
            return self.lin(x).mean(1)

    x, adj = torch.randn(2, 9, 8), torch.ones(2, 9, 9)
    Distiller(Dense(), Dense(), [OutputLoss(), HintLoss("assign", "assign")])(x, adj)
    match = r"student layer 'lin' must have the graph's nodes.* are 9 \(got shape \[2, 4, 6\]\)"
    with pytest.raises(ValueError, match=match):
        Distiller(Dense(), Dense(), [HintLoss("lin", "lin")])(x, adj)


class Chosen(nn.Module):
    """A top-k that no module of PyG knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.lin = nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(x[self.score(x)[:, 0].topk(7).indices]).mean(0)


@pytest.mark.parametrize("data", [False, True])
def test_rows_that_nothing_explains_are_refused(data: bool) -> None:
    calls = (lambda model, d: model(d.x, d.edge_index)) if data else None
    args = (Data(x=X, edge_index=EDGES),) if data else (X, EDGES)
    distiller = Distiller(Chosen(), Chosen(), [HintLoss("lin", "lin")], call=calls)
    match = r"'lin' must have rows that both models share.*\(got 7 rows.*given .*20.*layout='NC'"
    with pytest.raises(ValueError, match=match):
        distiller(*args)
    Distiller(Chosen(), Chosen(), [HintLoss("lin", "lin", layout="NC")], call=calls)(*args)


class Sampled(nn.Module):
    """A set abstraction as in PointNet++: points are drawn at random, the same in both models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = PointNetConv(nn.Linear(6, width))
        self.after = nn.Linear(width, 4)

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor) -> Tensor:
        chosen = torch.randperm(len(pos))[:7]
        near = torch.stack([torch.randint(20, (21,)), torch.arange(7).repeat(3)])
        return self.after(self.conv((x, None), (pos, pos[chosen]), near)).mean(0)


def test_sampled_points_are_known_by_their_positions() -> None:
    args = torch.randn(20, 3), torch.randn(20, 3), EDGES
    teacher, student = Sampled(8), Sampled(6)
    distiller = Distiller(teacher, student, [HintLoss("conv", "conv"), OutputLoss()])
    distiller(*args)
    match = r"Loss 'lsp'.*student layer 'conv' must be called on one set of nodes"
    with pytest.raises(ValueError, match=match):
        Distiller(teacher, student, [LSPLoss("conv", "conv")])(*args)
    with pytest.raises(ValueError, match=r"'after' must have rows that both models share"):
        Distiller(teacher, student, [HintLoss("after", "after")])(*args)


@pytest.mark.parametrize("targets", [25, 30])
def test_layers_of_two_sets_have_no_structure_of_one(targets: int) -> None:
    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = SAGEConv((6, 8), width)

        def forward(self, authors: Tensor, papers: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv((authors, papers), edge_index)

    distiller = Distiller(Net(16), Net(8), [LSPLoss("conv", "conv", kernels.Linear())])
    args = torch.randn(25, 6), torch.randn(targets, 8), torch.randint(25, (2, 60))
    with pytest.raises(ValueError, match=r"its graph is bipartite \(got 25 sources and"):
        distiller(*args)
    with pytest.raises(ValueError, match=r"its graph is bipartite|one set of nodes"):
        distiller(*args, teacher=distiller.capture_teacher(*args))
    Distiller(Net(16), Net(8), [HintLoss("conv", "conv")])(*args)


class Sequences(nn.Module):
    """Blocks of [B, N, C, T], as ASTGCN's."""

    def __init__(self, width: int, order: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.block, self.order = nn.Conv2d(2, width, 1), nn.Identity()
        self.axes = order

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.block(x.transpose(1, 2)).transpose(1, 2)  # [B, N, C, T]
        return self.order(h.permute(self.axes)).sum(-1)


@pytest.mark.parametrize("loss", [HintLoss, LSPLoss])
def test_nodes_on_another_axis_are_refused_with_those_that_fit(loss: Any) -> None:
    x, edges = torch.randn(3, 20, 2, 12), EDGES
    edges = torch.cat([edges, torch.tensor([[19], [19]])], dim=1)
    teacher, student = Sequences(32), Sequences(32)
    match = (
        r"'order' must have the graph's nodes before.* are 20 \(got shape \[3, 20, 32, 12\], whe"
    )
    with pytest.raises(ValueError, match=rf"{match}re axis 1 would fit.*layout='BNCT'"):
        Distiller(teacher, student, [loss("order", "order")])(x, edges)
    if loss is HintLoss:
        Distiller(teacher, student, [loss("order", "order", layout="BNCT")])(x, edges)


def test_rows_of_flattened_sequences_edges_and_graphs_are_known() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.edge, self.graph = (nn.Linear(8, 3) for _ in range(3))
            self.pair = nn.Linear(8, 3)

        def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, pairs: Tensor) -> Tensor:
            flat = self.flat(torch.stack([x, x]).flatten(0, 1))
            edge = self.edge(x[edge_index[0]])
            graph = self.graph(global_mean_pool(x, batch))
            return flat.sum() + edge.sum() + graph.sum() + self.pair(x[pairs[0]]).sum()

    names = ("flat", "edge", "graph", "pair")
    losses = [HintLoss(name, name, name=name, projection=False) for name in names]
    distiller = Distiller(Mixed(), Mixed(), losses)
    _, losses = distiller(X, EDGES, BATCH, torch.randint(20, (2, 11)))
    assert all(value > 0 for value in losses.values())


@pytest.mark.parametrize("layer", ["conv.nn", "flat", "score"])
def test_rows_that_are_no_nodes_have_no_structure(layer: str) -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 2)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.lin(x[edge_index[0]])

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.flat, self.score = EdgeConv(nn.Linear(16, 4)), nn.Linear(8, 4), Scores()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            h = self.conv(x, edge_index)
            flat = self.flat(torch.cat([x, x]))
            return h.sum() + flat.sum() + self.score(h, edge_index).sum()

    distiller = Distiller(Net(), Net(), [LSPLoss(layer, layer)])
    match = (
        rf"'{layer}' must have one row for each (of the 20 nodes of its graph|node, .*) \(got sh"
    )
    with pytest.raises(ValueError, match=match):
        distiller(X, EDGES)
    with pytest.raises(ValueError, match=match):
        distiller(Data(x=X, edge_index=EDGES).x, edge_index=EDGES)
    Distiller(Net(), Net(), [LSPLoss("conv", "conv")])(X, EDGES)
