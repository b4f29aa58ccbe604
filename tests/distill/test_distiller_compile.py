"""The whole distiller under torch.compile."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT, GCN

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import AttentionTransferLoss, HintLoss, LSPLoss, SoftTargetLoss, until_epoch
from pyg_stkd.distill.recording.reading.parts import first_tensor

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    # The compiler itself looks at the gradients of what it traces.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]

EDGES = torch.tensor([[0, 1, 2, 3, 0, 2], [1, 2, 3, 0, 2, 1]])


@pytest.fixture(autouse=True)
def reset():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Net(nn.Module):
    """Two layers, the first a mean over in-neighbours: quick to compile."""

    def __init__(self, width):
        super().__init__()
        self.lin = nn.Linear(5, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x, edge_index):
        h = self.lin(x)
        h = h.index_add(0, edge_index[1], h[edge_index[0]])
        return self.head(h.relu())


def compare_with_eager(distiller, backend, epochs):
    distiller.check(torch.randn(4, 5), EDGES)
    compiled = torch.compile(distiller, backend=backend)
    parameters = list(distiller.parameters())
    for epoch in range(epochs):
        distiller.set_epoch(epoch)
        x = torch.randn(4, 5)
        results = []
        for model in (distiller, compiled):
            out, values = model(x, EDGES, nodes=torch.tensor([0, 2, 3]))
            grads = torch.autograd.grad(out.sum() + sum(values.values()), parameters)
            results.append((out, values, grads))
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    assert not any(module.training for module in distiller.teacher.modules())


def test_compiled_equals_eager():
    losses = [
        SoftTargetLoss(),
        HintLoss("lin", "lin"),
        LSPLoss("lin", "lin", kernels.Cosine()),
    ]
    compare_with_eager(Distiller(Net(8), Net(4), losses), "eager", epochs=2)


@pytest.mark.full
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_pyg_models_equal_eager(backend):
    losses = [
        SoftTargetLoss(),
        HintLoss("convs.0", "convs.0"),
        AttentionTransferLoss("convs.0", "convs.1", schedule=until_epoch(1)),
        LSPLoss("convs.0", "convs.1", kernels.Cosine()),
    ]
    distiller = Distiller(GAT(5, 8, 2, 3, heads=2), GCN(5, 4, 2, 3), losses)
    compare_with_eager(distiller, backend, epochs=2)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(5, 3)

    def forward(self, x):
        return self.lin(x).relu_()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_captures_are_those_of_the_layer(backend):
    teacher, student, x = InPlace(), InPlace(), torch.randn(4, 5)
    distiller = Distiller(teacher, student, [HintLoss("lin", "lin", projection=False)])
    _, losses = torch.compile(distiller, backend=backend)(x)
    expected = (student.lin(x) - teacher.lin(x)).square().mean()
    torch.testing.assert_close(losses["hint"], expected)


class Output(NamedTuple):
    h: torch.Tensor
    x: torch.Tensor


class ModelOutput(OrderedDict):
    """A mapping of a class of its own, as the models of transformers return."""


@pytest.mark.parametrize(
    "wrap",
    [
        Output,
        lambda h, x: [(h, x)],
        lambda h, x: {"h": Output(h, x)},
        lambda h, x: OrderedDict(h=h, x=x),
        lambda h, x: ModelOutput(h=h, x=x),
    ],
)
def test_compiled_captures_of_any_structure(wrap):
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(5, 3)

        def forward(self, x):
            return wrap(self.lin(x), x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Part()

        def forward(self, x):
            return first_tensor(self.part(x)).relu_()

    teacher, student, x = Model(), Model(), torch.randn(4, 5)
    hint = HintLoss("part", "part", projection=False, select=first_tensor)
    distiller = Distiller(teacher, student, [hint])
    _, losses = torch.compile(distiller, backend="eager")(x)
    expected = (student.part.lin(x) - teacher.part.lin(x)).square().mean()
    torch.testing.assert_close(losses["hint"], expected)


def test_compiled_students():
    x, student = torch.randn(4, 5), Net(4)
    losses = [HintLoss("lin", "lin"), SoftTargetLoss()]
    distiller = Distiller(Net(8), torch.compile(student, backend="eager"), losses)
    distiller.check(x, EDGES)
    out, values = distiller(x, EDGES)
    torch.testing.assert_close(out, student(x, EDGES))
    projected = distiller.losses["hint"].projection(student.lin(x))
    expected = (projected - distiller.teacher.lin(x)).square().mean()
    torch.testing.assert_close(values["hint"], expected)


class Pooled(Net):
    def forward(self, x, edge_index, batch):
        return super().forward(x, edge_index) + batch.view(-1, 1)


@pytest.mark.parametrize(
    ("wrap", "layer"),
    [(lambda model: torch.compile(model, backend="eager"), "lin"), (nn.DataParallel, "module.lin")],
)
def test_wrapped_students_see_the_graphs_of_a_mini_batch(wrap, layer):
    teacher, student, x, batch = Pooled(8), Pooled(4), torch.randn(4, 5), torch.tensor([0, 1, 1, 1])
    plain = Distiller(teacher, student, [AttentionTransferLoss("lin", "lin")])
    expected = plain(x, EDGES, batch)[1]["attention_transfer"]
    wrapped = Distiller(teacher, wrap(student), [AttentionTransferLoss("lin", layer)])
    torch.testing.assert_close(wrapped(x, EDGES, batch)[1]["attention_transfer"], expected)
