from collections import Counter

import pytest

from mmel.config import METHODS, PROFILES, RunConfig
from mmel.grids import HOLDOUT, SEEDS, SELECTION_SEED, TABLES, lambda_t_candidates, runs_of, table1, table2, with_method

DEPTHS = ("resnet20", "resnet32", "resnet44", "resnet56")
each_table = pytest.mark.parametrize("table", TABLES)
each_profile = pytest.mark.parametrize("profile", PROFILES)


def reported(runs):
    return [run for run in runs if not run.holdout]


def count(runs, *names):
    """How many runs there are of each combination of fields."""
    return Counter(tuple(getattr(run, name) for name in names) for run in runs)


# The paper profile is section 4.1. The literals are the paper's; bf16 is the one thing that differs.


@each_table
def test_every_run_of_the_paper_profile_has_the_papers_recipe(table):
    for run in TABLES[table]("paper"):
        assert run.profile == "paper"
        assert run.epochs == 200
        assert run.lr == 0.1
        assert run.lr_decay == 0.2
        assert run.decay_epochs == (60, 120, 160)
        assert run.batch_size == 128
        assert run.weight_decay == 5e-4
        assert run.momentum == 0.9
        assert run.lambda_p == 1.0
        assert run.augment == "crop_flip"
        assert run.train_size == 0
        assert run.dataset in ("cifar10", "cifar100")
        assert run.model in DEPTHS
        # What is not listed above is at its default.
        chosen = {"profile", "dataset", "model", "method", "seed", "num_augmented", "lambda_t", "holdout"}
        assert set(run.non_defaults()) <= chosen


def test_paper_table1_is_five_methods_with_five_seeds_but_one_for_the_long_baseline():
    runs = reported(table1("paper"))
    expected = {
        (dataset, model, method, 1 if method == "baseline_da" else 10): 1 if method == "baseline_da_long" else 5
        for dataset in ("cifar10", "cifar100")
        for model in DEPTHS
        for method in METHODS
    }
    assert count(runs, "dataset", "model", "method", "num_augmented") == expected
    assert {run.seed for run in runs if run.method != "baseline_da_long"} == {0, 1, 2, 3, 4}
    assert len(set(runs)) == len(runs) == 8 * (4 * 5 + 1)


def test_paper_table2_varies_k_with_five_seeds():
    runs = reported(table2("paper"))
    methods = [("baseline_da", 1), *((method, k) for k in (2, 5, 10, 20) for method in ("mmel_h", "mmel_s"))]
    expected = {
        (dataset, model, method, k): 5
        for dataset in ("cifar10", "cifar100")
        for model in DEPTHS
        for method, k in methods
    }
    assert count(runs, "dataset", "model", "method", "num_augmented") == expected
    assert len(set(runs)) == len(runs)


@each_table
def test_the_paper_leaves_lambda_t_of_mmel_s_to_be_chosen(table):
    for run in reported(TABLES[table]("paper")):
        assert run.lambda_t == (0.0 if run.method == "mmel_s" else 1.0)


# The runs that choose lambda_t.


def test_candidates_hold_out_5000_images_and_have_a_seed_of_their_own():
    config = RunConfig(profile="paper", method="mmel_s", lambda_t=0.0, seed=3, num_augmented=2, model="resnet44")
    candidates = lambda_t_candidates(config)
    assert [run.lambda_t for run in candidates] == [0.5, 1.0, 2.0]
    assert HOLDOUT == 5000
    for run in candidates:
        assert run.holdout == 5000
        assert run.method == "mmel_s"
        # Chosen once, at K = 10, for every K of Table 2.
        assert run.num_augmented == 10
        assert run.seed == SELECTION_SEED
        assert run == config.replace(lambda_t=run.lambda_t, holdout=5000, num_augmented=10, seed=SELECTION_SEED)
    assert all(SELECTION_SEED not in seeds for seeds in SEEDS.values())


@pytest.mark.parametrize("tables", [["table1"], ["table2"], ["table1", "table2"]], ids=" ".join)
def test_candidates_come_before_everything_else(tables):
    runs = runs_of(tables, "paper")
    # Three candidates for each of 2 data sets and 4 depths.
    assert [bool(run.holdout) for run in runs[:24]] == [True] * 24
    assert reported(runs) == runs[24:]
    wanted = {choice for run in runs if run.lambda_t == 0 for choice in lambda_t_candidates(run)}
    assert set(runs[:24]) == wanted


@each_table
@pytest.mark.parametrize("profile", ["mini", "reduced"])
def test_small_profiles_hold_nothing_out(table, profile):
    runs = TABLES[table](profile)
    assert reported(runs) == runs
    assert {run.lambda_t for run in runs} == {1.0}


# The small profiles.


def test_mini_table1():
    runs = table1("mini")
    expected = {(model, method): 2 for model in ("resnet8", "resnet14") for method in METHODS}
    assert count(runs, "model", "method") == expected
    assert {run.seed for run in runs} == {0, 1}
    assert {run.dataset for run in runs} == {"digits"}
    assert {run.num_augmented for run in runs} == {1, 5}


def test_mini_table2_has_one_model():
    runs = table2("mini")
    methods = [("baseline_da", 1), *((method, k) for k in (2, 5, 10, 20) for method in ("mmel_h", "mmel_s"))]
    assert count(runs, "model", "method", "num_augmented") == {("resnet8", method, k): 2 for method, k in methods}


def test_reduced_is_real_data_scaled_down():
    runs = runs_of(list(TABLES), "reduced")
    assert {(run.dataset, run.model, run.train_size, run.epochs) for run in runs} == {("cifar10", "resnet20", 5000, 20)}
    # Each decay at the same fraction of training as in the paper.
    assert {tuple(epoch / run.epochs for epoch in run.decay_epochs) for run in runs} == {
        (60 / 200, 120 / 200, 160 / 200)
    }
    assert count(table1("reduced"), "method") == {(m,): 1 if m == "baseline_da_long" else 3 for m in METHODS}


@each_table
@each_profile
def test_one_recipe_for_all_methods(table, profile):
    # A contrast between methods means something only where nothing else differs.
    own = ("method", "num_augmented", "seed", "lambda_t", "holdout", "dataset", "model")
    recipes = {
        tuple((name, str(value)) for name, value in run.to_dict().items() if name not in own)
        for run in TABLES[table](profile)
    }
    assert len(recipes) == 1


# Several tables at once.


@pytest.mark.parametrize(
    ("profile", "total", "shared"),
    [
        # Baseline(DA), and MMEL-H and MMEL-S at Table 1's K, for each data set, model and seed; the candidates too.
        ("mini", 20 + 18 - 6, 6),
        ("reduced", 13 + 27 - 9, 9),
        ("paper", 168 + 360 - 120 + 24, 120 + 24),
    ],
)
def test_a_run_that_tables_share_appears_once(profile, total, shared):
    runs = runs_of(["table1", "table2"], profile)
    assert len(runs) == len(set(runs)) == total
    assert set(runs) == {*table1(profile), *table2(profile)}
    assert len({*table1(profile)} & {*table2(profile)}) == shared


@each_profile
def test_seed_by_seed(profile):
    # Wherever a sweep stops, what is recorded is as balanced as it can be.
    seeds = [run.seed for run in reported(runs_of(list(TABLES), profile))]
    assert seeds == sorted(seeds)


@each_table
@each_profile
def test_runs_of_one_table(table, profile):
    assert set(runs_of([table], profile)) == set(TABLES[table](profile))


def test_unknown_profile_is_refused():
    with pytest.raises(ValueError, match=r"^profile must be one of mini, reduced, paper, got 'huge'$"):
        runs_of(["table1"], "huge")


def test_unknown_table_is_refused():
    with pytest.raises(ValueError, match=r"^table must be one of table1, table2, got table99$"):
        runs_of(["table1", "table99"], "mini")


# The neutral values of fields that a method does not have.


@pytest.mark.parametrize(
    ("method", "k", "lambda_p", "lambda_t"),
    [
        ("baseline_da", 1, 1.0, 1.0),
        ("baseline_da_long", 5, 1.0, 1.0),
        ("baseline_da_uni", 5, 1.0, 1.0),
        ("mmel_h", 5, 0.5, 1.0),
        ("mmel_s", 5, 0.5, 2.0),
    ],
)
def test_with_method(method, k, lambda_p, lambda_t):
    base = RunConfig(method="mmel_s", lambda_p=0.5, lambda_t=2.0, epochs=3)
    run = with_method(base, method, 5, seed=7)
    assert (run.method, run.seed, run.num_augmented) == (method, 7, k)
    assert (run.lambda_p, run.lambda_t) == (lambda_p, lambda_t)
    assert run.epochs == 3
