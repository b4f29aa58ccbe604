"""What the figures of an interpretation draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyg_stkd.report import Agreement, Channels, Influence, Interpretation

pytest.importorskip("matplotlib")
from pyg_stkd.report.interpretation import drawing


@pytest.fixture
def found() -> Interpretation:
    same = Agreement(1.0, torch.ones(3), torch.ones(2), torch.ones(2), torch.ones(2))
    teacher = Influence(torch.rand(3, 3), torch.tensor([0.0, 2.0, 4.0]), torch.tensor([1.0, 3.0]))
    student = Influence(torch.rand(3, 3), torch.tensor([1.0, 1.0, 0.5]), torch.tensor([2.0, 5.0]))
    kept = torch.tensor([True, False, True, False])
    layer = Channels("conv", kept, torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.zeros(4))
    edges = torch.tensor([[0, 1], [1, 2]])
    return Interpretation(edges, ("a", "b", "c"), same, same, teacher, student, (layer,))


def test_steps_are_shares_of_the_largest_and_end_at_the_last(found: Interpretation) -> None:
    (axis,) = drawing.steps(found.teacher, found.student).axes
    teacher, student = axis.lines
    np.testing.assert_allclose(teacher.get_xdata(), [-2, -1, 0])
    np.testing.assert_allclose(teacher.get_ydata(), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(student.get_ydata(), [1.0, 1.0, 0.5])


def test_edges_are_drawn_teacher_against_student(found: Interpretation) -> None:
    (axis,) = drawing.edges(found.teacher, found.student).axes
    np.testing.assert_allclose(axis.lines[0].get_xdata(), [1.0, 3.0])
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [2.0, 5.0])


def test_what_a_sensor_does_to_itself_is_left_out(found: Interpretation) -> None:
    axes = drawing.sensors(found.teacher, found.student).axes
    values = axes[0].images[0].get_array().filled(np.nan)
    assert np.isnan(values.diagonal()).all()
    apart = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(values[apart], found.teacher.nodes.numpy()[apart])
    assert [axis.get_title() for axis in axes[:2]] == ["teacher", "student"]
    assert not found.teacher.nodes.isnan().any()  # what was found is left as it was


def test_kept_and_dropped_channels_have_their_colours(found: Interpretation) -> None:
    (axis,) = drawing.channels(found.channels).axes
    dropped, kept = axis.lines
    assert sorted(dropped.get_ydata()) == [1.0, 2.0]
    assert sorted(kept.get_ydata()) == [3.0, 4.0]
    assert dropped.get_color() != kept.get_color()


def test_models_that_look_at_nothing_are_drawn(found: Interpretation) -> None:
    blind = Influence(torch.zeros(3, 3), torch.zeros(3), torch.zeros(2))
    (axis,) = drawing.steps(found.teacher, blind).axes
    np.testing.assert_allclose(axis.lines[1].get_ydata(), 0.0)
