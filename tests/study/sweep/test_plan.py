from datetime import UTC, datetime

import pytest

import mmel.study.sweep.paper_hours
from mmel.study.config import ImageRun, TextRun
from mmel.study.needs import SELECTION_SEED, candidates, needs, teacher_of
from mmel.study.sweep.paper_hours import paper_hours
from mmel.study.sweep.plan import PlannedRun, device_key, estimate_speed, parse_only, plan, time_to_go, work
from mmel.study.sweep.view import plan_lines
from mmel.study.tables import TABLES, runs_of

FAST, SLOW = ({"type": "cpu", "name": name, "precision": "bf16"} for name in ("fast", "slow"))
# Of the mini Table 1: the digits, ResNet-8, K = 5.
RUN = next(run for run in TABLES["table1"].runs("mini") if run.method == "mmel_h")


def test_the_plan_says_what_is_recorded_failed_and_missing(store, write):
    runs = TABLES["table1"].runs("mini")
    write(runs[0])
    write(runs[1], status="failed")
    states = {run.config: run.state for run in plan(["table1"], "mini", store)}
    assert len(states) == len(runs)
    assert states.pop(runs[0]) == "recorded"
    assert states.pop(runs[1]) == "failed"
    assert set(states.values()) == {"missing"}


def test_a_run_of_two_tables_is_planned_once_and_belongs_to_the_first(store):
    both = plan(["table1", "table2"], "mini", store)
    assert len({run.config for run in both}) == len(both)
    shared = set(TABLES["table1"].runs("mini")) & set(TABLES["table2"].runs("mini"))
    assert shared
    assert {run.table for run in both if run.config in shared} == {"table1"}


def test_only_keeps_the_runs_that_match_one_value_of_each_field(store):
    kept = plan(["table1"], "mini", store, ["method=mmel_h", "seed=1", "method=baseline_da"])
    assert {(run.config.method, run.config.seed) for run in kept} == {("mmel_h", 1), ("baseline_da", 1)}
    assert parse_only(["decay_epochs=6,12", "redraw=false"]) == {"decay_epochs": {(6, 12)}, "redraw": {False}}


@pytest.mark.parametrize(
    ("only", "named"),
    [
        (["method"], "method"),
        (["methd=mmel_h"], "methd"),
        (["seed=one"], "seed"),
        (["model=resnet8", "model=resnet21"], "model .*resnet14, resnet8.*resnet21"),
        (["redraw=false"], "redraw .*true.*false"),
        (["num_augmented=1", "method=mmel_h"], "num_augmented, method"),
    ],
    ids=" ".join,
)
def test_only_is_refused_where_no_run_has_the_value(store, only, named):
    with pytest.raises(ValueError, match=named):
        plan(["table1"], "mini", store, only)


def test_only_brings_what_the_kept_runs_need(store):
    kept = [run.config for run in plan(["table3"], "paper", store, ["seed=0"])]
    assert {run.seed for run in kept} == {0, SELECTION_SEED}
    for run in kept:
        assert set(needs(run)) <= set(kept[: kept.index(run)]), run
    # A run that tries out dropout rates needs the teacher, which needs runs of its own: needs of needs.
    (one,) = TABLES["table3"].reported("paper")[-1:]
    alone = [
        run.config for run in plan(["table3"], "paper", store, [f"seed={one.seed}", "method=mmel_s", "dataset=rte"])
    ]
    teacher = teacher_of(one)
    assert set(alone) == {one, teacher, *candidates(one), *candidates(teacher)}
    # What nothing needs stays out.
    grid = list(runs_of(["table3"], "paper"))
    assert kept == [run for run in grid if run in set(kept)]
    assert len(kept) < len(grid)


def test_work_counts_every_augmented_example():
    images = ImageRun(method="baseline_da", num_augmented=1)
    text = TextRun(dataset="rte", model="minilm-l6-mlm", method="baseline", num_augmented=1)
    for base in (images, text):
        assert work(base.replace(method="mmel_h", num_augmented=10)) == 10 * work(base)
        # The same number of examples as MMEL's, one view at a time.
        assert work(base.replace(method="baseline_da_long", num_augmented=10)) == 10 * work(base)
        assert work(base.replace(epochs=2 * base.epochs)) == 2 * work(base)
    assert work(images.replace(train_size=5000)) * 10 == work(images)


# Predictions.


def test_the_prediction_is_the_median_per_example_of_runs_like_it(store, write):
    for seed, seconds in enumerate((100.0, 10.0, 12.0)):
        write(RUN.replace(seed=seed), seconds=seconds, device=FAST)
    speed = estimate_speed(store, device=FAST)
    # Evaluations, of a tenth here, take time too.
    assert speed.predict(RUN.replace(seed=7)) == pytest.approx(1.1 * 12)
    assert speed.predict(RUN.replace(method="mmel_s", epochs=2 * RUN.epochs)) == pytest.approx(2 * 1.1 * 12)
    for other in ({"model": "resnet14"}, {"dataset": "cifar10", "augment": "crop_flip"}, {"num_augmented": 2}):
        assert speed.predict(RUN.replace(**other)) is None
    predicted = {run.config: run.predicted_seconds for run in plan(["table1"], "mini", store, speed=speed)}
    assert predicted[RUN] == pytest.approx(1.1 * 12)


def test_only_what_one_process_trained_on_the_same_device_counts(store, write):
    write(RUN, device=SLOW)
    write(RUN.replace(seed=7), device=FAST, processes=2)
    write(RUN.replace(seed=8), device=FAST, resumed_from=[{"device": SLOW}])
    assert estimate_speed(store, device=FAST).predict(RUN) is None
    assert estimate_speed(store, device=SLOW).predict(RUN) == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("field", "value"), [("type", "cuda"), ("name", "B"), ("capability", "AVX2"), ("threads", 1), ("native_bf16", True)]
)
def test_devices_differ_in_all_that_decides_speed(field, value):
    device = {"type": "cpu", "name": "A", "threads": 2}
    assert device_key(device) == device_key(device | {"remark": "none"})
    assert device_key(device) != device_key(device | {field: value})


def test_runs_count_in_the_precision_that_a_run_would_take(store, write):
    write(RUN, seconds=100.0, device=FAST)
    write(RUN.replace(precision="fp32"), seconds=300.0, device=FAST | {"precision": "fp32"})
    assert estimate_speed(store, device=FAST).predict(RUN) == pytest.approx(110.0)
    assert estimate_speed(store, device=FAST).predict(RUN.replace(precision="fp32")) == pytest.approx(330.0)
    assert estimate_speed(store, device=FAST | {"precision": "fp32"}).predict(RUN) is None


def test_on_a_cluster_the_runs_count_that_it_recorded_itself(store, write):
    write(RUN, seconds=1000.0, started="2026-01-01T23:59:59+00:00")
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert estimate_speed(store, since=since).predict(RUN) is None
    write(RUN.replace(seed=7), started="2026-01-02T00:00:00+00:00")
    assert estimate_speed(store, since=since).predict(RUN) == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([(None, 0.0)], "unknown"),
        ([(100.0, 40.0), (100.0, 0.0)], "80 s"),
        ([(14_400.0, 0.0), (10.0, 20.0), (None, 0.0)], r"2.0 h and 1 runs whose time is unknown"),
    ],
)
def test_the_time_to_go_of_two_at_once_counts_what_is_known(runs, words):
    assert words in time_to_go(runs, 2)


def test_a_plan_costs_measured_time_then_the_papers_then_an_unknown_one():
    measured = PlannedRun(RUN, "table1", "missing", 7200.0)
    published = PlannedRun(papers_run(), "table1", "missing", None)
    unknown = PlannedRun(TABLES["table5"].runs("paper")[0], "table5", "missing", None)
    done = PlannedRun(RUN.replace(seed=7), "table1", "recorded", 7200.0)
    *lines, table1, table5, total = plan_lines([measured, published, unknown, done], ["table1", "table5"], "fast")
    assert [" ".join(line.split("  ")[:-3]).split()[1:] for line in lines] == [
        ["2.0", "h"],
        ["2.9", "h", "(V100)"],
        ["unknown"],
        ["2.0", "h"],
    ]
    assert table1 == "table1: 2 runs, 2.0 h and 2.9 h (V100)"
    assert table5 == "table5: 1 runs, unknown"
    assert "3 runs to train" in total
    assert "2.0 h and 2.9 h (V100) and 1 runs whose time is unknown" in total


# The paper's own times.


def papers_run():
    wanted = ("cifar10", "resnet20", "mmel_s", 0)
    runs = TABLES["table1"].reported("paper")
    return next(run for run in runs if (run.dataset, run.model, run.method, run.seed) == wanted)


def test_the_papers_hours_for_images():
    run = papers_run()
    assert paper_hours(run) == 2.9
    assert paper_hours(run.replace(num_augmented=5)) == pytest.approx(1.45)
    # On 45,000 of the 50,000 images.
    assert paper_hours(candidates(run)[0]) == pytest.approx(2.9 * 0.9)
    assert paper_hours(run.with_method("baseline_da", 0)) == 0.7
    assert paper_hours(run.with_method("baseline_da_long", 0)) == 6.7


def test_the_papers_hours_for_text_are_those_of_all_tasks_with_one_seed():
    runs = [run for run in TABLES["table3"].reported("paper") if run.seed == 0]
    for method, hours in (("baseline", 21.5), ("baseline_da_long", 107.5), ("mmel_h", 31.8)):
        mine = [paper_hours(run) for run in runs if run.method == method]
        assert len(mine) == 8
        assert sum(mine) == pytest.approx(hours)
        assert max(mine) > 10 * min(mine)


def test_what_the_paper_has_no_time_for(monkeypatch):
    assert paper_hours(TABLES["table5"].runs("paper")[0]) is None
    assert paper_hours(TABLES["table1"].runs("mini")[0]) is None
    (run, *_) = TABLES["table3"].runs("paper")
    assert paper_hours(run) > 0
    monkeypatch.setattr(mmel.study.sweep.paper_hours, "_text_hours", lambda: {"mmel_h": 1.0})
    assert paper_hours(run) is None
    assert paper_hours(TABLES["table3"].runs("paper", "some/bert")[0]) is None
