import math
from itertools import islice

import pytest
import torch
from torch import nn

from benchmarks import floor, gpu
from benchmarks.common import eager_lines
from benchmarks.text_augmentation import LENGTHS, VOCABULARY
from mmel import RunConfig
from mmel.augment.image import RandomCropFlip
from mmel.records import Store
from mmel.train import train
from mmel.train.vision import VisionTask

CPU = torch.device("cpu")


@pytest.fixture
def layers():
    """A convolution and a BatchNorm, and two images for them, on the meta device."""
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)), torch.empty(2, 3, 4, 4)


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


def test_counts_of_algorithm_2(tmp_path):
    h, inner = 8, 16
    shape = {"hidden_size": h, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": inner}
    work = gpu._make_encoder(tmp_path, shape)
    total = 0
    for length in LENGTHS:
        # The first fill sees the sentence once, the others its four variants; the head is at one place of each.
        forwards = 1 + 4 * (math.floor(0.4 * length + 0.5) - 1)
        pieces = length + gpu.SPECIAL_PIECES
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


# What the benchmark compares with, and whether its checks can fail.


def test_the_plain_loop_trains_what_the_study_trains(tmp_path):
    config = RunConfig(
        dataset="digits", model="resnet8", num_augmented=3, train_size=60, batch_size=20, augment="crop", epochs=2
    ).replace(decay_epochs=(), precision="fp32")
    lines = list(train(config, Store(tmp_path), device="cpu"))
    plain = list(islice(eager_lines(VisionTask(config, None, CPU)), 2))
    assert [line["train_loss"] for line in plain] == pytest.approx([line["train_loss"] for line in lines], rel=1e-5)
    assert all(line["images_per_second"] > 0 for line in plain)


def test_an_image_that_is_not_written_is_found(monkeypatch):
    assert gpu._wrong_views(CPU, seed=3) == "0 of 1280"
    apply = RandomCropFlip.apply

    def forget_the_last(self, images, codes):
        views = apply(self, images, codes)
        views[-1] = 0
        return views

    monkeypatch.setattr(RandomCropFlip, "apply", forget_the_last)
    assert gpu._wrong_views(CPU, seed=3) == "10 of 1280"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(monkeypatch):
    monkeypatch.delenv("MMEL_DEVICE", raising=False)
    assert gpu.measure().startswith("No GPU here, so nothing was measured.")


def test_the_papers_speed_is_its_time_column():
    row = gpu._image_row("", RunConfig(), [1000.0])
    # 200 epochs of 50,000 images in ten views in 2.9 hours.
    assert row.paper == pytest.approx(200 * 50_000 * 10 / (2.9 * 3600))
