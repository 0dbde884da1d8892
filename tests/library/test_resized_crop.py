import pytest
import torch
from scipy import stats
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional

from mmel.augment.base import uniform_of
from mmel.augment.color import FIRST_DRAW
from mmel.augment.resized_crop import ATTEMPTS, RandomResizedCropFlip, center_crop

# One level of brightness: torchvision rounds after the rows too, and its weights are integers.
ONE_LEVEL = 1
SIZES = [(40, 56), (97, 61), (224, 300), (33, 33), (20, 200)]

pytestmark = pytest.mark.usefixtures("one_thread")


def picture(height, width, seed=0):
    """A smooth image with some noise: where edges lie shows in every pixel."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.linspace(0, 6, height)[:, None], torch.linspace(0, 9, width)
    waves = [torch.sin(rows * (c + 1) + columns) * torch.cos(columns * 2 - c) for c in range(3)]
    noise = torch.rand(3, height, width, generator=generator)
    return ((torch.stack(waves) * 0.4 + 0.5) * 200 + noise * 50).clamp(0, 255).to(torch.uint8)


def flipped_by(codes):
    """Which views are flipped: by the draw after those of the attempts and of the crop's corner."""
    return uniform_of(codes, 2 * ATTEMPTS + 2, 1)[..., 0] >= 0.5


def difference(ours, theirs):
    return (ours.int() - theirs.int()).abs().max().item()


@pytest.mark.parametrize("size", [24, 64])
def test_views_are_torchvisions_crops(size):
    augmentation = RandomResizedCropFlip(size)
    images = [picture(*sides, seed) for seed, sides in enumerate(SIZES)]
    codes = augmentation.draw(torch.arange(len(images)), 6, seed=0, epoch=1)
    views = augmentation.apply(images, codes)
    assert views.shape == (len(images), 6, 3, size, size)
    assert views.dtype == torch.uint8
    heights, widths = torch.tensor(SIZES).T
    boxes = augmentation.boxes(heights, widths, codes).tolist()
    flips = flipped_by(codes).tolist()
    for n, image in enumerate(images):
        for v in range(6):
            # Bilinear and antialiased, as is its default.
            expected = functional.resized_crop(image, *boxes[n][v], [size, size])
            expected = expected.flip(-1) if flips[n][v] else expected
            assert difference(views[n, v], expected) <= ONE_LEVEL, (n, v, boxes[n][v])


@pytest.mark.parametrize("size", [24, 64, 224])
@pytest.mark.parametrize("sides", SIZES)
def test_the_original_is_torchvisions_resize_and_center_crop(sides, size):
    image = picture(*sides)
    resized = functional.resize(image, [round(size * 256 / 224)], InterpolationMode.BILINEAR, antialias=True)
    expected = functional.center_crop(resized, [size, size])
    assert difference(center_crop([image], size)[0], expected) <= ONE_LEVEL


@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.2, 0.6), (1.0, 2.0))])
def test_crops_follow_torchvisions_rule(scale, ratio):
    augmentation = RandomResizedCropFlip(32, scale, ratio)
    height, width = 120, 160
    codes = augmentation.draw(torch.arange(4000), 1, seed=3, epoch=0)
    boxes = augmentation.boxes(torch.full((4000,), height), torch.full((4000,), width), codes)[:, 0].double()
    top, left, h, w = boxes.T
    assert boxes.min() >= 0
    assert (top + h).max() <= height
    assert (left + w).max() <= width
    # The same distributions as from torchvision's own sampler.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blank = torch.empty(3, height, width)
        theirs = torch.tensor([RandomResizedCrop.get_params(blank, scale, ratio) for _ in range(4000)]).double()
    for of in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2]):
        assert stats.ks_2samp(of(boxes).numpy(), of(theirs).numpy()).pvalue > 0.001


@pytest.mark.parametrize(("sides", "box"), [((10, 400), (0, 193, 10, 13)), ((400, 10), (193, 0, 13, 10))])
def test_a_strip_falls_back_to_its_centre(sides, box):
    # No crop of at least 8 % of it has an allowed shape.
    augmentation = RandomResizedCropFlip(16)
    codes = augmentation.draw(torch.arange(1), 8, seed=0, epoch=0)
    boxes = augmentation.boxes(torch.tensor(sides[:1]), torch.tensor(sides[1:]), codes)
    assert boxes.unique(dim=1).tolist() == [[list(box)]]


def test_crop_flip_and_colours_are_drawn_apart():
    augmentation = RandomResizedCropFlip(16)
    codes = augmentation.draw(torch.arange(4000), 1, seed=0, epoch=0)
    sides = torch.full((4000,), 100)
    boxes, flipped = augmentation.boxes(sides, sides, codes)[:, 0], flipped_by(codes)
    assert abs(flipped.double().mean() - 0.5) < 0.03
    others = torch.cat([flipped.double(), uniform_of(codes, FIRST_DRAW, 4)[:, 0]], dim=1)
    assert torch.cat([boxes.double(), others], dim=1).T.corrcoef()[:4, 4:].abs().max() < 0.07


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_views():
    augmentation = RandomResizedCropFlip(64)
    images = [picture(*sides, seed) for seed, sides in enumerate(SIZES)]
    codes = augmentation.draw(torch.arange(len(images)), 6, seed=0, epoch=1)
    views = augmentation.apply([image.cuda() for image in images], codes)
    assert views.is_cuda
    # A sum in another order, maybe in TF32 where that is allowed, may round to the next level.
    assert difference(views.cpu(), augmentation.apply(images, codes)) <= ONE_LEVEL
    assert uniform_of(codes.cuda(), 0, 3).cpu().equal(uniform_of(codes, 0, 3))


def test_the_crops_of_a_batch_go_to_the_device_as_one_copy(monkeypatch):
    images = [torch.zeros(3, 20 + extra, 30, dtype=torch.uint8) for extra in range(5)]
    augmentation = RandomResizedCropFlip(8)
    moved, to = [], torch.Tensor.to

    def counted(self, *args, **kwargs):
        if isinstance(args[0], torch.device):
            moved.append(tuple(self.shape))
        return to(self, *args, **kwargs)

    codes = augmentation.draw(torch.arange(5), 4, 0, 1)
    monkeypatch.setattr(torch.Tensor, "to", counted)
    augmentation.apply(images, codes)
    center_crop(images, 8)
    # For each view rows and columns: eight centres, two ends and a reach; and whether it is flipped.
    assert moved == [(5, 4, 23), (5, 1, 23)]
