import pandas as pd
import pytest
from invented import (
    COLUMN_TASKS,
    DEVICE,
    FAILED_TEXT,
    FROZEN,
    GOLDEN,
    IMAGENET_RUNS,
    RUNS,
    TEXT_RUNS,
    VARIED_RUNS,
    golden_frames,
    imagenet_run,
    mini_run,
    text_run,
    write_run,
)
from scipy import stats

from mmel.config import IMAGE_METHODS
from mmel.grids import float32_checks, table1
from mmel.methods import LABELS
from mmel.records import Store
from mmel.report import image_tables, tables

FAILED = [mini_run("resnet8", "mmel_s", 5, 1), mini_run("resnet8", "mmel_s", 20, 0)]
SPLIT = mini_run("resnet14", "mmel_s", 5, 1)
EMPTY_NOTE = "no runs recorded yet"

IMAGE_TABLES = ("table1", "table2")
each_table = pytest.mark.parametrize("name", IMAGE_TABLES)


@pytest.fixture(scope="module")
def frozen():
    return Store(FROZEN)


@pytest.fixture(scope="module")
def built(frozen):
    return {name: tables.build(name, frozen, "mini") for name in IMAGE_TABLES}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def row(frame, **wanted):
    """The one row of a frame with some values."""
    for column, value in wanted.items():
        frame = frame[frame[column.replace("_", " ")] == value]
    assert len(frame) == 1, wanted
    return frame.iloc[0]


def test_a_method_that_the_paper_has_not_stands_in_our_rows_alone(frozen, monkeypatch):
    whole = image_tables.paper_table
    monkeypatch.setattr(
        image_tables,
        "paper_table",
        lambda name: whole(name).query("method != 'baseline_da_long'").reset_index(drop=True),
    )
    contrasts = [pair for pair in image_tables.TABLE1_CONTRASTS if "baseline_da_long" not in pair]
    monkeypatch.setattr(image_tables, "TABLE1_CONTRASTS", contrasts)
    levels = tables.build("table1", frozen, "mini").levels
    long = levels.set_index("Source")[LABELS["baseline_da_long"]]
    assert long["ours (mini)"].str.match(r"\d\d\.\d\d").any()
    assert set(long["paper"]) == {""}
    assert (levels.set_index("Source")[LABELS["mmel_h"]]["paper"] != "").all()


# The tables of the frozen runs, to the letter.


@pytest.fixture(scope="module")
def frames(frozen):
    return golden_frames(frozen)


@pytest.mark.parametrize("file", sorted(path.name for path in GOLDEN.glob("*.csv")))
def test_golden(frames, file):
    assert frames[file] == (GOLDEN / file).read_bytes().decode()


def test_golden_has_every_table(frames):
    assert {path.name for path in GOLDEN.iterdir()} == set(frames)


def test_the_frozen_runs_are_those_of_the_list(frozen):
    # Changing SCHEMA renames the runs of the grid: the frozen ones are then missing from it.
    recorded = {record.config for record in frozen.records("mini")}
    texts = {
        text_run(task, method)
        for method, (dev, _, _) in TEXT_RUNS.items()
        for task, score in zip(COLUMN_TASKS, dev, strict=True)
        if score is not None and task != "mnli_mm"
    }
    varied = {text_run(task, method, **fields) for task, method, fields, _ in VARIED_RUNS}
    images = {mini_run(*cell) for cell in RUNS} | {imagenet_run(method) for method in IMAGENET_RUNS}
    assert recorded == images | texts | varied | {text_run(*FAILED_TEXT)}
    assert {record.header["device"]["name"] for record in frozen.records("mini")} == {DEVICE}
    assert all(frozen.run_path(config).exists() for config in recorded)


# Some cells worked out by hand from the list in invented.py.


def test_levels_by_hand(built):
    ours = row(built["table1"].levels, Source="ours (mini)", Model="ResNet-8")
    # 340 and 342 of 360 images: 94.444 and 95.000.
    assert ours["Baseline(DA)"] == "94.72 ± 0.39 (2)"
    # 349 and 350.
    assert ours["MMEL-H"] == "97.08 ± 0.20 (2)"
    # 346; the second run failed.
    assert ours["MMEL-S"] == "96.11 (1)"
    other = row(built["table1"].levels, Source="ours (mini)", Model="ResNet-14")
    # 350; the second run was split for memory.
    assert other["MMEL-S"] == "97.22 (1)"
    assert other["Baseline(DA+Long)"] == "-"


def test_table5_by_hand(frozen):
    table = tables.build("table5", frozen, "mini")
    ours = row(table.levels, Source="ours (mini)", Model="ResNet-18 (narrow)")
    # 200 and 207 of 360 images.
    assert (ours["Baseline(DA)"], ours["MMEL-H"], ours["MMEL-S"]) == ("55.56 (1)", "57.50 (1)", "-")
    theirs = row(table.levels, Source="paper", Model="ResNet-50")
    assert (theirs["Baseline(DA)"], theirs["MMEL-H"], theirs["MMEL-S"]) == ("76.15 (1)", "76.53 (1)", "74.82 (1)")
    found = row(table.contrasts, Contrast="MMEL-H − Baseline(DA)")
    assert (found["Ours [95 %]"], found["Verdict"]) == ("+1.94", "undecided")
    assert found["Paper [95 %]"] == "+0.38 to +1.08 over 3 cells"
    assert table.missing == ["Drawings, ResNet-18 (narrow), MMEL-S: 0 of 1 runs"]
    assert [note for note in table.notes if "sample of 1437 training and 360 validation images" in note]


def test_images_that_could_not_be_decoded_are_told(store):
    config = imagenet_run("mmel_h")
    write_run(store, config, 50.0)
    path = store.run_path(config)
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "finished", "num_unreadable": 3'))
    notes = tables.build("table5", store, "mini").notes
    assert [note for note in notes if note.startswith("Up to 3 images a run could not be decoded")]


def test_contrasts_by_hand(built):
    contrasts = built["table1"].contrasts
    # 97.083 - 94.722, variances of a mean 0.01929 and 0.07716, 1.47 degrees of freedom.
    half = stats.t.ppf(0.975, 25 / 17) * (5 * 0.5 * (100 / 360) ** 2 / 2) ** 0.5
    found = row(contrasts, Model="ResNet-8", Contrast="MMEL-H − Baseline(DA)")
    assert found["Ours [95 %]"] == f"+2.36 [{2.3611 - half:+.2f}, {2.3611 + half:+.2f}]"
    assert (found["n"], found["Verdict"]) == ("2 + 2", "holds")
    # 346.5 - 351.5 images; equal variances, 2 degrees of freedom, t = 4.303, standard error 0.1964.
    found = row(contrasts, Model="ResNet-14", Contrast="MMEL-H − Baseline(DA+UNI)")
    assert found["Ours [95 %]"] == "-1.39 [-2.23, -0.54]"
    assert found["Verdict"] == "contradicted"
    # One run a side: a difference, and no interval.
    found = row(contrasts, Model="ResNet-14", Contrast="MMEL-S − Baseline(DA)")
    assert (found["Ours [95 %]"], found["n"], found["Verdict"]) == ("+1.67", "1 + 2", "undecided")
    found = row(contrasts, Model="ResNet-14", Contrast="MMEL-H − Baseline(DA+Long)")
    assert (found["Ours [95 %]"], found["n"], found["Verdict"]) == ("no runs yet", "", "")


def test_the_papers_contrasts_stand_beside_ours(built):
    # On another data set than the paper's its range: the least and the most that Table 1 prints over its eight rows.
    found = row(built["table1"].contrasts, Model="ResNet-8", Contrast="MMEL-S − Baseline(DA)")
    assert found["Paper [95 %]"] == "+0.47 to +1.91 over 8 cells"
    found = row(built["table1"].contrasts, Model="ResNet-8", Contrast="Baseline(DA+UNI) − Baseline(DA)")
    assert found["Paper [95 %]"] == "-0.06 to +1.22 over 8 cells"
    # MMEL-S with K = 20 against K = 10: ResNet-32 on CIFAR-100 loses most, 72.57 - 72.00.
    found = row(built["table2"].contrasts, Contrast="MMEL-S-20 − MMEL-S-10")
    assert found["Paper [95 %]"] == "-0.57 to +0.08 over 8 cells"


@pytest.mark.parametrize(
    ("name", "contrast", "expected"),
    [
        ("table1", "MMEL-H − Baseline(DA)", (0.63, 0.03, 0.10)),
        ("table1", "MMEL-S − Baseline(DA+UNI)", (0.10, 0.18, 0.16)),
        ("table2", "MMEL-H-20 − MMEL-H-10", (0.41, 0.04, 0.03)),
        ("table2", "MMEL-S-2 − Baseline(DA)", (0.38, 0.21, 0.10)),
    ],
)
def test_on_the_papers_data_set_and_model_its_own_interval_stands(store, name, contrast, expected):
    difference, *deviations = expected
    v1, v2 = (deviation**2 / 5 for deviation in deviations)
    freedom = (v1 + v2) ** 2 / (v1**2 / 4 + v2**2 / 4)
    half = stats.t.ppf(0.975, freedom) * (v1 + v2) ** 0.5
    contrasts = tables.build(name, store, "paper").contrasts
    found = row(contrasts, Data_set="CIFAR-10", Model="ResNet-20", Contrast=contrast)
    assert found["Paper [95 %]"] == f"{difference:+.2f} [{difference - half:+.2f}, {difference + half:+.2f}]"


def test_the_papers_long_baseline_has_no_interval(store):
    contrasts = tables.build("table1", store, "paper").contrasts
    found = row(contrasts, Data_set="CIFAR-10", Model="ResNet-44", Contrast="MMEL-H − Baseline(DA+Long)")
    assert found["Paper [95 %]"] == "+0.59"


# What is not recorded, and what is left out, is said.


def test_what_is_missing_is_listed_cell_by_cell(built):
    assert built["table1"].missing == [
        "Digits, ResNet-8, MMEL-S: 1 of 2 runs",
        "Digits, ResNet-14, Baseline(DA+Long): 0 of 2 runs",
        "Digits, ResNet-14, MMEL-S: 1 of 2 runs",
    ]
    assert built["table2"].missing == [
        "Digits, ResNet-8, MMEL-S-2: 0 of 2 runs",
        "Digits, ResNet-8, MMEL-S-5: 1 of 2 runs",
        "Digits, ResNet-8, MMEL-H-10: 1 of 2 runs",
        "Digits, ResNet-8, MMEL-S-10: 0 of 2 runs",
        "Digits, ResNet-8, MMEL-H-20: 0 of 2 runs",
        "Digits, ResNet-8, MMEL-S-20: 0 of 2 runs",
    ]


def test_failed_and_split_runs_are_named(built):
    failed = {name: [note for note in table.notes if note.startswith("Failed")] for name, table in built.items()}
    assert failed == {
        "table1": [f"Failed and left out: {FAILED[0].run_id}."],
        "table2": [f"Failed and left out: {', '.join(run.run_id for run in FAILED)}."],
    }
    split = [note for note in built["table1"].notes if "memory" in note]
    assert split == [f"Left out because memory forced smaller BatchNorm batches: {SPLIT.run_id}."]
    assert not any("memory" in note for note in built["table2"].notes)


def test_no_note_about_what_did_not_happen(store):
    for run in table1("mini"):
        write_run(store, run, 95.0 + run.seed)
    table = tables.build("table1", store, "mini")
    assert table.missing == []
    assert not any(word in note for note in table.notes for word in ("Failed", "memory", "uncommitted"))


def test_runs_of_changed_code_are_said(store):
    write_run(store, table1("mini")[0], 95.0, dirty=True)
    assert any("uncommitted changes" in note for note in tables.build("table1", store, "mini").notes)


def test_the_sampling_error_of_the_test_set_is_said(built):
    # 94.72 % of 360 images, the largest of the cells': 1.18 points.
    assert any("standard error of up to 1.2 points" in note for note in built["table1"].notes)


@each_table
def test_no_runs_at_all_is_said_plainly(store, name):
    table = tables.build(name, store, "mini")
    assert f"profile mini: {EMPTY_NOTE}." in table.caption
    ours = table.levels[table.levels["Source"] == "ours (mini)"]
    cells = ours.drop(columns=["Source", "Data set", "Model"])
    assert len(ours) >= 1
    assert set(cells.to_numpy().flatten()) == {"-"}
    assert set(table.contrasts["Ours [95 %]"]) == {"no runs yet"}
    assert set(table.contrasts["Verdict"]) == {""}
    # The paper's numbers are there all the same.
    assert len(table.levels) == len(ours) + 8
    assert len(table.missing) == cells.size
    assert all(": 0 of 2 runs" in line for line in table.missing)
    assert not any("standard error" in note for note in table.notes)


def test_no_runs_give_empty_frames_that_show_says_so_of(store):
    for frame in (
        tables.training_time(store, "table1", "mini"),
        tables.training_time(store, "table2", "mini"),
        tables.seeds(store, "table1", "mini"),
    ):
        assert frame.empty
        assert "Nothing recorded yet" in tables.show(frame).data


# Captions, notes and columns.


@each_table
def test_captions_say_on_what_and_where(built, name):
    assert built[name].caption.startswith(f"Table {name[-1]} (")
    assert "profile mini" in built[name].caption
    assert "Digits: 500 training and 360 test images, 20 epochs" in built[name].caption
    assert built[name].caption.endswith(f"Trained on {DEVICE}.")


def test_captions_name_every_device(store):
    for run, device in zip(table1("mini"), ("GPU b", "GPU a"), strict=False):
        write_run(store, run, 95.0, device=device)
    assert tables.build("table1", store, "mini").caption.endswith("Trained on GPU a, GPU b.")


@each_table
@pytest.mark.parametrize(("profile", "noted"), [("mini", True), ("reduced", True), ("paper", False)])
def test_scaled_down_profiles_say_so(store, name, profile, noted):
    notes = tables.build(name, store, profile).notes
    assert any(note.startswith(f"Profile `{profile}` is scaled down") for note in notes) is noted
    assert any("Only contrasts stand beside contrasts." in note for note in notes) is noted


@pytest.mark.parametrize("profile", ["mini", "reduced", "paper"])
def test_columns_are_the_papers(store, profile):
    first, second = (tables.build(name, store, profile).levels for name in IMAGE_TABLES)
    fixed = ["Source", "Data set", "Model"]
    assert list(first.columns) == [*fixed, *(LABELS[method] for method in IMAGE_METHODS)]
    growing = [f"MMEL-{kind}-{k}" for k in (2, 5, 10, 20) for kind in "HS"]
    assert list(second.columns) == [*fixed, "Baseline(DA)", *growing]


def test_the_papers_rows_are_its_numbers(built):
    found = row(built["table1"].levels, Source="paper", Data_set="CIFAR-100", Model="ResNet-32")
    assert found["MMEL-S"] == "72.57 ± 0.20 (5)"
    assert found["Baseline(DA+Long)"] == "71.98 (1)"
    found = row(built["table2"].levels, Source="paper", Data_set="CIFAR-10", Model="ResNet-44")
    assert found["MMEL-H-20"] == "94.70 ± 0.20 (5)"


def test_held_out_accuracies_are_never_shown(store):
    # The runs that choose lambda_t are evaluated on training images.
    candidates = [run for run in table1("paper") if run.holdout]
    for run in candidates:
        write_run(store, run, 95.0)
    assert f"{EMPTY_NOTE}." in tables.build("table1", store, "paper").caption
    assert tables.seeds(store, "table1", "paper").empty
    assert tables.training_time(store, "table1", "paper").empty
    assert set(tables.claim_tests(store, "paper")["Runs"]) == {0}


def test_a_float32_run_stands_beside_its_cell_and_is_not_averaged(store):
    checks = float32_checks("table1", "paper")
    assert f"Float32 beside bf16: none of {len(checks)} runs yet." in tables.build("table1", store, "paper").notes
    (check,) = (run for run in checks if (run.dataset, run.model, run.method) == ("cifar10", "resnet20", "mmel_h"))
    write_run(store, check, 93.4)
    for seed, score in ((0, 93.0), (1, 94.0)):
        write_run(store, check.replace(precision="bf16", seed=seed), score)
    table = tables.build("table1", store, "paper")
    ours = row(table.levels, Source="ours (paper)", Model="ResNet-20", **{"Data set": "CIFAR-10"})
    assert ours["MMEL-H"] == "93.50 ± 0.71 (2)"
    (note,) = (note for note in table.notes if note.startswith("Float32"))
    assert note.startswith(f"Float32 beside bf16, seed 0, 1 of {len(checks)} runs: CIFAR-10, ResNet-20, MMEL-H 93.40 (")
    assert note.endswith("(bf16: 93.50 ± 0.71 (2)).")
    assert not any("Float32" in note for note in tables.build("table1", store, "reduced").notes)


# Times, tests over models, seeds.


def test_times_are_compared_on_one_device_only(store):
    for cell, seconds, device in (
        (("resnet8", "baseline_da", 1, 0), 10.0, "GPU a"),
        (("resnet8", "mmel_h", 5, 0), 45.0, "GPU a"),
        (("resnet8", "mmel_s", 5, 0), 5400.0, "GPU b"),
        (("resnet14", "mmel_h", 5, 0), 30.0, "GPU a"),
    ):
        write_run(store, mini_run(*cell), 95.0, train_seconds=seconds, device=device)
    times = tables.training_time(store, "table1", "mini").set_index(["Model", "Method"])
    ratio = times["Ratio to Baseline(DA)"]
    assert ratio["ResNet-8", "MMEL-H"] == "4.5"
    assert ratio["ResNet-8", "MMEL-S"] == "-"
    # No baseline of this model is recorded.
    assert ratio["ResNet-14", "MMEL-H"] == "-"
    assert times.loc[("ResNet-8", "MMEL-S"), "Training"] == "1.5 h"
    assert times.loc[("ResNet-8", "MMEL-S"), "Device"] == "GPU b"


def test_the_ratio_of_mixed_devices_is_of_one_of_them(store):
    for cell, seconds, threads in (
        (("resnet8", "baseline_da", 1, 0), 10.0, 1),
        (("resnet8", "baseline_da", 1, 1), 4.0, 2),
        (("resnet8", "mmel_h", 5, 0), 50.0, 1),
        (("resnet8", "mmel_h", 5, 1), 60.0, 1),
    ):
        write_run(store, mini_run(*cell), 95.0, train_seconds=seconds, device="cpu", threads=threads)
    times = tables.training_time(store, "table1", "mini").set_index(["Method", "Device"])
    assert times["Ratio to Baseline(DA)"].to_dict() == {
        ("Baseline(DA)", "cpu, 1 thread"): "1.0",
        ("Baseline(DA)", "cpu, 2 threads"): "1.0",
        ("MMEL-H", "cpu, 1 thread"): "5.5",
    }
    assert tables.build("table1", store, "mini").caption.endswith("Trained on cpu (1 or 2 threads).")


def test_the_papers_times_stand_beside_ours_where_it_has_the_cell(store):
    for run in table1("paper"):
        if run.dataset == "cifar100" and run.model == "resnet56" and run.seed == 0 and not run.holdout:
            write_run(store, run, 70.0, train_seconds=3600.0)
    times = tables.training_time(store, "table1", "paper").set_index("Method")
    assert times["Paper, K = 10, V100"].to_dict() == {
        "Baseline(DA)": "1.1 h",
        "Baseline(DA+Long)": "10.6 h",
        "Baseline(DA+UNI)": "7.0 h",
        "MMEL-H": "7.0 h",
        "MMEL-S": "7.0 h",
    }
    # 10.6 / 1.1 and 7.0 / 1.1.
    assert times["Paper's ratio"].to_dict()["Baseline(DA+Long)"] == "9.6"
    assert times["Paper's ratio"].to_dict()["MMEL-H"] == "6.4"


def test_claims_of_table_2_are_over_all_models(frozen):
    tests = tables.claim_tests(frozen, "mini", "table2").set_index("Contrast")
    assert list(tests.index[[0, -1]]) == ["MMEL-H-5 − MMEL-H-2", "MMEL-S-20 − Baseline(DA)"]
    # 349 and 350 of 360 against 341 and 344: 6 labellings, of which 2 are as extreme.
    found = tests.loc["MMEL-H-5 − MMEL-H-2"]
    assert (found["Strata"], found["Runs"], found["Mean difference"]) == (1, 4, "+1.94")
    assert float(found["p (two-sided)"]) == pytest.approx(1 / 3, abs=0.015)
    assert tests.loc["MMEL-H-10 − MMEL-H-5", "Left out, under 2 runs a side"] == "Digits, ResNet-8: 1 + 2 runs"


def test_claims_over_all_models_by_hand(frozen):
    tests = tables.claim_tests(frozen, "mini").set_index("Contrast")
    # Two models with 2 + 2 runs: 36 labellings, of which 2 are as extreme.
    found = tests.loc["MMEL-H − Baseline(DA)"]
    assert (found["Strata"], found["Runs"]) == (2, 8)
    assert found["Mean difference"] == "+1.53"
    assert float(found["p (two-sided)"]) == pytest.approx(2 / 36, abs=0.005)
    # One model alone has both: 6 labellings, of which 2 are as extreme.
    found = tests.loc["MMEL-H − Baseline(DA+Long)"]
    assert (found["Strata"], found["Runs"]) == (1, 4)
    assert float(found["p (two-sided)"]) == pytest.approx(1 / 3, abs=0.015)
    left_out = "Left out, under 2 runs a side"
    assert found[left_out] == "Digits, ResNet-14: 2 + 0 runs"
    assert tests.loc["MMEL-H − Baseline(DA)", left_out] == ""


def test_a_claim_that_cannot_be_tested_yet_is_listed_with_the_reason(frozen, store):
    # MMEL-S has one usable run a model.
    found = tables.claim_tests(frozen, "mini").set_index("Contrast").loc["MMEL-S − Baseline(DA)"]
    assert found.tolist() == [0, 0, "-", "-", "Digits, ResNet-8 / Digits, ResNet-14: 1 + 2 runs"]
    nothing = tables.claim_tests(store, "mini")
    assert nothing["Contrast"].tolist() == tables.claim_tests(frozen, "mini")["Contrast"].tolist()
    assert len(nothing) == 7
    assert set(nothing["p (two-sided)"]) == {"-"}
    assert set(nothing["Left out, under 2 runs a side"]) == {"Digits, ResNet-8 / Digits, ResNet-14: 0 + 0 runs"}


@pytest.mark.parametrize("name", ["table5", "table6", "figure2"])
def test_tables_without_claims_over_models_say_so(store, name):
    with pytest.raises(ValueError, match=f"name must be one of table1, table2, table3, table4, got '{name}'"):
        tables.claim_tests(store, "mini", name)


def test_every_seed_that_the_table_averages_is_listed(frozen):
    runs = tables.seeds(frozen, "table1", "mini")
    cells = [
        (model, method, seed)
        for (model, method, k, seed), (_, _, *rest) in RUNS.items()
        if k in (1, 5) and not {"error", "micro_batch"} & set(rest[0] if rest else {})
    ]
    assert sorted(runs[["model", "method", "seed"]].itertuples(index=False, name=None)) == sorted(cells)
    assert list(runs.index) == list(range(len(cells)))


def bold(table, **wanted):
    """The headings of the bold cells of one row."""
    place = row(table.levels, **wanted).name
    return [heading for heading in table.levels if table.best.loc[place, heading]]


def test_the_highest_mean_of_a_row_is_bold(built, frozen):
    table = built["table1"]
    assert table.best.shape == table.levels.shape
    assert bold(table, Source="ours (mini)", Model="ResNet-8") == ["MMEL-H"]
    # The printed table has 72.51 in bold.
    assert bold(table, Source="paper", Data_set="CIFAR-100", Model="ResNet-32") == ["MMEL-S"]
    assert "Bold is the highest mean of a row, which is no claim." in table.caption
    assert bold(tables.build("table5", frozen, "mini"), Source="ours (mini)") == ["MMEL-H"]


def test_all_that_tie_are_bold_and_none_that_stands_alone(store):
    for cell, score in (
        (("resnet8", "mmel_h", 5, 0), 97.001),
        (("resnet8", "mmel_s", 5, 0), 97.004),
        (("resnet8", "baseline_da", 1, 0), 95.0),
        (("resnet14", "mmel_h", 5, 0), 99.0),
    ):
        write_run(store, mini_run(*cell), score)
    table = tables.build("table1", store, "mini")
    # They print alike: 97.00.
    assert bold(table, Source="ours (mini)", Model="ResNet-8") == ["MMEL-H", "MMEL-S"]
    assert bold(table, Source="ours (mini)", Model="ResNet-14") == []


def test_the_best_epoch_is_shown_where_it_is_asked_for(store):
    write_run(store, mini_run("resnet8", "mmel_h", 5, 0), history=[96.0, 95.0])
    write_run(store, mini_run("resnet8", "mmel_h", 5, 1), history=[97.0, 94.0], micro_batch=8)
    table = tables.build("table1", store, "mini", select="best", include_split=True)
    assert row(table.levels, Source="ours (mini)", Model="ResNet-8")["MMEL-H"] == "96.50 ± 0.71 (2)"
    assert "at the best epoch, chosen on these very data and so an optimistic figure" in table.caption
    claims = tables.claim_tests(store, "mini", "table1", select="best", include_split=True)
    assert "2 + 0 runs" in claims["Left out, under 2 runs a side"][0]


def test_the_table_of_contrasts_prints_the_claims(built, frozen):
    for name in IMAGE_TABLES:
        table = built[name]
        assert [claim.label for claim in table.claims] == table.contrasts["Contrast"].tolist()
        for claim, printed in zip(table.claims, table.contrasts["Ours [95 %]"], strict=True):
            start = "no runs yet" if claim.ours is None else f"{claim.ours.difference:+.2f}"
            assert printed.startswith(start)


def test_show_is_the_same_at_every_execution():
    frame = pd.DataFrame({"Model": ["ResNet-8"], "n": [float("nan")]})
    shown = tables.show(frame).data
    assert shown == tables.show(frame).data
    assert "<td>ResNet-8</td>" in shown
    # What is not there is left blank.
    assert "nan" not in shown.lower()


def test_show_escapes_its_text_and_sets_the_best_in_bold():
    frame = pd.DataFrame({"a < b": ["x & y", "-1.50 [-2.00, +1.00]"], "score": [81.0, 80.123456]})
    best = pd.DataFrame({"a < b": [False, False], "score": [True, False]})
    shown = tables.show(frame, best).data
    assert "<th>a &lt; b</th>" in shown
    assert "<td>x &amp; y</td>" in shown
    # As wide as a plus sign; a hyphen elsewhere stays.
    assert "<td>−1.50\N{NO-BREAK SPACE}[−2.00,\N{NO-BREAK SPACE}+1.00]</td>" in shown
    assert "<td><b>81.00</b></td>" in shown
    assert "<td>80.12</td>" in shown
    assert shown.count("<b>") == 1
