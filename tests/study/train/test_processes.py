"""One run on two processes that find each other over gloo, beside the same run on one."""

import contextlib
import socket
import time

import pytest
import torch
from tiny import CPU, FILES, IMAGES, STILL, TAUGHT, assert_same_run, numbers, step_of, task_of, trained

from mmel.study.data.images import EncodedImages
from mmel.study.records import Store
from mmel.study.train import BudgetError, processes

pytestmark = pytest.mark.usefixtures("one_thread")

# Uneven shares.
PICTURES = IMAGES.replace(train_size=130, batch_size=21)
TEXTS = TAUGHT.replace(method="mmel_s", train_size=25, weight_decay=0.01, **STILL)


def image_step():
    """Loss, statistics, gradients and accuracy of a step on an uneven batch."""
    task = task_of(PICTURES)
    return [*step_of(task, torch.arange(21)), torch.tensor(task.evaluate()["accuracy_pct"])]


def work(rank, folder):
    """The work of each process, which leaves its findings in a file."""
    assert processes.start("cpu") == CPU
    results, whole = Store(folder / "results"), Store(folder / "whole")
    with pytest.raises(BudgetError):
        trained(PICTURES, results, stop_at=time.time())
    found = {
        "ranks": (processes.rank(), processes.count(), processes.is_main()),
        "step": image_step(),
        "gathered": processes.gathered(7 - rank),
        "from_main": processes.from_main(7 - rank),
        "text": numbers(trained(TEXTS, results)),
        "whole": numbers(trained(PICTURES, whole)),
        "resumed": numbers(trained(PICTURES, results)),
    }
    torch.save(found, folder / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def together(start, tmp_path_factory):
    """The findings of two processes, and the folder of their records."""
    folder = tmp_path_factory.mktemp("together")
    for name in ("results", "whole"):
        (folder / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    names = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    begun = [start(work, rank, folder, RANK=str(rank), LOCAL_RANK=str(rank), **names) for rank in (0, 1)]
    for process in begun:
        process.join(300)
    assert [process.exitcode for process in begun] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)], folder


def test_a_step_of_two_processes_is_that_of_one(together):
    for rank, found in enumerate(together[0]):
        assert found["ranks"] == (rank, 2, rank == 0)
        assert (found["gathered"], found["from_main"]) == ([7, 6], 7)
        torch.testing.assert_close(found["step"], image_step(), rtol=1e-4, atol=1e-6)


def test_a_text_run_with_its_teacher_is_that_of_one_process(together, text_model, store):
    found, folder = together
    for ours, expected in zip(found[0]["text"], numbers(trained(TEXTS, store)), strict=True):
        assert ours.pop("kind") == expected.pop("kind")
        assert ours == pytest.approx(expected, rel=1e-3)
    # Each run has one record.
    records = [record for record in Store(folder / "results").records("mini") if record.config.is_text]
    assert sorted(record.config.method for record in records) == ["baseline", "mmel_s"]
    assert [record.header["processes"] for record in records] == [2, 2]
    assert all(len(record.epochs) == 2 for record in records)


def test_an_image_run_is_trained_recorded_once_and_resumed(together):
    (main, other), folder = together
    store, whole = Store(folder / "results"), Store(folder / "whole")
    # Both were stopped after the first epoch, and resumed as if they had not been.
    assert main["resumed"] == main["whole"] == other["whole"] == other["resumed"]
    assert_same_run(PICTURES, store, whole)
    record = store.read(PICTURES)
    assert len(record.header["resumed_from"]) == 1
    assert record.header["sizes"]["train"] == 130
    # All of the test images, and each once.
    assert (record.score * 360 / 100) % 1 == pytest.approx(0, abs=1e-9)
    assert not store.checkpoint_path(PICTURES).exists()


def test_each_process_decodes_what_it_takes_on_its_share_of_the_cores(few_files, monkeypatch):
    config = FILES.replace(train_size=0, batch_size=7)
    decoded, taken, decode = [], [], EncodedImages.decode
    monkeypatch.setattr(EncodedImages, "decode", lambda self, place: decoded.append(place) or decode(self, place))
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "main_first", contextlib.nullcontext)
    for rank in (0, 1):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        task = task_of(config)
        for batch in task.order(1).split(7)[: task.steps]:
            taken += processes.share(batch).tolist()
            task.terms(processes.share(batch), 1)
    assert len(taken) == 21
    assert sorted(decoded) == sorted(taken)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert processes.cores() == 8
    for count, cores in ((3, 5), (64, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(count))
        assert processes.cores() == cores


def test_processes_that_cannot_share_are_refused(store, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"device .*cuda:1"):
        processes.start("cuda:1")
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(processes, "count", lambda: 22)
    monkeypatch.setattr(processes, "gathered", lambda value: [value])
    with pytest.raises(ValueError, match="batch_size"):
        trained(PICTURES, store)
