import pytest
import torch

from mmel import RunConfig
from mmel.grids import teacher_of
from mmel.train import load_trained, look, train

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = RunConfig(
    dataset="digits",
    model="resnet8",
    method="mmel_s",
    num_augmented=3,
    augment="crop",
    train_size=40,
    batch_size=20,
    epochs=1,
    decay_epochs=(),
    precision="fp32",
)


def trained(config, store):
    list(train(config, store, device="cpu"))
    return config


def test_images_are_shown_with_their_weights(store):
    config = trained(IMAGES, store)
    views, weights = look(config, store, lambda *found: found, device="cpu")
    assert views.shape == (3, 8, 8, 1)
    expected = load_trained(config, store, device="cpu").most_uneven()
    assert torch.equal(torch.from_numpy(views), expected[0])
    assert weights[1:] == pytest.approx(expected[1][1:].numpy())


def test_texts_are_shown_with_their_weights(store, text_config):
    config = trained(text_config.replace(epochs=1), store)
    found = look(config, store, lambda samples: samples, device="cpu")
    assert found == load_trained(config, store, device="cpu").most_uneven()


@pytest.mark.parametrize("lost", [lambda config: config, teacher_of], ids=["its own", "its teacher's"])
def test_a_recorded_run_without_weights_says_so(lost, store, text_config):
    config = trained(text_config.replace(epochs=1), store)
    store.weights_path(lost(config)).unlink()
    said = look(config, store, None, device="cpu").data
    assert said.startswith(f"No weights of `{lost(config).run_id}`")
