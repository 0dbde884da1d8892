"""A run that is killed (SIGKILL, at chosen points) and started again ends as one that was never stopped."""

import signal

import pytest
import torch

from mmel import RunConfig
from mmel.records import Store
from mmel.train import checkpoint, train

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
    ("mmel.train.step:Step", "__call__", 2, "after"),  # in the first epoch: nothing to resume from
    ("mmel.train.step:Step", "__call__", 11, "before"),  # in the fourth epoch
    ("mmel.records:RunWriter", "append", 3, "before"),  # an epoch trained but not written
    ("mmel.records:RunWriter", "append", 2, "after"),  # an epoch written but not checkpointed
    ("mmel.train.checkpoint", "write_atomically", 2, "before"),  # before the second checkpoint
    ("mmel.train.checkpoint", "write_atomically", 2, "after"),  # right after it
    ("pathlib:Path", "replace", 3, "before"),  # a temporary file written, not yet renamed
    ("tempfile", "mkstemp", 2, "after"),  # while the first checkpoint is written
    ("mmel.records:RunWriter", "finish", 1, "before"),  # weights saved, no result line
    ("mmel.records:RunWriter", "finish", 1, "after"),  # recorded, the checkpoint still there
]


def run(folder: str) -> None:
    for _ in train(CONFIG, Store(folder), device="cpu", checkpoint_every=2):
        pass


@pytest.fixture(scope="module")
def never_stopped(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert start(run, folder) == 0
    return Store(folder)


def _content(store):
    record = store.read(CONFIG)
    epochs = [{k: v for k, v in line.items() if k not in CLOCKS} for line in record.epochs]
    result = {k: record.result[k] for k in ("status", "accuracy_pct", "best_accuracy_pct", "best_epoch", "micro_batch")}
    return epochs, result


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill[1]}-{kill[2]}-{kill[3]}")
def test_a_killed_run_ends_bit_for_bit_like_one_never_stopped(kill, start, never_stopped, tmp_path):
    store = Store(tmp_path)
    assert start(run, tmp_path, kill=kill) == -signal.SIGKILL
    was_whole = store.run_path(CONFIG).exists()
    assert start(run, tmp_path) == 0
    assert _content(store) == _content(never_stopped)
    ours, theirs = (checkpoint.load(s.weights_path(CONFIG))["model"] for s in (store, never_stopped))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Nothing half-done stays behind, except what a run that was already whole never looks at again.
    assert not store.partial_path(CONFIG).exists()
    assert was_whole or not store.checkpoint_path(CONFIG).exists()
    assert not list(tmp_path.rglob(".*"))


def test_a_run_killed_twice_still_ends_the_same(start, never_stopped, tmp_path):
    for kill in (KILLS[3], KILLS[2], KILLS[1]):
        start(run, tmp_path, kill=kill)
    assert start(run, tmp_path) == 0
    assert _content(Store(tmp_path)) == _content(never_stopped)


def test_a_resumed_run_names_every_process_that_took_part(start, tmp_path):
    start(run, tmp_path, kill=("mmel.train.step:Step", "__call__", 11, "before"))
    start(run, tmp_path)
    header = Store(tmp_path).read(CONFIG).header
    assert len(header["resumed_from"]) == 1
    assert set(header["resumed_from"][0]) == {"device", "versions", "commit", "dirty", "started"}
