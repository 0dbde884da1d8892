"""What a person who watches a sweep is told."""

import contextlib
import io
import re
import threading
from concurrent.futures import Future

import pytest
from pretend import record_run

import mmel.sweep.driver
import mmel.sweep.view
from mmel import RunConfig
from mmel.records import Store
from mmel.sweep.driver import sweep
from mmel.sweep.plan import PlannedRun
from mmel.sweep.view import watch
from mmel.sweep.workers import Cluster

RUNS = [RunConfig(profile="mini", dataset="digits", augment="crop", seed=seed) for seed in range(5)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(mmel.sweep.driver, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


class Places:
    """Workers of which some train at a time, while the others wait for a place, as Ray has them."""

    def __init__(self, store, places, failing=0):
        self.store, self.failing = store, failing
        self.place, self.go = threading.Semaphore(places), threading.Semaphore(0)

    @contextlib.contextmanager
    def start(self, count, store, **_):
        yield [self] * count

    def submit(self, run):
        future = Future()
        threading.Thread(target=self._train, args=(run.config, future)).start()
        return future

    def _train(self, config, future):
        with self.place, self.store.claim(config):
            self.go.acquire()
            if self.failing:
                self.failing -= 1
                future.set_result("ValueError: K")
                return
            record_run(self.store, config)
            future.set_result(None)


def told(store, monkeypatch, *, predicted, places=2, failing=0):
    """What `status` and `report` are told of five runs on a cluster, one of which ends after each look at it."""
    workers = Places(store, places, failing)
    monkeypatch.setattr("mmel.sweep.ray.ray_workers", workers.start)
    seen, lines = [], []

    def status(done, total, text):
        left = total - done
        # Once for each state: between two runs, and as soon as the next one has begun.
        if left and text.count(" on ") == min(places, left) and (not seen or seen[-1][0] < done):
            seen.append((done, total, text))
            workers.go.release()

    planned = [PlannedRun(config, "table1", "missing", predicted) for config in RUNS]
    sweep(lambda: planned, store, cluster=Cluster(), report=lines.append, status=status)
    return seen, lines


def test_runs_in_a_queue_of_rays_are_not_under_way(store, monkeypatch):
    pytest.importorskip("ray")
    seen, _ = told(store, monkeypatch, predicted=None)
    assert [(done, total) for done, total, _ in seen] == [(done, 5) for done in range(5)]
    name = r"digits \S+ on \S+, process \d+ for \d+ s"
    for (done, _, text), waiting in zip(seen, ["; 3 waiting", "; 2 waiting", "; 1 waiting", "", ""], strict=True):
        runs = ", ".join([name] * min(2, 5 - done))
        assert re.fullmatch(rf"0 failed, {5 - done} left \(time to go unknown\); under way: {runs}{waiting}", text), (
            text
        )


def test_the_time_to_go_counts_the_runs_that_are_really_under_way(store, monkeypatch):
    pytest.importorskip("ray")
    seen, lines = told(store, monkeypatch, predicted=36_000.0)
    ahead = [re.search(r"about (\S+ h) to go", text)[1] for *_, text in seen]
    # 10 h a run, two at a time, the last one alone.
    assert ahead == ["25.0 h", "20.0 h", "15.0 h", "10.0 h", "10.0 h"]
    assert re.fullmatch(r"\[1/5\] digits \S+: accuracy 50\.00 in [\d.]+ s \(about 20\.0 h to go\)", lines[0])
    assert lines[-1].startswith("[5/5] ")
    assert "to go" not in lines[-1]


def test_what_failed_is_counted(store, monkeypatch):
    pytest.importorskip("ray")
    seen, lines = told(store, monkeypatch, predicted=None, places=1, failing=2)
    assert [text.split(",")[0] for *_, text in seen] == ["0 failed", "1 failed", "2 failed", "2 failed", "2 failed"]
    assert re.fullmatch(r"\[1/5\] digits \S+: FAILED: ValueError: K \(time to go unknown\)", lines[0])


def test_a_dead_holder_holds_nothing(store):
    assert store.holder(RUNS[0]) == ""
    with store.claim(RUNS[0]):
        assert re.fullmatch(r"\S+, process \d+", store.holder(RUNS[0]))
    assert store.holder(RUNS[0]) == ""
    # Looking takes nothing from who claims.
    with store.claim(RUNS[0]):
        pass


def test_off_a_terminal_what_is_under_way_is_printed_once_a_minute(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    now = [0.0]
    monkeypatch.setattr(mmel.sweep.view.time, "monotonic", lambda: now[0])
    with watch() as (report, status):
        report("[1/3] a run")
        for second in range(0, 150, 2):
            now[0] = float(second)
            status(1, 3, f"0 failed, 2 left; under way: a run for {second} s")
    assert capsys.readouterr().out.splitlines() == [
        "[1/3] a run",
        "[1/3] 0 failed, 2 left; under way: a run for 60 s",
        "[1/3] 0 failed, 2 left; under way: a run for 120 s",
    ]


def test_on_a_terminal_the_bar_shows_it(capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with watch() as (report, status):
        status(1, 3, "1 failed, 2 left")
        report("[1/3] a run")
    assert "1/3 |" in terminal.getvalue()
    assert "1 failed, 2 left" in terminal.getvalue()
