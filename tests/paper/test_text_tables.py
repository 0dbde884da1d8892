import math
from importlib import resources

import pytest

from mmel.report.aggregate import paper_table

COLUMNS = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli_mm", "qnli", "rte", "avg"]
NINE = COLUMNS[:-1]
METHODS = ["baseline", "baseline_da_long", "baseline_da_uni", "smart", "mmel_h", "mmel_s"]
TESTED = [method for method in METHODS if method != "smart"]
PARTS = [*(("dev", method) for method in METHODS), *(("test", method) for method in TESTED)]
LABELS = [(method, source) for method in ("mmel_h", "mmel_s") for source in ("original", "predicted")]
SETTINGS = [
    (method, fill, pair_mode, ratio)
    for method in ("mmel_h", "mmel_s")
    for fill in ("greedy", "beam")
    for pair_mode in ("separate", "joint")
    for ratio in (0.2, 0.4)
]
NO_SETTING = ("baseline", "", "", "")
KEYS = {
    "table3": ["split", "method"],
    "table4": ["method", "label_source"],
    "table6": ["method", "fill", "pair_mode", "mask_ratio"],
}


def wide(name, value="score"):
    """A paper table as a mapping: row -> column -> number, in the file's order."""
    table = paper_table(name)
    if name == "table6":
        table[KEYS[name]] = table[KEYS[name]].astype(object).where(table[KEYS[name]].notna(), "")
    rows = {}
    for line in table.to_dict("records"):
        row = rows.setdefault(tuple(line[key] for key in KEYS[name]), {})
        assert line["dataset"] not in row, line
        row[line["dataset"]] = line[value]
    return rows


@pytest.fixture(scope="module")
def table3():
    return wide("table3")


@pytest.fixture(scope="module")
def table4():
    return wide("table4")


@pytest.fixture(scope="module")
def table6():
    return wide("table6")


def mean(row):
    return sum(row[column] for column in NINE) / 9


def off(table):
    """Rows whose printed Avg is not the mean of their nine columns, and that mean to two decimals."""
    # Means of nine numbers with one decimal never lie on a rounding edge of one decimal.
    return {row: round(mean(cells), 2) for row, cells in table.items() if round(mean(cells), 1) != cells["avg"]}


# Every cell is there once.


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("table3", PARTS, ["split", "method", "dataset", "score", "std", "num_runs", "train_hours_v100"]),
        ("table4", LABELS, ["method", "label_source", "dataset", "score"]),
        ("table6", [NO_SETTING, *SETTINGS], ["method", "fill", "pair_mode", "mask_ratio", "dataset", "score"]),
    ],
)
def test_every_cell_is_there_once(name, rows, columns):
    table = wide(name)
    assert list(paper_table(name).columns) == columns
    assert list(table) == rows
    assert all(list(cells) == COLUMNS for cells in table.values())
    assert len(paper_table(name)) == 10 * len(rows)


def test_five_runs_but_one_of_the_long_baseline_and_none_of_smart():
    table = paper_table("table3")
    alone = table["method"].isin(["baseline_da_long", "smart"])
    assert set(table.loc[alone, "num_runs"]) == {1}
    assert set(table.loc[~alone, "num_runs"]) == {5}
    assert table.loc[alone, "std"].isna().all()
    assert not table.loc[~alone, "std"].isna().any()


# The numbers, against what was worked out from the paper's page apart from these files.


@pytest.mark.parametrize(
    ("name", "sums"),
    [
        ("table3", [751.6, 759.1, 756.8, 755.8, 760.1, 761.0, 716.9, 720.9, 717.3, 725.0, 723.0]),
        ("table4", [702.7, 760.9, 719.8, 762.8]),
        ("table6", [753.0, 757.4, 760.9, 755.0, 759.2, 756.1, 756.9, 755.5, 756.8,
                    757.4, 762.8, 756.2, 759.5, 758.6, 759.8, 756.9, 758.7]),
    ],
)  # fmt: skip
def test_row_sums(name, sums):
    found = [9 * mean(cells) for cells in wide(name).values()]
    assert found == pytest.approx(sums, rel=0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "averages"),
    [
        ("table3", [83.5, 84.3, 84.1, 84.0, 84.5, 84.6, 79.6, 80.1, 79.7, 80.5, 80.3]),
        ("table4", [78.1, 84.5, 80.0, 84.7]),
        ("table6", [83.7, 84.1, 84.5, 84.0, 84.4, 84.0, 84.5, 83.9, 84.1,
                    84.2, 84.7, 84.0, 84.4, 84.2, 84.0, 84.1, 84.3]),
    ],
)  # fmt: skip
def test_printed_averages(name, averages):
    assert [cells["avg"] for cells in wide(name).values()] == averages


@pytest.mark.parametrize(
    ("part", "total", "of_avg"),
    [
        (("dev", "baseline"), 5.13, 0.27),
        (("dev", "baseline_da_uni"), 3.52, 0.14),
        (("dev", "mmel_h"), 2.17, 0.11),
        (("dev", "mmel_s"), 2.12, 0.11),
        (("test", "baseline"), 4.87, 0.09),
        (("test", "baseline_da_uni"), 6.84, 0.50),
        (("test", "mmel_h"), 2.63, 0.17),
        (("test", "mmel_s"), 2.14, 0.10),
    ],
)
def test_row_sums_of_deviations(part, total, of_avg):
    stds = wide("table3", "std")[part]
    assert sum(stds[column] for column in NINE) == pytest.approx(total, rel=0, abs=1e-6)
    assert stds["avg"] == of_avg


def test_training_hours():
    hours = wide("table3", "train_hours_v100")
    expected = dict(zip(METHODS, [21.5, 107.5, 31.6, None, 31.8, 32.4], strict=True))
    for (_, method), cells in hours.items():
        (found,) = {None if math.isnan(hour) else hour for hour in cells.values()}
        assert found == expected[method]


@pytest.mark.parametrize(
    ("cell", "score", "std"),
    [
        (("dev", "baseline", "cola"), 59.7, 0.61),
        (("dev", "baseline", "rte"), 69.7, 2.3),
        (("dev", "baseline_da_long", "rte"), 73.3, None),
        (("dev", "baseline_da_uni", "mrpc"), 87.9, 0.63),
        (("dev", "smart", "mnli"), 85.6, None),
        (("dev", "smart", "mnli_mm"), 86.0, None),
        (("dev", "mmel_h", "qqp"), 91.5, 0.07),
        (("dev", "mmel_h", "rte"), 72.3, 0.85),
        (("dev", "mmel_s", "mnli_mm"), 85.6, 0.02),
        (("dev", "mmel_s", "mrpc"), 88.4, 0.73),
        (("test", "baseline", "qqp"), 71.3, 0.32),
        (("test", "baseline_da_long", "mrpc"), 88.8, None),
        (("test", "baseline_da_uni", "sst2"), 92.3, 0.52),
        (("test", "baseline_da_uni", "rte"), 68.8, 1.76),
        (("test", "mmel_h", "cola"), 53.6, 0.90),
        (("test", "mmel_h", "mnli_mm"), 84.5, 0.15),
        (("test", "mmel_s", "stsb"), 86.1, 0.07),
        (("test", "mmel_s", "qnli"), 91.4, 0.31),
    ],
)
def test_table3_spot_values(table3, cell, score, std):
    part, column = cell[:2], cell[2]
    assert table3[part][column] == score
    found = wide("table3", "std")[part][column]
    assert math.isnan(found) if std is None else found == std


@pytest.mark.parametrize(
    ("cell", "score"),
    [
        (("mmel_h", "original", "cola"), 48.8),
        (("mmel_h", "original", "stsb"), 80.3),
        (("mmel_s", "original", "rte"), 61.0),
        (("mmel_s", "original", "mnli_mm"), 81.3),
        (("mmel_h", "predicted", "rte"), 72.2),
        (("mmel_s", "predicted", "mrpc"), 89.2),
    ],
)
def test_table4_spot_values(table4, cell, score):
    assert table4[cell[:2]][cell[2]] == score


@pytest.mark.parametrize(
    ("cell", "score"),
    [
        ((*NO_SETTING, "rte"), 71.1),
        (("mmel_h", "greedy", "separate", 0.2, "sst2"), 93.1),
        (("mmel_h", "greedy", "joint", 0.2, "rte"), 69.3),
        (("mmel_h", "greedy", "joint", 0.4, "sst2"), 92.7),
        (("mmel_h", "beam", "separate", 0.4, "rte"), 70.3),
        (("mmel_h", "beam", "joint", 0.2, "mnli_mm"), 85.7),
        (("mmel_s", "greedy", "separate", 0.2, "stsb"), 89.5),
        (("mmel_s", "greedy", "joint", 0.2, "mnli_mm"), 86.2),
        (("mmel_s", "beam", "separate", 0.4, "rte"), 73.6),
        (("mmel_s", "beam", "joint", 0.2, "cola"), 62.0),
        (("mmel_s", "beam", "joint", 0.4, "mrpc"), 88.2),
    ],
)
def test_table6_spot_values(table6, cell, score):
    assert table6[cell[:-1]][cell[-1]] == score


def test_table7():
    rows = {row["hyperparameter"]: row for row in paper_table("table7").to_dict("records")}
    assert len(rows) == len(paper_table("table7")) == 12
    # Both methods have the same values throughout.
    assert {name: row["mmel_h"] for name, row in rows.items()} == {name: row["mmel_s"] for name, row in rows.items()}
    fields = {name: (row["field"], row["mmel_h"]) for name, row in rows.items() if isinstance(row["field"], str)}
    assert fields == {
        "Learning Rate": ("lr", "3e-5"),
        "Batch Size": ("batch_size", "32"),
        "Weight Decay": ("weight_decay", "0"),
        "Hidden Layer Dropout Rate": ("hidden_dropout", "{0, 0.1}"),
        "Attention Probability Dropout Rate": ("attention_dropout", "{0, 0.1}"),
        "Max Epochs (MNLI, QQP)": ("epochs", "3"),
        "Max Epochs (Others)": ("epochs", "10"),
        "lambda_T": ("lambda_t", "1.0"),
        "lambda_P": ("lambda_p", "1.0"),
        "Number of Candidates (|B(x_i)|)": ("num_augmented", "5"),
    }
    assert rows["Learning Rate Decay"]["mmel_h"] == "Linearly"
    assert rows["Warmup Ratio"]["mmel_h"] == "0"


# What NOTES.md says of the paper's text.


def test_averages_that_do_not_match(table3, table4, table6):
    assert off(table3) == {("test", "baseline"): 79.66, ("test", "mmel_h"): 80.56}
    assert off(table4) == {("mmel_s", "predicted"): 84.76}
    assert off(table6) == {
        ("mmel_h", "beam", "separate", 0.4): 84.10,
        ("mmel_s", "beam", "separate", 0.4): 84.42,
        ("mmel_h", "greedy", "separate", 0.2): 84.16,
        ("mmel_h", "greedy", "joint", 0.2): 83.89,
        ("mmel_s", "greedy", "separate", 0.4): 84.76,
        ("mmel_s", "beam", "separate", 0.2): 84.29,
    }


def test_averages_that_rounding_does_not_explain(table3, table4, table6):
    # Rounding moves the columns, and so their mean, by 0.05 at most, and the printed mean by as much again.
    wrong = {
        row: cells["avg"]
        for table in (table3, table4, table6)
        for row, cells in table.items()
        if abs(mean(cells) - cells["avg"]) > 0.1
    }
    assert wrong == {
        ("mmel_h", "beam", "separate", 0.4): 84.5,
        ("mmel_s", "beam", "separate", 0.4): 84.0,
        ("mmel_h", "greedy", "joint", 0.2): 84.0,
    }


def test_average_counts_mnli_twice(table3):
    def eight(row):
        return (9 * mean(row) - (row["mnli"] + row["mnli_mm"]) / 2) / 8

    assert [part for part, row in table3.items() if round(eight(row), 1) == row["avg"]] == [("dev", "baseline_da_long")]
    assert len(off(table3)) == 2


def test_two_columns_of_table3_are_the_same_for_both_methods(table3):
    stds = wide("table3", "std")
    h, s = ("dev", "mmel_h"), ("dev", "mmel_s")
    same = [c for c in COLUMNS if (table3[h][c], stds[h][c]) == (table3[s][c], stds[s][c])]
    assert same == ["cola", "stsb"]
    assert [(table3[h][c], stds[h][c]) for c in same] == [(62.1, 0.55), (90.4, 0.14)]


def test_table4_repeats_table6_and_not_table3(table3, table4, table6):
    for method in ("mmel_h", "mmel_s"):
        assert table4[method, "predicted"] == table6[method, "greedy", "separate", 0.4]
        assert table4[method, "predicted"] != table3["dev", method]
    assert table4["mmel_h", "predicted"]["cola"] == 62.8
    assert table6[NO_SETTING]["cola"] == 59.0
    assert table3["dev", "baseline"]["cola"] == 59.7


def below(table, method, baseline):
    """Columns of Table 3, Avg too, where a method is not above a baseline."""
    return {
        split: [c for c in COLUMNS if table[split, method][c] <= table[split, baseline][c]] for split in ("dev", "test")
    }


def test_claims_over_the_baselines(table3):
    assert below(table3, "mmel_h", "baseline_da_long") == {"dev": ["sst2", "mrpc", "rte"], "test": ["mrpc", "stsb"]}
    assert below(table3, "mmel_s", "baseline_da_long") == {"dev": ["rte"], "test": ["mrpc", "stsb"]}
    assert below(table3, "mmel_h", "baseline_da_uni") == {"dev": ["sst2", "mrpc"], "test": []}
    assert below(table3, "mmel_s", "baseline_da_uni") == {"dev": [], "test": []}
    assert table3["dev", "mmel_h"]["sst2"] == table3["dev", "baseline_da_uni"]["sst2"] == 93.1
    assert (table3["dev", "mmel_h"]["mrpc"], table3["dev", "baseline_da_uni"]["mrpc"]) == (87.7, 87.9)


def test_claim_over_all_settings(table6):
    baseline = table6[NO_SETTING]
    assert all(table6[setting]["avg"] > baseline["avg"] for setting in SETTINGS)
    # With the averages that belong to the rows too.
    assert all(mean(table6[setting]) > mean(baseline) for setting in SETTINGS)
    assert sum(table6[setting]["rte"] < baseline["rte"] for setting in SETTINGS) == 6


@pytest.mark.parametrize("number", ["84.10", "84.42", "84.16", "83.89", "84.76", "84.29", "79.66", "80.56", "62.8"])
def test_notes_travel_with_the_package(number):
    notes = resources.files("mmel.paper").joinpath("NOTES.md").read_text(encoding="utf-8")
    assert number in notes
