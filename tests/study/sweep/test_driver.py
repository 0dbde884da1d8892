"""The order, the outcomes and the display of a sweep, without training."""

import contextlib
import io
import re
import time
from concurrent.futures import Future

import pytest

import mmel.study.sweep.driver
import mmel.study.sweep.view
from mmel.study.cli import main
from mmel.study.config import ImageRun, TextRun
from mmel.study.needs import candidates, teacher_of
from mmel.study.records import write_atomically
from mmel.study.sweep import Ended, Outcome
from mmel.study.sweep.driver import KEPT_BYTES, Sweep
from mmel.study.sweep.local import Executor
from mmel.study.sweep.plan import PlannedRun
from mmel.study.sweep.view import watch
from mmel.study.tables import TABLES

RUNS = [ImageRun(profile="mini", dataset="digits", augment="crop", seed=seed) for seed in range(5)]
STUDENT = next(run for run in TABLES["table3"].runs("mini") if run.method == "mmel_h")
TEACHER = teacher_of(STUDENT)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(mmel.study.sweep.driver, "PAUSE_SECONDS", 0.01)


def outcomes(ended):
    return {config: what.outcome for config, what in ended.items()}


def test_what_is_recorded_is_skipped_and_what_failed_is_told(swept, write):
    write(RUNS[0])
    write(RUNS[1], status="failed", error="loss is nan")
    ended, begun, _ = swept(RUNS[:3])
    assert begun == RUNS[2:3]
    assert ended[RUNS[1]] == Ended(Outcome.FAILED, "loss is nan")
    assert outcomes(ended) == {RUNS[0]: Outcome.RECORDED, RUNS[1]: Outcome.FAILED, RUNS[2]: Outcome.TRAINED}
    _, begun, _ = swept(RUNS[:3], retry_failed=True)
    assert begun == RUNS[1:2]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST, Outcome.LEFT])
def test_a_run_that_ends_otherwise_is_begun_once_and_stops_no_other(swept, store, outcome):
    bad = Ended(outcome, "a reason")
    ended, begun, lines = swept(RUNS, lambda config: bad if config == RUNS[1] else None)
    assert begun == RUNS
    assert ended.pop(RUNS[1]) == bad
    assert set(outcomes(ended).values()) == {Outcome.TRAINED}
    # The next sweep tries it again.
    assert store.read(RUNS[1]) is None
    assert "a reason" in lines[1]


def test_a_run_that_wrote_no_record_failed(swept, monkeypatch):
    monkeypatch.setattr("mmel.study.records.Store.read", lambda store, config: None)
    ended, *_ = swept(RUNS[:1])
    assert outcomes(ended) == {RUNS[0]: Outcome.FAILED}


def test_runs_wait_for_the_runs_that_they_need(swept):
    chooser = next(run for run in TABLES["table1"].runs("paper") if run.method == "mmel_s" and run.seed == 0)
    _, begun, _ = swept([STUDENT, chooser, TEACHER, *candidates(chooser)])
    assert begun.index(TEACHER) < begun.index(STUDENT)
    assert begun[-1] == chooser


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST, Outcome.LEFT])
def test_a_run_is_left_if_a_run_that_it_needs_was_not_trained(swept, outcome):
    ended, begun, _ = swept([TEACHER, STUDENT, RUNS[0]], lambda run: Ended(outcome) if run == TEACHER else None)
    assert begun == [TEACHER, RUNS[0]]
    assert ended[STUDENT].outcome is Outcome.LEFT
    assert TEACHER.run_id in ended[STUDENT].reason


def test_a_budget_leaves_the_runs_that_would_not_fit(swept):
    epoch = 10.0
    options = {"predicted": epoch * RUNS[0].total_epochs}
    ended, begun, _ = swept(RUNS, stop_at=time.time() + 0.9 * epoch, **options)
    assert begun == []
    assert set(outcomes(ended).values()) == {Outcome.LEFT}
    assert swept(RUNS, stop_at=time.time() - 1)[1] == []
    # A run of unknown time is begun while any of the budget is left.
    assert swept(RUNS[:2], stop_at=time.time() + 60)[1] == RUNS[:2]
    assert swept(RUNS[2:], stop_at=time.time() + 60, **options)[1] == RUNS[2:]


@pytest.mark.parametrize("text", ["nan", "-1", "inf"])
def test_a_budget_that_is_no_number_of_minutes_is_refused(store, capsys, text):
    assert main(["sweep", "--results", str(store.root), f"--budget-minutes={text}"]) == 2
    assert re.fullmatch(r"mmel: budget_minutes .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize("text", ["nan", "soon"])
def test_a_stop_time_that_is_no_time_is_refused(store, capsys, monkeypatch, command, text):
    monkeypatch.setenv("MMEL_STOP_AT", text)
    assert main([command, "--results", str(store.root)]) == 2
    assert re.fullmatch(rf"mmel: .*MMEL_STOP_AT\b.*'{text}'\n", capsys.readouterr().err)
    assert list(store.root.iterdir()) == []


# Several sweeps on one folder.


@pytest.mark.parametrize("status", ["finished", "failed", None])
def test_a_run_that_another_sweep_trains_is_passed_over_and_not_trained_twice(swept, store, write, status):
    lock = contextlib.ExitStack()
    lock.enter_context(store.lock(RUNS[0]))
    assert "process" in store.holder(RUNS[0])

    def look(done, total, text):
        if done == total - 1:
            # The others are trained. The other sweep ends, or is killed and leaves no record.
            if status:
                write(RUNS[0], status=status)
            lock.close()

    ended, begun, _ = swept(RUNS, status=look)
    assert begun == (RUNS[1:] if status else [*RUNS[1:], RUNS[0]])
    expected = {"finished": Outcome.RECORDED, "failed": Outcome.FAILED, None: Outcome.TRAINED}[status]
    assert ended[RUNS[0]].outcome is expected


def test_a_run_that_was_locked_in_the_meantime_is_tried_again_after_the_others(swept):
    answers = iter([Ended(Outcome.LOCKED)])
    ended, begun, _ = swept(RUNS, lambda config: next(answers, None))
    assert begun == [*RUNS, RUNS[0]]
    assert set(outcomes(ended).values()) == {Outcome.TRAINED}


# Weights.


TEXT = TextRun(dataset="grammar_cola", model="tiny-bert", method="mmel_h", epochs=1)
BASELINE = TEXT.replace(method="baseline", num_augmented=1)


@pytest.mark.parametrize(
    ("config", "size", "kept"),
    [
        (RUNS[0], KEPT_BYTES + 1, True),
        (BASELINE, KEPT_BYTES + 1, True),
        (BASELINE.replace(seed=1), KEPT_BYTES + 1, False),
        (TEXT, KEPT_BYTES + 1, False),
        (TEXT, KEPT_BYTES, True),
    ],
    ids=["images", "teacher", "baseline of another seed", "student", "small student"],
)
def test_small_networks_and_those_of_images_and_teachers_are_kept(swept, store, config, size, kept):
    swept([config], lambda config: write_atomically(store.weights_path(config), bytes(size)))
    assert store.weights_path(config).exists() is kept


# What a person who watches is told.


class Queued(Executor):
    """Trains some runs at a time while the others wait, as Ray does; `end` ends the first one."""

    def __init__(self, store, write, places):
        self._store, self._write, self._places = store, write, places
        self._runs, self._locks = [], {}

    def submit(self, run):
        self._runs.append((run.config, Future()))
        self._begin()
        return self._runs[-1][1]

    def end(self, ended):
        config, future = self._runs.pop(0)
        self._locks.pop(config).close()
        if ended.outcome is Outcome.TRAINED:
            self._write(config)
        future.set_result(ended)
        self._begin()

    def _begin(self):
        for config, _ in self._runs[: self._places]:
            if config not in self._locks:
                self._locks[config] = contextlib.ExitStack()
                self._locks[config].enter_context(self._store.lock(config))


def test_the_time_to_go_counts_the_runs_that_are_really_under_way(store, write):
    executor, seen, lines = Queued(store, write, places=2), [], []
    answers = iter([Ended(Outcome.FAILED, "ValueError: K")])

    def look(done, total, text):
        seen.append((done, total, text))
        executor.end(next(answers, Ended(Outcome.TRAINED)))

    planned = [PlannedRun(config, "table1", "missing", 36_000.0) for config in RUNS]
    Sweep(lambda: planned, store, executor, slots=None, report=lines.append, status=look).run()
    assert [(done, total) for done, total, _ in seen] == [(done, 5) for done in range(5)]
    # 10 h a run, two at a time, the last one alone.
    ahead = [re.search(r"about (\S+ h) to go", text)[1] for *_, text in seen]
    assert ahead == ["25.0 h", "20.0 h", "15.0 h", "10.0 h", "10.0 h"]
    name = r"digits \S+ on \S+, process \d+ for 0 s"
    assert re.fullmatch(rf"0 failed, 5 to train \(about .*\); under way: {name}, {name}; 3 waiting", seen[0][2])
    assert re.fullmatch(rf"1 failed, 1 to train \(about .*\); under way: {name}", seen[4][2])
    assert re.fullmatch(r"\[1/5\] digits \S+: FAILED: ValueError: K \(about 20\.0 h to go\)", lines[0])
    assert re.fullmatch(r"\[5/5\] digits \S+: accuracy 50\.00 in [\d.]+ s", lines[-1])


def test_off_a_terminal_the_runs_under_way_are_printed_once_a_minute(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    now = [0.0]
    monkeypatch.setattr(mmel.study.sweep.view.time, "monotonic", lambda: now[0])
    with watch() as (report, status):
        report("[1/3] a run")
        for second in range(0, 150, 2):
            now[0] = float(second)
            status(1, 3, f"under way for {second} s")
    assert capsys.readouterr().out.splitlines() == [
        "[1/3] a run",
        "[1/3] under way for 60 s",
        "[1/3] under way for 120 s",
    ]


def test_on_a_terminal_a_bar_shows_them(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    with watch() as (_, status):
        status(1, 3, "1 failed, 2 to train")
    assert "1/3 |" in terminal.getvalue()
    assert "1 failed, 2 to train" in terminal.getvalue()
