import re

import numpy as np
import pandas as pd
import pytest
from invented import FROZEN, text_run, write_run

from mmel.config import CHOSEN_DROPOUT, TEXT_METHODS
from mmel.grids import SELECTION_SEED, TABLES, reported, table3
from mmel.methods import LABELS
from mmel.records import Store
from mmel.report import hyperparameters, tables, text_cells, text_claims, text_tables
from mmel.report.aggregate import contrast, stratified_permutation_test
from mmel.report.common import DATASET_LABELS
from mmel.report.text_cells import COLUMNS, paper_cells

TEXT_TABLES = ("table3", "table4", "table6")
each_table = pytest.mark.parametrize("name", TEXT_TABLES)
each_of_all = pytest.mark.parametrize("name", [*TEXT_TABLES, "figure2"])
GLUE_WORDS = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")


@pytest.fixture(autouse=True)
def own_encoder(monkeypatch):
    monkeypatch.delenv("MMEL_TEXT_MODEL", raising=False)


@pytest.fixture(scope="module")
def built():
    return {name: tables.build(name, Store(FROZEN), "mini") for name in (*TEXT_TABLES, "figure2")}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def row(frame, **wanted):
    """The one row of a frame with some values."""
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1, wanted
    return frame.iloc[0]


def write_reduced(store, scores, name="table3"):
    """Record the reduced runs of CoLA and RTE whose method is in `scores`, one score a seed."""
    for run in reported(name, "reduced"):
        for (dataset, method), values in scores.items():
            if (run.dataset, run.method) == (dataset, method) and run.seed < len(values):
                write_run(store, run, values[run.seed], train_seconds=100.0 if method == "baseline" else 300.0)


def test_a_method_that_the_paper_has_not_stands_in_our_rows_alone(monkeypatch):
    whole = text_tables.paper_table
    for module in (text_tables, text_cells):
        monkeypatch.setattr(
            module, "paper_table", lambda name: whole(name).query("method != 'baseline_da_long'").reset_index(drop=True)
        )
    contrasts = [pair for pair in text_claims.CONTRASTS["table3"] if ("baseline_da_long",) not in pair]
    monkeypatch.setitem(text_claims.CONTRASTS, "table3", contrasts)
    table = tables.build("table3", Store(FROZEN), "mini")
    sources = table.levels.groupby("Method")["Source"].apply(set)
    assert sources["Baseline(DA+Long)"] == {"ours (mini)"}
    assert sources["MMEL-H"] == {"ours (mini)", "paper"}
    times = tables.training_time(Store(FROZEN), "table3", "mini").set_index("Method")["Paper's ratio, all tasks, V100"]
    assert set(times.loc[["Baseline(DA+Long)"]]) == {""}
    assert set(times.loc[["MMEL-H"]]) == {"1.5"}


# Cells worked out by hand from the lists in invented.py.


def test_dev_levels_by_hand(built):
    levels = built["table3"].levels
    ours = row(levels, Split="dev", Source="ours (mini)", Method="MMEL-H")
    assert [ours[f"{label} (ours: miniature)"] for label in ("CoLA", "STS-B", "MNLI-m", "MNLI-mm", "RTE")] == [
        "46.00 (1)",
        "64.00 (1)",
        "68.00 (1)",
        "67.00 (1)",
        "65.00 (1)",
    ]
    # (46 + 82 + 72 + 64 + 75 + 68 + 67 + 77 + 65) / 9.
    assert ours["Avg (ours: miniature)"] == "68.44 (1)"
    # Eight tasks of 46 s, the baseline's took 10.
    assert ours["Time (ratio to Baseline)"] == "368 s (4.6)"


def test_test_levels_by_hand(built):
    ours = row(built["table3"].levels, Split="test", Source="ours (mini)", Method="MMEL-H")
    # MRPC's test score is F1, and not the dev accuracy.
    assert ours["MRPC (ours: miniature)"] == "84.00 (1)"
    assert ours["MNLI-mm (ours: miniature)"] == "66.00 (1)"
    # (44 + 83 + 84 + 61 + 79 + 68 + 66 + 76 + 63) / 9.
    assert ours["Avg (ours: miniature)"] == "69.33 (1)"


def test_avg_needs_all_nine_columns(built):
    # DA+UNI lacks RTE alone.
    ours = row(built["table3"].levels, Split="dev", Source="ours (mini)", Method="Baseline(DA+UNI)")
    assert ours["RTE (ours: miniature)"] == "-"
    assert ours["Avg (ours: miniature)"] == "-"
    assert ours["Time (ratio to Baseline)"] == "315 s (4.5, 7 of 8 tasks)"


def test_avg_is_over_the_seeds_that_have_all_nine(store):
    runs = [run for run in table3("paper") if run.method == "mmel_h" and run.seed in (0, 1, 2)]
    for run in runs:
        # Seed 2 lacks RTE.
        if run.dataset != "rte" or run.seed < 2:
            mismatched = {"mm": 70.0 + run.seed} if run.dataset == "mnli" else {}
            write_run(store, run, 80.0 + run.seed, **mismatched)
    ours = row(tables.build("table3", store, "paper").levels, Split="dev", Source="ours (paper)", Method="MMEL-H")
    assert ours["CoLA"] == "81.00 ± 1.00 (3)"
    assert ours["RTE"] == "80.50 ± 0.71 (2)"
    # (8 * 80 + 70) / 9 and one point more.
    assert ours["Avg"] == f"{(8 * 80 + 70) / 9 + 0.5:.2f} ± 0.71 (2)"


def test_the_papers_rows_are_its_numbers(built):
    levels = built["table3"].levels
    found = row(levels, Split="dev", Source="paper", Method="MMEL-S")
    assert found["MRPC (ours: miniature)"] == "88.4 ± 0.73 (5)"
    assert found["Avg (ours: miniature)"] == "84.6 ± 0.11 (5)"
    assert found["Time (ratio to Baseline)"] == "32.4 h (1.5)"
    assert row(levels, Split="test", Source="paper", Method="MMEL-H")["QQP (ours: miniature)"] == "72.4 ± 0.05 (5)"
    smart = levels[levels["Method"] == "SMART, quoted"]
    # On dev alone, and of runs unknown.
    assert smart["Split"].tolist() == ["dev"]
    assert smart.iloc[0]["CoLA (ours: miniature)"] == "59.1"
    assert smart.iloc[0]["Time (ratio to Baseline)"] == ""


def test_rows_stand_in_the_papers_order(built):
    levels = built["table3"].levels
    dev = levels[levels["Split"] == "dev"]
    methods = [LABELS[method] for method in TEXT_METHODS]
    assert dev.loc[dev["Source"] == "ours (mini)", "Method"].tolist() == methods
    assert dev.loc[dev["Source"] == "paper", "Method"].tolist() == [*methods[:3], "SMART, quoted", *methods[3:]]
    table6 = built["table6"].levels
    ours, paper = (table6[table6["Source"] == source] for source in ("ours (mini)", "paper"))
    settings = ["Method", "Search", "Pair", "Masked"]
    assert ours[settings].to_numpy().tolist() == paper[settings].to_numpy().tolist()


def test_table4_by_hand(built):
    levels, contrasts = built["table4"].levels, built["table4"].contrasts
    assert (
        row(levels, Source="ours (mini)", Method="MMEL-H", Labels="original")["CoLA (ours: miniature)"] == "33.00 (1)"
    )
    found = row(contrasts, Task="CoLA (miniature)", Contrast="MMEL-H, predicted − MMEL-H, original")
    # The paper's: 62.8 - 48.8.
    assert found["Ours [95 %]"] == "+13.00"
    assert found["Paper [95 %]"] == "+14.00"
    found = row(contrasts, Task="RTE (miniature)", Contrast="MMEL-H, original − Baseline")
    # Its baseline is Table 3's: 65.3 - 69.7.
    assert (found["Ours [95 %]"], found["Verdict"], found["Paper [95 %]"]) == ("-4.00", "undecided", "-4.40")
    baseline = row(levels, Source="paper, Table 3")
    assert (baseline["Method"], baseline["Labels"]) == ("Baseline", "")
    assert baseline["CoLA (ours: miniature)"] == "59.7 ± 0.61 (5)"


def test_table6_by_hand(built):
    contrasts = built["table6"].contrasts
    found = row(contrasts, Task="CoLA (miniature)", Contrast="MMEL-H, beam − greedy")
    # 43 - 45 and 47 - 46; the paper's separate rows 60.0 - 60.2 and 60.8 - 62.8.
    assert (found["Ours"], found["Ours: pairs above 0"]) == ("-0.50", "1 of 2")
    assert (found["Paper"], found["Paper: pairs above 0"]) == ("-1.10", "0 of 2")
    found = row(contrasts, Task="CoLA (miniature)", Contrast="MMEL-H, 0.4 − 0.2 masked")
    assert (found["Ours"], found["Ours: pairs above 0"]) == ("+2.50", "2 of 2")
    found = row(contrasts, Task="RTE (miniature)", Contrast="MMEL-H, separate − joint")
    # One of four pairs is recorded: 65 - 64. The paper's four on RTE: 2.2, 0.0, 0.7 and -0.1.
    assert (found["Ours"], found["Ours: pairs above 0"]) == ("+1.00", "1 of 1")
    assert (found["Paper"], found["Paper: pairs above 0"]) == ("+0.70", "2 of 4")
    found = row(contrasts, Task="CoLA (miniature)", Contrast="MMEL-H, all settings − Baseline")
    assert (found["Ours"], found["Ours: pairs above 0"]) == ("+5.25", "4 of 4")
    # One run a cell decides nothing.
    assert "Verdict" not in contrasts
    # A single sentence is joined with nothing.
    assert not any("joint" in claim for claim in contrasts.loc[contrasts["Task"] == "CoLA (miniature)", "Contrast"])


def test_cells_outside_the_grid_are_empty_and_missing_ones_a_dash(built):
    levels = built["table6"].levels
    joint = row(levels, Source="ours (mini)", Method="MMEL-H", Search="greedy", Pair="joint", Masked="0.2")
    assert joint["CoLA (ours: miniature)"] == ""
    assert joint["RTE (ours: miniature)"] == "-"
    assert joint["QQP"] == ""
    assert joint["Avg (ours: miniature)"] == ""


# Contrasts and claims over seeds.

CONTRASTS = [
    (first, second)
    for first, second in (
        ("mmel_h", "baseline_da_uni"),
        ("mmel_s", "baseline_da_uni"),
        ("mmel_h", "baseline"),
        ("mmel_s", "baseline"),
        ("baseline_da_uni", "baseline"),
        ("mmel_h", "baseline_da_long"),
        ("mmel_s", "baseline_da_long"),
    )
]


def test_the_contrasts_are_those_fixed_beforehand(built):
    contrasts = built["table3"].contrasts
    labels = [f"{LABELS[first]} − {LABELS[second]}" for first, second in CONTRASTS]
    columns = [f"{label} (miniature)" for label in (*COLUMNS.values(), "Avg")]
    assert contrasts[["Task", "Contrast"]].to_numpy().tolist() == [[c, label] for c in columns for label in labels]


def test_contrasts_are_welchs_with_the_papers_beside(store):
    better, worse = [46.0, 46.5, 47.0], [40.0, 41.0, 40.5]
    write_reduced(store, {("cola", "mmel_h"): better, ("cola", "baseline"): worse, ("cola", "mmel_s"): worse[:1]})
    contrasts = tables.build("table3", store, "reduced").contrasts
    found = row(contrasts, Task="CoLA (subset)", Contrast="MMEL-H − Baseline")
    expected = contrast(better, worse)
    assert found["Ours [95 %]"] == f"+6.00 [{expected.low:+.2f}, {expected.high:+.2f}]"
    assert (found["n"], found["Verdict"]) == ("3 + 3", "holds")
    # 62.1 ± 0.55 and 59.7 ± 0.61, five runs each.
    sides = [pd.Series({"mean": 62.1, "std": 0.55}), pd.Series({"mean": 59.7, "std": 0.61})]
    spread = sum(side["std"] ** 2 / 5 for side in sides) ** 0.5
    low = float(re.search(r"\[([+-][\d.]+),", found["Paper [95 %]"]).group(1))
    assert found["Paper [95 %]"].startswith("+2.40 [")
    # t with about 8 degrees of freedom.
    assert (2.40 - low) / spread == pytest.approx(2.31, abs=0.03)
    assert row(contrasts, Task="CoLA (subset)", Contrast="MMEL-S − Baseline")["Verdict"] == "undecided"
    # Baseline(DA+Long) is not in this grid.
    assert not any("Long" in claim for claim in contrasts["Contrast"])


def test_claims_over_all_tasks_are_stratified_by_task(store):
    scores = {
        ("cola", "mmel_h"): [46.0, 47.0, 48.0],
        ("cola", "baseline"): [40.0, 41.0, 47.5],
        ("rte", "mmel_h"): [66.0, 67.0, 68.0],
        ("rte", "baseline"): [65.0, 66.5, 66.0],
        ("mrpc", "mmel_h"): [80.0],
        ("mrpc", "baseline"): [70.0, 71.0, 72.0],
    }
    write_reduced(store, scores)
    claims = tables.claim_tests(store, "reduced", "table3")
    found = row(claims, Contrast="MMEL-H − Baseline")
    strata = [(scores[task, "mmel_h"], scores[task, "baseline"]) for task in ("cola", "rte")]
    assert (found["Strata"], found["Runs"]) == (2, 12)
    assert found["Mean difference"] == f"{np.mean([np.mean(a) - np.mean(b) for a, b in strata]):+.2f}"
    assert found["p (two-sided)"] == f"{stratified_permutation_test(strata):.3f}"
    assert found["Left out, under 2 runs a side"] == "MRPC (subset): 1 + 3 runs; STS-B (subset): 0 + 0 runs"
    # What cannot be tested is listed all the same, with the reason.
    assert len(claims) == len(CONTRASTS)
    found = row(claims, Contrast="MMEL-H − Baseline(DA+Long)")
    assert found["p (two-sided)"] == "-"
    assert "CoLA (subset) / RTE (subset): 3 + 0 runs" in found["Left out, under 2 runs a side"]


def test_mnli_counts_once_in_a_claim(store):
    for run in table3("paper"):
        if run.dataset == "mnli" and run.method in ("mmel_h", "baseline") and run.seed < 3:
            write_run(store, run, 80.0 + run.seed, mm=10.0)
    found = row(tables.claim_tests(store, "paper", "table3"), Contrast="MMEL-H − Baseline")
    assert (found["Strata"], found["Runs"], found["Mean difference"]) == (1, 6, "+0.00")


def test_table4_has_its_claims_too(store):
    write_reduced(store, {("cola", "mmel_h"): [40.0, 41.0, 42.0], ("cola", "baseline"): [43.0, 43.5, 44.0]}, "table4")
    claims = tables.claim_tests(store, "reduced", "table4")
    assert row(claims, Contrast="MMEL-H, original − Baseline")["Mean difference"] == "-2.50"
    assert row(claims, Contrast="MMEL-H, predicted − MMEL-H, original")["Mean difference"] == "+0.00"


# Nothing is shown as what it is not.


def strings(name, built):
    table = built[name]
    frames = [table.contrasts] if name != "figure2" else [table.levels]
    texts = [value for frame in frames for value in frame.to_numpy().flatten() if isinstance(value, str)]
    return [*texts, *table.missing, re.sub(r"\(Matthews[^)]*\)", "", table.caption)]


@each_of_all
def test_a_miniature_is_never_called_by_the_tasks_name_alone(built, name):
    bare = re.compile(rf"\b({'|'.join(GLUE_WORDS)})(-mm?)?+(?! \(miniature\))")
    assert [text for text in strings(name, built) if bare.search(text)] == []
    assert any("(miniature)" in text for text in strings(name, built))


@each_table
def test_headings_say_that_our_rows_are_miniatures(built, name):
    planned = {run.dataset.removeprefix("grammar_") for run in TABLES[name]("mini")}
    for task in planned:
        label = DATASET_LABELS[task] + ("-m" if task == "mnli" else "")
        assert f"{label} (ours: miniature)" in built[name].levels
        assert label not in built[name].levels


def test_a_part_of_the_training_set_is_a_subset(store):
    table = tables.build("table3", store, "reduced")
    assert "CoLA (ours: subset)" in table.levels
    assert set(table.contrasts["Task"]) == {"CoLA (subset)", "MRPC (subset)", "STS-B (subset)", "RTE (subset)"}
    assert any("*subset*" in note and "not the task" in note for note in table.notes)


def test_a_split_of_another_size_is_a_sample(store):
    for run in reported("table3", "paper"):
        if run.method == "baseline" and run.seed == 0:
            write_run(store, run, 80.0, sampled=["dev"] if run.dataset == "qqp" else [])
    table = tables.build("table3", store, "paper")
    assert "QQP (ours: sample)" in table.levels
    assert "CoLA" in table.levels
    assert "QQP (sample)" in table.caption
    assert any("*sample*" in note for note in table.notes)
    assert not any("*subset*" in note or "*miniature*" in note for note in table.notes)


@each_of_all
@pytest.mark.parametrize(("profile", "encoder"), [("mini", "tiny-bert"), ("reduced", "minilm-l6-mlm")])
def test_another_encoder_is_named_as_not_the_papers(store, name, profile, encoder):
    for run in reported(name, profile)[:1]:
        write_run(store, run, 50.0, test=40.0)
    table = tables.build(name, store, profile)
    assert any(note.startswith(f"The encoder is {encoder}, not bert-base-uncased") for note in table.notes)
    assert f"Encoder: {encoder} (" in table.caption
    assert "which is not bert-base-uncased" in table.caption


def test_the_papers_encoder_is_not_called_another(store):
    for run in reported("table3", "paper")[:1]:
        write_run(store, run, 50.0)
    table = tables.build("table3", store, "paper")
    assert not any("encoder is" in note for note in table.notes)
    assert "Encoder: bert-base-uncased (109.5M parameters). " in table.caption


def test_captions_have_profile_sizes_and_devices(store):
    write_reduced(store, {("cola", "baseline"): [40.0], ("rte", "mmel_h"): [60.0]})
    table = tables.build("table3", store, "reduced")
    runs = {run.dataset: run for run in reported("table3", "reduced")}
    assert table.caption.startswith("Table 3 (methods on text), profile reduced: ")
    for task, available, dev in (("cola", "8,551", "1,043"), ("rte", "2,490", "277")):
        sizes = f"{runs[task].train_size:,} of {available} training and {dev} dev texts, {runs[task].epochs} epochs"
        assert f"{DATASET_LABELS[task]} (subset): {sizes}" in table.caption
    assert table.caption.endswith("Trained on test device.")


@each_of_all
def test_no_runs_at_all_is_said_plainly(store, name):
    table = tables.build(name, store, "mini")
    assert "profile mini: no runs recorded yet." in table.caption
    assert len(table.missing) == len(reported(name, "mini"))
    assert not any(word in note for note in table.notes for word in ("teacher gives", "standard error", "Failed"))
    if name == "figure2":
        assert table.levels.empty
        return
    ours = table.levels[table.levels["Source"] == "ours (mini)"]
    assert "-" in ours.to_numpy().flatten()
    assert not any(
        re.search(r"\d\.\d", cell) for cell in ours.drop(columns="Masked", errors="ignore").to_numpy().flatten()
    )
    assert set(table.contrasts.filter(regex=r"^Ours( \[95 %\])?$").iloc[:, 0]) == {"no runs yet"}
    assert tables.seeds(store, name, "mini").empty
    assert tables.training_time(store, name, "mini").empty


def test_what_is_missing_is_listed(built):
    assert "RTE (miniature), Baseline(DA+UNI): 0 of 1 runs" in built["table3"].missing
    assert "RTE (miniature), MMEL-S, predicted: 0 of 1 runs" in built["table4"].missing
    assert "RTE (miniature), MMEL-H, beam, joint, 0.2: 0 of 1 runs" in built["table6"].missing
    assert not any("DA+Long" in line for line in built["figure2"].missing)


def test_test_scores_of_hidden_labels_are_left_to_the_server(store):
    for profile, said in (("mini", False), ("reduced", True)):
        table = tables.build("table3", store, profile)
        test = table.levels[table.levels["Split"] == "test"]
        assert (f"ours ({profile})" in set(test["Source"])) is not said
        assert any("mmel report --glue-submission" in note for note in table.notes) is said


def test_runs_that_share_a_teacher_are_said_to_be_correlated(built, store):
    (note,) = [note for note in built["table3"].notes if "the teacher of their task" in note]
    assert "CoLA (miniature) 12.5 %" in note
    # Without a run on a teacher's labels there is none to share.
    write_reduced(store, {("cola", "baseline"): [40.0]})
    assert not any("the teacher of their task" in note for note in tables.build("table3", store, "reduced").notes)


def test_the_dev_sets_own_error_is_said_where_it_can_be_told(store):
    write_reduced(store, {("rte", "mmel_h"): [71.0], ("cola", "mmel_h"): [40.0]})
    (note,) = [note for note in tables.build("table3", store, "reduced").notes if "finite dev set" in note]
    # RTE's 277 examples.
    assert "RTE (subset) 2.7." in note
    assert "CoLA (subset): not told, since" in note
    run = next(run for run in reported("table3", "reduced") if (run.dataset, run.method) == ("cola", "mmel_s"))
    write_run(store, run, 40.0, confusion=[[220, 102], [90, 631]])
    (note,) = [note for note in tables.build("table3", store, "reduced").notes if "finite dev set" in note]
    assert "CoLA (subset) 2.8, RTE (subset) 2.7." in note


def test_dropout_chosen_on_dev_scores_is_said(store):
    run = next(run for run in reported("table3", "paper") if run.method == "mmel_h")
    assert run.hidden_dropout == CHOSEN_DROPOUT
    write_run(store, run, 60.0)
    (note,) = [note for note in tables.build("table3", store, "paper").notes if "dropout" in note]
    assert "a little too good" in note
    assert "Of the 1 runs: 0.1 / 0.1 in 1." in note
    assert not any("dropout" in note for note in tables.build("table3", Store(FROZEN), "mini").notes)


@each_of_all
def test_runs_that_choose_are_never_shown(store, name):
    for run in TABLES[name]("paper"):
        if run.seed == SELECTION_SEED and run.dataset == "cola":
            write_run(store, run, 99.0)
    assert tables.build(name, store, "paper").caption.split("profile paper: ")[1].startswith("no runs recorded yet.")


def test_failed_and_split_runs_are_left_out_and_named(store, built):
    assert [note for note in built["table3"].notes if note.startswith("Failed")] == [
        f"Failed and left out: {text_run('stsb', 'mmel_s').run_id}."
    ]
    runs = [run for run in reported("table3", "reduced") if run.dataset == "cola" and run.method == "mmel_h"]
    write_run(store, runs[0], 40.0)
    write_run(store, runs[1], 90.0, micro_batch=4)
    table = tables.build("table3", store, "reduced")
    assert (
        row(table.levels, Split="dev", Source="ours (reduced)", Method="MMEL-H")["CoLA (ours: subset)"] == "40.00 (1)"
    )
    assert any(runs[1].run_id in note for note in table.notes)


# Times, seeds, curves.


def test_times_are_compared_on_one_device_only(store):
    for task, method, seconds, device in (
        ("cola", "baseline", 10.0, "a"),
        ("rte", "baseline", 30.0, "a"),
        ("cola", "mmel_h", 45.0, "a"),
        ("rte", "mmel_h", 600.0, "b"),
        ("cola", "mmel_s", 45.0, "b"),
    ):
        write_run(store, text_run(task, method), 50.0, train_seconds=seconds, device=device)
    times = tables.training_time(store, "table3", "mini").set_index(["Task", "Method"])
    assert times["Ratio to Baseline"].to_dict() == {
        ("CoLA (miniature)", "Baseline"): "1.0",
        ("CoLA (miniature)", "MMEL-H"): "4.5",
        ("CoLA (miniature)", "MMEL-S"): "-",
        ("RTE (miniature)", "Baseline"): "1.0",
        ("RTE (miniature)", "MMEL-H"): "-",
    }
    # 31.8 h and 21.5 h.
    assert times.loc[("CoLA (miniature)", "MMEL-H"), "Paper's ratio, all tasks, V100"] == "1.5"
    levels = tables.build("table3", store, "mini").levels
    dev = levels[(levels["Split"] == "dev") & (levels["Source"] == "ours (mini)")].set_index("Method")
    assert dev["Time (ratio to Baseline)"]["MMEL-H"] == "45 s (4.5, 1 of 8 tasks)"
    assert dev["Time (ratio to Baseline)"]["MMEL-S"] == "-"


def test_the_ratio_of_mixed_devices_is_of_one_of_them(store):
    """The baseline's median is of a run on one device, the method's of one on another."""
    base = {"a": [100.0, 102.0], "b": [10.0]}
    mine = {"a": [300.0], "b": [40.0, 44.0]}
    for method, by_device in (("baseline", base), ("mmel_h", mine)):
        took = [(device, value) for device, values in by_device.items() for value in values]
        runs = [run for run in reported("table3", "reduced") if (run.dataset, run.method) == ("cola", method)]
        for run, (device, value) in zip(runs, took, strict=True):
            write_run(store, run, 40.0, device=device, train_seconds=value)
    times = tables.training_time(store, "table3", "reduced").set_index(["Method", "Device"])
    assert times["Ratio to Baseline"].to_dict() == {
        ("Baseline", "a"): "1.0",
        ("Baseline", "b"): "1.0",
        ("MMEL-H", "a"): "3.0",
        ("MMEL-H", "b"): "4.2",
    }
    assert times["n"].to_dict() == {("Baseline", "a"): 2, ("Baseline", "b"): 1, ("MMEL-H", "a"): 1, ("MMEL-H", "b"): 2}
    levels = tables.build("table3", store, "reduced").levels
    ours = row(levels, Split="dev", Source="ours (reduced)", Method="MMEL-H")
    # On b, where it has most of its runs.
    assert ours["Time (ratio to Baseline)"] == "42 s (4.2, 1 of 4 tasks)"


def test_times_on_a_cpu_are_said_to_be_no_measure(store):
    run = reported("table3", "reduced")[0]
    for threads, said in ((None, False), (1, True)):
        write_run(store, run, 40.0, threads=threads)
        notes = tables.build("table3", store, "reduced").notes
        assert any("no measure of cost" in note for note in notes) is said


# Bold, and which evaluation is shown.


def bold(table, **wanted):
    """The headings of the bold cells of one row."""
    place = row(table.levels, **wanted).name
    return [heading for heading in table.levels if table.best.loc[place, heading]]


def test_the_highest_of_a_column_is_bold_ours_and_the_papers_apart(store):
    scores = {("cola", "mmel_h"): [40.0, 42.0], ("cola", "mmel_s"): [41.0], ("cola", "baseline"): [39.0]}
    write_reduced(store, scores | {("rte", "baseline"): [66.0]})
    table = tables.build("table3", store, "reduced")
    assert table.best.shape == table.levels.shape
    ours = {"Split": "dev", "Source": "ours (reduced)"}
    # The two have the same mean; of RTE one method alone has runs.
    for method in ("MMEL-H", "MMEL-S"):
        assert bold(table, **ours, Method=method) == ["CoLA (ours: subset)"]
    assert bold(table, **ours, Method="Baseline") == []
    paper = {"Split": "dev", "Source": "paper"}
    assert bold(table, **paper, Method="MMEL-H") == ["CoLA (ours: subset)", "STS-B (ours: subset)", "QQP"]
    assert bold(table, **paper, Method="Baseline(DA+Long)") == ["RTE (ours: subset)"]
    assert bold(table, **paper | {"Split": "test"}, Method="MMEL-S") == [
        "SST-2",
        "MNLI-m",
        "RTE (ours: subset)",
    ]
    assert "Bold is the highest mean of a column, ours and the paper's apart, which is no claim." in table.caption


def test_the_best_epoch_is_shown_where_it_is_asked_for_and_said(store):
    runs = [run for run in reported("table3", "reduced") if (run.dataset, run.method) == ("cola", "mmel_h")]
    base = next(run for run in reported("table3", "reduced") if (run.dataset, run.method) == ("cola", "baseline"))
    for run in runs[:2]:
        write_run(store, run, history=[46.0 + run.seed, 40.0])
    write_run(store, base, history=[39.0, 41.0])
    last, best = (tables.build("table3", store, "reduced", select) for select in ("last", "best"))
    cells = [row(t.levels, Split="dev", Source="ours (reduced)", Method="MMEL-H") for t in (last, best)]
    assert [cell["CoLA (ours: subset)"] for cell in cells] == ["40.00 ± 0.00 (2)", "46.50 ± 0.71 (2)"]
    contrasts = [row(t.contrasts, Task="CoLA (subset)", Contrast="MMEL-H − Baseline") for t in (last, best)]
    assert [found["Ours [95 %]"] for found in contrasts] == ["-1.00", "+5.50"]
    assert "after the last epoch" in last.caption
    assert "at the best epoch, chosen on these very data and so an optimistic figure" in best.caption
    assert "after the last epoch" not in best.caption
    assert tables.seeds(store, "table3", "reduced", "best")["score"].tolist() == [41.0, 46.0, 47.0]


def test_runs_split_for_memory_stand_in_the_table_where_they_are_asked_for(store):
    run = next(run for run in reported("table3", "reduced") if (run.dataset, run.method) == ("cola", "mmel_h"))
    write_run(store, run, 40.0, micro_batch=4)
    table = tables.build("table3", store, "reduced", include_split=True)
    ours = row(table.levels, Split="dev", Source="ours (reduced)", Method="MMEL-H")
    assert ours["CoLA (ours: subset)"] == "40.00 (1)"
    assert any(note.startswith("Included, although memory forced") and run.run_id in note for note in table.notes)
    assert len(tables.seeds(store, "table3", "reduced", include_split=True)) == 1
    assert len(tables.training_time(store, "table3", "reduced", include_split=True)) == 1


def test_seeds_lists_every_run_with_its_settings():
    seeds = tables.seeds(Store(FROZEN), "table6", "mini")
    found = row(seeds, task="CoLA (miniature)", method="mmel_h", fill="beam", mask_ratio=0.2)
    assert (found["score"], found["metric"], found["pair_mode"]) == (43.0, "matthews_pct", "separate")
    assert "score_mm" not in seeds
    mnli = row(tables.seeds(Store(FROZEN), "table3", "mini"), task="MNLI (miniature)", method="mmel_h")
    assert (mnli["score"], mnli["score_mm"], mnli["test_score"], mnli["test_score_mm"]) == (68.0, 67.0, 68.0, 66.0)


def test_figure2_is_its_curves(built):
    frame = built["figure2"].levels
    assert list(frame) == ["task", "dataset", "method", "metric", "epoch", "mean", "min", "max", "num_runs"]
    found = frame[(frame["dataset"] == "grammar_cola") & (frame["method"] == "mmel_h")]
    assert found[["epoch", "mean"]].to_numpy().tolist() == [[1.0, 41.0], [2.0, 46.0]]
    assert set(frame["task"]) == {f"{word} (miniature)" for word in GLUE_WORDS}
    assert "baseline_da_long" not in set(frame["method"])
    assert built["figure2"].contrasts.empty


def test_figure2_reads_fractions_of_an_epoch(store):
    run = next(run for run in reported("figure2", "reduced") if run.evals_per_epoch == 2)
    write_run(store, run, history=[10.0, 20.0, 30.0])
    assert tables.build("figure2", store, "reduced").levels["epoch"].tolist() == [0.5, 1.0, 1.5]


# The paper's cells and Table 7.


def test_paper_cells_have_every_column():
    for name in TEXT_TABLES:
        for columns in paper_cells(name).values():
            assert list(columns) == [*COLUMNS, "avg"]


def test_table7_is_the_papers_in_the_papers_profile():
    table = hyperparameters.table7("paper")
    assert set(table["Differs"]) == {""}
    assert len(table) == 12
    assert row(table, Hyperparameter="Learning Rate")["MMEL-H, ours (paper)"] == "3e-05"
    assert row(table, Hyperparameter="Attention Probability Dropout Rate")["MMEL-S, ours (paper)"] == "{0, 0.1}"
    assert row(table, Hyperparameter="Max Epochs (MNLI, QQP)")["MMEL-H, ours (paper)"] == "3"


def test_table7_flags_what_differs():
    run = next(run for run in table3("mini") if run.method == "mmel_h")
    table = hyperparameters.table7("mini")
    found = row(table, Hyperparameter="Learning Rate")
    assert (found["MMEL-H, ours (mini)"], found["Differs"]) == (f"{run.lr:g}", "MMEL-H, MMEL-S")
    assert row(table, Hyperparameter="Weight Decay")["Differs"] == ""
    # `reduced` has neither MNLI nor QQP.
    found = row(hyperparameters.table7("reduced"), Hyperparameter="Max Epochs (MNLI, QQP)")
    assert (found["MMEL-H, ours (reduced)"], found["Differs"]) == ("-", "")


def test_what_table7_says_of_code_is_what_the_code_does():
    import torch

    from mmel.train.text import TextTask

    rows = {line["Hyperparameter"]: line for line in hyperparameters.table7().to_dict("records")}
    assert rows["Learning Rate Decay"]["MMEL-H, ours (paper)"] == "Linearly"
    assert rows["Warmup Ratio"]["MMEL-H, ours (paper)"] == "0"
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=8.0)
    scheduler = TextTask.build_scheduler(None, optimizer, 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([8.0, 6.0, 4.0, 2.0])
