"""Two encoders of one name, which one results folder must not mix up: a run's name has the folder's name alone."""

import shutil

import pytest
import torch

from mmel.grids import TINY_BERT, teacher_of
from mmel.models import ModelError
from mmel.models.text import load_masked_lm
from mmel.train import train
from mmel.train.encoder import check_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def other_bert(small_bert, tmp_path):
    """Folder of an encoder that differs in one number and has the same name."""
    folder = tmp_path / "elsewhere" / small_bert.name
    shutil.copytree(small_bert, folder)
    network = load_masked_lm(folder)
    with torch.no_grad():
        network.get_input_embeddings().weight[7, 3] += 1e-6
    network.save_pretrained(folder)
    return folder


def run(config, store):
    return list(train(config, store, device="cpu"))


def test_a_teacher_of_another_encoder_teaches_nobody(store, text_config, other_bert, monkeypatch):
    config = text_config.replace(epochs=1)
    run(teacher_of(config), store)
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(other_bert))
    with pytest.raises(ModelError, match=r"holds runs of another encoder named 'small-bert'.*: rename the folder"):
        run(config, store)
    assert store.read(config) is None


def test_a_run_goes_on_with_its_own_encoder_alone(store, text_config, small_bert, other_bert, monkeypatch):
    config = teacher_of(text_config)
    begun = train(config, store, device="cpu")
    next(begun)
    # The checkpoint of the first epoch is written before the second line comes.
    begun.close()
    assert store.checkpoint_path(config).exists()
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(other_bert))
    with pytest.raises(ModelError, match="another encoder named 'small-bert'"):
        run(config, store)
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(small_bert))
    assert len(run(config, store)) == 2


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({"name": "bert", "embeddings": "1"}, {"name": "bert", "embeddings": "1"}),
        # Made by the study itself, wherever it is needed.
        ({"name": TINY_BERT, "embeddings": "1"}, {"name": TINY_BERT, "embeddings": "2"}),
        ({"name": "bert", "embeddings": "1"}, {"name": "bert"}),
    ],
    ids=["the same", "the study's own", "an old record"],
)
def test_encoders_that_may_go_together(own, other):
    check_encoder({"text_model": own}, {"text_model": other})
    check_encoder({"text_model": own}, {})
    check_encoder({}, {})
