"""One run on two processes that find each other over gloo, beside the same run on one."""

import os
import socket
import time

import pytest
import torch

from mmel import RunConfig
from mmel.records import Store
from mmel.train import BudgetError, checkpoint, processes, train
from mmel.train.step import Step
from mmel.train.vision import VisionTask

pytest.importorskip("accelerate")

CPU = torch.device("cpu")
IMAGES = RunConfig(
    dataset="digits",
    model="resnet8",
    augment="crop",
    train_size=130,
    batch_size=21,
    num_augmented=3,
    epochs=1,
    decay_epochs=(),
    precision="fp32",
)
# Two epochs, a short batch at the end of each.
TRAINED = IMAGES.replace(epochs=2, drop_last=False)
TEXTS = RunConfig(
    dataset="grammar_cola",
    model="small-bert",
    method="mmel_s",
    num_augmented=3,
    train_size=25,
    batch_size=8,
    epochs=2,
    lr=1e-3,
    weight_decay=0.01,
    drop_last=False,
    precision="fp32",
    hidden_dropout=0.0,
    attention_dropout=0.0,
)
# Clocks, and what is no number.
LEFT_OUT = {"kind", "train_seconds", "eval_seconds", "sequences_per_second", "images_per_second"}


def image_gradients():
    """Gradients, losses and statistics of an uneven batch and of one with fewer originals than processes."""
    task = VisionTask(IMAGES, None, CPU)
    step, found = Step(task, IMAGES, CPU), []
    # BatchNorm sees the shares; its running statistics do not depend on them.
    task.model.eval()
    for index in (torch.arange(21), torch.tensor([5])):
        found += [*step.gradients(index, 1), *(p.grad.clone() for p in task.model.parameters())]
    return [*found, torch.tensor(task.evaluate()["accuracy_pct"])]


def lines_of(config, folder, **options):
    return [
        {k: v for k, v in line.items() if k not in LEFT_OUT}
        for line in train(config, Store(folder), device="cpu", **options)
    ]


def stopped(config, folder):
    """Whether a run is stopped after its first epoch, in this process too."""
    try:
        lines_of(config, folder, stop_at=time.time())
    except BudgetError:
        return True
    return False


def _work(folder):
    """What each process does; they leave what they found in files."""
    assert processes.start("cpu") == CPU
    rank = processes.rank()
    found = {
        "count": processes.count(),
        "gradients": image_gradients(),
        "gathered": processes.gathered(7 - rank),
        "lines": lines_of(TEXTS, folder / "results"),
        "whole": lines_of(TRAINED, folder / "whole"),
        "stopped": stopped(TRAINED, folder / "results"),
        "resumed": lines_of(TRAINED, folder / "results"),
    }
    torch.save(found, folder / f"rank{rank}.pt")


def _launched(rank, port, folder, model):
    torch.set_num_threads(1)
    names = {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MMEL_TEXT_MODEL=str(model))
    _work(folder)


@pytest.fixture(scope="module")
def together(small_bert, tmp_path_factory):
    """What two processes found, and the folder of their records."""
    folder = tmp_path_factory.mktemp("together")
    for name in ("results", "whole"):
        (folder / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_launched, (port, folder, small_bert), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)], Store(folder / "results")


@pytest.mark.usefixtures("one_thread")
def test_gradients_losses_and_scores_are_those_of_one_process(together):
    alone = image_gradients()
    for found in together[0]:
        assert found["count"] == 2
        assert len(found["gradients"]) == len(alone)
        for ours, expected in zip(found["gradients"], alone, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_a_text_run_with_its_teacher_is_that_of_one_process(together, text_model, tmp_path):
    (main, other), store = together
    alone = lines_of(TEXTS, tmp_path)
    assert [line["epoch"] for line in main["lines"]] == [line["epoch"] for line in alone] == [1, 2]
    for ours, expected in zip(main["lines"], alone, strict=True):
        assert ours == pytest.approx(expected, rel=1e-3)
    # The main process alone yields, and each run has one record.
    assert other["lines"] == []
    records = [record for record in store.records("mini") if record.config.is_text]
    assert [record.config.method for record in sorted(records, key=lambda r: r.header["started"])][-1] == "mmel_s"
    assert len(records) == 2
    for record in records:
        assert len(record.epochs) == record.config.epochs
        assert record.header["processes"] == 2
        assert record.result["micro_batch"] is None
    assert Store(tmp_path).read(TEXTS).header["processes"] == 1


def test_an_image_run_is_trained_recorded_once_and_resumed(together):
    (main, other), store = together
    assert [line["epoch"] for line in main["whole"]] == [1, 2]
    assert main["whole"][1]["train_loss"] < main["whole"][0]["train_loss"]
    record = store.read(TRAINED)
    assert record.header["processes"] == 2
    assert record.header["sizes"] == {"train": 130, "train_available": 1437, "eval": 360, "eval_split": "test"}
    assert record.result["micro_batch"] is None
    assert (record.result["engine"], record.result["why_eager"]) == ("eager", "no CUDA device")
    # All of the test images, and each once.
    assert (record.score * 360 / 100) % 1 == pytest.approx(0, abs=1e-9)
    # Both were stopped after the first epoch, and went on as if they had not been.
    assert (main["stopped"], other["stopped"]) == (True, True)
    assert len(record.header["resumed_from"]) == 1
    assert main["resumed"] == main["whole"]
    assert (other["whole"], other["resumed"]) == ([], [])
    whole = Store(store.root.parent / "whole")
    assert len(list(whole.records("mini"))) == 1
    ours, theirs = (checkpoint.load(s.weights_path(TRAINED))["model"] for s in (store, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not store.checkpoint_path(TRAINED).exists()


def test_all_processes_know_every_value(together):
    assert [found["gathered"] for found in together[0]] == [[7, 6], [7, 6]]


def test_one_process_needs_no_launcher():
    assert (processes.count(), processes.rank(), processes.is_main()) == (1, 0, True)
    index = torch.arange(5)
    assert torch.equal(processes.share(index), index)


def test_a_launch_that_started_one_process_of_several_is_refused(monkeypatch):
    # What `accelerate launch --cpu --num_processes 2 --num_machines 1` leaves in the environment of its one process.
    for name, value in (("USE_CPU", "True"), ("MIXED_PRECISION", "no"), ("DYNAMO_BACKEND", "NO")):
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    # With --num_processes 1.
    assert processes.start("cpu") == CPU
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match=r"asked for several processes and started one without WORLD_SIZE.*torchrun"):
        processes.start("cpu")


def test_one_gpu_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device must be cpu or cuda where several processes share a run"):
        processes.start("cuda:1")
