"""A run on text that is killed, its teacher's training included, ends as one that was never stopped: with dropout."""

import json
import signal

import pytest
import torch

from mmel import RunConfig
from mmel.grids import teacher_of
from mmel.records import Store
from mmel.train import checkpoint, train

CONFIG = RunConfig(
    dataset="grammar_rte",
    model="small-bert",
    method="mmel_s",
    num_augmented=3,
    train_size=24,
    batch_size=10,
    drop_last=False,
    epochs=4,
    evals_per_epoch=2,
    lr=1e-3,
    weight_decay=0.0,
    hidden_dropout=0.1,
    attention_dropout=0.1,
)
TEACHER = teacher_of(CONFIG)
# What differs from run to run without meaning anything.
CLOCKS = {"train_seconds", "eval_seconds", "sequences_per_second"}

# (owner, function, at which call, before or after it): where the process dies. The teacher and the run have 12 steps
# and 8 evaluations each, and save a checkpoint after the second epoch and weights at the end.
KILLS = [
    ("mmel.train.step:Step", "__call__", 8, "before"),  # in the teacher's third epoch
    ("mmel.records:RunWriter", "finish", 1, "before"),  # the teacher's weights saved, no result line
    ("mmel.augment.text_cache:FillCache", "write", 1, "after"),  # texts augmented, not yet labelled
    ("mmel.train.checkpoint", "write_atomically", 3, "before"),  # texts labelled, not yet kept
    ("tempfile", "mkstemp", 5, "after"),  # while the labels are written
    ("mmel.train.step:Step", "gradients", 14, "after"),  # the longest texts tried, no step taken
    ("mmel.train.step:Step", "__call__", 12 + 8, "after"),  # in the run's third epoch
    ("mmel.records:RunWriter", "append", 9 + 6, "before"),  # within an epoch: evaluated but not written
    ("mmel.train.checkpoint", "write_atomically", 4, "after"),  # right after the run's checkpoint
    ("mmel.records:RunWriter", "finish", 2, "before"),  # weights saved, no result line
]


def run(folder: str) -> None:
    for _ in train(CONFIG, Store(folder), device="cpu", checkpoint_every=2):
        pass


@pytest.fixture(scope="module")
def begin(start, small_bert):
    def begin(folder, kill=None):
        return start(run, folder, kill=kill, environment={"MMEL_TEXT_MODEL": str(small_bert)})

    return begin


@pytest.fixture(scope="module")
def never_stopped(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert begin(folder) == 0
    return Store(folder)


def _content(store, config):
    record = store.read(config)
    epochs = [{k: v for k, v in line.items() if k not in CLOCKS} for line in record.epochs]
    names = ("status", "accuracy_pct", "best_accuracy_pct", "best_epoch", "micro_batch")
    told = ("teacher", "teacher_weights", "teacher_score", "teacher_disagreement_pct", "augmented_texts", "sizes")
    header = {name: record.header.get(name) for name in (*told, "text_model")}
    return epochs, {name: record.result[name] for name in names}, header


def _assert_same(store, other):
    for config in (TEACHER, CONFIG):
        assert _content(store, config) == _content(other, config)
        ours, theirs = (checkpoint.load(s.weights_path(config))["model"] for s in (store, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        # Nothing half-done stays behind.
        assert not store.partial_path(config).exists()
    assert not list(store.root.rglob(".*"))


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill[1]}-{kill[2]}-{kill[3]}")
def test_a_killed_run_ends_bit_for_bit_like_one_never_stopped(kill, begin, never_stopped, tmp_path):
    store = Store(tmp_path)
    assert begin(tmp_path, kill) == -signal.SIGKILL
    assert store.read(CONFIG) is None
    assert begin(tmp_path) == 0
    _assert_same(store, never_stopped)
    assert not store.checkpoint_path(CONFIG).exists()


def test_a_run_killed_again_and_again_still_ends_the_same(begin, never_stopped, tmp_path):
    for kill in (
        ("mmel.train.step:Step", "__call__", 11, "after"),  # the teacher, in its last epoch
        ("mmel.train.step:Step", "__call__", 6 + 9, "before"),  # its rest, then the run's third epoch
        ("mmel.records:RunWriter", "append", 1, "after"),  # the run's first line since its checkpoint
    ):
        assert begin(tmp_path, kill) == -signal.SIGKILL
    assert begin(tmp_path) == 0
    _assert_same(Store(tmp_path), never_stopped)
    assert len(Store(tmp_path).read(CONFIG).header["resumed_from"]) == 1


def test_dropout_was_on(never_stopped):
    # Else the above would say nothing of the masks: without it, the two halves of an epoch share their weights only.
    assert (CONFIG.hidden_dropout, CONFIG.attention_dropout) == (0.1, 0.1)
    header = json.loads(never_stopped.run_path(CONFIG).read_text().splitlines()[0])
    assert (header["hidden_dropout"], header["attention_dropout"]) == (0.1, 0.1)
