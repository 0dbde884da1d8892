"""Where the encoder of a run on text is found, what augments with it, and that no two of one name are mixed up."""

import shutil

import pytest
import torch
from tiny import CPU, TAUGHT, TEXT, task_of, trained

from mmel.augment.text import MaskedLMAugmenter
from mmel.study.data.glue import subset
from mmel.study.models import ModelError
from mmel.study.models.encoder import load_masked_lm
from mmel.study.needs import teacher_of
from mmel.study.tables import TINY_BERT
from mmel.study.train import BudgetError, encoder
from mmel.study.train.encoder import build_augmenter, check_encoder, find_model

pytestmark = pytest.mark.usefixtures("one_thread", "text_model")


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


def test_a_teacher_of_another_encoder_teaches_nobody(store, other_bert, monkeypatch):
    trained(teacher_of(TAUGHT), store)
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(other_bert))
    with pytest.raises(ModelError, match="small-bert"):
        trained(TAUGHT, store)
    # Nor does one that is trained aside for a record of the other.
    store.weights_path(teacher_of(TAUGHT)).unlink()
    with pytest.raises(ModelError, match="small-bert"):
        trained(TAUGHT, store)
    assert store.read(TAUGHT) is None


def test_a_run_resumes_with_its_own_encoder_alone(store, small_bert, other_bert, monkeypatch):
    with pytest.raises(BudgetError):
        trained(TEXT, store, stop_at=0.0)
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(other_bert))
    with pytest.raises(ModelError, match="small-bert"):
        trained(TEXT, store)
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(small_bert))
    assert len(trained(TEXT, store)) == 2


def test_the_record_tells_encoders_apart_and_not_the_heads_on_them(store, other_bert, monkeypatch):
    def recorded(**changes):
        return task_of(TEXT.replace(**changes), store).provenance["text_model"]

    found = [recorded(**changes) for changes in ({}, {"seed": 1}, {"dataset": "grammar_mnli"}, {"hidden_dropout": 0.0})]
    assert all(each == found[0] for each in found)
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(other_bert))
    assert recorded()["name"] == found[0]["name"] == "small-bert"
    assert recorded()["embeddings"] != found[0]["embeddings"]


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


def test_a_named_folder_goes_before_the_data_root_and_that_before_the_hub(store, small_bert, tmp_path, monkeypatch):
    monkeypatch.delenv("MMEL_TEXT_MODEL")
    monkeypatch.delenv("MMEL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    assert find_model("small-bert", store, root) == "small-bert"
    (root / "small-bert").mkdir(parents=True)
    assert find_model("small-bert", store, root) == root / "small-bert"
    monkeypatch.setenv("MMEL_DATA", str(root))
    assert find_model("small-bert", store, None) == root / "small-bert"
    # A link has another name than its folder.
    (tmp_path / "current").symlink_to(small_bert)
    for named in (small_bert, tmp_path / "current"):
        monkeypatch.setenv("MMEL_TEXT_MODEL", str(named))
        assert find_model("small-bert", store, root) == small_bert
    # A folder of another name is another model's.
    assert find_model("other-bert", store, root) == "other-bert"
    assert find_model("google/electra", store, root) == "google/electra"


def test_the_embedded_encoder_is_made_in_the_results_folder(store, monkeypatch):
    asked = []
    monkeypatch.setattr(encoder, "tiny_bert", lambda texts, folder: (asked.append((len(texts), folder)), folder)[1])
    assert find_model(TINY_BERT, store, None) == store.model_dir(TINY_BERT)
    with store.scratch(TEXT) as scratch:
        assert find_model(TINY_BERT, scratch, None) == store.model_dir(TINY_BERT)
    assert asked[0][0] > 1000


def test_the_augmenter_of_a_run_reads_what_the_run_has_filled(store):
    config = TEXT.replace(mask_ratio=0.2)
    task = task_of(config, store)
    (cached,) = store.augmentation_dir().iterdir()
    before, augmenter = cached.read_bytes(), build_augmenter(config, find_model(config.model, store), store, CPU)
    train = subset(config.data.load()["train"], 24)
    rows = [task.sequences.batch(torch.tensor([n]))["input_ids"].tolist() for n in range(24)]
    assert augmenter.ids(train.sentences) == rows
    assert list(store.augmentation_dir().iterdir()) == [cached]
    assert cached.read_bytes() == before


@pytest.mark.parametrize(("device", "bf16"), [("cpu", False), ("cuda", True)])
def test_a_gpu_augments_in_bf16_and_the_record_says_so(store, device, bf16, small_bert, monkeypatch):
    made = []

    def augmenter(*given, **settings):
        made.append(MaskedLMAugmenter(*given, **settings))
        return made[-1]

    class Network:
        def __new__(cls, source):
            network = load_masked_lm(source)
            network.to = lambda device: network
            return network

    monkeypatch.setattr(encoder, "load_masked_lm", Network)
    monkeypatch.setattr(encoder, "MaskedLMAugmenter", augmenter)
    found = build_augmenter(TEXT, small_bert, store, torch.device(device))
    assert found.bf16 is bf16
    monkeypatch.setattr("mmel.study.train.texts.build_augmenter", lambda *_: found)
    assert task_of(TEXT, store).provenance["augmentation_precision"] == ("bf16" if bf16 else "fp32")
