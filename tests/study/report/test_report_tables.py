import math
import re

import pandas as pd
import pytest
from invented import FROZEN, mismatched, reported, row, write_run

from mmel.study.records import Store
from mmel.study.report import answers, frames, tables
from mmel.study.report.files import write_tables
from mmel.study.report.hyperparameters import table7

NAN = math.nan


def test_a_duration_is_in_hours_from_an_hour_on():
    assert [tables.duration(seconds) for seconds in (45.2, 3599, 5400)] == ["45 s", "3599 s", "1.5 h"]


@pytest.mark.parametrize(("name", "profile"), [("table1", "mini"), ("table3", "mini"), ("table6", "reduced")])
def test_a_table_without_runs_has_the_papers_numbers_alone(store, name, profile):
    table = frames.load(name, store, profile)
    frame = tables.levels(table)
    ours = frame["Source"] == f"ours ({profile})"
    assert not any(" (" in cell for cell in frame[ours].iloc[:, 4:].to_numpy().flatten())
    assert (~ours).any()
    assert all(of(table).empty for of in (answers.every_contrast, tables.seeds, tables.times))


def test_a_part_of_a_task_is_never_called_by_its_name_alone(store):
    (run,) = reported("table3", "paper", dataset="qqp", method="baseline", seed=0)
    sizes = {"train": 10, "train_available": 10, "eval": 10, "sampled": ["dev"]}
    write_run(store, run, 80.0, sizes=sizes)
    headings = [tables.levels(frames.load("table3", *of)).columns for of in ((store, "paper"), (store, "reduced"))]
    assert {"QQP (ours: sample)", "CoLA"} <= set(headings[0])
    assert {"CoLA (ours: subset)", "QQP"} <= set(headings[1])


# In a notebook.


def test_joint_cells_of_single_sentences_repeat_the_separate_ones(store):
    runs = reported("table6", "paper", method="mmel_h", fill="greedy", mask_ratio=0.4)
    for run in runs:
        write_run(store, run, {"separate": 80.0, "joint": 71.0}[run.pair_mode], each=mismatched(run, 62.0))
    table = frames.load("table6", store, "paper")
    found = tables.levels(table).query("Source == 'ours (paper)' and Method == 'MMEL-H' and Search == 'greedy'")
    joint, separate = (row(found, Pair=mode, Masked="0.4") for mode in ("joint", "separate"))
    assert joint[["CoLA", "SST-2", "RTE", "MNLI-mm"]].tolist() == [
        "80.00 (1) †",
        "80.00 (1) †",
        "71.00 (1)",
        "62.00 (1)",
    ]
    # (2 * 80 + 6 * 71 + 62) / 9: CoLA and SST-2 are single sentences.
    assert (joint["Avg"], separate["Avg"]) == ("72.00 (1)", "78.00 (1)")
    assert set(answers.every_contrast(table)["Where"]).isdisjoint({"CoLA", "SST-2"})


@pytest.mark.parametrize("name", ["table1", "table3", "table6"])
def test_every_score_leads_to_its_seeds_and_every_seed_to_its_record(name):
    table = frames.load(name, Store(FROZEN), "mini")
    levels, seeds = tables.show(tables.levels(table, linked=True)).data, tables.show(tables.seeds(table)).data
    links = re.findall(r'href="../results/(runs/[^"]+)"', seeds)
    assert len(links) == len(tables.seeds(table))
    assert all((FROZEN / link).is_file() for link in links)
    rows = re.findall(r' id="([^"]+)"', seeds)
    assert set(re.findall(r'href="#([^"]+)"', levels)) == set(rows)
    assert len(set(rows)) == len(rows)
    # The same text as without links.
    assert re.sub(r"</?a[^>]*>", "", levels) == tables.show(tables.levels(table)).data


def test_downloads_lead_to_what_a_report_writes(store):
    write_tables("table1", store, "mini")
    links = re.findall(r'href="../results/([^"]+)"', tables.downloads("mini", Scores="table1").data)
    assert len(links) == 3
    assert all((store.root / link).is_file() for link in links)


def test_show_escapes_its_text_and_leaves_blank_what_is_not_there():
    frame = pd.DataFrame({"a < b": ["x & y", "z"], "score": [81.0, 80.123456], "n": [1.0, NAN]})
    cells = ["a &lt; b", "score", "n", "x &amp; y", "81.00", "1", "z", "80.12", ""]
    assert re.findall("<t[hd]>(.*)</t[hd]>", tables.show(frame).data) == cells
    assert "<table" not in tables.show(frame.iloc[:0]).data


def test_each_sample_of_a_text_is_a_row_with_short_numbers():
    samples = {"text": ["[a] dog", "[the] dog"], "teacher": [[0.25, 0.75], [0.5, 0.5]], "target": [1, 0.123456]}
    html = tables.weighted_texts([NAN, 1.5], [NAN, 2 / 3], **samples).to_html()
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
