import math
from importlib import resources

import pytest

from mmel.config import IMAGE_METHODS
from mmel.grids import TABLES
from mmel.report.aggregate import paper_table

KEY = ["dataset", "model", "method", "num_augmented"]
DATASETS = ("cifar10", "cifar100")
MODELS = ("resnet20", "resnet32", "resnet44", "resnet56")
ROWS = [(dataset, model) for dataset in DATASETS for model in MODELS]
K_OF = {"baseline_da": 1, "baseline_da_long": 10, "baseline_da_uni": 10, "mmel_h": 10, "mmel_s": 10}


@pytest.fixture(scope="module")
def table1():
    return paper_table("table1").set_index(KEY)


@pytest.fixture(scope="module")
def table2():
    return paper_table("table2").set_index(KEY)


def accuracy(table, dataset, model, method, k=None):
    return table.loc[(dataset, model, method, k or K_OF[method]), "accuracy_pct"]


# Every cell is there once.


def test_table1_has_every_cell_once():
    table = paper_table("table1")
    assert list(table.columns) == [*KEY, "accuracy_pct", "std_pct", "num_runs", "train_hours_v100"]
    expected = [(*row, method, K_OF[method]) for row in ROWS for method in IMAGE_METHODS]
    assert len(table) == 40
    assert list(table[KEY].itertuples(index=False, name=None)) == expected


def test_table2_has_every_cell_once():
    table = paper_table("table2")
    assert list(table.columns) == [*KEY, "accuracy_pct", "std_pct", "num_runs"]
    cells = [("baseline_da", 1), *((method, k) for k in (2, 5, 10, 20) for method in ("mmel_h", "mmel_s"))]
    assert len(table) == 72
    assert list(table[KEY].itertuples(index=False, name=None)) == [(*row, *cell) for row in ROWS for cell in cells]


def test_table5_has_every_cell_once():
    table = paper_table("table5")
    assert list(table.columns) == [*KEY, "accuracy_pct", "num_runs"]
    models, methods = ("resnet18", "resnet34", "resnet50"), ("baseline_da", "mmel_h", "mmel_s")
    cells = [("imagenet", model, method, K_OF[method]) for model in models for method in methods]
    assert list(table[KEY].itertuples(index=False, name=None)) == cells
    assert set(table["num_runs"]) == {1}


def test_table5_differences_are_those_printed():
    table = paper_table("table5").set_index(KEY)
    printed = {"mmel_h": (0.72, 1.08, 0.38), "mmel_s": (-1.24, -0.97, -1.33)}
    for method, gains in printed.items():
        for model, gain in zip(("resnet18", "resnet34", "resnet50"), gains, strict=True):
            found = accuracy(table, "imagenet", model, method) - accuracy(table, "imagenet", model, "baseline_da")
            assert found == pytest.approx(gain, rel=0, abs=1e-6)


@pytest.mark.parametrize(("model", "mean"), [("resnet18", 69.5867), ("resnet34", 73.3367), ("resnet50", 75.8333)])
def test_table5_row_means(model, mean):
    rows = paper_table("table5").groupby("model")["accuracy_pct"].mean()
    assert rows[model] == pytest.approx(mean, rel=0, abs=1e-4)


@pytest.mark.parametrize("name", ["table1", "table2", "table5"])
def test_cells_are_named_as_runs_are(name):
    planned = {(run.dataset, run.model, run.method, run.num_augmented) for run in TABLES[name]("paper")}
    assert set(paper_table(name)[KEY].itertuples(index=False, name=None)) == planned


def test_five_runs_but_one_for_the_long_baseline(table1, table2):
    alone = table1.index.get_level_values("method") == "baseline_da_long"
    assert set(table1.loc[alone, "num_runs"]) == {1}
    assert table1.loc[alone, "std_pct"].isna().all()
    assert set(table1.loc[~alone, "num_runs"]) == set(table2["num_runs"]) == {5}
    assert not table1.loc[~alone, "std_pct"].isna().any()
    assert not table2["std_pct"].isna().any()


# The numbers, against what was worked out from the paper's page apart from these files: for each row the mean of its
# accuracies and the sum of its deviations.


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
    ],
)
def test_row_means(name, means, deviations):
    rows = paper_table(name).groupby(["dataset", "model"], sort=False)
    assert rows["accuracy_pct"].mean().tolist() == pytest.approx(means, rel=0, abs=1e-4)
    assert rows["std_pct"].sum().tolist() == pytest.approx(deviations, rel=0, abs=1e-6)


@pytest.mark.parametrize(
    ("cell", "mean", "std"),
    [
        (("cifar10", "resnet20", "baseline_da"), 92.53, 0.10),
        (("cifar10", "resnet20", "mmel_s"), 93.10, 0.18),
        (("cifar10", "resnet32", "baseline_da_long"), 94.43, None),
        (("cifar10", "resnet32", "baseline_da_uni"), 94.11, 0.33),
        (("cifar10", "resnet44", "mmel_h"), 94.70, 0.14),
        (("cifar10", "resnet44", "baseline_da_long"), 94.11, None),
        (("cifar10", "resnet56", "mmel_h"), 94.85, 0.15),
        (("cifar10", "resnet56", "mmel_s"), 94.64, 0.03),
        (("cifar100", "resnet20", "baseline_da"), 68.95, 0.56),
        (("cifar100", "resnet20", "baseline_da_uni"), 68.89, 0.06),
        (("cifar100", "resnet32", "mmel_h"), 72.51, 0.07),
        (("cifar100", "resnet32", "mmel_s"), 72.57, 0.20),
        (("cifar100", "resnet44", "baseline_da_long"), 72.83, None),
        (("cifar100", "resnet44", "baseline_da_uni"), 72.30, 0.38),
        (("cifar100", "resnet56", "baseline_da"), 72.22, 0.26),
        (("cifar100", "resnet56", "mmel_h"), 74.20, 0.24),
    ],
)
def test_table1_spot_values(table1, cell, mean, std):
    found = table1.loc[(*cell, K_OF[cell[-1]])]
    assert found["accuracy_pct"] == mean
    assert math.isnan(found["std_pct"]) if std is None else found["std_pct"] == std


@pytest.mark.parametrize(
    ("cell", "mean", "std"),
    [
        (("cifar10", "resnet20", "mmel_h", 2), 92.77, 0.01),
        (("cifar10", "resnet20", "mmel_h", 20), 93.57, 0.04),
        (("cifar10", "resnet32", "mmel_s", 5), 93.88, 0.14),
        (("cifar10", "resnet32", "mmel_s", 20), 93.89, 0.17),
        (("cifar10", "resnet44", "mmel_s", 2), 93.87, 0.13),
        (("cifar10", "resnet44", "mmel_h", 20), 94.70, 0.20),
        (("cifar10", "resnet56", "mmel_h", 5), 94.78, 0.09),
        (("cifar10", "resnet56", "mmel_h", 20), 95.01, 0.12),
        (("cifar100", "resnet20", "mmel_s", 2), 70.00, 0.36),
        (("cifar100", "resnet20", "mmel_s", 20), 70.05, 0.23),
        (("cifar100", "resnet32", "mmel_h", 2), 71.50, 0.09),
        (("cifar100", "resnet32", "mmel_s", 5), 71.73, 0.16),
        (("cifar100", "resnet44", "mmel_h", 5), 73.38, 0.07),
        (("cifar100", "resnet44", "mmel_s", 20), 72.77, 0.15),
        (("cifar100", "resnet56", "mmel_h", 20), 74.10, 0.05),
        (("cifar100", "resnet56", "mmel_s", 20), 73.53, 0.12),
    ],
)
def test_table2_spot_values(table2, cell, mean, std):
    assert table2.loc[cell, ["accuracy_pct", "std_pct"]].tolist() == [mean, std]


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize(
    ("model", "hours"),
    [
        ("resnet20", [0.7, 6.7, 2.9, 2.9, 2.9]),
        ("resnet32", [0.7, 7.2, 4.3, 4.3, 4.3]),
        ("resnet44", [0.8, 8.3, 5.7, 5.7, 5.7]),
        ("resnet56", [1.1, 10.6, 7.0, 7.0, 7.0]),
    ],
)
def test_training_hours(table1, dataset, model, hours):
    assert table1.loc[(dataset, model), "train_hours_v100"].tolist() == hours


def test_table2_repeats_table1(table1, table2):
    shared = table2.index[table2.index.get_level_values("num_augmented").isin([1, 10])]
    assert len(shared) == 3 * len(ROWS)
    columns = ["accuracy_pct", "std_pct", "num_runs"]
    assert table2.loc[shared, columns].equals(table1.loc[shared, columns])


# What NOTES.md says of the paper's text.


def test_bold_is_the_best_but_once(table1):
    bold = ["baseline_da_long", "baseline_da_long", "mmel_h", "mmel_h", "mmel_h", "mmel_h", "mmel_h", "mmel_h"]
    best = [max(IMAGE_METHODS, key=lambda method, row=row: accuracy(table1, *row, method)) for row in ROWS]
    wrong = [(row, found) for row, printed, found in zip(ROWS, bold, best, strict=True) if printed != found]
    assert wrong == [(("cifar100", "resnet32"), "mmel_s")]
    assert accuracy(table1, "cifar100", "resnet32", "mmel_h") == 72.51
    assert accuracy(table1, "cifar100", "resnet32", "mmel_s") == 72.57


def test_the_gain_of_over_half_a_point_fails_once(table1):
    gains = {
        (*row, method): round(accuracy(table1, *row, method) - accuracy(table1, *row, "baseline_da"), 2)
        for row in ROWS
        for method in ("mmel_h", "mmel_s")
    }
    assert {cell: gain for cell, gain in gains.items() if gain <= 0.5} == {("cifar10", "resnet32", "mmel_s"): 0.47}


def test_more_samples_alone_do_not_help_once(table1):
    below = [row for row in ROWS if accuracy(table1, *row, "baseline_da_uni") < accuracy(table1, *row, "baseline_da")]
    assert below == [("cifar100", "resnet20")]
    assert accuracy(table1, "cifar100", "resnet20", "baseline_da_uni") == 68.89
    assert accuracy(table1, "cifar100", "resnet20", "baseline_da") == 68.95


@pytest.mark.parametrize("number", ["72.51", "72.57", "0.47", "68.89", "68.95", "69.76", "76.15"])
def test_notes_travel_with_the_package(number):
    notes = resources.files("mmel.paper").joinpath("NOTES.md").read_text(encoding="utf-8")
    assert number in notes
