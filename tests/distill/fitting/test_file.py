from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from pyg_stkd.distill import Distiller, fit
from pyg_stkd.distill.fitting import file


def start(path, steps=4):
    torch.manual_seed(0)
    distiller = Distiller(nn.Linear(2, 1), nn.Linear(2, 1))
    batch = torch.randn(8, 2), torch.randn(8, 1)
    return distiller.student, fit(
        distiller, [batch], criterion=mse_loss, steps=steps, every=1, checkpoint=path
    )


def test_a_file_is_plain_and_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "fit.pt"
    student, epochs = start(path)
    next(epochs)
    content = torch.load(path, weights_only=True)
    assert content["step"] == 1
    assert content["plan"]["steps"] == 4
    assert torch.equal(content["distiller"]["student.weight"], student.weight)

    before = path.read_bytes()
    monkeypatch.setattr(file.torch, "save", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        next(epochs)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["fit.pt"]


def test_numbers_drawn_between_do_not_matter(tmp_path):
    expected, epochs = start(None)
    list(epochs)
    _, epochs = start(tmp_path / "fit.pt")
    next(epochs)
    epochs.close()
    student, epochs = start(tmp_path / "fit.pt")
    torch.rand(5)  # another program
    list(epochs)
    assert torch.equal(student.weight, expected.weight)


@pytest.mark.parametrize("cut", [0, 10, -10])
def test_a_damaged_file_is_refused(tmp_path, cut):
    path = tmp_path / "fit.pt"
    next(start(path)[1])
    path.write_bytes(path.read_bytes()[:cut])
    student, epochs = start(path)
    before = student.weight.clone()
    with pytest.raises(ValueError, match=r"'checkpoint' must be a file of fit \(got 'fit.pt'\)"):
        next(epochs)
    assert torch.equal(student.weight, before)
