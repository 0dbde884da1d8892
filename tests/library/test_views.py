import pickle

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.datasets import FakeData
from torchvision.transforms import v2

from mmel import KViews, RandomCropFlip, RandomResizedCropFlip, ViewsCollator, group_views

pytestmark = pytest.mark.usefixtures("one_thread")

# As one has them for a data set of PIL images.
PLAIN = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.2,) * 3)]
ORIGINAL = v2.Compose(PLAIN)
AUGMENT = v2.Compose([v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip(), *PLAIN])
PICTURES = FakeData(12, (3, 8, 8), num_classes=4)
NUMBERS = TensorDataset(torch.arange(3.0)[:, None], torch.arange(3))


# Rows to groups.


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
@pytest.mark.parametrize(("n", "k"), [(4, 3), (3, 3), (1, 5), (5, 1), (0, 2)])
def test_rows_are_grouped_by_example(n, k, shape):
    views = torch.randn(n, k, *shape)
    for order, rows in {"sample": views.flatten(0, 1), "view": torch.cat(views.unbind(1))}.items():
        grouped = group_views(rows, k, order)
        assert torch.equal(grouped, views)
        assert grouped.data_ptr() == rows.data_ptr()


# A data set of K views.


def test_views_are_those_of_a_plain_loop():
    views = KViews(PICTURES, AUGMENT, 4, original=ORIGINAL)
    assert len(views) == 12
    torch.manual_seed(3)
    found = [views[index] for index in (5, 0)]
    torch.manual_seed(3)
    for index, (images, label) in zip((5, 0), found, strict=True):
        image, expected_label = PICTURES[index]
        assert torch.equal(images, torch.stack([ORIGINAL(image), *(AUGMENT(image) for _ in range(3))]))
        assert label == expected_label
    assert torch.equal(KViews(PICTURES, AUGMENT, 1, original=ORIGINAL)[2][0], ORIGINAL(PICTURES[2][0])[None])


def test_samples_stand_for_themselves_without_original():
    dataset = [(torch.full((2,), 1.0 * i), "name", i) for i in range(3)]
    views, name, target = KViews(dataset, torch.rand_like, 3)[2]
    assert (views[0].tolist(), views.shape, name, target) == ([2, 2], (3, 2), "name", 2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_makes_batches_of_views(num_workers):
    views = pickle.loads(pickle.dumps(KViews(PICTURES, AUGMENT, 3, original=ORIGINAL)))
    loader = DataLoader(views, batch_size=5, num_workers=num_workers)
    originals = torch.stack([ORIGINAL(image) for image, _ in PICTURES])
    batches = list(loader)
    assert [images.shape for images, _ in batches] == [(5, 3, 3, 8, 8), (5, 3, 3, 8, 8), (2, 3, 3, 8, 8)]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(images[:, 0], originals)
    assert labels.tolist() == [label for _, label in PICTURES]
    # Drawn anew in each epoch; twelve times two coincide by chance once in 50 ** 24.
    assert not torch.equal(torch.cat([again for again, _ in loader]), images)


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1), 0


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("num_views", lambda: group_views(torch.zeros(4, 2), 0)),
        ("logits", lambda: group_views(torch.zeros(4, 2), 3)),
        ("logits", lambda: group_views(torch.tensor(1.0), 1)),
        ("order", lambda: group_views(torch.zeros(4, 2), 2, "rows")),
        ("num_views", lambda: KViews(NUMBERS, torch.rand_like, 0)),
        ("num_views", lambda: ViewsCollator(RandomCropFlip(), 0)),
        ("dataset", lambda: KViews(Stream(), torch.rand_like, 2)),
        ("dataset", lambda: KViews([{"image": torch.zeros(1)}], torch.rand_like, 2)[0]),
        ("dataset", lambda: KViews([torch.zeros(1)], torch.rand_like, 2)[0]),
        ("augment", lambda: KViews(PICTURES, RandomCropFlip(), 2)),
        ("original", lambda: KViews(PICTURES, AUGMENT, 2)[0]),
        ("augment", lambda: KViews(PICTURES, lambda image: image, 2, original=ORIGINAL)[0]),
        ("augment", lambda: KViews(NUMBERS, lambda number: number.repeat(2), 2)[0]),
        ("augment", lambda: KViews(NUMBERS, torch.Tensor.double, 2)[0]),
        ("augment", lambda: ViewsCollator(AUGMENT, 2)),
        ("dataset", lambda: ViewsCollator(RandomCropFlip(), 2)([torch.zeros(3, 8, 8)])),
        ("images", lambda: ViewsCollator(RandomCropFlip(), 2)([PICTURES[0]])),
    ],
)
def test_bad_input_is_named(argument, call):
    with pytest.raises(ValueError, match=rf"^{argument} must .*\bgot "):
        call()


# A batch of views at once.


@pytest.mark.parametrize(("augment", "sides"), [(RandomCropFlip(2), (9, 9)), (RandomResizedCropFlip(4), (9, 12))])
def test_the_collator_makes_the_views_of_a_batch_by_the_global_generator(augment, sides):
    images = [torch.randint(256, (3, 9, side), dtype=torch.uint8) for side in sides]
    # As a worker of a loader gets it.
    collate = pickle.loads(pickle.dumps(ViewsCollator(augment, 3)))
    torch.manual_seed(1)
    views, labels, names = collate(list(zip(images, (0, 1), ("a", "b"), strict=True)))
    torch.manual_seed(1)
    assert torch.equal(views, augment(images, 3))
    assert (labels.tolist(), names) == ([0, 1], ["a", "b"])
