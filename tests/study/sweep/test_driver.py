"""The order and the outcomes of a sweep, without training."""

import contextlib
import time

import pytest

from mmel.study.config import ImageRun, TextRun
from mmel.study.files import write_atomically
from mmel.study.needs import candidates, teacher_of
from mmel.study.sweep import Ended, Outcome
from mmel.study.sweep.cost import Speed
from mmel.study.sweep.driver import KEPT_BYTES
from mmel.study.tables import TABLES

RUNS = [ImageRun(profile="mini", dataset="digits", augment="crop", seed=seed) for seed in range(5)]
STUDENT = next(run for run in TABLES["table3"].runs("mini") if run.method == "mmel_h")
TEACHER = teacher_of(STUDENT)


def outcomes(ended):
    return {run: how.outcome for run, how in ended.items()}


def test_recorded_runs_are_skipped_and_recorded_failures_are_told(swept, write):
    write(RUNS[0])
    write(RUNS[1], status="failed", error="loss is nan")
    ended, begun = swept(RUNS[:3])
    assert begun == RUNS[2:3]
    assert ended[RUNS[1]] == Ended(Outcome.FAILED, "loss is nan")
    assert outcomes(ended) == {RUNS[0]: Outcome.RECORDED, RUNS[1]: Outcome.FAILED, RUNS[2]: Outcome.TRAINED}
    _, begun = swept(RUNS[:3], retry_failed=True)
    assert begun == RUNS[1:2]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST, Outcome.LEFT])
def test_a_run_that_is_not_trained_is_begun_once_stops_no_other_and_is_reported(swept, store, capsys, outcome):
    bad = Ended(outcome, "a reason")
    ended, begun = swept(RUNS, lambda run: bad if run == RUNS[1] else None)
    assert begun == RUNS
    assert ended.pop(RUNS[1]) == bad
    assert set(outcomes(ended).values()) == {Outcome.TRAINED}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["[1/5]", "[2/5]", "[3/5]", "[4/5]", "[5/5]"]
    assert RUNS[1].run_id in lines[1]
    assert "a reason" in lines[1]
    # The next sweep tries it again.
    assert swept(RUNS)[1] == RUNS[1:2]


def test_a_run_that_wrote_no_record_failed(swept, monkeypatch):
    monkeypatch.setattr("mmel.study.records.Store.read", lambda store, run: None)
    ended, _ = swept(RUNS[:1])
    assert outcomes(ended) == {RUNS[0]: Outcome.FAILED}


def test_runs_wait_for_the_runs_that_they_need(swept):
    chooser = next(run for run in TABLES["table1"].runs("paper") if run.method == "mmel_s" and run.seed == 0)
    _, begun = swept([STUDENT, chooser, TEACHER, *candidates(chooser)])
    assert begun.index(TEACHER) < begun.index(STUDENT)
    assert begun[-1] == chooser


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST, Outcome.LEFT])
def test_a_run_is_left_if_a_run_that_it_needs_was_not_trained(swept, outcome):
    ended, begun = swept([TEACHER, STUDENT, RUNS[0]], lambda run: Ended(outcome) if run == TEACHER else None)
    assert begun == [TEACHER, RUNS[0]]
    assert ended[STUDENT].outcome is Outcome.LEFT
    assert TEACHER.run_id in ended[STUDENT].reason


def test_a_budget_leaves_the_runs_whose_first_epoch_would_not_fit(swept, write):
    # 11 s for each epoch.
    fast = RUNS[4].replace(seed=9)
    known = Speed({"type": "cpu", "name": "A"}, [write(fast, seconds=10.0 * fast.total_epochs)])
    ended, begun = swept(RUNS, stop_at=time.time() + 10, speed=known)
    assert begun == []
    assert set(outcomes(ended).values()) == {Outcome.LEFT}
    assert swept(RUNS, stop_at=time.time() - 1)[1] == []
    assert swept(RUNS[2:], stop_at=time.time() + 60, speed=known)[1] == RUNS[2:]


def test_a_run_of_unknown_time_is_begun_within_the_budget_and_the_sweep_learns_from_it(swept, write):
    def train(run):
        write(run, seconds=1000.0 * run.total_epochs)

    assert swept(RUNS, train, stop_at=time.time() + 60)[1] == RUNS[:1]


# Several sweeps on one folder.


@pytest.mark.parametrize("status", ["finished", "failed", None])
def test_a_run_that_another_sweep_trains_is_passed_over_and_not_trained_twice(swept, store, write, status):
    lock = contextlib.ExitStack()
    lock.enter_context(store.lock(RUNS[0]))

    def train(run):
        if run == RUNS[-1]:
            # The other sweep ends, or is killed and leaves no record.
            if status:
                write(RUNS[0], status=status)
            lock.close()

    ended, begun = swept(RUNS, train)
    assert begun == (RUNS[1:] if status else [*RUNS[1:], RUNS[0]])
    expected = {"finished": Outcome.RECORDED, "failed": Outcome.FAILED, None: Outcome.TRAINED}[status]
    assert ended[RUNS[0]].outcome is expected


def test_a_run_that_was_locked_in_the_meantime_is_tried_again_after_the_others(swept):
    answers = iter([Ended(Outcome.LOCKED)])
    ended, begun = swept(RUNS, lambda run: next(answers, None))
    assert begun == [*RUNS, RUNS[0]]
    assert set(outcomes(ended).values()) == {Outcome.TRAINED}


# Weights.

TEXT = TextRun(dataset="grammar_cola", model="tiny-bert", method="mmel_h", epochs=1)
BASELINE = TEXT.replace(method="baseline", num_augmented=1)


@pytest.mark.parametrize(
    ("run", "size", "kept"),
    [
        (RUNS[0], KEPT_BYTES + 1, True),
        (BASELINE, KEPT_BYTES + 1, True),
        (BASELINE.replace(seed=1), KEPT_BYTES + 1, False),
        (TEXT, KEPT_BYTES + 1, False),
        (TEXT, KEPT_BYTES, True),
    ],
    ids=["images", "teacher", "baseline of another seed", "student", "small student"],
)
def test_small_networks_and_those_of_images_and_teachers_are_kept(swept, store, run, size, kept):
    swept([run], lambda run: write_atomically(store.weights_path(run), bytes(size)))
    assert store.weights_path(run).exists() is kept
