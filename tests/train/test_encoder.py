"""Where the encoder of a run on text is found, what augments with it, and that no two of one name are mixed up."""

import shutil

import pytest
import torch

from mmel.augment.text import MaskedLMAugmenter
from mmel.grids import TINY_BERT, teacher_of
from mmel.models import ModelError
from mmel.models.text import load_masked_lm
from mmel.train import encoder, train
from mmel.train.encoder import build_augmenter, check_encoder, find_model
from mmel.train.text import TextTask

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


def test_the_width_of_the_beam_is_the_runs(store, text_config):
    narrow = build_augmenter(text_config.replace(fill="beam"), store, device="cpu")
    assert narrow._filler.beam_width == text_config.num_augmented - 1
    wide = text_config.replace(fill="beam", beam_width=7)
    assert build_augmenter(wide, store, device="cpu")._filler.beam_width == 7


def test_a_named_folder_goes_before_the_data_root_and_that_before_the_hub(store, small_bert, tmp_path, monkeypatch):
    monkeypatch.delenv("MMEL_TEXT_MODEL", raising=False)
    monkeypatch.delenv("MMEL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    assert find_model("small-bert", store, root) == "small-bert"
    (root / "small-bert").mkdir(parents=True)
    assert find_model("small-bert", store, root) == root / "small-bert"
    monkeypatch.setenv("MMEL_DATA", str(root))
    assert find_model("small-bert", store, None) == root / "small-bert"
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(small_bert))
    assert find_model("small-bert", store, root) == small_bert
    # A folder of another name is another model's.
    assert find_model("other-bert", store, root) == "other-bert"
    assert find_model("google/electra", store, root) == "google/electra"


def test_a_folder_is_found_by_the_name_that_the_grids_gave_it(store, small_bert, tmp_path, monkeypatch):
    from mmel.grids import table3

    (tmp_path / "current").symlink_to(small_bert)
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(tmp_path / "current"))
    name = table3("paper")[0].model
    assert name == "small-bert"
    assert find_model(name, store, None) == small_bert


@pytest.mark.parametrize(("device", "bf16"), [("cpu", False), ("cuda", True)])
def test_a_gpu_augments_in_bf16(store, text_config, device, bf16, monkeypatch):
    class Network:
        def to(self, device):
            return self

    monkeypatch.setattr(encoder, "load_masked_lm", lambda source: Network())
    monkeypatch.setattr(encoder, "MaskedLMAugmenter", lambda *_, **settings: settings)
    assert encoder.augmenter_of(text_config, "", None, store, torch.device(device))["bf16"] is bf16


@pytest.mark.parametrize("bf16", [False, True])
def test_a_record_has_the_precision_of_its_augmentation(store, text_config, bf16, monkeypatch):
    def augmenter(*given, **settings):
        return MaskedLMAugmenter(*given, **{**settings, "bf16": bf16})

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "MaskedLMAugmenter", augmenter)
        task = TextTask(text_config.replace(label_source="original"), None, store, None, torch.device("cpu"))
        # What was filled is found again by an augmenter of that precision alone.
        (path,) = store.augmentation_dir().glob("*.sqlite")
        assert build_augmenter(text_config, store, device="cpu")._cache.path == path
    assert task.provenance["augmentation_precision"] == ("bf16" if bf16 else "fp32")
    assert (build_augmenter(text_config, store, device="cpu")._cache.path == path) is not bf16


def test_the_embedded_encoder_is_made_in_the_results_folder(store, text_config, monkeypatch):
    asked = []
    monkeypatch.setattr(encoder, "tiny_bert", lambda texts, folder: (asked.append((len(texts), folder)), folder)[1])
    assert find_model("tiny-bert", store, None) == store.model_dir("tiny-bert")
    with store.scratch(text_config) as scratch:
        assert find_model("tiny-bert", scratch, None) == store.model_dir("tiny-bert")
    assert asked[0][0] > 1000
