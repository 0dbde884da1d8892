import math
import multiprocessing
import os
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import __main__ as command
from benchmarks import common, cost_of_augmentation, floor, gpu, gpu_checks, gpu_images, gpu_texts, image_training
from benchmarks.common import Side, SideError, eager_lines
from benchmarks.text_augmentation import LENGTHS, VOCABULARY, make_augmenter
from mmel import RunConfig
from mmel.augment.image import RandomCropFlip
from mmel.records import Store
from mmel.train import graph, step, train
from mmel.train.vision import VisionTask

CPU = torch.device("cpu")


@pytest.fixture
def layers():
    """A convolution and a BatchNorm, and two images for them, on the meta device."""
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)), torch.empty(2, 3, 4, 4)


@pytest.fixture
def quick_sides(monkeypatch):
    """Processes of sides forked from one that has imported all they need, which takes each of them seconds."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["benchmarks.gpu_texts", "benchmarks.gpu_images", "benchmarks.bf16_noise"])
    monkeypatch.setattr(common, "_SPAWN", server)


# The floor's counts, by hand. The convolution: 3 * 4 * 4 numbers in and 8 * 4 * 4 out for each image, and a multiply
# and an add for each of 27 inputs of each output.
IN, OUT, PRODUCTS = 2 * 48, 2 * 128, 2 * 27 * 2 * 128


def test_counts_of_a_forward(layers):
    model, images = layers
    with torch.no_grad():
        work = floor.count(model, lambda: model(images))
    assert work == floor.Work(PRODUCTS, 2 * ((IN + OUT) + 2 * OUT))


def test_counts_of_a_backward(layers):
    model, images = layers
    work = floor.count(model, lambda: model(images))
    # Nothing asks for the gradient of the images; BatchNorm reads two things and writes one.
    assert work == floor.Work(2 * PRODUCTS, 2 * ((IN + OUT) + (OUT + IN) + 2 * OUT + 3 * OUT))


def test_counts_of_resnet20():
    # 40,551,040 products an image; backward takes twice as many, but for the first convolution's 442,368.
    products = 2 * (3 * 40_551_040 - 442_368)
    for config in (RunConfig(num_augmented=10), RunConfig(method="baseline_da", num_augmented=1)):
        assert floor.image_step(config).operations == 128 * config.num_views * products


def test_counts_of_a_bert():
    h, inner, k, batch_size = 8, 16, 3, 4
    shape = {"hidden_size": h, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": inner}

    def products(length):
        # Four projections and two of the MLP, attention, and once a sequence the pooler and the two classes.
        return length * (4 * h * h + 2 * h * inner) + 2 * length * length * h + h * h + 2 * h

    for lengths in ((5,), (5, 10)):
        mean = sum(map(products, lengths)) / len(lengths)
        # Backward takes twice the forward's.
        assert floor.text_step(shape, lengths, k, batch_size).operations == 2 * 3 * k * batch_size * mean


def test_counts_of_algorithm_2():
    h, inner = 8, 16
    shape = {"hidden_size": h, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": inner}
    work = gpu_texts.work_of_algorithm_2(make_augmenter(shape))
    total = 0
    for length in LENGTHS:
        # The first fill sees the sentence once, the others its four variants; the head is at one place of each.
        forwards = 1 + 4 * (math.floor(0.4 * length + 0.5) - 1)
        pieces = length + gpu_texts.SPECIAL_PIECES
        total += forwards * (pieces * (4 * h * h + 2 * h * inner) + 2 * pieces**2 * h + h * h + h * VOCABULARY)
    assert work.operations == pytest.approx(2 * total / len(LENGTHS), rel=1e-6)


def test_bytes_of_an_optimizer_step(layers):
    # Gradient, weight and momentum read, weight and momentum written; 216 + 16 weights.
    assert floor.optimizer_step(layers[0], floor.SGD_STATES) == floor.Work(0, 4 * 5 * 232)
    assert floor.optimizer_step(layers[0], floor.ADAMW_STATES) == floor.Work(0, 4 * 7 * 232)


def test_the_floor_is_the_larger_of_two_times():
    rates = floor.Rates(operations=100.0, moved=10.0)
    assert rates.floor(floor.Work(200.0, 10.0)) == (2.0, "operations")
    assert rates.floor(floor.Work(200.0, 40.0)) == (4.0, "bytes")


def test_the_floor_beside_a_target():
    rates = floor.Rates(operations=floor.image_step(common.PAPER_BATCH).operations / 0.8, moved=1e15)
    seconds = {"ours": [1.2, 1.3, 1.1], "plain, num_workers=0": [4.4], "plain, num_workers=2": [5.0]}
    text = image_training._beside_floor(seconds, rates)
    assert "0.80 s, bound by operations" in text
    assert "Ours takes 1.50 times the floor. The floor over `plain, num_workers=0`: 5.50;" in text
    assert "the target of 5 asks for a step of 0.88 s, 1.10 times the floor." in text
    assert "Convolutions are 75% of our step: with everything else free, the ratio would be 4.9." in (
        image_training._beside_convolutions(seconds, 0.75)
    )


def test_the_share_of_the_convolutions(monkeypatch):
    def steps(count):
        network = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        while True:
            network(torch.rand(16, 8, 32, 32)).sum().backward()
            yield 0.0

    monkeypatch.setattr(image_training, "our_steps", steps)
    assert 0.1 < next(image_training.convolution_shares(1)) < 0.95
    monkeypatch.setattr(image_training, "our_steps", lambda count: (torch.rand(9).exp().sum() for _ in range(5)))
    assert next(image_training.convolution_shares(1)) == 0.0


# What the benchmark compares with, and whether its checks can fail.


def test_the_plain_loop_trains_what_the_study_trains(tmp_path):
    fields = {"dataset": "digits", "model": "resnet8", "augment": "crop", "num_augmented": 3, "precision": "fp32"}
    config = RunConfig(**fields, train_size=60, batch_size=20, epochs=2, decay_epochs=())
    lines = list(train(config, Store(tmp_path), device="cpu"))
    plain = list(islice(eager_lines(VisionTask(config, None, CPU)), 2))
    assert [line["train_loss"] for line in plain] == pytest.approx([line["train_loss"] for line in lines], rel=1e-5)
    assert all(line["images_per_second"] > 0 for line in plain)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_plain_loop_in_float32_has_no_tf32(precision):
    config = RunConfig(dataset="digits", model="resnet8", num_augmented=2, train_size=20, batch_size=20, augment="crop")
    task = VisionTask(config.replace(precision=precision), None, CPU)
    convolutions, seen = torch.backends.cudnn.conv, []
    before = convolutions.fp32_precision

    def terms(*batch):
        seen.append(convolutions.fp32_precision)
        return task.terms(*batch)

    next(eager_lines(task, terms))
    assert seen == ["ieee" if precision == "fp32" else before]
    assert convolutions.fp32_precision == before


class Stand:
    """In place of a CUDA graph: a replay writes what `write` lets through of the outputs."""

    def __init__(self, device):
        self.replays = 0

    def warm_up(self, function):
        function()

    def capture(self, function):
        self.function, self.outputs = function, function()
        return self.outputs

    def replay(self):
        self.replays += 1
        # What the replay that is looked at does not write is seen.
        assert self.replays == 1 or bool((self.outputs == gpu_checks.POISON).all())
        self.write(self.function())

    def write(self, new):
        self.outputs.copy_(new)


class Incomplete(Stand):
    """Leaves the last image of a batch as it was."""

    def write(self, new):
        self.outputs[:-1] = new[:-1]


class Stale(Stand):
    """Computes what it was captured with, in every replay."""

    def capture(self, function):
        self.first = super().capture(function).clone()
        return self.outputs

    def write(self, new):
        self.outputs.copy_(self.first)


@pytest.mark.parametrize(("stand", "wrong"), [(Stand, 0), (Incomplete, 10), (Stale, 1280)])
def test_views_of_a_graph_are_those_of_slicing(monkeypatch, stand, wrong):
    monkeypatch.setattr(graph, "CudaGraph", stand)
    monkeypatch.setattr(step, "why_eager", lambda task, config, device: task.why_eager)
    assert (
        gpu_checks.views(CPU, seed=3)
        == f"Views that differ from slicing, replayed from a CUDA graph, seed 3: {wrong} of 1280."
    )


def test_an_image_that_is_not_written_is_found(monkeypatch):
    where = "Views that differ from slicing, made eagerly (no CUDA device), seed 3:"
    assert gpu_checks.views(CPU, seed=3) == f"{where} 0 of 1280."
    apply = RandomCropFlip.apply

    def forget_the_last(self, images, codes):
        views = apply(self, images, codes)
        views[-1] = 0
        return views

    monkeypatch.setattr(RandomCropFlip, "apply", forget_the_last)
    # The image itself is there.
    assert gpu_checks.views(CPU, seed=3) == f"{where} 9 of 1280."


# What a side raises, and what is left when it does.


def fail(message):
    yield 1
    raise torch.OutOfMemoryError(message)


def die():
    yield os._exit(7)


def test_a_side_passes_on_what_it_raises(quick_sides):
    with Side(fail, "2 GiB were wanted") as side:
        assert side() == 1
        with pytest.raises(SideError, match=r"^OutOfMemoryError: 2 GiB were wanted$"):
            side()
    with Side(die) as side, pytest.raises(SideError, match=r"^its process ended with exit code 7$"):
        side()


def costs(k, n, side, device):
    if k == 5:
        raise torch.OutOfMemoryError("2 GiB were wanted")
    while True:
        yield k * n / 1000, k * side * 2**20


def test_a_failing_step_leaves_the_others(quick_sides):
    base = {"K": 5, "N": 32, "pixels a side": 16}
    assert list(cost_of_augmentation._growth(costs, base, "K", (2, 5, 10), CPU, rounds=1)) == [
        (2, "64.0", "1.00", "32"),
        (5, "failed: OutOfMemoryError: 2 GiB were wanted", "", ""),
        (10, "320.0", "5.00", "160"),
    ]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_step_is_not_hidden_by_the_memory_of_the_process_that_began_it(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    large = b"x" * 2**30
    with Side(cost_of_augmentation.image_steps, 2, 32, 32, CPU) as side:
        _, added = side()
    assert 2**20 < added < len(large)


def test_a_failing_question_leaves_the_others(monkeypatch, capsys):
    def measure():
        yield "| measured |"
        raise torch.OutOfMemoryError("2 GiB were wanted")

    monkeypatch.setattr("benchmarks.allocator.measure", measure)
    monkeypatch.setattr("benchmarks.step_shares.measure", lambda: "| also measured |")
    monkeypatch.setenv("TQDM_DISABLE", "")
    assert command.main(["allocator", "step_shares"]) == 1
    printed = capsys.readouterr()
    assert "| measured |\n\nfailed: OutOfMemoryError: 2 GiB were wanted\n" in printed.out
    assert "| also measured |" in printed.out
    assert printed.err.endswith("failed: allocator\n")


def test_a_failing_workload_leaves_the_others(monkeypatch):
    def workload():
        yield gpu_images.image_row("measured", RunConfig(), [1000.0])
        raise torch.OutOfMemoryError("2 GiB were wanted")

    def section(*_):
        raise torch.OutOfMemoryError("4 GiB were wanted")

    monkeypatch.setenv("MMEL_DEVICE", "cpu")
    monkeypatch.setattr(floor, "measure_rates", lambda device: floor.Rates(1e12, 1e10))
    monkeypatch.setattr(gpu_images, "workloads", lambda *_: [("8 such runs side by side", workload)])
    monkeypatch.setattr(gpu_texts, "workloads", lambda *_: [("Algorithm 2", lambda: iter([]))])
    monkeypatch.setattr(gpu_images, "whole_run", section)
    monkeypatch.setattr(gpu_checks, "views", lambda *_: "0 views are wrong")
    monkeypatch.setattr(gpu_checks, "noise", section)
    _, _, _, row, failed, *sections = gpu.measure()
    assert row.startswith("| measured | images | 1,000 ")
    assert failed.startswith("| 8 such runs side by side |  | failed: OutOfMemoryError: 2 GiB were wanted |")
    assert failed.count("|") == row.count("|")
    why = "failed: OutOfMemoryError: 4 GiB were wanted"
    assert sections == [f"\na whole run: {why}", "\n0 views are wrong", f"\nbf16 noise: {why}"]


@pytest.mark.slow
def test_the_whole_gpu_benchmark_in_small(monkeypatch, quick_sides):
    monkeypatch.setenv("MMEL_DEVICE", "cpu")
    text = "\n".join(gpu.measure())

    assert "failed" not in text
    table, _, _ = text.partition("\n\nA whole run")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    head, *rows = rows
    assert [row[0].split(" (")[0] for row in rows] == [
        "resnet20, K = 10, training",
        "resnet56, K = 10, training",
        "resnet20, baseline_da",
        "resnet20, baseline_da, plain loop",
        "2 such runs side by side, in all",
        "Algorithm 2, mask ratio 0.4",
        "fine-tuning, K = 5, CoLA's lengths",
        "fine-tuning, K = 5, CoLA's lengths, padded to 128",
    ]
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        for name in ("measured", "at the floor", "its multiple"):
            assert float(cells[name].split(" (")[0].replace(",", "")) > 0
        assert cells["bound by"] in ("operations", "bytes")
    first, epoch, training, total = (float(cell.replace(",", "")) for cell in whole_run_cells(text))
    assert 0 < training < epoch
    assert total == pytest.approx(first + 199 * epoch, abs=0.5 + 200 * 0.005)
    assert ": 0 of 1280." in text
    assert "| ours | bf16 | 0 |" in text
    assert text.count("| plain loop | fp32 |") == 4


def whole_run_cells(text):
    """The measured cells of the whole run's table."""
    _, _, below = text.partition("| first epoch, with the start |")
    return [cell.strip() for cell in below.splitlines()[2].split("|")[1:5]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(monkeypatch):
    monkeypatch.delenv("MMEL_DEVICE", raising=False)
    assert next(gpu.measure()).startswith("No GPU here, so nothing was measured.")


def test_the_papers_speed_is_its_time_column():
    row = gpu_images.image_row("", RunConfig(), [1000.0])
    # 200 epochs of 50,000 images in ten views in 2.9 hours.
    assert row.paper == pytest.approx(200 * 50_000 * 10 / (2.9 * 3600))
