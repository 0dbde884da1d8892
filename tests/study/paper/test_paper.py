"""The paper's numbers, against sums that were worked out from its pages, and the statements of NOTES.md.

Every row and column, deviation and number of runs stands in the golden tables too, see report/test_golden.py.
"""

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
NO_SETTING = ("baseline", "", "", "")
SETTINGS = [
    (method, fill, pair_mode, ratio)
    for method in ("mmel_h", "mmel_s")
    for fill in ("greedy", "beam")
    for pair_mode in ("separate", "joint")
    for ratio in (0.2, 0.4)
]


def wide(name):
    """A GLUE table as a mapping: row -> column -> score."""
    table, rows = paper_table(name), {}
    table[KEYS[name]] = table[KEYS[name]].astype(object).where(table[KEYS[name]].notna(), "")
    for line in table.to_dict("records"):
        rows.setdefault(tuple(line[key] for key in KEYS[name]), {})[line["dataset"]] = line["score"]
    return rows


def mean(row):
    return sum(row[column] for column in NINE) / 9


@pytest.fixture(scope="module")
def images():
    """(dataset, model, method, K) -> accuracy, of Tables 1 and 2."""
    return {name: paper_table(name).set_index(KEYS[name])["accuracy_pct"] for name in ("table1", "table2")}


@pytest.fixture(scope="module")
def texts():
    return {name: wide(name) for name in ("table3", "table4", "table6")}


# Every cell is there once, under the name of a run, and rows have the sums of the paper's.


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("table1", [93.012, 94.048, 94.302, 94.438, 69.460, 71.862, 72.526, 73.368]),
        ("table2", [93.0244, 93.9767, 94.3444, 94.5711, 69.7744, 71.8889, 72.7556, 73.5333]),
        ("table5", [69.5867, 73.3367, 75.8333]),
    ],
)
def test_tables_of_images(name, means):
    table = paper_table(name)
    cells = list(table[KEYS[name]].itertuples(index=False, name=None))
    planned = {(run.dataset, run.model, run.method, run.num_augmented) for run in TABLES[name].runs("paper")}
    assert len(cells) == len(planned)
    assert set(cells) == planned
    rows = table.groupby(["dataset", "model"], sort=False)
    assert rows["accuracy_pct"].mean().tolist() == pytest.approx(means, rel=0, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "sums"),
    [
        ("table3", [751.6, 759.1, 756.8, 755.8, 760.1, 761.0, 716.9, 720.9, 717.3, 725.0, 723.0]),
        ("table4", [702.7, 760.9, 719.8, 762.8]),
        ("table6", [753.0, 757.4, 760.9, 755.0, 759.2, 756.1, 756.9, 755.5, 756.8, 757.4, 762.8, 756.2, 759.5, 758.6,
                    759.8, 756.9, 758.7]),
    ],
)  # fmt: skip
def test_tables_of_texts(texts, name, sums):
    assert all(list(cells) == COLUMNS for cells in texts[name].values())
    assert [9 * mean(cells) for cells in texts[name].values()] == pytest.approx(sums, rel=0, abs=1e-6)


def test_training_hours():
    hours = {"resnet20": [0.7, 6.7, 2.9], "resnet32": [0.7, 7.2, 4.3], "resnet44": [0.8, 8.3, 5.7]}
    hours["resnet56"] = [1.1, 10.6, 7.0]
    found = paper_table("table1").groupby(["dataset", "model"])["train_hours_v100"].apply(list)
    for dataset, model in ROWS:
        assert found[dataset, model] == [*hours[model], hours[model][-1], hours[model][-1]]


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
