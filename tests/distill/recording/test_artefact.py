from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd import Distiller
from pyg_stkd.distill import HintLoss, OutputLoss, SoftTargetLoss, TeacherCache, Teachers
from pyg_stkd.distill.recording.artefact import Table


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)).eval()


X = torch.linspace(-1, 1, 48).view(6, 8)


def onnx_session(model: nn.Module) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(model, (X,), dynamo=True, verbose=False)
    return runtime.InferenceSession(program.model_proto.SerializeToString())


MAKES = {
    "script": torch.jit.script,
    "trace": lambda model: torch.jit.trace(model, X),
    "export": lambda model: torch.export.export(model, (X,)).module(),
    "exported program": lambda model: torch.export.export(model, (X,)),
    "fx": torch.fx.symbolic_trace,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "function": lambda model: lambda x: model(x),
    "method": lambda model: model.forward,
    "table": lambda model: model(X),
    "onnx": onnx_session,
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, of its exporter
@pytest.mark.parametrize("kind", MAKES)
def test_whatever_says_the_outputs_may_teach(kind: str) -> None:
    model, student = net(), nn.Linear(8, 5)
    expected = Distiller(copy.deepcopy(model), student, [SoftTargetLoss()])(X)[1]["soft_target"]
    teacher = MAKES[kind](model)
    distiller = Distiller(teacher, student, [SoftTargetLoss()])
    assert distiller.teacher is teacher
    for _ in range(2):
        out, losses, said = distiller(X, return_teacher=True)
        torch.testing.assert_close(losses["soft_target"], expected)
        torch.testing.assert_close(said, model(X))
        assert torch.equal(out, student(X))
        distiller.train()
    losses["soft_target"].backward()
    assert student.weight.grad.any()
    assert set(distiller.state_dict()) == {"student.weight", "student.bias"}
    cache = TeacherCache(distiller)
    _, losses = distiller(X, teacher=cache(0, X))
    torch.testing.assert_close(losses["soft_target"], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["script", "export", "function", "table"])
def test_layers_of_an_artefact_are_refused(kind: str) -> None:
    match = r"'teacher_layer' of loss 'hint' must be '', the output.*\(got '0' of .*distil from the"
    with pytest.raises(ValueError, match=match):
        Distiller(MAKES[kind](net()), nn.Linear(8, 5), [HintLoss("0", "")])


def test_rows_of_a_table() -> None:
    table, student = torch.randn(20, 5), nn.Linear(8, 5)
    distiller = Distiller(table, student, [OutputLoss()])
    index = torch.tensor([3, 7, 19, 0, 1, 2])
    expected = (student(X) - table[index]).square().mean()
    for given in ((index,), {"index": index}):
        torch.testing.assert_close(distiller(X, teacher_args=given)[1]["output"], expected)
    with pytest.raises(ValueError, match=r"same shape \(got \[6, 5\] and \[20, 5\]\)"):
        distiller(X)


def test_tables_by_part() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"a": self.a(x), "b": self.b(x)}

    student, table = Parts(), {"a": torch.randn(6, 3), "b": torch.randn(6, 2)}
    distiller = Distiller(table, student, [OutputLoss()])
    out, losses = distiller(X)
    expected = sum((out[k] - table[k]).square().mean() for k in table) / 2
    torch.testing.assert_close(losses["output"], expected)


def test_tables_and_functions_among_several_teachers() -> None:
    student, table = nn.Linear(8, 5), torch.randn(6, 5)
    model = net()
    distiller = Distiller(Teachers([table, lambda x: model(x)]), student, [OutputLoss()])
    out, losses, said = distiller(X, return_teacher=True)
    assert said[0] is not table
    assert torch.equal(said[0], table)
    expected = sum((out - t).square().mean() for t in (table, model(X))) / 2
    torch.testing.assert_close(losses["output"], expected)


def test_artefacts_move_with_the_distiller() -> None:
    distiller = Distiller(torch.randn(6, 5), nn.Linear(8, 5), [OutputLoss()]).double()
    assert distiller(X.double())[1]["output"].dtype == torch.float64
    traced = torch.jit.trace(nn.Linear(8, 5), X, check_trace=False)
    distiller = Distiller(traced, nn.Linear(8, 5), [OutputLoss()]).double()
    assert distiller(X.double())[1]["output"].dtype == torch.float64


def test_sessions_refuse_more_than_they_take() -> None:
    class Input:
        name = "x"

    class Session:
        __module__ = "onnxruntime.capi"

        def get_inputs(self) -> list[type]:
            return [Input]

        def run(self, *args: Any) -> None: ...

    Session.__module__ = "onnxruntime.capi"
    distiller = Distiller(Session(), nn.Bilinear(8, 8, 5), [OutputLoss()])
    match = r"what its session takes, which is \['x'\] \(got 2 arguments.*teacher_args="
    with pytest.raises(ValueError, match=match):
        distiller(X, X)


def test_a_table_is_frozen() -> None:
    given = torch.randn(6, 5, requires_grad=True)
    assert not Table(given).outputs.requires_grad
