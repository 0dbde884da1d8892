import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from invented import FROZEN, mini_run, text_run, write_run
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from mmel.grids import reported
from mmel.methods import LABELS
from mmel.records import Store
from mmel.report import figures, tables, text_figures

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def nothing_left_open():
    """A figure that stays open would be shown twice in a notebook."""
    yield
    left = plt.get_fignums()
    plt.close("all")
    assert left == []


@pytest.fixture(scope="module")
def runs():
    return {name: tables.seeds(Store(FROZEN), name, "mini") for name in ("table1", "table2")}


def dots(axis):
    """(x, y) of every dot."""
    parts = [c.get_offsets() for c in axis.collections if isinstance(c, PathCollection)]
    return np.concatenate(parts) if parts else np.zeros((0, 2))


def heights(axis):
    """Heights of the bars across, in order."""
    bars = [c for c in axis.collections if isinstance(c, LineCollection)]
    return [segment[0, 1] for bar in bars for segment in bar.get_segments()]


def render(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


# Table 1's figure.


def test_methods_figure_has_one_panel_a_model(runs):
    figure = figures.methods_figure(runs["table1"])
    assert [axis.get_title() for axis in figure.axes] == ["Digits, ResNet-8", "Digits, ResNet-14"]
    assert figure.axes[0].get_ylabel() == "test accuracy (%)"
    render(figure)


def test_methods_figure_draws_every_seed(runs):
    figure = figures.methods_figure(runs["table1"])
    for axis, (_, group) in zip(figure.axes, runs["table1"].groupby("model", sort=False), strict=True):
        assert len(group) > 5
        assert sorted(dots(axis)[:, 1]) == sorted(group["accuracy_pct"])


def test_methods_figure_stands_each_method_at_its_place(runs):
    for axis, (_, group) in zip(
        figures.methods_figure(runs["table1"]).axes, runs["table1"].groupby("model", sort=False), strict=True
    ):
        methods = [method for method in LABELS if method in set(group["method"])]
        labels = [label.get_text().replace("\n", "") for label in axis.get_xticklabels()]
        assert labels == [LABELS[method] for method in methods]
        for place, method in enumerate(methods):
            values = group.loc[group["method"] == method, "accuracy_pct"]
            here = dots(axis)[np.abs(dots(axis)[:, 0] - place) < 0.5]
            assert sorted(here[:, 1]) == sorted(values)
        assert heights(axis) == pytest.approx(
            [group.loc[group["method"] == method, "accuracy_pct"].mean() for method in methods]
        )


# Table 2's figure.


def test_over_k_figure_draws_every_seed_at_its_k(runs):
    figure = figures.over_k_figure(runs["table2"])
    (axis,) = figure.axes
    assert axis.get_title() == "Digits, ResNet-8"
    mmel = runs["table2"][runs["table2"]["method"] != "baseline_da"]
    expected = sorted(zip(mmel["num_augmented"], mmel["accuracy_pct"], strict=True))
    assert sorted(map(tuple, dots(axis))) == expected
    assert len(expected) == 6
    render(figure)


def test_over_k_figure_joins_the_means_beside_the_baseline(runs):
    (axis,) = figures.over_k_figure(runs["table2"]).axes
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines) == [LABELS["baseline_da"], LABELS["mmel_h"], LABELS["mmel_s"]]
    group = runs["table2"].groupby(["method", "num_augmented"])["accuracy_pct"].mean()
    assert set(lines[LABELS["baseline_da"]].get_ydata()) == {group["baseline_da", 1]}
    assert lines[LABELS["mmel_h"]].get_xdata().tolist() == [2, 5, 10]
    assert lines[LABELS["mmel_h"]].get_ydata() == pytest.approx([group["mmel_h", k] for k in (2, 5, 10)])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["2", "5", "10"]


def test_over_k_figure_has_one_panel_a_model(runs):
    both = runs["table1"][runs["table1"]["method"].isin(["baseline_da", "mmel_h", "mmel_s"])]
    assert [axis.get_title() for axis in figures.over_k_figure(both).axes] == ["Digits, ResNet-8", "Digits, ResNet-14"]


# Figures of texts.


@pytest.fixture(scope="module")
def texts():
    return {name: tables.seeds(Store(FROZEN), name, "mini") for name in ("table3", "table4", "table6")}


@pytest.fixture(scope="module")
def curves():
    return tables.build("figure2", Store(FROZEN), "mini").levels


def test_methods_figure_of_texts_has_one_panel_a_task(texts):
    figure = figures.methods_figure(texts["table3"])
    assert [axis.get_title() for axis in figure.axes] == [
        f"{task} (miniature)" for task in ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
    ]
    assert [axis.get_ylabel() for axis in figure.axes[:4]] == [
        "dev Matthews corr. (%)",
        "dev accuracy (%)",
        "dev accuracy (%)",
        "dev Spearman corr. (%)",
    ]
    for axis, (_, group) in zip(figure.axes, texts["table3"].groupby("task", sort=False), strict=True):
        assert sorted(dots(axis)[:, 1]) == sorted(group["score"])
    render(figure)


def test_curves_figure_draws_the_frame(curves):
    figure = text_figures.curves_figure(curves)
    assert [axis.get_title() for axis in figure.axes] == list(dict.fromkeys(curves["task"]))
    assert len(figure.axes) == 8
    for axis, (_, group) in zip(figure.axes, curves.groupby("task", sort=False), strict=True):
        lines = {line.get_label(): line for line in axis.lines}
        assert set(lines) == {LABELS[method] for method in group["method"]}
        for method, mine in group.groupby("method"):
            assert lines[LABELS[method]].get_xydata().tolist() == mine[["epoch", "mean"]].to_numpy().tolist()
            assert lines[LABELS[method]].get_color() == figures.COLORS[method]
    render(figure)


def test_curves_figure_bands_reach_from_the_lowest_to_the_highest_seed(curves):
    frame = curves[(curves["dataset"] == "grammar_cola") & (curves["method"] == "mmel_h")]
    frame = frame.assign(min=frame["mean"] - [1.0, 2.0], max=frame["mean"] + [3.0, 0.5])
    (axis,) = text_figures.curves_figure(frame).axes
    (band,) = axis.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    assert corners == {(1.0, 40.0), (1.0, 44.0), (2.0, 44.0), (2.0, 46.5)}


def test_curves_figure_has_one_legend_and_says_which_tasks_lack_runs(curves):
    figure = text_figures.curves_figure(curves)
    (legend,) = figure.legends
    methods = ("baseline", "baseline_da_uni", "mmel_h", "mmel_s")
    assert [text.get_text() for text in legend.get_texts()] == [LABELS[method] for method in methods]
    assert figure.get_supxlabel() == "epoch"
    two = text_figures.curves_figure(curves[curves["dataset"].isin(["grammar_cola", "grammar_rte"])])
    assert len(two.axes) == 2
    assert two.get_supxlabel().endswith("(no runs: SST-2, MRPC, STS-B, QQP, MNLI, QNLI)")
    render(two)


def test_a_row_holds_four_panels(curves):
    figure = text_figures.curves_figure(curves[curves["dataset"] != "grammar_rte"])
    columns = [axis.get_subplotspec().colspan.start for axis in figure.axes]
    assert columns == [0, 1, 2, 3, 0, 1, 2]


@pytest.mark.parametrize("name", ["table4", "table6"])
def test_settings_figure_puts_every_run_at_its_setting(texts, name):
    runs = texts[name]
    fields = {"table4": ["label_source"], "table6": ["fill", "pair_mode", "mask_ratio"]}[name]
    figure = text_figures.settings_figure(runs)
    for axis, (_, group) in zip(figure.axes, runs.groupby("task", sort=False), strict=True):
        labels = [label.get_text() for label in axis.get_yticklabels()]
        varied = group[group["method"] != "baseline"]
        expected = sorted(
            (run["score"], ", ".join(str(run[field]) for field in fields)) for run in varied.to_dict("records")
        )
        assert sorted((x, labels[round(y)]) for x, y in dots(axis)) == expected
        (line,) = axis.lines
        assert set(line.get_xdata()) == set(group.loc[group["method"] == "baseline", "score"])
        assert axis.get_xlabel().startswith("dev ")
    render(figure)


def test_training_curve_of_a_text_shows_its_own_metric():
    record = Store(FROZEN).read(text_run("cola", "mmel_h"))
    axis = figures.training_curve(record.epochs).axes[1]
    assert axis.get_title() == "Matthews corr. (%)"
    assert axis.lines[0].get_ydata().tolist() == [41.0, 46.0]


@pytest.mark.parametrize("draw", [figures.methods_figure, text_figures.settings_figure, text_figures.curves_figure])
def test_no_texts_give_an_empty_panel_that_says_so(tmp_path, draw):
    store = Store(tmp_path)
    nothing = (
        tables.build("figure2", store, "mini").levels
        if draw is text_figures.curves_figure
        else tables.seeds(store, "table6", "mini")
    )
    figure = draw(nothing)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["no runs yet"]
    render(figure)


# The contrasts.


def drawn(axis):
    """Colour -> (height, low, high) of each line and (height, value) of each dot, in order."""
    lines = {}
    for bar in axis.collections:
        (segment,) = bar.get_segments()
        lines.setdefault(to_hex(bar.get_color()[0]), []).append((segment[0, 1], *segment[:, 0]))
    dots = {}
    for line in axis.lines:
        if line.get_marker() != "None":
            dots.setdefault(to_hex(line.get_color()), []).append((line.get_ydata()[0], line.get_xdata()[0]))
    return lines, dots


@pytest.fixture(scope="module")
def claims():
    return {name: tables.build(name, Store(FROZEN), "mini").claims for name in ("table1", "table3")}


def test_contrasts_figure_has_a_panel_a_model_and_a_row_a_contrast(claims):
    figure = figures.contrasts_figure(claims["table1"])
    assert [axis.get_title() for axis in figure.axes] == ["Digits, ResNet-8", "Digits, ResNet-14"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [claim.label for claim in claims["table1"][:7]]
    # The first row stands on top.
    low, high = figure.axes[0].get_ylim()
    assert low > 6 > 0 > high
    render(figure)


def test_contrasts_figure_draws_the_claims(claims):
    figure = figures.contrasts_figure(claims["table1"])
    for axis, group in zip(figure.axes, (claims["table1"][:7], claims["table1"][7:]), strict=True):
        lines, dots = drawn(axis)
        for place, claim in enumerate(group):
            # The paper has no digits: its range over its cells, without a dot.
            (span,) = [line[1:] for line in lines[figures.PAPER_COLOR] if round(line[0]) == place]
            assert span == (claim.paper.low, claim.paper.high)
            color = figures.VERDICT_COLORS[claim.ours.verdict] if claim.ours else None
            values = [value for height, value in dots.get(color, []) if round(height) == place]
            assert values == ([claim.ours.difference] if claim.ours else [])
            intervals = [line[1:] for line in lines.get(color, []) if round(line[0]) == place]
            has_interval = claim.ours is not None and not np.isnan(claim.ours.low)
            assert intervals == ([(claim.ours.low, claim.ours.high)] if has_interval else [])
        assert figures.PAPER_COLOR not in dots
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "ours: holds",
        "ours: undecided",
        "ours: contradicted",
        "paper",
    ]


def test_contrasts_figure_of_texts_leaves_out_tasks_without_runs(tmp_path):
    store = Store(tmp_path)
    for run in reported("table3", "reduced"):
        if run.dataset == "rte" and run.method in ("mmel_h", "baseline"):
            write_run(store, run, 60.0 + run.seed + (run.method == "mmel_h"))
    claims = tables.build("table3", store, "reduced").claims
    (axis,) = figures.contrasts_figure(claims).axes
    assert axis.get_title() == "RTE (subset)"
    lines, dots = drawn(axis)
    # The paper's own contrast has its dot.
    printed = [claim.paper for claim in claims if claim.place["Task"] == "RTE (subset)"]
    assert [value for _, value in dots[figures.PAPER_COLOR]] == [found.difference for found in printed]
    assert [line[1:] for line in lines[figures.PAPER_COLOR]] == [(found.low, found.high) for found in printed]
    assert [value for _, value in dots[figures.VERDICT_COLORS["undecided"]]] == pytest.approx([1.0])


def test_contrasts_figure_without_runs_says_so(tmp_path):
    (axis,) = figures.contrasts_figure(tables.build("table1", Store(tmp_path), "mini").claims).axes
    assert [text.get_text() for text in axis.texts] == ["no runs yet"]


# Nothing to draw yet.


@pytest.mark.parametrize(
    ("draw", "name"), [(figures.methods_figure, "table1"), (figures.over_k_figure, "table2")], ids=["table1", "table2"]
)
def test_no_runs_give_an_empty_panel_without_a_warning(tmp_path, draw, name):
    # What is written to stderr in a notebook stands in the report.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(tables.seeds(Store(tmp_path), name, "mini"))
    assert len(figure.axes) == 1
    assert len(dots(figure.axes[0])) == 0
    render(figure)


def test_over_k_figure_with_the_baseline_alone(runs):
    baseline = runs["table2"][runs["table2"]["method"] == "baseline_da"]
    (axis,) = figures.over_k_figure(baseline).axes
    assert [line.get_label() for line in axis.lines] == [LABELS["baseline_da"]]


# Figures of one run.


def test_training_curve():
    record = Store(FROZEN).read(mini_run("resnet8", "mmel_h", 5, 0))
    figure = figures.training_curve(record.epochs)
    assert [axis.get_title() for axis in figure.axes] == ["training loss", "accuracy (%)", "largest weight of P*"]
    for axis, column in zip(figure.axes, ("train_loss", "accuracy_pct", "weight_max"), strict=True):
        assert axis.lines[0].get_xdata().tolist() == [1, 2]
        assert axis.lines[0].get_ydata().tolist() == [line[column] for line in record.epochs]
    render(figure)


@pytest.mark.parametrize("channels", [1, 3])
def test_weighted_views(channels):
    views = np.random.default_rng(0).integers(0, 256, size=(4, 8, 8, channels), dtype=np.uint8)
    figure = figures.weighted_views(views, np.array([0.1, 0.2, 0.3, 0.4]))
    assert [axis.get_title() for axis in figure.axes] == ["x", "z1", "z2", "z3"]
    for axis, view, weight in zip(figure.axes, views, ("0.100", "0.200", "0.300", "0.400"), strict=True):
        assert np.array_equal(axis.images[0].get_array(), view.squeeze())
        assert [text.get_text() for text in axis.texts] == [weight]
    render(figure)
