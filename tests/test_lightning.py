from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCN

from pyg_stkd import Distiller
from pyg_stkd.distill import HintLoss, SoftTargetLoss, until_epoch

BLOCKED = """
import sys
sys.modules["lightning"] = None
import pyg_stkd
try:
    import pyg_stkd.lightning
except ImportError as error:
    print(error)
"""


def test_without_lightning_only_this_module_fails() -> None:
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True
    )
    assert "lightning" in run.stdout


@pytest.fixture(scope="module")
def graphs() -> list[Data]:
    random = torch.Generator().manual_seed(0)
    return [
        Data(
            x=torch.randn(6, 4, generator=random),
            edge_index=torch.randint(6, (2, 12), generator=random),
            y=torch.randint(3, (6,), generator=random),
        )
        for _ in range(4)
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*less than the logging")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
class TestDistillationModule:
    @pytest.fixture
    def parts(self):
        pytest.importorskip("lightning")
        torch.manual_seed(0)
        losses = [SoftTargetLoss(), HintLoss("convs.0", "convs.0", schedule=until_epoch(1))]
        return Distiller(GCN(4, 16, 2, 3), GCN(4, 8, 2, 3), losses)

    def trainer(self, folder: Path, epochs: int):
        import lightning

        return lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, default_root_dir=folder,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip

    def test_trains_as_a_plain_loop_does(self, parts, graphs, tmp_path) -> None:
        from pyg_stkd.lightning import DistillationModule

        loader = DataLoader(graphs, batch_size=2)
        first = next(iter(loader))
        parts.check(first.x, first.edge_index)
        plain = copy.deepcopy(parts)
        teacher = copy.deepcopy(parts.teacher.state_dict())
        sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
        module = DistillationModule(parts, cross_entropy, sgd)
        trainer = self.trainer(tmp_path, 3)
        trainer.fit(module, loader, loader)

        optimizer = sgd(plain.parameters())
        for epoch in range(3):
            plain.train()
            plain.set_epoch(epoch)
            for batch in loader:
                out, losses = plain(batch.x, batch.edge_index)
                loss = cross_entropy(out, batch.y) + sum(losses.values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for (name, a), b in zip(
            parts.student.named_parameters(), plain.student.parameters(), strict=True
        ):
            torch.testing.assert_close(a, b, msg=name)
        assert trainer.callback_metrics["train/hint"] == 0  # its schedule ended
        assert trainer.callback_metrics["train/soft_target"] > 0
        plain.eval()
        means = [cross_entropy(plain.student(b.x, b.edge_index), b.y).item() for b in loader]
        assert trainer.callback_metrics["val/task"].item() == pytest.approx(sum(means) / 2)
        assert not any("teacher" in name for name in module.state_dict())
        torch.testing.assert_close(dict(parts.teacher.state_dict()), dict(teacher))

    def test_tests_and_predicts_with_tuples(self, parts, graphs, tmp_path) -> None:
        from pyg_stkd.lightning import DistillationModule

        batches = [(g.x, g.edge_index, g.y) for g in graphs]
        module = DistillationModule(parts, cross_entropy, torch.optim.Adam)
        loader = torch.utils.data.DataLoader(batches, batch_size=None)
        trainer = self.trainer(tmp_path, 1)
        (scores,) = trainer.test(module, loader, verbose=False)
        parts.eval()
        means = [cross_entropy(parts.student(x, e), y).item() for x, e, y in batches]
        assert scores["test/task"] == pytest.approx(sum(means) / 4)
        outs = trainer.predict(module, loader)
        torch.testing.assert_close(outs[2], parts.student(*batches[2][:2]))

    def test_seeds_count_alone_and_a_mask_in_training_alone(self, parts, graphs, tmp_path) -> None:
        from pyg_stkd.lightning import DistillationModule

        module = DistillationModule(parts, cross_entropy, torch.optim.Adam)
        mask = torch.tensor([True, False, True, False, False, False])
        seeds, masked = graphs[0].clone(), graphs[1].clone()
        seeds.input_id, seeds.batch_size = torch.tensor([4, 2]), 2
        masked.train_mask = mask
        trainer = self.trainer(tmp_path, 1)
        loader = torch.utils.data.DataLoader([seeds], batch_size=None)
        (scores,) = trainer.test(module, loader, verbose=False)
        out = parts.eval().student(seeds.x, seeds.edge_index)
        assert scores["test/task"] == pytest.approx(cross_entropy(out[:2], seeds.y[:2]).item())
        torch.testing.assert_close(trainer.predict(module, loader)[0], out[:2])

        loader = torch.utils.data.DataLoader([masked], batch_size=None)
        out = parts.eval().student(masked.x, masked.edge_index)
        torch.testing.assert_close(trainer.predict(module, loader)[0], out)
        expected = cross_entropy(out[mask], masked.y[mask]).item()
        parts.train()
        trainer.fit(module, loader)
        assert trainer.callback_metrics["train/task"].item() == pytest.approx(expected)
        with pytest.raises(ValueError, match="'unpack' must be given to validate or test on Data"):
            trainer.test(module, loader, verbose=False)

    @pytest.mark.parametrize("seeds", [False, True])
    def test_refuses_nodes_without_labels(self, parts, graphs, tmp_path, seeds) -> None:
        from pyg_stkd.lightning import DistillationModule

        data = graphs[0].clone()
        data.y = data.y[:1]
        data.train_mask = torch.ones(6, dtype=torch.bool)
        if seeds:
            data.input_id, data.batch_size = torch.tensor([4, 2]), 2
        module = DistillationModule(parts, cross_entropy, torch.optim.Adam)
        loader = torch.utils.data.DataLoader([data], batch_size=None)
        with pytest.raises(ValueError, match="a y of one row for each of the"):
            self.trainer(tmp_path, 1).fit(module, loader)

    def test_refuses_another_module(self, parts) -> None:
        from pyg_stkd.lightning import DistillationModule

        with pytest.raises(TypeError, match=r"'distiller' must be a Distiller \(got Linear\)"):
            DistillationModule(nn.Linear(1, 1), cross_entropy, torch.optim.Adam)
