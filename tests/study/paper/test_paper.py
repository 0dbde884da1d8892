"""The paper's numbers, against sums that were worked out from its pages, and the statements of NOTES.md."""

import math

import pytest

from mmel.study.report.frames import paper_table
from mmel.study.tables import TABLES

KEYS = {
    "table1": ["dataset", "model", "method", "num_augmented"],
    "table2": ["dataset", "model", "method", "num_augmented"],
    "table5": ["dataset", "model", "method", "num_augmented"],
    "table3": ["split", "method"],
    "table4": ["method", "label_source"],
    "table6": ["method", "fill", "pair_mode", "mask_ratio"],
}
ROWS = [(data, model) for data in ("cifar10", "cifar100") for model in ("resnet20", "resnet32", "resnet44", "resnet56")]
K_OF = {"baseline_da": 1, "baseline_da_long": 10, "baseline_da_uni": 10, "mmel_h": 10, "mmel_s": 10}
COLUMNS = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli_mm", "qnli", "rte", "avg"]
NINE = COLUMNS[:-1]
METHODS = ["baseline", "baseline_da_long", "baseline_da_uni", "smart", "mmel_h", "mmel_s"]
NO_SETTING = ("baseline", "", "", "")
SETTINGS = [
    (method, fill, pair_mode, ratio)
    for method in ("mmel_h", "mmel_s")
    for fill in ("greedy", "beam")
    for pair_mode in ("separate", "joint")
    for ratio in (0.2, 0.4)
]
TEXT_ROWS = {
    "table3": [
        (split, method) for split in ("dev", "test") for method in METHODS if (split, method) != ("test", "smart")
    ],
    "table4": [(method, source) for method in ("mmel_h", "mmel_s") for source in ("original", "predicted")],
    "table6": [NO_SETTING, *SETTINGS],
}


def wide(name, value="score"):
    """A GLUE table as a mapping: row -> column -> number, in the file's order; no cell twice."""
    table = paper_table(name)
    table[KEYS[name]] = table[KEYS[name]].astype(object).where(table[KEYS[name]].notna(), "")
    rows = {}
    for line in table.to_dict("records"):
        row = rows.setdefault(tuple(line[key] for key in KEYS[name]), {})
        assert line["dataset"] not in row, line
        row[line["dataset"]] = line[value]
    return rows


def mean(row):
    return sum(row[column] for column in NINE) / 9


@pytest.fixture(scope="module")
def images():
    """(dataset, model, method, K) -> accuracy, of Tables 1 and 2."""
    return {name: paper_table(name).set_index(KEYS[name])["accuracy_pct"] for name in ("table1", "table2")}


@pytest.fixture(scope="module")
def texts():
    return {name: wide(name) for name in TEXT_ROWS}


# Every cell is there once, under the name of a run, and rows have the sums of the paper's.


@pytest.mark.parametrize(
    ("name", "means", "deviations"),
    [
        (
            "table1",
            [93.012, 94.048, 94.302, 94.438, 69.460, 71.862, 72.526, 73.368],
            [0.47, 0.66, 0.50, 0.56, 0.76, 0.53, 1.15, 0.78],
        ),
        (
            "table2",
            [93.0244, 93.9767, 94.3444, 94.5711, 69.7744, 71.8889, 72.7556, 73.5333],
            [0.83, 1.25, 1.08, 0.99, 2.01, 1.40, 1.64, 1.66],
        ),
        ("table5", [69.5867, 73.3367, 75.8333], None),
    ],
)
def test_tables_of_images(name, means, deviations):
    table = paper_table(name)
    cells = list(table[KEYS[name]].itertuples(index=False, name=None))
    planned = {(run.dataset, run.model, run.method, run.num_augmented) for run in TABLES[name].runs("paper")}
    assert len(cells) == len(planned)
    assert set(cells) == planned
    rows = table.groupby(["dataset", "model"], sort=False)
    assert rows["accuracy_pct"].mean().tolist() == pytest.approx(means, rel=0, abs=1e-4)
    if deviations:
        assert rows["std_pct"].sum().tolist() == pytest.approx(deviations, rel=0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "sums", "averages"),
    [
        (
            "table3",
            [751.6, 759.1, 756.8, 755.8, 760.1, 761.0, 716.9, 720.9, 717.3, 725.0, 723.0],
            [83.5, 84.3, 84.1, 84.0, 84.5, 84.6, 79.6, 80.1, 79.7, 80.5, 80.3],
        ),
        ("table4", [702.7, 760.9, 719.8, 762.8], [78.1, 84.5, 80.0, 84.7]),
        (
            "table6",
            [753.0, 757.4, 760.9, 755.0, 759.2, 756.1, 756.9, 755.5, 756.8, 757.4, 762.8, 756.2, 759.5, 758.6, 759.8,
             756.9, 758.7],
            [83.7, 84.1, 84.5, 84.0, 84.4, 84.0, 84.5, 83.9, 84.1, 84.2, 84.7, 84.0, 84.4, 84.2, 84.0, 84.1, 84.3],
        ),
    ],
)  # fmt: skip
def test_tables_of_texts(texts, name, sums, averages):
    assert list(texts[name]) == TEXT_ROWS[name]
    assert all(list(cells) == COLUMNS for cells in texts[name].values())
    assert [9 * mean(cells) for cells in texts[name].values()] == pytest.approx(sums, rel=0, abs=1e-6)
    assert [cells["avg"] for cells in texts[name].values()] == averages


def test_sums_of_the_deviations_of_table3():
    sums = [sum(cells[column] for column in NINE) for cells in wide("table3", "std").values()]
    known = [round(total, 2) for total in sums if not math.isnan(total)]
    assert known == [5.13, 3.52, 2.17, 2.12, 4.87, 6.84, 2.63, 2.14]


@pytest.mark.parametrize(("name", "std"), [("table1", "std_pct"), ("table3", "std")])
def test_five_runs_but_one_without_a_deviation(name, std):
    table = paper_table(name)
    single = table["method"].isin(["baseline_da_long", "smart"])
    assert table["num_runs"].tolist() == [1 if one else 5 for one in single]
    assert (table[std].isna() == single).all()


def test_training_hours():
    hours = {"resnet20": [0.7, 6.7, 2.9], "resnet32": [0.7, 7.2, 4.3], "resnet44": [0.8, 8.3, 5.7]}
    hours["resnet56"] = [1.1, 10.6, 7.0]
    found = paper_table("table1").groupby(["dataset", "model"])["train_hours_v100"].apply(list)
    for dataset, model in ROWS:
        assert found[dataset, model] == [*hours[model], hours[model][-1], hours[model][-1]]
    of_method = paper_table("table3").dropna(subset="train_hours_v100").groupby("method")["train_hours_v100"]
    methods = [method for method in METHODS if method != "smart"]
    assert {name: group.unique().tolist() for name, group in of_method} == dict(
        zip(methods, ([21.5], [107.5], [31.6], [31.8], [32.4]), strict=True)
    )


def test_table7():
    table = paper_table("table7").fillna("")
    assert (table["mmel_h"] == table["mmel_s"]).all()
    fields = "lr batch_size weight_decay hidden_dropout attention_dropout epochs epochs lambda_t lambda_p num_augmented"
    named = table[table["field"] != ""]
    assert named["field"].tolist() == fields.split()
    assert named["mmel_h"].tolist() == ["3e-5", "32", "0", "{0, 0.1}", "{0, 0.1}", "3", "10", "1.0", "1.0", "5"]


# The statements of NOTES.md.


def test_table2_repeats_table1(images):
    shared = [(*row, method, k) for row in ROWS for method, k in (("baseline_da", 1), ("mmel_h", 10), ("mmel_s", 10))]
    assert images["table2"][shared].tolist() == images["table1"][shared].tolist()


def test_statements_about_table1(images):
    table = {(row, method): images["table1"][*row, method, K_OF[method]] for row in ROWS for method in K_OF}
    bold = ["baseline_da_long"] * 2 + ["mmel_h"] * 6
    best = [max(K_OF, key=lambda method, row=row: table[row, method]) for row in ROWS]
    wrong = [(row, found) for row, printed, found in zip(ROWS, bold, best, strict=True) if printed != found]
    assert wrong == [(("cifar100", "resnet32"), "mmel_s")]
    gains = {(row, m): table[row, m] - table[row, "baseline_da"] for row in ROWS for m in ("mmel_h", "mmel_s")}
    small = {cell: round(gain, 2) for cell, gain in gains.items() if gain <= 0.5}
    assert small == {(("cifar10", "resnet32"), "mmel_s"): 0.47}
    below = [row for row in ROWS if table[row, "baseline_da_uni"] < table[row, "baseline_da"]]
    assert below == [("cifar100", "resnet20")]


def test_the_differences_that_table5_prints():
    table = paper_table("table5").pivot(index="model", columns="method", values="accuracy_pct")
    for method, gains in {"mmel_h": (0.72, 1.08, 0.38), "mmel_s": (-1.24, -0.97, -1.33)}.items():
        assert (table[method] - table["baseline_da"]).tolist() == pytest.approx(gains, rel=0, abs=1e-6)


def test_averages_that_do_not_match(texts):
    # Means of nine numbers with one decimal never lie on a rounding edge of one decimal.
    off = {row: round(mean(cells), 2) for table in texts.values() for row, cells in table.items()
           if round(mean(cells), 1) != cells["avg"]}  # fmt: skip
    assert off == {
        ("test", "baseline"): 79.66,
        ("test", "mmel_h"): 80.56,
        ("mmel_s", "predicted"): 84.76,
        ("mmel_h", "beam", "separate", 0.4): 84.10,
        ("mmel_s", "beam", "separate", 0.4): 84.42,
        ("mmel_h", "greedy", "separate", 0.2): 84.16,
        ("mmel_h", "greedy", "joint", 0.2): 83.89,
        ("mmel_s", "greedy", "separate", 0.4): 84.76,
        ("mmel_s", "beam", "separate", 0.2): 84.29,
    }
    # Rounding moves the columns, and so their mean, by 0.05 at most, and the printed mean by as much again.
    wrong = [row for table in texts.values() for row, cells in table.items() if abs(mean(cells) - cells["avg"]) > 0.1]
    assert sorted(wrong) == [("mmel_h", "beam", "separate", 0.4), ("mmel_h", "greedy", "joint", 0.2),
                             ("mmel_s", "beam", "separate", 0.4)]  # fmt: skip


def test_table4_repeats_table6_and_not_table3(texts):
    for method in ("mmel_h", "mmel_s"):
        assert texts["table4"][method, "predicted"] == texts["table6"][method, "greedy", "separate", 0.4]
        assert texts["table4"][method, "predicted"] != texts["table3"]["dev", method]
    assert (texts["table6"][NO_SETTING]["cola"], texts["table3"]["dev", "baseline"]["cola"]) == (59.0, 59.7)


def test_where_the_claims_of_table3_and_6_do_not_hold(texts):
    def below(method, baseline):
        rows = texts["table3"]
        return [[c for c in COLUMNS if rows[split, method][c] <= rows[split, baseline][c]] for split in ("dev", "test")]

    assert below("mmel_h", "baseline_da_long") == [["sst2", "mrpc", "rte"], ["mrpc", "stsb"]]
    assert below("mmel_s", "baseline_da_long") == [["rte"], ["mrpc", "stsb"]]
    assert below("mmel_h", "baseline_da_uni") == [["sst2", "mrpc"], []]
    assert below("mmel_s", "baseline_da_uni") == [[], []]
    table, baseline = texts["table6"], texts["table6"][NO_SETTING]
    assert all(min(table[row]["avg"], mean(table[row])) > baseline["avg"] for row in SETTINGS)
    assert sum(table[row]["rte"] < baseline["rte"] for row in SETTINGS) == 6
