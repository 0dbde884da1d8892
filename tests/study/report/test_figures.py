"""Figures draw every number that they are given, without a warning; how they look is for the eye."""

import re
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from invented import FROZEN, reported, write_run
from matplotlib.collections import PathCollection

from mmel.study.records import Store
from mmel.study.report import contrasts, figures, frames, pictures, tables

plt.switch_backend("Agg")
OF_TABLES = [
    (figures.methods_figure, "table1", 2),
    (figures.over_k_figure, "table2", 1),
    (figures.methods_figure, "table3", 8),
    (figures.settings_figure, "table4", 2),
    (figures.settings_figure, "table6", 2),
    (figures.curves_figure, "figure2", 8),
]


def drawn(picture):
    """Draw without a warning, which would stand in the report, and leave nothing open, which would be shown twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture.figure.canvas.draw()
    assert plt.get_fignums() == []
    return picture.figure


@pytest.mark.parametrize(("draw", "name", "panels"), OF_TABLES)
def test_one_panel_per_place_that_has_runs(store, draw, name, panels):
    figure = drawn(draw(frames.load(name, Store(FROZEN), "mini")))
    titles = [axis.get_title() for axis in figure.axes]
    assert len(set(titles)) == len(titles) == panels
    assert all("Digits" in title or "(miniature)" in title for title in titles)
    (axis,) = drawn(draw(frames.load(name, store, "mini"))).axes
    assert [text.get_text() for text in axis.texts] == ["no runs yet"]
    # As of a sweep that was stopped early.
    write_run(store, reported(name, "mini")[0], 50.0)
    (axis,) = drawn(draw(frames.load(name, store, "mini"))).axes
    assert [text.get_text() for text in axis.texts] != ["no runs yet"]


@pytest.mark.parametrize("name", ["table1", "table3"])
def test_a_forest_has_a_marker_for_every_contrast_and_tells_its_numbers(name):
    table = frames.load(name, Store(FROZEN), "mini")
    found, shown = contrasts.contrasts(table), tables.labels(table, columns=True)
    picture = figures.forest(found, shown)
    found = found[(found["quantity"] != "time") & found["place"].isin(shown)]
    points = [line.get_xdata()[0] for axis in drawn(picture).axes for line in axis.lines if len(line.get_xdata()) == 1]
    assert sorted(points) == pytest.approx(sorted(found["difference"]))
    assert len(picture.figure.axes) == found["label"].nunique()
    assert all(f"{difference:+.2f}" in picture.alt for difference in found["difference"])
    assert figures.forest(found.iloc[:0], shown).alt == "No runs yet."


def test_a_picture_is_the_same_bytes_at_every_execution_and_has_an_alternative_text():
    losses = np.array([0.0, 1.0])
    (data, metadata), (again, _) = (pictures.weight_bars(losses, {"KL": losses})._repr_mimebundle_() for _ in range(2))
    assert data == again
    assert data["image/svg+xml"].startswith("<svg")
    assert metadata["image/svg+xml"]["alt"] == "Weights of losses 0, 1. KL: 0.00, 1.00."


@pytest.mark.parametrize("name", ["table1", "table3"])
def test_every_seed_is_a_dot(name):
    table = frames.load(name, Store(FROZEN), "mini")
    found = [dots for axis in figures.methods_figure(table).figure.axes for dots in axis.collections]
    heights = [height for dots in found if isinstance(dots, PathCollection) for _, height in dots.get_offsets()]
    assert sorted(heights) == pytest.approx(sorted(table.runs["score"].dropna()))


@pytest.mark.parametrize("name", ["table1", "table3"])
def test_the_training_curve_shows_a_runs_own_metric(name):
    record = Store(FROZEN).read(reported(name, "mini", method="mmel_h")[0])
    lines = [axis.lines[0].get_ydata().tolist() for axis in drawn(pictures.training_curve(record.epochs)).axes]
    assert lines == [[line[key] for line in record.epochs] for key in ("train_loss", record.metric, "weight_max")]


@pytest.mark.parametrize("channels", [1, 3])
def test_views_stand_with_their_losses_and_weights(channels):
    views = np.random.default_rng(0).integers(0, 256, size=(3, 8, 8, channels), dtype=np.uint8)
    losses, weights = np.array([np.nan, 1.5, 2.0]), np.array([np.nan, 0.25, 0.75])
    axes = drawn(pictures.weighted_views(views, losses, weights)).axes
    texts = [re.findall(r"[\d.]+", axis.texts[0].get_text()) for axis in axes]
    assert texts == [[], ["1.500", "0.250"], ["2.000", "0.750"]]
    for axis, view in zip(axes, views, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), view.squeeze())


def test_weights_over_lambda_are_those_of_the_library():
    (axis,) = drawn(pictures.weights_over_lambda(np.array([0.0, np.log(3.0)]), 1.0)).axes
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([0.25, 0.75])


def test_figure_1_compares_the_samples_of_mmel_s_with_the_original():
    losses, weights = np.array([0.25, 0.5, 2.0]), np.array([0.125, 0.25, 0.625])
    picture = pictures.hard_and_soft((losses, weights), (losses[1:], weights[1:]))
    hard, soft = ([text.get_text() for text in axis.texts] for axis in drawn(picture).axes)
    assert {r"$\ell(f(x), y)$ = 0.25", r"$\ell(f(z_2), y)$ = 2.00"} <= set(hard)
    assert {r"$\ell(f(x), y)$", r"$\ell(f(z_2), f(x))$ = 2.00"} <= set(soft)
    assert "z_2 against f(x): loss 2.000, weight 0.625" in picture.alt
