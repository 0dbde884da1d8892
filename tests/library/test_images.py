import itertools
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from mmel.augment.base import ImageAugmentation, uniform_of
from mmel.augment.color import FIRST_DRAW, ColorJitter
from mmel.augment.images import Cutout, RandomCropFlip, TransformEach, build_augmentation
from mmel.augment.resized_crop import RandomResizedCropFlip, center_crop

pytestmark = pytest.mark.usefixtures("one_thread")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

AUGMENTATIONS = {
    "crop_flip": RandomCropFlip(padding=2),
    "crop": RandomCropFlip(padding=1, flip=False),
    "cutout": Cutout(length=4, before=RandomCropFlip(padding=2)),
    "jitter": ColorJitter(0.4, 0.4, 0.4, 0.1, before=RandomCropFlip(padding=2)),
    "each": TransformEach(lambda image: image ^ torch.randint(256, image.shape).to(torch.uint8)),
    "each_after_crop": TransformEach(lambda image: image.roll(int(torch.randint(8, ())), -1), RandomCropFlip(2)),
    "randaugment": TransformEach(v2.RandAugment(), before=RandomCropFlip(padding=2)),
    "trivialaugment": TransformEach(v2.TrivialAugmentWide(), before=RandomCropFlip(padding=2)),
}
CAPTURABLE = {name: augmentation for name, augmentation in AUGMENTATIONS.items() if augmentation.capturable}
# Its original is no image untouched.
EVERY = {**AUGMENTATIONS, "resized": RandomResizedCropFlip(8)}
each_augmentation = pytest.mark.parametrize("augmentation", EVERY.values(), ids=EVERY.keys())


def random_images(n=5, c=3, h=8, w=8, seed=0, low=0):
    return torch.randint(low, 256, (n, c, h, w), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def crop_flip_by_hand(image, code, padding):
    """One view by slicing: pad with zeros, crop at (top, left), then flip."""
    side = 2 * padding + 1
    flip, (top, left) = code // side**2, divmod(code % side**2, side)
    padded = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    view = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
    return torch.from_numpy((view[..., ::-1] if flip else view).copy())


# Crop and flip.


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 7, 10), (1, 12, 5)])
def test_equals_slicing_image_by_image(shape, padding, flip):
    augmentation = RandomCropFlip(padding, flip)
    # Every view of an image, in another order for each image.
    num_codes = augmentation.num_codes
    codes = torch.stack([torch.arange(num_codes).roll(7 * n) for n in range(4)])
    images = random_images(4, *shape)
    views = augmentation.apply(images, codes)
    assert views.dtype == torch.uint8
    assert views.shape == (4, num_codes, *shape)
    for n, v in itertools.product(range(4), range(num_codes)):
        assert torch.equal(views[n, v], crop_flip_by_hand(images[n], int(codes[n, v]), padding))


@pytest.mark.parametrize("layout", ["slice", "channels_last", "expanded", "strided"])
def test_any_memory_layout(layout):
    augmentation, images = RandomCropFlip(padding=0), random_images(6)
    images = {
        "slice": images[2:],
        "channels_last": images.contiguous(memory_format=torch.channels_last),
        "expanded": images[:1].expand(4, -1, -1, -1),
        "strided": images[::2, :, :, ::2],
    }[layout]
    codes = augmentation.draw(torch.arange(len(images)), 3, seed=0, epoch=0)
    assert torch.equal(augmentation.apply(images, codes), augmentation.apply(images.clone().contiguous(), codes))


# The draw.


def split_mix(state):
    """splitmix64 on Python integers, modulo 2**64."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (3, 199), (2**62 - 1, 5)])
def test_draw_is_the_published_generator(seed, epoch):
    # Recorded runs depend on this very stream. The first output of the generator's published test is the check
    # of the check.
    assert split_mix(1234567) == 6457827717110365317
    index = [0, 1, 7, 49_999, 2**40]
    codes = ImageAugmentation().draw(torch.tensor(index), 4, seed, epoch)
    assert torch.equal(codes, ImageAugmentation().draw(torch.tensor(index), 4, seed, torch.tensor(epoch)))
    state = split_mix(split_mix(seed) + epoch)
    expected = [[split_mix(split_mix(state + i) + view) for view in range(4)] for i in index]
    assert [[code % 2**64 for code in row] for row in codes.tolist()] == expected


@pytest.mark.parametrize("shape", [(3240, 1), (1, 3240)])
def test_views_of_images_and_of_one_image_are_all_equally_likely(shape):
    codes = RandomCropFlip(padding=4).draw(torch.arange(shape[0]) + 7, shape[1], seed=0, epoch=0)
    counts = torch.bincount(codes.flatten() % 162)
    assert counts.min() > 0
    assert 0.001 < stats.chisquare(counts.numpy()).pvalue < 0.999


# What holds for every augmentation.


@each_augmentation
def test_views_depend_on_image_and_code_alone(augmentation):
    images = random_images(6)
    codes = augmentation.draw(torch.arange(6), 3, seed=0, epoch=0)
    torch.manual_seed(1)
    views = augmentation.apply(images, codes)
    assert views.dtype == torch.uint8
    assert views.shape == (6, 3, 3, 8, 8)
    torch.manual_seed(2)
    assert torch.equal(views, augmentation.apply(images, codes))
    batches = zip(images.split([1, 2, 3]), codes.split([1, 2, 3]), strict=True)
    assert torch.equal(views, torch.cat([augmentation.apply(*batch) for batch in batches]))
    assert torch.equal(views.flip(0), augmentation.apply(images.flip(0), codes.flip(0)))
    assert torch.equal(views[:, [2, 0]], augmentation.apply(images, codes[:, [2, 0]]))


@each_augmentation
def test_apply_keeps_the_global_generator(augmentation):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    augmentation.apply(random_images(2), augmentation.draw(torch.arange(2), 2, 0, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_apply_never_seeds_the_generators_of_devices(monkeypatch):
    # On a GPU that would give dropout the same masks after every batch.
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    AUGMENTATIONS["each"].apply(random_images(2), torch.arange(4).view(2, 2))
    assert seeds == []


# Draw and apply at once.


@each_augmentation
def test_autocast_changes_nothing(augmentation):
    images, codes = random_images(20), augmentation.draw(torch.arange(20), 6, seed=0, epoch=0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = augmentation.apply(images, codes)
    assert torch.equal(inside, augmentation.apply(images, codes))


@each_augmentation
def test_call_puts_the_original_first(augmentation):
    images = random_images(4)
    original = center_crop(images, 8) if augmentation is EVERY["resized"] else random_images(4)
    views = augmentation(images, 5, torch.Generator().manual_seed(0))
    assert views.dtype == torch.uint8
    assert views.shape == (4, 5, 3, 8, 8)
    assert torch.equal(images, random_images(4))
    assert torch.equal(views[:, 0], original)
    only_views = augmentation(images, 4, torch.Generator().manual_seed(0), include_original=False)
    assert torch.equal(only_views, views[:, 1:])
    assert torch.equal(augmentation(images, 1), original[:, None])
    one_view = augmentation(images, 1, torch.Generator().manual_seed(0), include_original=False)
    assert torch.equal(one_view, views[:, 1:2])


@each_augmentation
def test_a_list_is_a_batch_and_one_image_a_batch_of_one(augmentation):
    def views_of(images):
        return augmentation(images, 4, torch.Generator().manual_seed(0))

    images = random_images(3)
    assert torch.equal(views_of(list(images)), views_of(images))
    assert torch.equal(views_of(images[0]), views_of(images[:1])[0])


def test_call_draws_from_its_generator_or_the_global_one():
    augmentation, images = RandomCropFlip(padding=4), random_images(4)
    generator, before = torch.Generator().manual_seed(3), torch.get_rng_state()
    first, second = (augmentation(images, 4, generator) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert torch.equal(first, augmentation(images, 4, generator.manual_seed(3)))
    assert not torch.equal(augmentation(images, 4), augmentation(images, 4))
    torch.manual_seed(3)
    assert torch.equal(first, augmentation(images, 4))


# Cutout.


def holes(length, codes, h=8, w=8):
    """Where the holes are, from white images neither moved nor flipped."""
    white = torch.full((len(codes), 1, h, w), 255, dtype=torch.uint8)
    cut = Cutout(length, before=RandomCropFlip(padding=0, flip=False)).apply(white, codes)
    assert cut.unique().tolist() == [0, 255]
    return (cut == 0)[:, :, 0]


@pytest.mark.parametrize(("length", "h", "w"), [(1, 8, 8), (4, 8, 8), (5, 8, 8), (3, 6, 9)])
def test_holes_are_squares_around_every_pixel_cut_at_the_border(length, h, w):
    codes = ImageAugmentation().draw(torch.arange(50), 50 * h * w // 64, seed=0, epoch=0)
    hole = holes(length, codes, h, w).flatten(0, 1)
    rows, columns = hole.any(dim=2), hole.any(dim=1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])

    def around(size):
        pixels, centres = torch.arange(size), torch.arange(size)[:, None]
        start = centres - length // 2
        return (pixels >= start) & (pixels < start + length)

    # One centre each; a chi-square over all pixels says that none is preferred.
    centre_row = (rows[:, None] == around(h)).all(dim=2)
    centre_column = (columns[:, None] == around(w)).all(dim=2)
    assert (centre_row.sum(dim=1) == 1).all()
    assert (centre_column.sum(dim=1) == 1).all()
    centre = centre_row.int().argmax(dim=1) * w + centre_column.int().argmax(dim=1)
    counts = torch.bincount(centre, minlength=h * w)
    assert 0.001 < stats.chisquare(counts.numpy()).pvalue < 0.999


def test_cutout_is_crop_and_flip_but_for_the_hole():
    crop_flip, images = RandomCropFlip(padding=2), random_images(20, low=1)
    cutout = Cutout(4, before=crop_flip)
    codes = cutout.draw(torch.arange(20), 5, seed=0, epoch=0)
    hole = holes(4, codes)[:, :, None]
    uncut = crop_flip.apply(images, codes % crop_flip.num_codes)
    assert torch.equal(cutout.apply(images, codes), torch.where(hole, torch.zeros_like(uncut), uncut))


def test_hole_and_crop_are_independent():
    codes = Cutout(2).draw(torch.arange(100), 100, seed=0, epoch=0)
    hole = holes(2, codes).flatten(0, 1)
    crop = codes.flatten() % 162
    for edge in (hole.any(dim=2), hole.any(dim=1)):
        table = torch.zeros(162, 8).index_put((crop, edge.int().argmax(dim=1)), torch.tensor(1.0), accumulate=True)
        table = table[:, table.sum(dim=0) > 0]
        assert 0.001 < stats.chi2_contingency(table.numpy()).pvalue < 0.999


# Colour jitter.


def jittered_by_torchvision(image, draws, strengths):
    """One view by torchvision's functions for floats, in our order, before the rounding."""
    pixels = image / 255
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for function, draw, strength in zip(adjust, draws, strengths, strict=False):
        low = max(0, 1 - strength)
        pixels = function(pixels, low + draw * (1 + strength - low))
    return 255 * functional.adjust_hue(pixels, strengths[3] * (2 * draws[3] - 1))


@pytest.mark.parametrize(
    "strengths", [(0.9, 0, 0, 0), (0, 1.5, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 0.5), (0.8, 0.8, 0.8, 0.2)]
)
def test_jitter_is_torchvisions_image_by_image(strengths):
    images, augmentation = random_images(6), ColorJitter(*strengths)
    # A grey picture has no hue, and of two equal channels neither is the largest alone.
    images[0], images[1, 0] = 77, images[1, 1]
    codes = augmentation.draw(torch.arange(6), 5, seed=0, epoch=0)
    views, draws = augmentation.apply(images, codes), uniform_of(codes, FIRST_DRAW, 4).tolist()
    for n, v in itertools.product(range(6), range(5)):
        expected = jittered_by_torchvision(images[n], draws[n][v], strengths)
        assert (views[n, v] - expected).abs().max() < 0.501


# One transform for each view.


def test_transform_works_on_the_views_of_the_augmentation_before():
    images, crop_flip = random_images(6), RandomCropFlip(padding=2)
    # A name may be a callable, and the padding is that for this size.
    invert = build_augmentation(lambda image: 255 - image, image_size=16)
    codes = invert.draw(torch.arange(6), 4, seed=0, epoch=0)
    assert torch.equal(invert.apply(images, codes), 255 - crop_flip.apply(images, codes % crop_flip.num_codes))
    copies = TransformEach(lambda image: 255 - image).apply(images, codes)
    assert torch.equal(copies, 255 - images[:, None].expand(-1, 4, -1, -1, -1))


def test_transform_draws_apart_from_the_crop():
    # A draw that knew the crop's code would tie the strength of the transform to the place.
    crop_flip = RandomCropFlip(padding=0)
    noise = TransformEach(lambda image: torch.where(torch.rand(()) < 0.5, image, 255 - image), before=crop_flip)
    codes = noise.draw(torch.arange(40), 50, seed=0, epoch=0)
    images = torch.zeros(40, 1, 1, 2, dtype=torch.uint8)
    images[..., 1] = 1
    views = noise.apply(images, codes).flatten(0, 1).flatten(1)
    flipped, inverted = (views[:, 0] % 2 != views[:, 0] // 128).long(), (views[:, 0] > 127).long()
    table = torch.zeros(2, 2).index_put((flipped, inverted), torch.tensor(1.0), accumulate=True)
    assert 0.001 < stats.chi2_contingency(table.numpy()).pvalue < 0.999


# Names.


def test_build_augmentation():
    crop_flip, crop = build_augmentation("crop_flip"), build_augmentation("crop")
    assert (crop_flip.padding, crop_flip.flip) == (4, True)
    assert (crop.padding, crop.flip) == (4, False)
    assert build_augmentation("crop_flip", image_size=8).padding == 1
    assert build_augmentation("crop", image_size=8).padding == 1
    cutout = build_augmentation("cutout", image_size=64)
    assert (cutout.length, cutout.before.padding, cutout.before.flip) == (32, 8, True)


@pytest.mark.parametrize(
    ("name", "transform"),
    [("randaugment", v2.RandAugment), ("trivialaugment", v2.TrivialAugmentWide), ("v2.RandomInvert", v2.RandomInvert)],
)
def test_build_augmentation_of_torchvision(name, transform):
    built = build_augmentation(name, image_size=16)
    assert isinstance(built.transform, transform)
    images = random_images(2, h=16, w=16)
    codes = built.draw(torch.arange(2), 3, seed=0, epoch=0)
    expected = TransformEach(transform(), before=RandomCropFlip(padding=2)).apply(images, codes)
    assert torch.equal(built.apply(images, codes), expected)


@pytest.mark.parametrize(
    "name",
    # None of that name, no transform, one that needs arguments; no tensor, no uint8, another size by chance, boxes.
    ["Nope", "functional", "RandomCrop", "ToPILImage", "ConvertImageDtype", "RandomZoomOut", "RandomIoUCrop"],
)
def test_build_augmentation_refuses_what_is_no_transform(name):
    with pytest.raises(ValueError, match=rf"^augment must name a transform .*, got 'v2\.{name}': ."):
        build_augmentation(f"v2.{name}")


# Bad input: a ValueError that begins with the argument's name.


IMAGES, CODES = random_images(2), torch.zeros(2, 3).long()
BAD_LISTS = ([], [IMAGES[0].float()], [IMAGES[0, 0]], [IMAGES[0].permute(1, 2, 0)])


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("padding", lambda: RandomCropFlip(padding=-1)),
        ("length", lambda: Cutout(length=0)),
        ("augment", lambda: build_augmentation("mixup")),
        ("index", lambda: RandomCropFlip().draw(torch.arange(3).int(), 2, 0, 0)),
        ("index", lambda: RandomCropFlip().draw(torch.arange(3.0), 2, 0, 0)),
        ("index", lambda: RandomCropFlip().draw(torch.zeros(3, 1).long(), 2, 0, 0)),
        ("num_views", lambda: RandomCropFlip().draw(torch.arange(3), 0, 0, 0)),
        ("num_augmented", lambda: RandomCropFlip()(IMAGES, 0)),
        ("num_augmented", lambda: RandomCropFlip()(IMAGES, -1, include_original=False)),
        *(("images", partial(RandomResizedCropFlip(8).apply, bad, CODES[: len(bad)])) for bad in BAD_LISTS),
        ("size", lambda: RandomResizedCropFlip(0)),
        ("scale", lambda: RandomResizedCropFlip(scale=(0.0, 1.0))),
        ("scale", lambda: RandomResizedCropFlip(scale=(0.5, 0.2))),
        ("ratio", lambda: RandomResizedCropFlip(ratio=(1.0, float("inf")))),
        ("ratio", lambda: RandomResizedCropFlip(ratio=(-1, 1))),
        ("brightness", lambda: ColorJitter(brightness=-0.1)),
        ("hue", lambda: ColorJitter(hue=0.6)),
        ("images", lambda: ColorJitter(0.1).apply(IMAGES[:, :1], CODES)),
        ("transform", lambda: TransformEach(lambda image: image[:, 1:]).apply(IMAGES, CODES)),
        ("transform", lambda: TransformEach(lambda image: image.float()).apply(IMAGES, CODES)),
    ],
)
def test_bad_arguments(argument, call):
    with pytest.raises(ValueError, match=rf"^{argument}\b.*got "):
        call()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES / 255, "uint8 .*got torch.float32 .*before scaling to floats"),
        (IMAGES.permute(0, 2, 3, 1), "channels come before rows"),
        (IMAGES[0].permute(1, 2, 0), "at most 4 channels"),
        (IMAGES[:, 0].expand(16, -1, -1, -1).flatten(0, 1), r"at most 4 channels.*images\[:, None\]"),
        ([IMAGES[0], IMAGES[0, :, 1:]], "one shape .*RandomResizedCropFlip"),
        ([IMAGES[0].permute(1, 2, 0)], "channels come before rows"),
        ([functional.to_pil_image(IMAGES[0])], "uint8 .*got Image"),
        ([], "one shape"),
    ],
    ids=["floats", "NHWC", "HWC", "no channels", "sizes", "list of HWC", "PIL", "none"],
)
def test_images_in_another_form_are_refused_by_name(images, message):
    for include_original in (True, False):
        with pytest.raises(ValueError, match=f"^images must .*{message}"):
            RandomCropFlip()(images, 2, include_original=include_original)


@pytest.mark.parametrize(
    ("argument", "images", "codes"),
    [
        ("images", IMAGES.float(), CODES),
        ("images", IMAGES[0], CODES),
        ("codes", IMAGES, CODES[:1]),
        ("codes", IMAGES, CODES[:, 0]),
        ("codes", IMAGES, CODES.int()),
    ],
)
@each_augmentation
def test_bad_images_and_codes(augmentation, argument, images, codes):
    with pytest.raises(ValueError, match=rf"^{argument}\b.*got "):
        augmentation.apply(images, codes)


# On a GPU.


@pytest.mark.parametrize("name", [*CAPTURABLE, "resized"])
def test_what_may_be_captured_looks_at_no_value(name):
    augmentation = EVERY[name]
    with FakeTensorMode():  # whose tensors have none
        images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        views = augmentation.apply(images, augmentation.draw(torch.arange(2), 3, seed=0, epoch=1))
    assert (views.dtype, views.shape[:3]) == (torch.uint8, (2, 3, 3))
    assert not Cutout(before=AUGMENTATIONS["each"]).capturable


@needs_cuda
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_cuda_gives_the_same_codes_and_views(name):
    augmentation = AUGMENTATIONS[name]
    images, index = random_images(20), torch.arange(20) * 997
    codes = augmentation.draw(index, 6, seed=3, epoch=4)
    on_device = augmentation.draw(index.cuda(), 6, seed=3, epoch=4)
    assert on_device.is_cuda
    assert torch.equal(on_device.cpu(), codes)
    before = torch.cuda.get_rng_state()
    views = augmentation.apply(images.cuda(), on_device)
    assert views.is_cuda
    difference = (views.cpu().int() - augmentation.apply(images, codes).int()).abs().max()
    assert difference <= (name == "jitter")  # whose floats may round to the next level
    assert torch.equal(torch.cuda.get_rng_state(), before)


@needs_cuda
@pytest.mark.parametrize("name", CAPTURABLE)
def test_apply_can_be_captured_in_a_cuda_graph(name):
    augmentation, images = AUGMENTATIONS[name], random_images(8).cuda()
    index = torch.arange(8, device="cuda")
    codes = augmentation.draw(index, 4, seed=0, epoch=0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        augmentation.apply(images, codes)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        views = augmentation.apply(images, codes)
    # The replay reads what its inputs hold by then.
    codes.copy_(augmentation.draw(index, 4, seed=0, epoch=1))
    images.copy_(images.flip(0))
    graph.replay()
    assert torch.equal(views, augmentation.apply(images, codes))
