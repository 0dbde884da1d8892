import hashlib
from collections import Counter
from functools import cache

import pytest

from mmel.config import RunConfig
from mmel.grids import SEEDS, TABLES, float32_checks, recipe, reported, runs_of, table3, table4, table6
from mmel.names import AUGMENTED_TEXT_FIELDS, GLUE_DATASETS, IMAGE_METHODS, PROFILES, TEXT_METHODS
from mmel.prerequisites import HOLDOUT, SELECTION_SEED, candidates, teacher_of, with_method

DEPTHS = ("resnet20", "resnet32", "resnet44", "resnet56")
IMAGE_TABLES = ("table1", "table2")
TEXT_TABLES = ("table3", "table4", "table6", "figure2")
each_table = pytest.mark.parametrize("table", TABLES)
each_image_table = pytest.mark.parametrize("table", IMAGE_TABLES)
each_text_table = pytest.mark.parametrize("table", TEXT_TABLES)
each_profile = pytest.mark.parametrize("profile", PROFILES)


@pytest.fixture(autouse=True)
def no_text_model_is_named(monkeypatch):
    monkeypatch.delenv("MMEL_TEXT_MODEL", raising=False)


# Thousands of configurations, each validated: once is enough.


@cache
def grid(table, profile):
    return TABLES[table](profile)


@cache
def shown(table, profile):
    return reported(table, profile)


@cache
def ordered(tables, profile):
    return runs_of(list(tables), profile)


def count(runs, *names):
    """How many runs there are of each combination of fields."""
    return Counter(tuple(getattr(run, name) for name in names) for run in runs)


def test_the_runs_of_images_keep_their_names():
    # Were one of them to change, its record would be lost. The text tables came later, and must leave them alone.
    runs = [(run, profile) for profile in PROFILES for run in ordered(IMAGE_TABLES, profile) if run.precision == "auto"]
    names = "".join(f"{profile} {run.dataset} {run.run_id}\n" for run, profile in runs)
    assert len(runs) == 495
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "0e2b3a143c4653aa"


@each_table
@each_profile
def test_a_grid_names_a_run_once(table, profile):
    runs = grid(table, profile)
    assert len(set(runs)) == len(runs)


# The paper profile of images is section 4.1. The literals are the paper's; bf16 is the one thing that differs.


@each_image_table
def test_every_run_of_the_paper_profile_has_the_papers_recipe(table):
    for run in grid(table, "paper"):
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
        chosen = {"profile", "dataset", "model", "method", "seed", "num_augmented", "lambda_t", "holdout", "precision"}
        assert set(run.non_defaults()) <= chosen


def test_paper_table1_is_five_methods_with_five_seeds_but_one_for_the_long_baseline():
    runs = shown("table1", "paper")
    expected = {
        (dataset, model, method, 1 if method == "baseline_da" else 10): 1 if method == "baseline_da_long" else 5
        for dataset in ("cifar10", "cifar100")
        for model in DEPTHS
        for method in IMAGE_METHODS
    }
    assert count(runs, "dataset", "model", "method", "num_augmented") == expected
    assert {run.seed for run in runs if run.method != "baseline_da_long"} == {0, 1, 2, 3, 4}
    assert len(set(runs)) == len(runs) == 8 * (4 * 5 + 1)


def test_one_seed_of_each_cell_of_paper_table1_is_trained_in_float32_too_and_not_averaged():
    checks = float32_checks("table1", "paper")
    assert {run.seed for run in checks} == {0}
    methods = [method for method in IMAGE_METHODS if method != "baseline_da_long"]
    assert count(checks, "dataset", "model", "method") == {
        (dataset, model, method): 1 for dataset in ("cifar10", "cifar100") for model in DEPTHS for method in methods
    }
    # Nothing but the precision differs from a run of the table, and both take one choice of lambda_t.
    assert {run.replace(precision="auto") for run in checks} <= set(shown("table1", "paper"))
    assert {choice.precision for run in checks for choice in candidates(run)} == {"auto"}
    order = ordered(("table1",), "paper")
    assert order[-len(checks) :] == checks
    assert not any(float32_checks(table, profile) for table in TABLES for profile in ("mini", "reduced"))


def test_paper_table2_varies_k_with_five_seeds():
    runs = shown("table2", "paper")
    methods = [("baseline_da", 1), *((method, k) for k in (2, 5, 10, 20) for method in ("mmel_h", "mmel_s"))]
    expected = {
        (dataset, model, method, k): 5
        for dataset in ("cifar10", "cifar100")
        for model in DEPTHS
        for method, k in methods
    }
    assert count(runs, "dataset", "model", "method", "num_augmented") == expected


@each_image_table
def test_the_paper_leaves_lambda_t_of_mmel_s_to_be_chosen(table):
    for run in shown(table, "paper"):
        assert run.lambda_t == (0.0 if run.method == "mmel_s" else 1.0)


# Table 5.


def test_paper_table5_is_appendix_b():
    runs = grid("table5", "paper")
    methods = {("baseline_da", 1), ("mmel_h", 10), ("mmel_s", 10)}
    expected = {(model, *cell): 1 for model in ("resnet18", "resnet34", "resnet50") for cell in methods}
    assert count(runs, "model", "method", "num_augmented") == expected
    for run in runs:
        assert (run.dataset, run.augment, run.pixels_a_side, run.train_size) == (
            "imagenet",
            "resized_crop_flip",
            224,
            0,
        )
        assert (run.epochs, run.decay_epochs, run.lr, run.lr_decay) == (100, (30, 60, 90), 0.1, 0.2)
        assert (run.batch_size, run.weight_decay, run.momentum, run.seed) == (256, 5e-4, 0.9, 0)
        # Choosing it would cost three more trainings of each network.
        assert (run.lambda_p, run.lambda_t) == (1.0, 1.0)


@each_profile
def test_table5_has_three_methods_that_differ_in_nothing_else(profile):
    runs = grid("table5", profile)
    assert {run.dataset for run in runs} == {
        {"mini": "drawings", "reduced": "imagenette", "paper": "imagenet"}[profile]
    }
    for model in {run.model for run in runs}:
        mine = [run for run in runs if run.model == model]
        assert [run.method for run in mine] == ["baseline_da", "mmel_h", "mmel_s"]
        assert len({run.replace(method="mmel_s", num_augmented=10) for run in mine}) == 1


# The runs that choose lambda_t.


def test_candidates_hold_out_5000_images_and_have_a_seed_of_their_own():
    config = RunConfig(profile="paper", method="mmel_s", lambda_t=0.0, seed=3, num_augmented=2, model="resnet44")
    choices = candidates(config)
    assert [run.lambda_t for run in choices] == [0.5, 1.0, 2.0]
    assert HOLDOUT == 5000
    for run in choices:
        assert run.holdout == 5000
        assert run.method == "mmel_s"
        # Chosen once, at K = 10, for every K of Table 2.
        assert run.num_augmented == 10
        assert run.seed == SELECTION_SEED
        assert run == config.replace(lambda_t=run.lambda_t, holdout=5000, num_augmented=10, seed=SELECTION_SEED)
    assert all(SELECTION_SEED not in seeds for seeds in SEEDS.values())


@pytest.mark.parametrize("tables", [["table1"], ["table2"], ["table1", "table2"]], ids=" ".join)
def test_candidates_come_before_everything_else(tables):
    runs = ordered(tuple(tables), "paper")
    # Three candidates for each of 2 data sets and 4 depths.
    assert [bool(run.holdout) for run in runs[:24]] == [True] * 24
    assert not any(run.holdout for run in runs[24:])
    wanted = {choice for run in runs if run.lambda_t == 0 for choice in candidates(run)}
    assert set(runs[:24]) == wanted


@each_table
def test_tables_show_what_was_not_trained_to_choose(table):
    runs, kept = grid(table, "paper"), shown(table, "paper")
    choices = {choice for run in kept for choice in candidates(run)}
    # Table 5 leaves nothing to be chosen.
    assert bool(choices) == (table != "table5")
    rest = choices | set(float32_checks(table, "paper"))
    assert set(runs) - set(kept) == rest
    assert {run.seed for run in choices} <= {SELECTION_SEED}
    assert [run for run in runs if run not in rest] == kept


@each_table
@pytest.mark.parametrize("profile", ["mini", "reduced"])
def test_small_profiles_choose_nothing(table, profile):
    runs = grid(table, profile)
    assert shown(table, profile) == runs
    assert {run.lambda_t for run in runs} == {1.0}
    assert {run.holdout for run in runs} == {0}
    assert min(min(run.hidden_dropout, run.attention_dropout) for run in runs) >= 0


# The small profiles.


def test_mini_table1():
    runs = grid("table1", "mini")
    expected = {(model, method): 2 for model in ("resnet8", "resnet14") for method in IMAGE_METHODS}
    assert count(runs, "model", "method") == expected
    assert {run.seed for run in runs} == {0, 1}
    assert {run.dataset for run in runs} == {"digits"}
    assert {run.num_augmented for run in runs} == {1, 5}


def test_mini_table2_has_one_model():
    runs = grid("table2", "mini")
    methods = [("baseline_da", 1), *((method, k) for k in (2, 5, 10, 20) for method in ("mmel_h", "mmel_s"))]
    assert count(runs, "model", "method", "num_augmented") == {("resnet8", method, k): 2 for method, k in methods}


def test_reduced_is_real_data_scaled_down():
    runs = ordered(IMAGE_TABLES, "reduced")
    assert {(run.dataset, run.model, run.train_size, run.epochs) for run in runs} == {("cifar10", "resnet20", 5000, 20)}
    # Each decay at the same fraction of training as in the paper.
    assert {tuple(epoch / run.epochs for epoch in run.decay_epochs) for run in runs} == {
        (60 / 200, 120 / 200, 160 / 200)
    }
    assert count(grid("table1", "reduced"), "method") == {
        (m,): 1 if m == "baseline_da_long" else 3 for m in IMAGE_METHODS
    }


@each_image_table
@each_profile
def test_one_recipe_for_all_methods(table, profile):
    # A contrast between methods means something only where nothing else differs.
    own = ("method", "num_augmented", "seed", "lambda_t", "holdout", "dataset", "model")
    recipes = {
        tuple((name, str(value)) for name, value in run.to_dict().items() if name not in own)
        for run in shown(table, profile)
    }
    assert len(recipes) == 1


# What a table of text varies beside the method.
VARIED = {"table4": ("label_source",), "table6": ("fill", "pair_mode", "mask_ratio")}


@each_text_table
@each_profile
def test_one_recipe_a_task_for_all_methods(table, profile):
    own = ("method", "num_augmented", "seed", *VARIED.get(table, ()))
    recipes = {
        tuple((name, str(value)) for name, value in run.to_dict().items() if name not in own)
        for run in shown(table, profile)
    }
    assert len(recipes) == len({run.dataset for run in shown(table, profile)})


# Several tables at once.


@pytest.mark.parametrize(
    ("profile", "total", "shared"),
    [
        # Baseline(DA), and MMEL-H and MMEL-S at Table 1's K, for each data set, model and seed; the candidates too.
        ("mini", 20 + 18 - 6, 6),
        ("reduced", 13 + 27 - 9, 9),
        ("paper", 168 + 360 - 120 + 24 + 32, 120 + 24),
    ],
)
def test_a_run_that_tables_share_appears_once(profile, total, shared):
    runs = ordered(IMAGE_TABLES, profile)
    assert len(runs) == len(set(runs)) == total
    assert set(runs) == {*grid("table1", profile), *grid("table2", profile)}
    assert len({*grid("table1", profile)} & {*grid("table2", profile)}) == shared


@each_profile
def test_seed_by_seed(profile):
    # Wherever a sweep stops, what is recorded is as balanced as it can be.
    runs = [run for run in ordered(tuple(TABLES), profile) if run.precision == "auto"]
    seeds = [run.seed for run in runs if run.seed != SELECTION_SEED]
    assert seeds == sorted(seeds)


@each_profile
@pytest.mark.parametrize("tables", [[table] for table in TEXT_TABLES] + [list(TABLES)], ids=" ".join)
def test_every_run_finds_its_teacher_and_its_choices_trained(tables, profile):
    runs = ordered(tuple(tables), profile)
    place = {run: n for n, run in enumerate(runs)}
    needed = [(run, first) for run in runs for first in (teacher_of(run), *candidates(run)) if first is not None]
    assert needed
    assert all(place[first] < place[run] for run, first in needed)


@each_table
@each_profile
def test_runs_of_one_table(table, profile):
    assert set(ordered((table,), profile)) == set(grid(table, profile))


def test_unknown_profile_is_refused():
    with pytest.raises(ValueError, match=r"^profile must be one of mini, reduced, paper, got 'huge'$"):
        runs_of(["table1"], "huge")


def test_unknown_table_is_refused():
    with pytest.raises(ValueError, match=rf"^table must be one of {', '.join(TABLES)}, got table99$"):
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
    base = RunConfig(method="mmel_s", lambda_p=0.5, lambda_t=2.0, epochs=300)
    run = with_method(base.replace(num_augmented=5), method, seed=7)
    assert (run.method, run.seed, run.num_augmented) == (method, 7, k)
    assert (run.lambda_p, run.lambda_t) == (lambda_p, lambda_t)
    assert run.epochs == 300


@pytest.mark.parametrize("method", TEXT_METHODS)
def test_with_method_on_text(method):
    varied = {"mask_ratio": 0.2, "fill": "beam", "pair_mode": "joint", "augment_seed": 3, "label_source": "original"}
    kept = {"max_length": 64, "hidden_dropout": 0.0, "evals_per_epoch": 2, "epochs": 3, "lr": 1e-3, "lambda_p": 0.5}
    base = RunConfig(dataset="rte", model="bert", method="mmel_s", num_augmented=5, lambda_t=2.0, **varied, **kept)
    run = with_method(base, method, seed=7)
    assert (run.method, run.seed) == (method, 7)
    assert run.lambda_t == (2.0 if method == "mmel_s" else 1.0)
    assert run.lambda_p == (0.5 if method.startswith("mmel") else 1.0)
    assert run.num_augmented == (1 if method == "baseline" else 5)
    # What augments nothing does not differ by how it would augment.
    for name, value in varied.items():
        assert getattr(run, name) == (getattr(RunConfig(), name) if method == "baseline" else value)
    assert {name: getattr(run, name) for name in kept if name != "lambda_p"} == {
        name: value for name, value in kept.items() if name != "lambda_p"
    }


# The paper profile of text is Table 7, and section 4.2 for what is not in it.


@each_text_table
def test_every_text_run_of_the_paper_profile_has_the_papers_recipe(table):
    runs = grid(table, "paper")
    assert {run.dataset for run in runs} == set(GLUE_DATASETS)
    for run in runs:
        assert run.profile == "paper"
        assert run.model == "bert-base-uncased"
        assert run.lr == 3e-5
        assert run.batch_size == 32
        assert run.weight_decay == 0
        assert run.epochs == (3 if run.dataset in ("mnli", "qqp") else 10)
        assert run.lambda_t == 1.0
        assert run.lambda_p == 1.0
        assert run.num_augmented == (1 if run.method == "baseline" else 5)
        assert run.train_size == 0
        assert run.max_length == 128
        rates = (run.hidden_dropout, run.attention_dropout)
        if run.seed == SELECTION_SEED:
            assert rates in {(0, 0), (0, 0.1), (0.1, 0), (0.1, 0.1)}
        else:
            assert rates == (-1, -1)
        if run.method != "baseline" and table in ("table3", "figure2"):
            assert (run.mask_ratio, run.fill, run.pair_mode, run.label_source) == (
                0.4,
                "greedy",
                "separate",
                "predicted",
            )
        # What is not listed above is at its default.
        chosen = {"profile", "dataset", "method", "seed", "evals_per_epoch", *recipe(run.dataset)}
        chosen |= {"hidden_dropout", "attention_dropout", *VARIED.get(table, ())}
        assert set(run.non_defaults()) <= chosen


def test_paper_table3_is_five_methods_with_five_seeds_but_one_for_the_long_baseline():
    runs = shown("table3", "paper")
    assert count(runs, "dataset", "method") == {
        (dataset, method): 1 if method == "baseline_da_long" else 5
        for dataset in GLUE_DATASETS
        for method in TEXT_METHODS
    }
    assert {run.seed for run in runs if run.method != "baseline_da_long"} == {0, 1, 2, 3, 4}


def test_paper_table4_has_two_sources_of_labels_for_both_methods():
    rows = [("mmel_h", "original"), ("mmel_h", "predicted"), ("mmel_s", "original"), ("mmel_s", "predicted")]
    expected = {(dataset, *row): 5 for dataset in GLUE_DATASETS for row in [("baseline", "predicted"), *rows]}
    assert count(shown("table4", "paper"), "dataset", "method", "label_source") == expected
    # What Table 4 calls "Predicted" is Table 3's run.
    predicted = {run for run in grid("table4", "paper") if run.label_source == "predicted"}
    assert predicted <= set(grid("table3", "paper"))


def test_paper_table6_has_the_papers_rows_with_one_seed():
    runs = shown("table6", "paper")
    rows = {(fill, ratio): 1 for fill in ("greedy", "beam") for ratio in (0.2, 0.4)}
    for dataset in GLUE_DATASETS:
        # CoLA and SST-2 have one sentence: their "separate" and "joint" are one run.
        modes = ("separate",) if dataset in ("cola", "sst2") else ("separate", "joint")
        for method in ("mmel_h", "mmel_s"):
            for mode in modes:
                cell = [r for r in runs if (r.dataset, r.method, r.pair_mode) == (dataset, method, mode)]
                assert count(cell, "fill", "mask_ratio") == rows
        assert len([run for run in runs if run.dataset == dataset]) == 1 + 2 * 4 * len(modes)
    assert {run.seed for run in runs} == {0}
    # "Greedy, True, 0.4" is Table 3's run with that seed, and the baseline too.
    shared = [run for run in runs if (run.fill, run.pair_mode, run.mask_ratio) == ("greedy", "separate", 0.4)]
    assert len(shared) == 3 * 8
    assert set(shared) <= set(grid("table3", "paper"))


@each_profile
def test_figure2_draws_the_runs_of_table3(profile):
    drawn = {"baseline", "baseline_da_uni", "mmel_h", "mmel_s"}
    assert {run.method for run in grid("figure2", profile)} == drawn
    assert set(grid("figure2", profile)) == {run for run in grid("table3", profile) if run.method in drawn}


def test_the_curves_of_the_paper_have_points_within_an_epoch():
    assert {run.evals_per_epoch for run in grid("figure2", "paper")} == {4}


# Teachers.


@each_text_table
@each_profile
def test_a_teacher_is_the_baseline_of_its_task(table, profile):
    taught = {run: teacher_of(run) for run in shown(table, profile)}
    assert all((taught[run] is None) == (run.method == "baseline" or run.label_source == "original") for run in taught)
    for run, teacher in taught.items():
        if teacher is not None:
            assert (teacher.method, teacher.seed, teacher.num_augmented) == ("baseline", 0, 1)
            assert teacher == with_method(run, "baseline", 0)
    # One a task, itself among the table's runs.
    teachers = {teacher for teacher in taught.values() if teacher is not None}
    assert len(teachers) == len({run.dataset for run in taught})
    assert teachers <= set(taught)


def test_the_teachers_dropout_rates_are_chosen_once():
    # A run that tries out rates is taught as the runs that it serves will be.
    run = next(run for run in grid("table3", "paper") if run.method == "mmel_h" and run.seed == 3)
    assert {teacher_of(choice) for choice in candidates(run)} == {teacher_of(run)}
    assert teacher_of(run).hidden_dropout == teacher_of(run).attention_dropout == -1


@pytest.mark.parametrize("profile", ["mini", "reduced"])
def test_elsewhere_than_in_paper_the_seed_of_choices_is_a_seed_like_any_other(profile):
    run = next(run for run in grid("table3", profile) if run.method == "mmel_h")
    assert teacher_of(run.replace(seed=SELECTION_SEED)) == teacher_of(run)
    assert candidates(teacher_of(run)) == []


def test_images_have_no_teacher():
    assert {teacher_of(run) for run in grid("table1", "paper")} == {None}


# The runs that choose the dropout rates.


@pytest.mark.parametrize("method", TEXT_METHODS)
def test_candidates_try_four_pairs_of_rates_for_every_method(method):
    runs = [run for run in grid("table3", "paper") if run.dataset == "mrpc" and run.method == method]
    choosing = next(run for run in runs if run.seed == 0)
    choices = candidates(choosing)
    # Ascending, so that ties go to the smaller rate.
    assert [(run.hidden_dropout, run.attention_dropout) for run in choices] == [(0, 0), (0, 0.1), (0.1, 0), (0.1, 0.1)]
    for run in choices:
        rates = {"hidden_dropout": run.hidden_dropout, "attention_dropout": run.attention_dropout}
        assert run == choosing.replace(seed=SELECTION_SEED, **rates)
        assert candidates(run) == []
    assert set(choices) == set(runs) - set(shown("table3", "paper"))


def test_one_choice_serves_whatever_tables_4_and_6_vary():
    for method in ("mmel_h", "mmel_s"):
        runs = [
            r
            for r in (*grid("table3", "paper"), *grid("table4", "paper"), *grid("table6", "paper"))
            if r.hidden_dropout == -1
        ]
        runs = [run for run in runs if run.dataset == "rte" and run.method == method]
        assert len({tuple(getattr(run, name) for name in AUGMENTED_TEXT_FIELDS) for run in runs}) > 8
        assert len({tuple(candidates(run)) for run in runs}) == 1


def test_baselines_choose_before_teachers_and_teachers_before_what_they_teach():
    runs = ordered(("table3",), "paper")

    def stage(run):
        if run.method == "baseline":
            return {SELECTION_SEED: 0, 0: 1}.get(run.seed, 3)
        return 2 if run.seed == SELECTION_SEED else 3

    stages = [stage(run) for run in runs]
    assert stages == sorted(stages)
    assert Counter(stages) == {0: 32, 1: 8, 2: 128, 3: 160}


# The small profiles of text.


def test_mini_table3_is_eight_embedded_tasks_with_one_seed():
    runs = grid("table3", "mini")
    assert count(runs, "dataset", "method", "seed") == {
        (f"grammar_{name}", method, 0): 1 for name in GLUE_DATASETS for method in TEXT_METHODS
    }
    assert {(run.model, run.train_size) for run in runs} == {("tiny-bert", 0)}


@pytest.mark.parametrize(("table", "count"), [("table4", 2 * 5), ("table6", (1 + 2 * 4) + (1 + 2 * 8))])
def test_mini_tables_4_and_6_are_two_tasks_with_one_seed(table, count):
    runs = grid(table, "mini")
    assert {run.dataset for run in runs} == {"grammar_cola", "grammar_rte"}
    assert {run.seed for run in runs} == {0}
    assert len(runs) == count


def test_reduced_text_is_fixed_subsets_of_four_tasks():
    runs = grid("table3", "reduced")
    sizes = {"cola": 2000, "mrpc": 1000, "stsb": 1000, "rte": 1000}
    methods = ("baseline", "baseline_da_uni", "mmel_h", "mmel_s")
    assert count(runs, "dataset", "train_size", "method") == {(*task, m): 3 for task in sizes.items() for m in methods}
    assert {(run.model, run.evals_per_epoch) for run in runs} == {("minilm-l6-mlm", 2)}


# Another encoder.


@pytest.mark.parametrize("table", [table3, table4, table6])
def test_another_encoder_can_be_named(table, monkeypatch, tmp_path):
    default = table("paper")
    monkeypatch.setenv("MMEL_TEXT_MODEL", "google/electra-small-generator")
    for profile in ("reduced", "paper"):
        assert {run.model for run in table(profile)} == {"google/electra-small-generator"}
    # The embedded data come with an encoder of their own.
    assert {run.model for run in table("mini")} == {"tiny-bert"}
    assert {run.replace(model="bert-base-uncased") for run in table("paper")} == set(default)


@pytest.mark.parametrize("path", ["{0}/my-bert", "{0}/my-bert/", "{0}/link", "my-bert", "my-bert/../my-bert"])
def test_a_folder_lends_its_name_and_not_its_path(path, monkeypatch, tmp_path):
    # A record that named a path of one machine would not be found on another.
    (tmp_path / "my-bert").mkdir()
    (tmp_path / "link").symlink_to("my-bert")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMEL_TEXT_MODEL", path.format(tmp_path))
    assert {run.model for run in table3("paper")} == {"my-bert"}


@pytest.mark.parametrize(
    ("dataset", "fields"),
    [
        ("cifar10", {}),
        ("digits", {"augment": "crop"}),
        *(
            (dataset, {"epochs": epochs, "lr": 3e-5, "batch_size": 32, "weight_decay": 0.0, "num_augmented": 5})
            for dataset, epochs in (("mnli", 3), ("qqp", 3), ("cola", 10), ("grammar_mnli", 3), ("grammar_stsb", 10))
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_recipe(dataset, fields):
    found = recipe(dataset)
    assert found == fields | ({"model": "bert-base-uncased"} if "lr" in fields else {})
    assert RunConfig(dataset=dataset, **found).dataset == dataset
