"""One run on two processes that find each other over gloo, beside the same run on one."""

import os
import socket

import pytest
import torch

from mmel import RunConfig
from mmel.records import Store
from mmel.train import processes, train
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
LEFT_OUT = {"kind", "train_seconds", "eval_seconds", "sequences_per_second"}


def image_gradients():
    """Gradients, losses and statistics of an uneven batch and of one with fewer originals than processes."""
    task = VisionTask(IMAGES, None, CPU)
    step, found = Step(task, IMAGES, CPU), []
    # BatchNorm sees the shares; its running statistics do not depend on them.
    task.model.eval()
    for index in (torch.arange(21), torch.tensor([5])):
        found += [*step.gradients(index, 1), *(p.grad.clone() for p in task.model.parameters())]
    return [*found, torch.tensor(task.evaluate()["accuracy_pct"])]


def text_lines(folder):
    return [{k: v for k, v in line.items() if k not in LEFT_OUT} for line in train(TEXTS, Store(folder), device="cpu")]


def _work(folder):
    """What each process does; they leave what they found in files."""
    assert processes.start("cpu") == CPU
    rank = processes.rank()
    found = {
        "count": processes.count(),
        "gradients": image_gradients(),
        "gathered": processes.gathered(7 - rank),
        "lines": text_lines(folder / "results"),
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
    (folder / "results").mkdir()
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
    alone = text_lines(tmp_path)
    assert [line["epoch"] for line in main["lines"]] == [line["epoch"] for line in alone] == [1, 2]
    for ours, expected in zip(main["lines"], alone, strict=True):
        assert ours == pytest.approx(expected, rel=1e-3)
    # The main process alone yields, and each run has one record.
    assert other["lines"] == []
    records = list(store.records("mini"))
    assert [record.config.method for record in sorted(records, key=lambda r: r.header["started"])][-1] == "mmel_s"
    assert len(records) == 2
    for record in records:
        assert len(record.epochs) == record.config.epochs
        assert record.header["processes"] == 2
        assert record.result["micro_batch"] is None
    assert Store(tmp_path).read(TEXTS).header["processes"] == 1


def test_all_processes_know_every_value(together):
    assert [found["gathered"] for found in together[0]] == [[7, 6], [7, 6]]


def test_one_process_needs_no_launcher():
    assert (processes.count(), processes.rank(), processes.is_main()) == (1, 0, True)
    index = torch.arange(5)
    assert torch.equal(processes.share(index), index)


def test_one_gpu_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device must be cpu or cuda where several processes share a run"):
        processes.start("cuda:1")
