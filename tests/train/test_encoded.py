"""Training on images that are decoded step by step."""

import contextlib
import signal

import pytest
import torch

from mmel import RunConfig
from mmel.augment.resized_crop import center_crop
from mmel.data import DataError
from mmel.data.encoded import EncodedImages
from mmel.data.imagenet import load_encoded
from mmel.records import Store
from mmel.train import checkpoint, load_trained, processes, train
from mmel.train.encoded import EncodedVisionTask
from mmel.train.step import Step

CONFIG = RunConfig(
    dataset="drawings",
    model="resnet18_narrow",
    augment="resized_crop_flip",
    image_size=32,
    train_size=24,
    batch_size=8,
    num_augmented=3,
    epochs=3,
    decay_epochs=(2,),
    precision="fp32",
)
CLOCKS = {"train_seconds", "eval_seconds", "images_per_second"}
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def few(monkeypatch, broken=()):
    """Cuts the drawings to 24 + 12; `broken` are the names of those that hold no image."""
    parts = load_encoded("drawings")

    def load(dataset, data_root=None):
        cut = []
        for part, size in zip(parts, (24, 12), strict=True):
            files = [(name, b"" if name in broken else data) for name, data in part.files[:size]]
            cut.append(EncodedImages(files, torch.arange(size), part.labels[:size], part.num_classes))
        return tuple(cut)

    monkeypatch.setattr("mmel.train.encoded.load_encoded", load)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_a_run_is_recorded_with_its_sizes_and_what_could_not_be_decoded(store, monkeypatch, capsys):
    few(monkeypatch, broken=("train/checks/001.jpg", "val/dots/002.jpg"))
    lines = list(train(CONFIG, store, device="cpu"))
    assert len(lines) == 3
    record = store.read(CONFIG)
    assert record.header["sizes"] == {
        "train": 24,
        "train_available": 24,
        "eval": 12,
        "eval_split": "val",
        "sampled": ["train", "val"],
    }
    assert record.result["num_unreadable"] == 2
    assert record.result["unreadable"] == ["train/checks/001.jpg", "val/dots/002.jpg"]
    # A share of the eleven images that could be looked at.
    assert (record.result["accuracy_pct"] * 11 / 100) % 1 == pytest.approx(0, abs=1e-9)
    told = capsys.readouterr().err
    assert told.count("cannot decode train/checks/001.jpg") == 1
    views, weights = load_trained(CONFIG, store, device="cpu").most_uneven(num_images=5, num_augmented=4)
    assert views.shape == (4, 32, 32, 3)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)


def test_nothing_that_can_be_decoded_is_an_error(monkeypatch, store):
    few(monkeypatch, broken={name for name, _ in load_encoded("drawings")[0].files})
    with pytest.raises(DataError, match=r"^drawings: none of 8 images can be decoded \(train/"):
        list(train(CONFIG, store, device="cpu"))


def test_views_are_the_central_crop_then_random_ones(monkeypatch):
    few(monkeypatch)
    task = EncodedVisionTask(CONFIG, None, CPU)
    index = task.order(1)[:4]
    views = task.views(index, epoch=1)
    assert views.shape == (4, 3, 3, 32, 32)
    originals = [task.train_images.decode(place)[1] for place in index.tolist()]
    assert torch.equal(views[:, 0], center_crop(originals, 32))
    assert not torch.equal(views[:, 1:], task.views(index, epoch=2)[:, 1:])
    baseline = CONFIG.replace(method="baseline_da", num_augmented=1)
    assert EncodedVisionTask(baseline, None, CPU).views(index, 1).shape == (4, 1, 3, 32, 32)


def test_an_image_is_decoded_once_a_step_whatever_k(monkeypatch):
    few(monkeypatch)
    task = EncodedVisionTask(CONFIG, None, CPU)
    decoded = []
    original = EncodedImages.decode
    monkeypatch.setattr(EncodedImages, "decode", lambda self, place: decoded.append(place) or original(self, place))
    for part in task.order(1).split(CONFIG.batch_size):
        task.terms(part, 1)
    assert sorted(decoded) == list(range(24))


@pytest.mark.parametrize("drop_last", [True, False])
def test_of_several_processes_each_decodes_what_it_takes(monkeypatch, drop_last):
    few(monkeypatch)
    config = CONFIG.replace(train_size=0, batch_size=7, drop_last=drop_last)
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "main_first", contextlib.nullcontext)
    decoded, taken, original = [], [], EncodedImages.decode
    monkeypatch.setattr(EncodedImages, "decode", lambda self, place: decoded.append(place) or original(self, place))
    for rank in (0, 1):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        task = EncodedVisionTask(config, None, CPU)
        for batch in task.order(1).split(config.batch_size)[: task.steps]:
            mine = processes.share(batch)
            taken += mine.tolist()
            task.terms(mine, 1)
        task._train._threads.shutdown()
    assert len(taken) == (21 if drop_last else 24)
    assert sorted(decoded) == sorted(taken)


def test_processes_of_one_machine_divide_its_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert processes.cores() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert processes.cores() == 5
    few(monkeypatch)
    assert EncodedVisionTask(CONFIG, None, CPU)._train._threads._max_workers == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert processes.cores() == 1


def test_an_image_left_out_does_not_change_the_others(monkeypatch):
    few(monkeypatch)
    whole = EncodedVisionTask(CONFIG, None, CPU)
    index = torch.arange(4)
    views = whole.views(index, 1)
    few(monkeypatch, broken=("train/checks/001.jpg",))
    part = EncodedVisionTask(CONFIG, None, CPU)
    assert torch.equal(part.views(index, 1), views[[0, 2, 3]])
    assert part.terms(index, 1).loss.shape == (3,)


def test_memory_is_tried_before_the_first_step_and_leaves_no_trace(store, monkeypatch):
    few(monkeypatch)
    seen, weights = [], []
    gradients = Step.gradients

    def watched(self, index, epoch):
        if seen:
            weights.append({name: value.clone() for name, value in self.task.model.state_dict().items()})
        seen.append(len(index))
        return gradients(self, index, epoch)

    monkeypatch.setattr(Step, "gradients", watched)
    list(train(CONFIG.replace(epochs=1, decay_epochs=()), store, device="cpu"))
    assert seen == [8, 8, 8, 8]
    fresh = EncodedVisionTask(CONFIG, None, CPU).model.state_dict()
    assert all(torch.equal(fresh[name], weights[0][name]) for name in fresh)


def test_a_batch_that_does_not_fit_is_halved_before_the_first_step(store, monkeypatch):
    few(monkeypatch)
    terms, parts = EncodedVisionTask.terms, []

    def small(self, index, epoch):
        parts.append(len(index))
        if len(index) > 4:
            raise torch.OutOfMemoryError("no more")
        return terms(self, index, epoch)

    monkeypatch.setattr(EncodedVisionTask, "terms", small)
    list(train(CONFIG.replace(epochs=1, decay_epochs=()), store, device="cpu"))
    assert parts == [8, 8, *[4] * 8]
    assert store.read(CONFIG.replace(epochs=1, decay_epochs=())).result["micro_batch"] == 4


def _run(folder):
    for _ in train(CONFIG, Store(folder), device="cpu"):
        pass


def _content(store):
    record = store.read(CONFIG)
    epochs = [{k: v for k, v in line.items() if k not in CLOCKS} for line in record.epochs]
    return epochs, {k: v for k, v in record.result.items() if k in ("accuracy_pct", "num_unreadable", "micro_batch")}


def test_a_killed_run_ends_bit_for_bit_like_one_never_stopped(start, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert start(_run, whole) == 0
    # In the second epoch: the third step of it, after the checkpoint of the first.
    assert start(_run, killed, kill=("mmel.train.step:Step", "__call__", 5, "after")) == -signal.SIGKILL
    assert start(_run, killed) == 0
    assert _content(Store(killed)) == _content(Store(whole))
    ours, theirs = (checkpoint.load(Store(f).weights_path(CONFIG))["model"] for f in (killed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
