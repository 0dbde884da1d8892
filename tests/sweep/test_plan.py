from datetime import UTC, datetime

import pytest
from pretend import record_run

import mmel.sweep.paper_hours
from mmel import grids
from mmel.config import RunConfig
from mmel.models import ModelError
from mmel.records import Store
from mmel.sweep.driver import sweep
from mmel.sweep.paper_hours import paper_hours
from mmel.sweep.plan import PlannedRun, SpeedEstimate, cost, estimate_speed, parse_only, plan, work
from mmel.train import TrainingError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def record(
    store,
    config,
    *,
    seconds=10.0,
    eval_seconds=0.0,
    status="finished",
    device="cpu A",
    started="2026-01-01T00:00:00+00:00",
    **more,
):
    header = {"started": started, "device": {"type": "cpu", "name": device}, **more}
    outcome = {"status": status, "error": "loss is nan", "train_seconds": seconds, "wall_seconds": seconds}
    record_run(store, config, 90.0, header=header, epoch={"eval_seconds": eval_seconds}, **outcome)
    return store.read(config)


def test_the_plan_says_what_is_recorded_failed_and_missing(store):
    runs = grids.table1("mini")
    record(store, runs[0])
    record(store, runs[1], status="failed")
    states = {run.config: run.state for run in plan(["table1"], "mini", store)}
    assert len(states) == len(runs)
    assert states.pop(runs[0]) == "recorded"
    assert states.pop(runs[1]) == "failed"
    assert set(states.values()) == {"missing"}


def test_a_run_of_two_tables_is_planned_once_and_belongs_to_the_first(store):
    both = plan(["table1", "table2"], "mini", store)
    assert len({run.config for run in both}) == len(both)
    shared = set(grids.table1("mini")) & set(grids.table2("mini"))
    assert shared
    assert {run.table for run in both if run.config in shared} == {"table1"}


def test_only_keeps_the_runs_that_match_everything(store):
    kept = plan(["table1"], "mini", store, ["method=mmel_h", "seed=1"])
    assert {(run.config.method, run.config.seed) for run in kept} == {("mmel_h", 1)}
    assert parse_only(["decay_epochs=6,12", "redraw=false"]) == {"decay_epochs": (6, 12), "redraw": False}
    for wrong in ("method", "methd=mmel_h", "seed=one"):
        with pytest.raises(ValueError, match=wrong.split("=")[0]):
            plan(["table1"], "mini", store, [wrong])


def test_only_brings_what_the_kept_runs_need(store):
    kept = [run.config for run in plan(["table3"], "paper", store, ["seed=0"])]
    assert {run.seed for run in kept} == {0, grids.SELECTION_SEED}
    for run in kept:
        assert set(grids.needs(run)) <= set(kept[: kept.index(run)]), run
    # A run that tries out dropout rates needs the teacher, which needs runs of its own: needs of needs.
    (one,) = grids.reported("table3", "paper")[-1:]
    alone = [
        run.config for run in plan(["table3"], "paper", store, [f"seed={one.seed}", "method=mmel_s", "dataset=rte"])
    ]
    teacher = grids.teacher_of(one)
    assert set(alone) == {one, teacher, *grids.candidates(one), *grids.candidates(teacher)}
    # What nothing needs stays out.
    grid = grids.runs_of(["table3"], "paper")
    assert kept == [run for run in grid if run in set(kept)]
    assert len(kept) < len(grid)


def test_work_counts_every_augmented_image():
    base = RunConfig(method="baseline_da", num_augmented=1)
    assert work(base.replace(method="mmel_h", num_augmented=10)) == 10 * work(base)
    # The same number of images as MMEL's, one view at a time.
    assert work(base.replace(method="baseline_da_long", num_augmented=10)) == 10 * work(base)
    assert work(base.replace(train_size=5000)) * 10 == work(base)
    assert work(base.replace(model="resnet56")) == pytest.approx(2.8 * work(base))


def test_work_counts_every_augmented_text():
    base = RunConfig(dataset="rte", model="minilm-l6-mlm", method="baseline", num_augmented=1)
    assert work(base.replace(method="mmel_h", num_augmented=5)) == 5 * work(base)
    # The same number of texts as MMEL's, one sample at a time.
    assert work(base.replace(method="baseline_da_long", num_augmented=5)) == 5 * work(base)
    assert work(base.replace(epochs=400)) == 2 * work(base)
    assert work(base.replace(train_size=1245)) == pytest.approx(work(base) / 2)
    assert work(base.replace(model="bert-base-uncased")) > 5 * work(base)
    # Nothing is known of its size: such runs are compared with one another.
    assert work(base.replace(model="some/bert", epochs=400)) == 2 * work(base.replace(model="some/bert")) > 0


# Predictions.


def two_runs():
    first, second, *_ = (run for run in grids.table1("mini") if run.method == "mmel_h")
    return first, second


def test_predicted_time_comes_from_runs_on_the_device_at_hand(store):
    first, second = two_runs()
    assert SpeedEstimate([]).predict(first) is None
    record(store, first, seconds=1000.0, device="slow", started="2026-02-01T00:00:00+00:00")
    assert estimate_speed(store, device="fast").predict(second) is None
    record(store, second, seconds=10.0, device="fast")
    for device, seconds in (("fast", 10.0), ("slow", 1000.0)):
        speed = estimate_speed(store, device=device)
        assert speed.predict(second.replace(model=first.model, dataset=first.dataset)) > 0
        mine = second if device == "fast" else first
        assert speed.predict(mine) == pytest.approx(seconds)
        assert speed.predict(mine.replace(epochs=40)) == pytest.approx(2 * seconds)


def test_the_plan_predicts_with_the_speed_that_it_is_given(store):
    first, _ = two_runs()
    record(store, first, seconds=10.0, device="fast")
    assert {run.predicted_seconds for run in plan(["table1"], "mini", store)} == {None}
    speed = estimate_speed(store, device="fast")
    predicted = {run.config: run.predicted_seconds for run in plan(["table1"], "mini", store, speed=speed)}
    assert predicted[first] == pytest.approx(10.0)
    assert None not in predicted.values()


def test_evaluations_take_time_too(store):
    first, _ = two_runs()
    record(store, first, seconds=10.0, eval_seconds=5.0)
    assert estimate_speed(store, device="cpu A").predict(first) == pytest.approx(15.0)


def test_runs_that_are_most_alike_tell(store):
    first, _ = two_runs()
    baseline = first.replace(method="baseline_da", num_augmented=1)
    # A GPU does not take a fifth of the time for a fifth of the views.
    record(store, first, seconds=10.0)
    record(store, baseline, seconds=8.0)
    speed = estimate_speed(store, device="cpu A")
    assert speed.predict(baseline.replace(seed=7)) == pytest.approx(8.0)
    assert speed.predict(first.replace(seed=7)) == pytest.approx(10.0)


def test_images_that_are_decoded_tell_nothing_of_those_in_memory(store):
    first, _ = two_runs()
    decoded = grids.table5("mini")[0]
    record(store, decoded, seconds=1000.0)
    speed = estimate_speed(store, device="cpu A")
    assert speed.predict(decoded.replace(seed=7)) == pytest.approx(1000.0)
    assert speed.predict(first) is None
    text = grids.table3("mini")[0]
    record(store, text, seconds=10.0)
    speed = estimate_speed(store, device="cpu A")
    assert speed.predict(text.replace(seed=7)) == pytest.approx(10.0)
    assert speed.predict(first) is None


def test_only_what_one_process_trained_on_one_device_counts(store):
    first, second = two_runs()
    record(store, first, device="fast", processes=2)
    record(store, second, device="fast", resumed_from=[{"device": {"name": "slow"}}])
    assert estimate_speed(store, device="fast").predict(first) is None
    assert estimate_speed(store, device="slow").predict(second) is None


def test_on_a_cluster_what_it_recorded_itself_counts(store):
    first, second = two_runs()
    record(store, first, seconds=1000.0, device="a laptop", started="2026-01-01T23:59:59+00:00")
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert estimate_speed(store, since=since).predict(second) is None
    record(store, second, seconds=10.0, device="a node", started="2026-01-02T00:00:00+00:00")
    assert estimate_speed(store, since=since).predict(second) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("predicted", "words"),
    [
        ([], "0 s"),
        ([60.0, 30.0], "90 s"),
        ([None], "unknown"),
        ([7200.0, None, None], "2.0 h and 2 runs whose time is unknown"),
    ],
)
def test_costs_count_what_is_known(predicted, words):
    assert cost(predicted) == words


# The paper's own times.


def test_the_papers_hours_for_images():
    (run,) = (
        run
        for run in grids.reported("table1", "paper")
        if (run.dataset, run.model, run.method, run.seed) == ("cifar10", "resnet20", "mmel_s", 0)
    )
    assert paper_hours(run) == 2.9
    assert paper_hours(run.replace(num_augmented=5)) == pytest.approx(1.45)
    # On 45,000 of the 50,000 images.
    assert paper_hours(grids.candidates(run)[0]) == pytest.approx(2.9 * 0.9)
    assert paper_hours(grids.with_method(run, "baseline_da", 0)) == 0.7
    assert paper_hours(grids.with_method(run, "baseline_da_long", 0)) == 6.7


def test_the_papers_hours_for_text_are_those_of_all_tasks_with_one_seed():
    runs = [run for run in grids.reported("table3", "paper") if run.seed == 0]
    for method, hours in (("baseline", 21.5), ("baseline_da_long", 107.5), ("mmel_h", 31.8)):
        mine = [paper_hours(run) for run in runs if run.method == method]
        assert len(mine) == 8
        assert sum(mine) == pytest.approx(hours)
        assert max(mine) > 10 * min(mine)


def test_what_the_paper_has_no_time_for(monkeypatch):
    assert paper_hours(grids.table5("paper")[0]) is None
    assert paper_hours(grids.table1("mini")[0]) is None
    (run, *_) = grids.table3("paper")
    assert paper_hours(run) > 0
    monkeypatch.setattr(mmel.sweep.paper_hours, "_text_hours", lambda: {"mmel_h": 1.0})
    assert paper_hours(run) is None
    monkeypatch.setenv("MMEL_TEXT_MODEL", "some/bert")
    assert paper_hours(grids.table3("paper")[0]) is None


# Sweeps, without training.


def test_the_sweep_skips_what_is_recorded_and_lists_what_failed(store, trained):
    runs = grids.table1("mini")
    record(store, runs[0])
    record(store, runs[1], status="failed")
    outcome = run_sweep(store, only=[])
    assert [run.config for run in outcome.recorded] == [runs[0]]
    assert [(run.config, error) for run, error in outcome.failed] == [(runs[1], "loss is nan")]
    assert set(trained) == set(runs[2:])
    assert {run.config for run in outcome.trained} == set(runs[2:])


def test_failed_runs_are_trained_again_on_request(store, trained):
    runs = grids.table1("mini")
    record(store, runs[1], status="failed")
    outcome = run_sweep(store, retry_failed=True)
    assert runs[1] in trained
    assert not outcome.failed


def test_a_budget_leaves_what_would_not_fit_and_says_what_it_would_take(store, trained):
    runs = grids.table1("mini")
    # A recorded run makes every other one predictable; a budget of nothing then begins none.
    record(store, runs[0], seconds=100.0)
    outcome = run_sweep(store, budget_minutes=0.001)
    assert not trained
    assert {run.config for run in outcome.left} == set(runs[1:])
    assert all(run.predicted_seconds > 1 for run in outcome.left)


def test_a_budget_that_is_spent_begins_no_run_of_unknown_time(store, trained):
    planned = [PlannedRun(config, "table1", "missing", None) for config in grids.table1("mini")[:3]]
    outcome = sweep(lambda: planned, store, notebook=False, budget_minutes=0.0, report=lambda line: None)
    assert not trained
    assert outcome.left == planned


@pytest.mark.parametrize(
    "error",
    [TrainingError("loss is nan"), ModelError("no weights"), ValueError("K"), RuntimeError("CUDA"), KeyError(1)],
)
def test_one_run_that_fails_does_not_stop_the_others(store, monkeypatch, error):
    def train(config, store, **_):
        if config.method == "mmel_h":
            raise error
        record(store, config)
        return []

    monkeypatch.setattr("mmel.train.train", train)
    outcome = run_sweep(store, only=["model=resnet8", "seed=0"])
    ((run, reason),) = outcome.failed
    assert run.config.method == "mmel_h"
    assert reason == f"{type(error).__name__}: {error}"
    assert len(outcome.trained) == 4


@pytest.fixture
def trained(monkeypatch):
    """Replaces training by writing a record at once; lists what was asked for."""
    configs = []

    def train(config, store, **_):
        configs.append(config)
        record(store, config)
        return []

    monkeypatch.setattr("mmel.train.train", train)
    return configs


def run_sweep(store, only=(), **options):
    def replan():
        return plan(["table1"], "mini", store, only, estimate_speed(store, device="cpu A"))

    return sweep(replan, store, notebook=False, report=lambda line: None, **options)
