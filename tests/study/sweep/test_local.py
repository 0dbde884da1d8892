"""Runs in processes and kernels of this machine, and what is left when one of them, or the sweep, dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmel.study.config import ImageRun
from mmel.study.records import Store
from mmel.study.sweep import Outcome
from mmel.study.sweep.local import LocalExecutor, threads_of
from mmel.study.tables import TABLES
from mmel.study.train import train

ROOT = Path(__file__).resolve().parents[3]
TINY = ImageRun(
    profile="mini", dataset="digits", model="resnet8", augment="crop", num_augmented=2, train_size=64, batch_size=32
).replace(epochs=3, decay_epochs=(), precision="fp32")
# It takes hours.
LONG = TINY.replace(epochs=100_000)
SENSELESS = TINY.replace(evals_per_epoch=100)
pytestmark = pytest.mark.slow
CLOCK = {"kind", "train_seconds", "eval_seconds", "images_per_second"}


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setenv("MMEL_DEVICE", "cpu")


def results(store, run):
    """The part of a record's lines that does not tell of the clock."""
    return [{name: line[name] for name in line.keys() - CLOCK} for line in store.read(run).epochs]


def process_of(store, run, seconds=120):
    """The process that trains a run, once one does."""
    end = time.monotonic() + seconds
    while not (holder := store.holder(run)):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
    return int(holder.rpartition(" ")[2])


def test_a_process_that_dies_loses_its_run_alone_and_the_others_end_as_by_themselves(store, tmp_path):
    runs = [TINY, TINY.replace(seed=1)]
    with LocalExecutor(store, slots=2, notebook=False) as executor:
        lost = executor.submit(LONG, "table1")
        failed = executor.submit(SENSELESS, "table1").result()
        os.kill(process_of(store, LONG), signal.SIGKILL)
        assert lost.result(60).outcome is Outcome.LOST
        ended = [future.result() for future in [executor.submit(run, "table1") for run in runs]]
    assert failed.outcome is Outcome.FAILED
    assert failed.reason.startswith("ValueError: evals_per_epoch")
    assert [one.outcome for one in ended] == [Outcome.TRAINED, Outcome.TRAINED]
    assert not multiprocessing.active_children()
    (tmp_path / "alone").mkdir()
    alone, threads = Store(tmp_path / "alone"), torch.get_num_threads()
    # Sums depend on the number of threads.
    torch.set_num_threads(threads_of(2))
    for run in runs:
        list(train(run, alone))
        assert results(store, run) == results(alone, run)
    torch.set_num_threads(threads)
    # Neither the lost run nor the one that cannot be trained is recorded.
    assert len(list(store.records("mini"))) == 2


def test_a_kernel_is_replaced_if_killed_and_stops_its_run_as_the_budget_ends(store, monkeypatch):
    monkeypatch.setenv("MMEL_STOP_AT", str(time.time()))
    with LocalExecutor(store) as executor:
        lost = executor.submit(LONG, "table1")
        os.kill(process_of(store, LONG), signal.SIGKILL)
        assert lost.result(60).outcome is Outcome.LOST
        failed = executor.submit(SENSELESS, "table1").result()
        # Of the budget nothing is left after the first evaluation.
        stopped = executor.submit(TINY, "table1").result()
    assert failed.outcome is Outcome.FAILED
    assert failed.reason.startswith("ValueError: evals_per_epoch")
    assert stopped.outcome is Outcome.LEFT
    assert store.checkpoint_path(TINY).exists()


def test_no_process_outlives_a_sweep_that_is_terminated_or_killed(store):
    command = [sys.executable, "-m", "mmel.study", "sweep", "--no-notebook", "--device", "cpu"]
    command += ["--table", "table1", "--only", "model=resnet14", "--only", "method=mmel_h", "--results", store.root]
    runs = [run for run in TABLES["table1"].runs("mini") if (run.model, run.method) == ("resnet14", "mmel_h")]
    # All of its processes end at SIGTERM; at SIGKILL each one by itself.
    for sent, status, pack in ((signal.SIGTERM, 130, 2), (signal.SIGKILL, -signal.SIGKILL, 1)):
        packed = [*command, "--pack", str(pack)]
        sweep = subprocess.Popen(packed, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for run in runs[:pack]:
            process_of(store, run)
        sweep.send_signal(sent)
        # Ends once every process has closed the pipe: the sweep's and those of its runs.
        _, err = sweep.communicate(timeout=60)
        assert sweep.returncode == status
        assert ("interrupted" in err) is (sent == signal.SIGTERM)
        assert "Traceback" not in err
    # They resume: nothing is recorded.
    assert list(store.records("mini")) == []
