"""A run that is killed (SIGKILL, at chosen points) and started again ends as one that was never stopped."""

import multiprocessing
import os
import signal
from pkgutil import resolve_name

import pytest
import torch

from mmel import RunConfig
from mmel.records import Store
from mmel.train import train

CONFIG = RunConfig(
    dataset="digits",
    model="resnet8",
    augment="crop",
    train_size=60,
    batch_size=20,
    num_augmented=3,
    epochs=5,
    decay_epochs=(2, 4),
    drop_last=False,
)
# What differs from run to run without meaning anything.
CLOCKS = {"train_seconds", "eval_seconds", "images_per_second"}

# (owner, function, at which call, before or after it): where the process dies.
KILLS = [
    ("mmel.train.loop:_Training", "_step", 2, "after"),  # in the first epoch: nothing to resume from
    ("mmel.train.loop:_Training", "_step", 11, "before"),  # in the fourth epoch
    ("mmel.records:RunWriter", "append", 3, "before"),  # an epoch trained but not written
    ("mmel.records:RunWriter", "append", 2, "after"),  # an epoch written but not checkpointed
    ("mmel.train.loop", "write_atomically", 2, "before"),  # before the second checkpoint
    ("mmel.train.loop", "write_atomically", 2, "after"),  # right after it
    ("pathlib:Path", "replace", 3, "before"),  # a temporary file written, not yet renamed
    ("mmel.records:RunWriter", "finish", 1, "before"),  # weights saved, no result line
    ("mmel.records:RunWriter", "finish", 1, "after"),  # recorded, the checkpoint still there
]


def run(folder: str, kill: tuple | None) -> None:
    torch.set_num_threads(1)
    if kill is not None:
        _die_at(*kill)
    for _ in train(CONFIG, Store(folder), device="cpu", checkpoint_every=2):
        pass


def _die_at(owner, name, count, when):
    owner = resolve_name(owner)
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(None)
        if len(calls) == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


@pytest.fixture(scope="module")
def start():
    """Runs `run` in a process that has torch imported already, and returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmel.train", "sklearn.datasets", "torch._dynamo"])

    def begin(folder, kill=None):
        process = context.Process(target=run, args=(str(folder), kill))
        process.start()
        process.join(120)
        assert process.exitcode is not None, "the run hangs"
        return process.exitcode

    return begin


@pytest.fixture(scope="module")
def never_stopped(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder) == 0
    return Store(folder)


def _content(store):
    record = store.read(CONFIG)
    epochs = [{k: v for k, v in line.items() if k not in CLOCKS} for line in record.epochs]
    result = {k: record.result[k] for k in ("status", "accuracy_pct", "best_accuracy_pct", "best_epoch", "micro_batch")}
    return epochs, result


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill[1]}-{kill[2]}-{kill[3]}")
def test_a_killed_run_ends_bit_for_bit_like_one_never_stopped(kill, start, never_stopped, tmp_path):
    store = Store(tmp_path)
    assert start(tmp_path, kill) == -signal.SIGKILL
    was_whole = store.run_path(CONFIG).exists()
    assert start(tmp_path) == 0
    assert _content(store) == _content(never_stopped)
    ours, theirs = (torch.load(s.weights_path(CONFIG), weights_only=True) for s in (store, never_stopped))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Nothing half-done stays behind, except what a run that was already whole never looks at again.
    assert not store.partial_path(CONFIG).exists()
    assert was_whole or not store.checkpoint_path(CONFIG).exists()


def test_a_run_killed_twice_still_ends_the_same(start, never_stopped, tmp_path):
    for kill in (KILLS[3], KILLS[2], KILLS[1]):
        start(tmp_path, kill)
    assert start(tmp_path) == 0
    assert _content(Store(tmp_path)) == _content(never_stopped)


def test_a_resumed_run_names_every_process_that_took_part(start, tmp_path):
    start(tmp_path, ("mmel.train.loop:_Training", "_step", 11, "before"))
    start(tmp_path)
    header = Store(tmp_path).read(CONFIG).header
    assert len(header["resumed_from"]) == 1
    assert set(header["resumed_from"][0]) == {"device", "versions", "commit", "dirty", "started"}
