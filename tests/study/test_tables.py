import hashlib
from functools import cache

import pytest
from pretend import record_run

from mmel.study.config import ImageRun, TextRun, run_type
from mmel.study.datasets import DATASETS
from mmel.study.fields import PROFILES
from mmel.study.methods import AUGMENTED, methods_for
from mmel.study.needs import candidates, is_teacher, needs, teacher_of, with_choices
from mmel.study.records import ResultsError
from mmel.study.tables import SEEDS, TABLES, recipe, runs_of

SELECTION = 1000  # the seed of runs that choose
each_table = pytest.mark.parametrize("table", TABLES)
each_profile = pytest.mark.parametrize("profile", PROFILES)


# A thousand runs, each validated: once is enough.


@cache
def runs(table, profile):
    return TABLES[table].runs(profile)


@cache
def reported(table, profile):
    return TABLES[table].reported(profile)


# Names and numbers of the runs of mini, reduced and paper. Were a name to change, its record would be lost.
PINNED = {
    "table1": ((20, "78885e52c365"), (13, "32345ae203a0"), (224, "b4f6c006d1ec")),
    "table2": ((18, "367c3d2cd16a"), (27, "6b4bccce96fa"), (384, "85f8b9da39be")),
    "table3": ((42, "03123d69d0ff"), (51, "91cf4cb4a84f"), (400, "9bd82005151d")),
    "table4": ((10, "c619d90574ad"), (15, "ac1a809d75b6"), (296, "4316950f71e9")),
    "table5": ((3, "0306b93cdb5b"), (3, "98ce2f9b647d"), (9, "a8e819fbbfc3")),
    "table6": ((26, "96c953739269"), (26, "8c74b2bca048"), (216, "b640edcc47df")),
    "figure2": ((34, "6d38064fbdb1"), (51, "91cf4cb4a84f"), (360, "d68e0a7d9e80")),
}


@each_table
@each_profile
def test_the_names_of_all_runs_are_pinned(table, profile):
    found = runs(table, profile)
    names = {f"{run.profile}/{run.dataset}/{run.run_id}" for run in found}
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]
    assert (len(found), digest) == PINNED[table][PROFILES.index(profile)]
    assert len(names) == len(set(found)) == len(found)
    assert {(run.kind, run.profile) for run in found} == {(TABLES[table].kind, profile)}
    assert set(runs_of([table], profile)) == set(found)


# What a table compares.


@each_table
@each_profile
def test_only_what_a_table_varies_differs_between_its_runs(table, profile):
    # A contrast between methods means something only if nothing else differs.
    own = {"method", "num_augmented", "seed", "lambda_t", "model", "dataset", *TABLES[table].settings}
    for data in {run.dataset for run in reported(table, profile)}:
        part = [run.to_dict() for run in reported(table, profile) if run.dataset == data]
        assert len({str({k: v for k, v in run.items() if k not in own}) for run in part}) == 1


# The paper's recipe: section 4.1, Table 5's appendix B, Table 7. What is not named is at its default.

IMAGES = {
    **{"epochs": 200, "lr": 0.1, "decay_epochs": (60, 120, 160), "batch_size": 128, "weight_decay": 5e-4},
    **{"lambda_p": 1.0, "augment": "crop_flip", "train_size": 0, "original": "clean", "redraw": True},
}
FILES = {
    **{"epochs": 100, "decay_epochs": (30, 60, 90), "batch_size": 256, "augment": "resized_crop_flip"},
    **{"lambda_t": 1.0, "side": 224, "seed": 0},
}
TEXT = {"model": "bert-base-uncased", "lr": 3e-5, "batch_size": 32, "weight_decay": 0, "train_size": 0}
TEXT |= {"lambda_t": 1.0, "lambda_p": 1.0}


@each_table
def test_the_paper_profile_has_the_papers_recipe(table):
    varied = {"profile", "dataset", "model", "method", "seed", "num_augmented", "precision", "holdout", "lambda_t"}
    varied |= {"hidden_dropout", "attention_dropout", "evals_per_epoch", *TABLES[table].settings}
    for run in runs(table, "paper"):
        wanted = TEXT if run.is_text else IMAGES | FILES if table == "table5" else IMAGES
        assert {name: getattr(run, name) for name in wanted} == wanted
        k = 5 if run.is_text else 10
        assert run.num_augmented == (1 if run.plan.is_single else run.num_augmented if table == "table2" else k)
        if run.is_text:
            assert run.epochs == (3 if run.dataset in ("mnli", "qqp") else 10)
        usual = run_type(run.dataset)(dataset=run.dataset, **recipe(run.dataset)).to_dict()
        assert {name for name, value in run.to_dict().items() if usual[name] != value} <= varied


@pytest.mark.parametrize("name", DATASETS)
def test_a_recipe_is_a_run(name):
    run = run_type(name)(dataset=name, **recipe(name))
    embedded = {"digits": "resnet20", "drawings": "resnet18"}.get(name, "tiny-bert")
    assert not DATASETS[name].embedded or run.model == embedded


def test_float32_checks_are_one_seed_of_each_cell_but_the_long_one_and_are_not_reported():
    checks, shown = TABLES["table1"].float32_checks("paper"), reported("table1", "paper")
    assert {run.replace(precision="auto") for run in checks} == {
        run for run in shown if run.seed == 0 and run.method != "baseline_da_long"
    }
    assert not set(checks) & set(shown)
    # They take the choice of the runs that they are compared with, and come last.
    assert {choice.precision for run in checks for choice in candidates(run)} == {"auto"}
    assert list(runs_of(["table1"], "paper"))[-len(checks) :] == checks
    assert not any(TABLES[t].float32_checks(p) for t in TABLES for p in PROFILES if (t, p) != ("table1", "paper"))


def test_another_encoder_can_be_named():
    for table in ("table3", "table4", "table6", "figure2"):
        usual, other = (TABLES[table].runs("paper", name) for name in (None, "electra"))
        assert [run.replace(model="electra") for run in usual] == other
        assert {run.model for run in TABLES[table].runs("reduced", "electra")} == {"electra"}
        # The embedded data come with an encoder of their own.
        assert TABLES[table].runs("mini", "electra") == runs(table, "mini")


def test_a_table_or_profile_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^table must be one of table1, .*'table99'"):
        runs_of(["table1", "table99"], "mini")
    with pytest.raises(ValueError, match=r"^profile must be one of .*'huge'"):
        runs_of(["table1"], "huge")


# What a run needs: its choices and its teacher.


@each_table
@each_profile
def test_choices_are_made_for_paper_alone_and_are_not_reported(table, profile):
    choices = {choice for run in reported(table, profile) for choice in candidates(run)}
    assert bool(choices) == (profile == "paper" and table != "table5")
    checks = TABLES[table].float32_checks(profile)
    assert set(runs(table, profile)) - set(reported(table, profile)) == choices | set(checks)
    assert {run.seed for run in choices} <= {SELECTION}
    assert not any(candidates(run) for run in choices)
    if TABLES[table].kind == "images":
        unresolved = {run.method for run in reported(table, profile) if run.lambda_t is None}
        assert unresolved == ({"mmel_s"} if choices else set())


def test_lambda_t_is_chosen_once_on_held_out_images_at_k_10():
    run = ImageRun(profile="paper", method="mmel_s", lambda_t=None, model="resnet44", seed=3, num_augmented=2)
    assert candidates(run) == [
        run.replace(lambda_t=value, holdout=5000, num_augmented=10, seed=SELECTION) for value in (0.5, 1.0, 2.0)
    ]
    assert not any(SELECTION in seeds for seeds in SEEDS.values())


@pytest.mark.parametrize("method", methods_for("text"))
def test_dropouts_are_chosen_once_for_a_task_and_a_method(method):
    found = [run for t in ("table3", "table4", "table6") for run in reported(t, "paper")]
    found = [run for run in found if (run.dataset, run.method) == ("rte", method)]
    (choices,) = {tuple(candidates(run)) for run in found}
    # Ascending, so that ties go to the smaller rate.
    assert [(run.hidden_dropout, run.attention_dropout) for run in choices] == [(0, 0), (0, 0.1), (0.1, 0), (0.1, 0.1)]
    usual = TextRun(dataset="rte").defaults(AUGMENTED)
    rates = ("hidden_dropout", "attention_dropout")
    for run in choices:
        assert run == found[0].replace(seed=SELECTION, **usual, **{name: getattr(run, name) for name in rates})


@each_table
@each_profile
def test_a_teacher_is_the_baseline_of_its_task_and_one_of_the_runs(table, profile):
    found = reported(table, profile)
    taught = {run: teacher_of(run) for run in found}
    for run, teacher in taught.items():
        untaught = not run.is_text or run.method in ("baseline", "smart") or run.label_source == "original"
        assert teacher == (None if untaught else run.with_method("baseline", 0))
        assert set(needs(run)) == {*candidates(run), *([teacher] if teacher else [])}
        # A run that tries out rates is taught as the runs that it serves.
        assert untaught or {teacher_of(choice) for choice in candidates(run)} <= {teacher}
    teachers = {teacher for teacher in taught.values() if teacher}
    assert teachers <= set(found)
    assert len(teachers) == len({run.dataset for run in found if run.is_text})
    assert {run for run in found if is_teacher(run)} == teachers


@pytest.mark.parametrize("profile", ["mini", "reduced"])
def test_elsewhere_the_seed_of_choices_is_a_seed_like_any_other(profile):
    run = next(run for run in runs("table3", profile) if run.method == "mmel_h")
    assert teacher_of(run.replace(seed=SELECTION)) == teacher_of(run)


@each_profile
@pytest.mark.parametrize("tables", [*((table,) for table in TABLES), tuple(TABLES)], ids=" ".join)
def test_runs_come_after_what_they_need_and_seed_by_seed(tables, profile):
    homes = runs_of(tables, profile)
    place = {run: n for n, run in enumerate(homes)}
    assert all(place[needed] < place[run] for run in homes for needed in needs(run))
    # Whenever a sweep stops, its records are as balanced as can be.
    seeds = [run.seed for run in homes if run.seed != SELECTION and run.precision == "auto"]
    assert seeds == sorted(seeds)
    first = {run: table for table in reversed(tables) for run in runs(table, profile)}
    assert homes == first


@pytest.mark.parametrize(
    ("run", "scores", "chosen"),
    [
        (ImageRun(profile="paper", method="mmel_s", lambda_t=None), (90, 92, 91), {"lambda_t": 1.0}),
        (ImageRun(profile="paper", method="mmel_s", lambda_t=None), (90, 92, 92), {"lambda_t": 1.0}),
        (
            TextRun(profile="paper", hidden_dropout=None, attention_dropout=None),
            (60, 61, 62, 62),
            {"hidden_dropout": 0.1, "attention_dropout": 0.0},
        ),
    ],
)
def test_the_best_recorded_candidate_is_chosen(store, run, scores, chosen):
    choices = candidates(run)
    for choice, score in zip(choices, scores, strict=True):
        with pytest.raises(ResultsError, match=choice.run_id):
            with_choices(run, store)
        # One that failed has no score.
        record_run(store, choice, status="failed", error="loss is nan")
        with pytest.raises(ResultsError, match=choice.run_id):
            with_choices(run, store)
        record_run(store, choice, float(score))
    assert with_choices(run, store) == run.replace(**chosen)
    assert with_choices(choices[0], store) == choices[0]
