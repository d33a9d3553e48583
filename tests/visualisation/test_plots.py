import numpy as np
import pytest

from brats_tf.visualisation import plots


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved meanwhile."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def lines(axis):
    return [np.column_stack(line.get_data()).tolist() for line in axis.get_lines()]


def test_curves_begin_at_the_first_epoch(drawn):
    plots.save_curves("x.png", {"loss": [0.5, 0.25], "dice": [0.1]}, title="t", x_label="epoch")
    (axis,) = drawn[0].axes
    assert lines(axis) == [[[1, 0.5], [2, 0.25]], [[1, 0.1]]]
    assert [line.get_label() for line in axis.get_lines()] == ["loss", "dice"]


def test_a_band_reaches_a_deviation_to_both_sides_and_every_curve_is_drawn(drawn):
    curve = {"epochs": [1, 2], "mean": [0.5, 0.6], "std": [0.1, 0.2]}
    plots.save_bands("x.png", {str(number): {"WT": curve} for number in range(5)}, panels=["WT"], title="t")
    (axis,) = drawn[0].axes
    assert lines(axis) == [[[1, 0.5], [2, 0.6]]] * 5
    corners = axis.collections[0].get_paths()[0].vertices
    assert {tuple(np.round(corner, 6)) for corner in corners} == {(1, 0.4), (1, 0.6), (2, 0.4), (2, 0.8)}


def test_a_dot_has_its_first_number_to_the_right(drawn):
    plots.save_scatter("x.png", {"ET": ([1, 2], [3, 4])}, title="t", x_label="x", y_label="y")
    assert lines(drawn[0].axes[0]) == [[[1, 3], [2, 4]]]
