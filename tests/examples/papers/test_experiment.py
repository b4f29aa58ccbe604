from __future__ import annotations

from pathlib import Path

import pytest
import torch


class Killed(Exception):
    pass


def run_training(folder: Path, stop_at: int | None) -> tuple[dict[str, object], torch.Tensor]:
    import experiment

    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)

    def step(epoch: int) -> float:
        if epoch == stop_at:
            raise Killed
        x = torch.randn(8, 3)
        loss = (module(x) - x.sum(-1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def validate() -> float:
        return -(module.weight.detach() - 1).abs().sum().item()

    run, store = experiment.Run("m", 0, {}), experiment.Store(folder)
    result = experiment.train(run, store, module, optimizer, step, validate, 12, 12)
    return result, module.weight.detach().clone()


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import experiment

    monkeypatch.setattr(experiment, "_SAVE_EVERY", 0.0)
    whole, weight = run_training(tmp_path / "a", stop_at=None)
    with pytest.raises(Killed):
        run_training(tmp_path / "b", stop_at=7)
    assert len(list((tmp_path / "b" / "checkpoints").iterdir())) == 1
    resumed, weight_resumed = run_training(tmp_path / "b", stop_at=None)
    assert torch.equal(weight, weight_resumed)
    assert resumed["history"] == whole["history"]
    assert (resumed["val"], resumed["best_epoch"]) == (whole["val"], whole["best_epoch"])


def test_early_stopping_returns_the_best_weights(tmp_path: Path) -> None:
    import experiment

    module = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.95])

    def step(epoch: int) -> float:
        with torch.no_grad():
            module.weight.fill_(epoch)
        return 0.0

    run, store = experiment.Run("m", 0, {}), experiment.Store(tmp_path)
    result = experiment.train(run, store, module, optimizer, step, lambda: next(scores), 5, 2)
    assert (result["val"], result["best_epoch"], len(result["history"])) == (0.9, 1, 4)
    assert module.weight.item() == 1


def test_results_are_found_by_their_exact_settings(tmp_path: Path) -> None:
    import experiment

    store = experiment.Store(tmp_path)
    run = experiment.Run("KD", 1, {"lr": 0.1})
    assert store.result(run) is None
    store.finish(run, {"f1": 0.5})
    found = store.result(experiment.Run("KD", 1, {"lr": 0.1}))
    assert found is not None
    assert (found["f1"], found["method"], found["seed"]) == (0.5, "KD", 1)
    assert "torch" in found["machine"]
    assert store.result(experiment.Run("KD", 1, {"lr": 0.2})) is None
    assert store.result(experiment.Run("KD", 2, {"lr": 0.1})) is None


def test_options_refuse_what_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    import experiment

    parser = experiment.argument_parser("What it is.", ("synthetic",), "runs/x")
    assert parser.parse_args([]).out == Path("runs/x")
    for wrong, text in (("--seeds=0", "at least 1 (got 0)"), ("--trials=5", "invalid choice: 5")):
        with pytest.raises(SystemExit):
            parser.parse_args([wrong])
        assert text in capsys.readouterr().err


def run_recipe(
    folder: Path, scores: list[float], stop_at: int | None = None
) -> tuple[dict[str, object], torch.Tensor, list[bool]]:
    import experiment

    from pyg_stkd import Distiller

    torch.manual_seed(0)
    teacher, student = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
    labelled = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(3)]
    unlabelled = [(torch.randn(4, 3),) for _ in range(5)]
    asked: list[bool] = []
    calls = 0

    def validate() -> float:
        nonlocal calls
        calls += 1
        if calls - 1 == stop_at:  # the first is before training
            raise Killed
        return scores[calls - 1]

    def criterion(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        asked.append(True)
        return (out - y).square().mean()

    config = {"epochs": 4, "patience": 1, "lr": 0.1}
    run, store = experiment.Run("recipe", 0, config), experiment.Store(folder)
    result = experiment.train_by_recipe(
        run, store, Distiller(teacher, student), labelled, unlabelled,
        validate=validate, per_epoch=6, criterion=criterion,
    )  # fmt: skip
    return result, student.weight.detach().clone(), asked


def test_the_recipe_is_trained_as_the_others_are(tmp_path: Path) -> None:
    whole, weight, asked = run_recipe(tmp_path / "a", [0.0, 1.0, 3.0, 2.0, 2.5])
    assert (whole["val"], whole["best_epoch"], len(whole["history"])) == (3.0, 1, 4)
    assert len(asked) == 4 * 6 // 2 + 1  # half of the steps, and one to look before the first
    with pytest.raises(Killed):
        run_recipe(tmp_path / "b", [0.0, 1.0, 3.0, 2.0], stop_at=3)
    resumed, again, _ = run_recipe(tmp_path / "b", [0.0, 2.0, 2.5])
    assert torch.equal(weight, again)
    assert resumed["history"] == whole["history"]
    early, _, _ = run_recipe(tmp_path / "c", [0.0, 5.0, 1.0, 1.0, 6.0])
    assert (early["val"], early["best_epoch"], len(early["history"])) == (5.0, 0, 3)
