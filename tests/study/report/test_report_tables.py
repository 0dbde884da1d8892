import math

import pandas as pd
import pytest
from invented import FROZEN, mini_run, reported, row, write_run

from mmel.study.records import Store
from mmel.study.report import frames, tables
from mmel.study.report.hyperparameters import table7

NAN = math.nan


def bold(table):
    """(source, place or arm) -> headings of the bold cells."""
    frame, best = tables.levels(table)
    assert best.shape == frame.shape
    heads = frame["Model" if "Model" in frame else "Method"]
    rows = zip(frame["Source"], heads, best.to_numpy(), strict=True)
    return {(source, head): list(frame.columns[marks]) for source, head, marks in rows if marks.any()}


# Numbers as text.


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ((92.534, 0.098, 5), "92.53 ± 0.10 (5)"),
        ((92.534, NAN, 1), "92.53 (1)"),
        ((48.8, NAN, NAN, 1), "48.8"),
        ((69.7, 2.3, 5, 1), "69.7 ± 2.30 (5)"),
        ((NAN, NAN, 0), "-"),
    ],
)
def test_levels_as_text(cell, text):
    assert tables.level(*cell) == text


def test_intervals_and_durations_as_text():
    assert tables.interval(0.634, 0.481, 0.779) == "+0.63 [+0.48, +0.78]"
    assert tables.interval(-0.5, NAN, NAN) == "-0.50"
    assert [tables.duration(seconds) for seconds in (45.2, 3599, 5400)] == ["45 s", "3599 s", "1.5 h"]


@pytest.mark.parametrize(("name", "profile"), [("table1", "mini"), ("table3", "mini"), ("table6", "reduced")])
def test_a_table_without_runs_has_the_papers_numbers_alone(tmp_path, name, profile):
    table = frames.load(name, Store(tmp_path), profile)
    frame, best = tables.levels(table)
    ours = frame["Source"] == f"ours ({profile})"
    assert not best[ours].to_numpy().any()
    assert not any(" (" in cell for cell in frame[ours].iloc[:, 4:].to_numpy().flatten())
    assert best[~ours].to_numpy().any()
    said = tables.contrasts(table).filter(regex=r"^Ours( \[95 %\])?$").iloc[:, 0]
    assert set(said) == {"no runs yet"}
    assert tables.seeds(table).empty
    assert tables.times(table).empty


def test_the_highest_mean_of_a_model_is_bold(tmp_path):
    found = bold(frames.load("table1", Store(FROZEN), "mini"))
    assert found["ours (mini)", "ResNet-8"] == ["MMEL-H"]
    store = Store(tmp_path)
    for cell, score in (
        (("resnet8", "mmel_h", 5, 0), 97.001),
        (("resnet8", "mmel_s", 5, 0), 97.004),
        (("resnet8", "baseline_da", 1, 0), 95.0),
        (("resnet14", "mmel_h", 5, 0), 99.0),
    ):
        write_run(store, mini_run(*cell), score)
    found = bold(frames.load("table1", store, "mini"))
    # They print alike, 97.00; a model by itself is not the highest.
    assert found["ours (mini)", "ResNet-8"] == ["MMEL-H", "MMEL-S"]
    assert ("ours (mini)", "ResNet-14") not in found


def test_the_highest_mean_of_a_task_is_bold_ours_and_the_papers_apart(tmp_path):
    store = Store(tmp_path)
    scores = {"mmel_h": 41.0, "mmel_s": 41.0, "baseline": 39.0}
    for run in reported("table4", "reduced", seed=0, label_source="predicted"):
        write_run(store, run, scores[run.method])
    frame, best = tables.levels(frames.load("table4", store, "reduced"))
    marked = frame[best["CoLA (ours: subset)"]]
    assert marked["Source"].tolist() == ["ours (reduced)", "ours (reduced)", "paper"]
    assert marked["Labels"].tolist() == ["predicted"] * 3
    # The paper's Baseline, borrowed from Table 3, competes too.
    assert frame[best["RTE"]]["Method"].tolist() == ["MMEL-S"]


def test_a_part_of_a_task_is_never_called_by_its_name_alone(tmp_path):
    store = Store(tmp_path)
    (run,) = reported("table3", "paper", dataset="qqp", method="baseline", seed=0)
    sizes = {"train": 10, "train_available": 10, "eval": 10, "sampled": ["dev"]}
    write_run(store, run, 80.0, sizes=sizes)
    headings = [tables.levels(frames.load("table3", *of))[0].columns for of in ((store, "paper"), (store, "reduced"))]
    assert {"QQP (ours: sample)", "CoLA"} <= set(headings[0])
    assert {"CoLA (ours: subset)", "QQP"} <= set(headings[1])
    miniature = frames.load("table3", Store(FROZEN), "mini")
    assert all(task.endswith(" (miniature)") for task in tables.contrasts(miniature)["Task"])


# In a notebook.


def test_show_escapes_its_text_and_leaves_blank_what_is_not_there():
    frame = pd.DataFrame({"a < b": ["x & y", "z"], "score": [81.0, 80.123456], "n": [1.0, NAN]})
    best = pd.DataFrame({"a < b": [False, False], "score": [True, False], "n": [False, False]})
    shown = tables.show(frame, best).data
    for cell in ("<th>a &lt; b</th>", "<td>x &amp; y</td>", "<td><b>81.00</b></td>", "<td>80.12</td>", "<td></td>"):
        assert cell in shown
    assert shown.count("<b>") == 1
    assert shown == tables.show(frame, best).data
    assert "<table" not in tables.show(frame.iloc[:0]).data


def test_each_sample_of_a_text_is_a_row_with_short_numbers():
    samples = [
        {"text": "[a] dog", "teacher": [0.25, 0.75], "target": 1, "weight": NAN},
        {"text": "[the] dog", "teacher": [0.5, 0.5], "target": 0.123456, "weight": 2 / 3},
    ]
    html = tables.weighted_texts(samples).to_html()
    for shown in ("[a] dog", "[the] dog", "0.250, 0.750", "0.123", "0.667"):
        assert shown in html
    assert "nan" not in html
    assert "0.1234" not in html


# Table 7.


def test_table7_is_the_papers_in_the_papers_profile():
    found = table7("paper")
    assert set(found["Differs"]) == {""}
    assert len(found) == 12
    assert row(found, Hyperparameter="Attention Probability Dropout Rate")["MMEL-S, ours (paper)"] == "{0, 0.1}"
    # `reduced` has neither MNLI nor QQP, and its own learning rate.
    found = table7("reduced")
    assert row(found, Hyperparameter="Max Epochs (MNLI, QQP)")["MMEL-H, ours (reduced)"] == "-"
    assert row(found, Hyperparameter="Learning Rate")["Differs"] == "MMEL-H, MMEL-S"
