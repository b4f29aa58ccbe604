"""Figures of the losses: one each, the same bytes each time, with all that they name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import pyg_stkd.distill

pytest.importorskip("matplotlib")
pytest.importorskip("networkx")
sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import FIGURES, scene, write_figures


def test_every_loss_has_a_figure() -> None:
    losses = {name for name in pyg_stkd.distill.__all__ if name.endswith("Loss")}
    assert losses - {"DistillationLoss"} == set(FIGURES)


def test_figures_are_written_the_same_each_time(tmp_path: Path) -> None:
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        write_figures(folder)
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert first == second
    assert sorted(first) == sorted(f"{name}.svg" for name in FIGURES)


def test_the_scene_has_two_groups_that_both_models_tell_apart() -> None:
    shown = scene()
    for logits in shown.logits:
        assert (logits.argmax(dim=1)[:5] == 1).sum() >= 4
        assert (logits.argmax(dim=1)[5:] == 0).sum() >= 4
