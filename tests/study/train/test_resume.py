"""A run that is killed (SIGKILL, at chosen points) or stopped, and started again, ends as one never stopped."""

import json
import signal
import time

import pytest
import torch
from tiny import FILES, IMAGES, KINDS, TAUGHT, TEXT, assert_same_run, numbers, trained

from mmel.study.needs import teacher_of
from mmel.study.records import Store
from mmel.study.train import BudgetError, checkpoint, loop, train
from mmel.study.train.step import Step

# 15 steps, and a checkpoint after each epoch but the last.
LONG = IMAGES.replace(epochs=5, decay_epochs=(2, 4))
# With dropout. The teacher and the run have 8 steps, 8 evaluations and 3 checkpoints each.
STUDENT = TAUGHT.replace(dataset="grammar_rte", method="mmel_s", batch_size=10, epochs=4, evals_per_epoch=2)
STEP, APPEND = ("mmel.study.train.step:Step", "__call__"), ("mmel.study.records:RunWriter", "append")
SAVE, RENAME = ("mmel.study.train.checkpoint", "write_atomically"), ("pathlib:Path", "replace")
FINISH, CACHE = ("mmel.study.records:RunWriter", "finish"), ("mmel.augment.text_cache:FillCache", "write")
# Each is one run, killed again and again: (owner, function, at which call, before or after it).
KILLS = {
    "training": (
        LONG,
        (*STEP, 2, "after"),  # in the first epoch: nothing to resume from
        (*APPEND, 3, "before"),  # the third epoch trained but not written
        (*STEP, 2, "before"),  # in the third epoch again
        (*APPEND, 1, "after"),  # the third epoch written but not checkpointed
    ),
    "saving": (
        LONG,
        (*RENAME, 2, "before"),  # the first checkpoint written, not yet renamed
        (*SAVE, 2, "before"),  # before the second checkpoint
        (*SAVE, 1, "after"),  # right after it
        (*RENAME, 4, "before"),  # the weights written, not yet renamed
    ),
    "ending": (
        LONG,
        (*FINISH, 1, "before"),  # weights saved, no result line
        (*RENAME, 3, "after"),  # recorded, the checkpoint still there
    ),
    # In the second epoch, after views and dropout masks were drawn.
    "sampled images": (LONG.replace(backward="sampled"), (*STEP, 5, "after")),
    "sampled texts": (TEXT.replace(backward="sampled"), (*STEP, 5, "after")),
    "files": (FILES, (*STEP, 5, "after")),  # in the second epoch
    "moving average": (TEXT.with_method("smart", 0), (*STEP, 5, "after")),  # in the second epoch
    "teacher": (
        STUDENT,
        (*STEP, 6, "before"),  # in the teacher's third epoch
        (*FINISH, 1, "before"),  # the teacher's weights saved, no result line
        (*CACHE, 1, "after"),  # texts augmented, not yet labelled
        (*SAVE, 1, "before"),  # texts labelled, not yet kept
        (*STEP, 6, "after"),  # in the run's third epoch, whose teacher's outputs are kept
    ),
    "student": (
        STUDENT,
        (*STEP, 8 + 5, "after"),  # in the run's third epoch
        (*APPEND, 1, "before"),  # within an epoch: evaluated but not written
        (*RENAME, 3, "before"),  # the weights written, not yet renamed
        (*FINISH, 1, "before"),  # weights saved, no result line
    ),
}


def run(config, folder):
    trained(config, Store(folder))


@pytest.fixture(scope="module")
def never_stopped(call, tmp_path_factory):
    """The store of a run that was never stopped."""
    stores = {}

    def made(config):
        if config not in stores:
            folder = tmp_path_factory.mktemp("whole")
            assert call(run, config, folder) == 0
            stores[config] = Store(folder)
        return stores[config]

    return made


def assert_whole(store):
    """Every file that has its name can be read to its end."""
    for path in store.root.rglob("[!.]*.pt"):
        torch.load(path, weights_only=True)
    for path in store.root.rglob("[!.]*.jsonl*"):
        assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_run_ends_bit_for_bit_like_one_never_stopped(name, call, never_stopped, store):
    config, *kills = KILLS[name]
    for kill in kills:
        assert call(run, config, store.root, kill=kill) == -signal.SIGKILL
        assert_whole(store)
    assert call(run, config, store.root) == 0
    for each in filter(None, (config, teacher_of(config))):
        assert_same_run(each, store, never_stopped(config))
    # Nothing half-done stays behind, except the checkpoint of a run whose record was whole already.
    left = [path for path in store.root.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"]
    assert not [path for path in left if path.is_file()]
    assert store.checkpoint_path(config).exists() == (name == "ending")


class Clock:
    """Stands in for `time` in the loop: `seconds` go by in each interval's training."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self, monkeypatch, seconds):
        self.now, interval = 0.0, Step.interval

        def timed(*arguments):
            self.now += seconds
            return interval(*arguments) | {"train_seconds": seconds}

        monkeypatch.setattr(loop, "time", self)
        monkeypatch.setattr(Step, "interval", timed)

    def time(self):
        return self.now

    monotonic = time


@pytest.mark.parametrize("config", KINDS, indirect=True)
def test_a_run_stopped_again_and_again_names_its_processes_and_ends_the_same(config, store, new_store, few_files):
    config = config.replace(evals_per_epoch=3)
    trained(config, whole := new_store())
    for _ in range(3):
        with pytest.raises(BudgetError, match=config.run_id):
            trained(config, store, stop_at=time.time())
        # The first evaluation is always waited for; a resumed run has one, and begins no other.
        stopped = torch.load(store.checkpoint_path(config), weights_only=True)["lines"]
        assert numbers(stopped[1:]) == numbers(whole.read(config).epochs[:1])
    lines = trained(config, store)
    assert [line["epoch"] for line in lines] == [0.3333, 0.6667, 1, 1.3333, 1.6667, 2]
    assert_same_run(config, store, whole)
    (before,) = store.read(config).header["resumed_from"]
    assert before.keys() == {"device", "versions", "commit", "dirty", "started"}


def test_a_budget_is_kept_by_the_time_of_the_last_interval(config, store, monkeypatch, steps):
    config = config.replace(evals_per_epoch=3)
    clock = Clock(monkeypatch, 10)
    stopped, epochs = train(config, store, device="cpu", stop_at=25), []
    with pytest.raises(BudgetError):
        epochs.extend(line["epoch"] for line in stopped)
    monkeypatch.setenv("MMEL_STOP_AT", str(clock.now + 5))
    with pytest.raises(BudgetError):
        trained(config, store)
    assert len(steps) == 2
    monkeypatch.setenv("MMEL_STOP_AT", str(clock.now + 15))
    with pytest.raises(BudgetError):
        trained(config, store)
    assert len(steps) == 3
    monkeypatch.setenv("MMEL_STOP_AT", "")
    assert len(trained(config, store)) == 6
    assert len(store.read(config).header["resumed_from"]) == 2


@pytest.mark.parametrize(("seconds", "expected"), [(10, [1]), (40, [2 / 3, 1]), (70, [1 / 3, 2 / 3, 1])])
def test_within_an_epoch_a_checkpoint_waits_for_a_minute_of_work(seconds, expected, config, store, monkeypatch):
    Clock(monkeypatch, seconds)
    saved, save = [], checkpoint.save

    def noted(path, state):
        if "lines" in state:
            saved.append(state["lines"][-1]["epoch"])
        save(path, state)

    monkeypatch.setattr(checkpoint, "save", noted)
    trained(config.replace(evals_per_epoch=3), store)
    assert [epoch for epoch in saved if epoch <= 1] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), "nan"])
def test_a_time_that_is_none_is_refused(value, config, store, monkeypatch):
    if isinstance(value, str):
        monkeypatch.setenv("MMEL_STOP_AT", value)
    with pytest.raises(ValueError, match=r"(?i)stop_at .*nan"):
        trained(config, store, stop_at=value if isinstance(value, float) else None)
