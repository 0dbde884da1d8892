import pytest

from mmel import grids
from mmel.config import RunConfig
from mmel.records import RunWriter, Store
from mmel.sweep.driver import sweep
from mmel.sweep.plan import SpeedEstimate, parse_only, plan, work


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def record(store, config, *, seconds=10.0, status="finished", device="cpu A", started="2026-01-01T00:00:00+00:00"):
    header = {
        "kind": "run",
        "config": config.to_dict(),
        "started": started,
        "device": {"type": "cpu", "name": device},
        "sizes": {"train": 500, "eval": 360},
    }
    writer = RunWriter(store, config, [header])
    outcome = {"accuracy_pct": 90.0, "train_seconds": seconds, "wall_seconds": seconds, "micro_batch": None}
    writer.finish({"status": status, **outcome} | ({"error": "loss is nan"} if status == "failed" else {}))
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


def test_predicted_time_comes_from_runs_on_the_newest_device(store):
    first, second, *_ = (run for run in grids.table1("mini") if run.method == "mmel_h")
    assert SpeedEstimate([]).predict(first) is None
    old = record(store, first, seconds=1000.0, device="slow")
    new = record(store, second, seconds=10.0, device="fast", started="2026-02-01T00:00:00+00:00")
    estimate = SpeedEstimate([old, new])
    assert estimate.device == "fast"
    assert estimate.predict(second) == pytest.approx(10.0)
    assert estimate.predict(second.replace(epochs=40)) == pytest.approx(20.0)


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


def test_one_run_that_fails_does_not_stop_the_others(store, monkeypatch):
    from mmel.train import TrainingError

    def train(config, store, **_):
        if config.method == "mmel_h":
            raise TrainingError("loss is nan at step 3")
        record(store, config)
        return []

    monkeypatch.setattr("mmel.train.train", train)
    outcome = run_sweep(store, only=["model=resnet8", "seed=0"])
    assert [run.config.method for run, _ in outcome.failed] == ["mmel_h"]
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
    return sweep(
        lambda: plan(["table1"], "mini", store, only), store, notebook=False, report=lambda line: None, **options
    )
