import contextlib
import math
import multiprocessing
import os
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import __main__ as command
from benchmarks import checks, common, cost, floor, gpu, images
from benchmarks.texts import LENGTHS, TINY, VOCABULARY, make_augmenter
from mmel.study.config import ImageRun
from mmel.study.data.images import Images
from mmel.study.records import Store
from mmel.study.train import graph, train
from mmel.study.train.images import ImageTask

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture
def in_process(monkeypatch):
    """Sides without processes of their own, which take seconds to begin."""

    @contextlib.contextmanager
    def side(generator, *arguments):
        values = generator(*arguments)

        def ask():
            answer = Future()
            answer.set_result(next(values))
            return answer

        with contextlib.closing(values):
            yield ask

    for module in (common, checks, gpu):
        monkeypatch.setattr(module, "side", side)


# The floor's counts, by hand. The convolution: 3 * 4 * 4 numbers in and 8 * 4 * 4 out for each image, and a multiply
# and an add for each of 27 inputs of each output.
IN, OUT, PRODUCTS = 2 * 48, 2 * 128, 2 * 27 * 2 * 128


def test_counts_of_a_forward_a_backward_and_an_optimizer_step():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        pixels = torch.empty(2, 3, 4, 4)
    with torch.no_grad():
        assert floor.count(model, lambda: model(pixels)).tolist() == [PRODUCTS, 2 * ((IN + OUT) + 2 * OUT)]
    # Nothing asks for the gradient of the images; BatchNorm reads two things and writes one.
    moved = 2 * ((IN + OUT) + (OUT + IN) + 2 * OUT + 3 * OUT)
    assert floor.count(model, lambda: model(pixels)).tolist() == [2 * PRODUCTS, moved]
    # Gradient, weight and momentum read, weight and momentum written; 216 + 16 weights.
    assert floor.optimizer_step(model, floor.SGD_STATES).tolist() == [0, 4 * 5 * 232]
    assert floor.optimizer_step(model, floor.ADAMW_STATES).tolist() == [0, 4 * 7 * 232]


def test_counts_of_resnet20():
    # 40,551,040 products an image; backward takes twice as many, but for the first convolution's 442,368.
    products = 2 * (3 * 40_551_040 - 442_368)
    for config in (ImageRun(num_augmented=10), ImageRun(method="baseline_da", num_augmented=1)):
        assert floor.image_step(config)[0] == 128 * config.num_views * products


H, INNER = 8, 16
SHAPE = {"hidden_size": H, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": INNER}


def encoder_products(length):
    """Four projections and two of the MLP for each piece, attention, and once a sequence the pooler or the head."""
    return length * (4 * H * H + 2 * H * INNER) + 2 * length * length * H + H * H


def test_counts_of_a_bert():
    for lengths in ((5,), (5, 10)):
        # Once a sequence the two classes.
        mean = sum(encoder_products(length) + 2 * H for length in lengths) / len(lengths)
        # Backward takes twice the forward's; K = 3 of each of 4 texts.
        assert floor.text_step(SHAPE, lengths, 3, 4)[0] == 2 * 3 * (3 * 4) * mean


def test_counts_of_algorithm_2():
    work = gpu.work_of_algorithm_2(make_augmenter(SHAPE))
    total = 0
    for length in LENGTHS:
        # The first fill sees the sentence once, the others its four variants; the head is at one place of each.
        forwards = 1 + 4 * (math.floor(0.4 * length + 0.5) - 1)
        total += forwards * (encoder_products(length + gpu.SPECIAL_PIECES) + H * VOCABULARY)
    assert work[0] == pytest.approx(2 * total / len(LENGTHS), rel=1e-6)


def test_the_floor_is_the_larger_of_two_times():
    rates = floor.np.array([100.0, 10.0])
    assert floor.least_seconds(floor.np.array([200.0, 10.0]), rates) == (2.0, "operations")
    assert floor.least_seconds(floor.np.array([200.0, 40.0]), rates) == (4.0, "bytes")


def test_makers_of_views_make_as_many():
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    for _, make in images.makers(pixels, images.RandomCropFlip(), ("RandomCrop", (32, 32), 4)):
        assert make().flatten(0, -4).shape == (18, 3, 32, 32)
        assert make().dtype == torch.uint8


# What the benchmark compares with, and whether its checks can fail.


def test_the_plain_loop_trains_what_the_study_trains(tmp_path):
    fields = {"dataset": "digits", "model": "resnet8", "augment": "crop", "num_augmented": 3, "precision": "fp32"}
    config = ImageRun(**fields, train_size=60, batch_size=20, epochs=2, decay_epochs=())
    lines = list(train(config, Store(tmp_path), device="cpu"))
    task, products = ImageTask(config, None, CPU), set()

    def terms(*batch):
        products.add(torch.backends.cudnn.conv.fp32_precision)
        return task.terms(*batch)

    plain = list(islice(common.eager_lines(task, terms), 2))
    # No TF32 on a GPU.
    assert products == {"ieee"}
    assert [line["train_loss"] for line in plain] == pytest.approx([line["train_loss"] for line in lines], rel=1e-5)
    assert all(line["images_per_second"] > 0 for line in plain)


class Stand:
    """In place of a CUDA graph: a replay writes what `replayed` makes of (the captured, the old, the new) values."""

    def __init__(self, replayed):
        self.replayed, self.replays = replayed, 0

    def capture(self, function):
        self.function, self.outputs = function, function()
        self.captured = self.outputs.clone()
        return self.outputs

    def replay(self):
        self.replays += 1
        # An index that a replay does not write keeps the poison of the check.
        assert self.replays == 1 or bool((self.outputs == checks.POISON).all())
        self.outputs.copy_(self.replayed(self.captured, self.outputs, self.function()))


@pytest.mark.parametrize(
    ("replayed", "wrong"),
    [
        (lambda captured, old, new: new, 0),
        (lambda captured, old, new: torch.cat([new[:-1], old[-1:]]), 10),
        (lambda captured, old, new: captured, 1280),
    ],
    ids=["right", "incomplete", "stale"],
)
def test_views_of_a_graph_are_a_cpus(monkeypatch, replayed, wrong):
    monkeypatch.setattr(graph, "CudaGraph", lambda device: Stand(replayed))
    monkeypatch.setattr(graph, "reason_for_eager", lambda device: None)
    assert f"replayed from a CUDA graph, seed 3: {wrong} of 1280" in checks.views(CPU, seed=3)


# What a side raises, and what is left when it does.


def fail(message):
    yield 1
    raise torch.OutOfMemoryError(message)


def die():
    yield os._exit(7)


def test_a_side_passes_on_what_it_raises(monkeypatch):
    # A spawned process would import torch first.
    monkeypatch.setattr(common, "SPAWN", multiprocessing.get_context("fork"))
    with common.side(fail, "2 GiB were wanted") as ask:
        assert ask().result() == 1
        with pytest.raises(torch.OutOfMemoryError, match="2 GiB were wanted"):
            ask().result()
    with common.side(die) as ask, pytest.raises(BrokenProcessPool):
        ask().result()


def none_of_five(k, n, side, device):
    if k == 5:
        raise torch.OutOfMemoryError("2 GiB were wanted")
    weight = torch.ones(n * k, 2, requires_grad=True)
    return lambda: weight.view(n, k, 2) * 1, torch.zeros(n).long(), torch.optim.SGD([weight], 0.1)


def test_a_failing_step_leaves_the_others(in_process):
    base = {"K": 5, "N": 32, "pixels a side": 16}
    lines = list(cost.growth(none_of_five, base, "K", [2, 5, 10], CPU, rounds=1))
    assert all(
        line.startswith(f"| N = 32, pixels a side = 16 | K = {k} | ") for line, k in zip(lines, (2, 5, 10), strict=True)
    )
    assert ["failed: OutOfMemoryError: 2 GiB were wanted" in line for line in lines] == [False, True, False]
    assert " | 1.00 | " in lines[0]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_step_is_not_hidden_by_the_memory_of_the_process_that_began_it():
    large = b"x" * 2**30
    with common.side(cost.costs, cost.image_steps, (2, 32, 32), CPU) as ask:
        _, added = ask().result()
    assert 2**20 < added < len(large)


def test_every_question_is_there():
    for name, module in (command.QUESTIONS | command.GPU_QUESTIONS).items():
        assert "?" in getattr(command.import_module(f"benchmarks.{module}"), name).__doc__


@pytest.fixture
def small_gpu(monkeypatch, in_process):
    """The whole benchmark of a GPU in float32, on 200 random images, its rates given."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (200, 3, 32, 32), generator=generator, dtype=torch.uint8)
    few = Images(pixels, torch.arange(200) % 10, 10)
    monkeypatch.setattr(common, "load_or_make", lambda *_: (few, few))
    monkeypatch.setattr(floor, "measure_rates", lambda device: floor.np.array([1e12, 1e10]))
    # Ours in float32, too: in the order of the plain loop it has the same loss.
    monkeypatch.setattr(checks, "RUNS", (("ours", "fp32", 0), ("plain loop", "fp32", 0), ("plain loop", "fp32", 1)))
    fields = {"train_size": 10, "batch_size": 5, "precision": "fp32"}
    # ResNet-56 only takes longer.
    monkeypatch.setattr(gpu, "TARGETS", {"resnet20": gpu.TARGETS["resnet20"]})
    monkeypatch.setattr(gpu, "SMALL", (fields, 1, (2,), TINY, 10, 32, 5))
    monkeypatch.setenv("MMEL_DEVICE", "cpu")
    monkeypatch.setenv("TQDM_DISABLE", "1")


def test_the_whole_gpu_benchmark_in_small(small_gpu):
    text = "\n".join(gpu.gpu())
    assert "failed" not in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    head, *rows = [row for row in rows if len(row) == len(gpu.HEAD)]
    assert len({row[0] for row in rows}) == 8
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        for name in ("measured", "at the floor", "its multiple"):
            assert float(cells[name].split(" (")[0].replace(",", "")) > 0
        assert cells["bound by"] in ("operations", "bytes")
    # 200 epochs of 50,000 images in ten views in 2.9 hours.
    assert rows[0][-1] == f"{200 * 50_000 * 10 / (2.9 * 3600):,.0f}"
    assert ": 0 of 1280." in text
    ours, plain, other = (float(line.split("|")[4]) for line in text.splitlines() if "| fp32 |" in line)
    assert ours == pytest.approx(plain, abs=1e-3)
    assert ours != pytest.approx(other, abs=1e-3)


def test_questions_workloads_and_checks_that_fail_leave_the_others(monkeypatch, small_gpu, capsys):
    def failing(*_):
        """Fails."""
        yield "| measured |"
        raise torch.OutOfMemoryError("4 GiB were wanted")

    def workloads(self):
        yield "side by side", failing
        yield "measured", lambda: [self.image_line("measured", self.baseline_da, [1000.0])]

    monkeypatch.setattr(images, "settings", failing)
    monkeypatch.setattr(gpu.Workloads, "all", workloads)
    monkeypatch.setattr(checks, "views", lambda *_: 1 / 0)
    monkeypatch.setattr(checks, "bf16_noise", lambda *_: "within noise")
    assert command.main(["settings", "gpu"]) == 1
    printed = capsys.readouterr()
    assert printed.out.count("| measured |\nfailed: OutOfMemoryError: 4 GiB were wanted\n") == 1
    *_, head, _, _, failed, row, _, views, _, noise = printed.out.rstrip().splitlines()
    assert "failed: OutOfMemoryError: 4 GiB were wanted" in failed
    assert failed.count("|") == row.count("|") == head.count("|")
    assert views == "views: failed: ZeroDivisionError: division by zero"
    assert noise == "within noise"
    assert "failed: settings" in printed.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(monkeypatch):
    monkeypatch.delenv("MMEL_DEVICE", raising=False)
    assert next(gpu.gpu()).startswith("No GPU here, so nothing was measured.")
