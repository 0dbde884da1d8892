"""Where the encoder of a run on text is found, what augments with it, and that no two of one name are mixed up."""

import shutil

import pytest
import torch
from tiny import CPU, TAUGHT, TEXT, task_of, trained

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
    # The head is drawn anew for each seed and task, and is no part of the encoder.
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(small_bert))
    first, *others = [
        task_of(TEXT.replace(**changes), store).provenance["text_model"]
        for changes in ({}, {"seed": 1}, {"dataset": "grammar_mnli"}, {"hidden_dropout": 0.0})
    ]
    assert others == [first] * 3
    assert len(trained(TEXT, store)) == 2


def test_encoders_that_may_go_together():
    one, other = {"name": "bert", "embeddings": "1"}, {"name": "bert", "embeddings": "2"}
    # The study itself makes `tiny-bert` wherever it is needed; old records have no digest, or no encoder.
    made = [{"text_model": {**each, "name": TINY_BERT}} for each in (one, other)]
    for found in (made, ({"text_model": one}, {"text_model": {"name": "bert"}}), ({"text_model": one}, {}), ({}, {})):
        check_encoder(*found)
    with pytest.raises(ModelError, match="'bert'"):
        check_encoder({"text_model": one}, {"text_model": other})


def test_a_named_folder_goes_before_the_data_root_and_that_before_the_hub(store, small_bert, tmp_path, monkeypatch):
    monkeypatch.delenv("MMEL_TEXT_MODEL")
    monkeypatch.delenv("MMEL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    assert find_model("small-bert", store, root) == "small-bert"
    (root / "small-bert").mkdir(parents=True)
    assert find_model("small-bert", store, root) == root / "small-bert"
    monkeypatch.setenv("MMEL_DATA", str(root))
    assert find_model("small-bert", store) == root / "small-bert"
    # A link has another name than its folder.
    (tmp_path / "current").symlink_to(small_bert)
    for named in (small_bert, tmp_path / "current"):
        monkeypatch.setenv("MMEL_TEXT_MODEL", str(named))
        assert find_model("small-bert", store, root) == small_bert
    # A folder of another name is another model's.
    assert find_model("other-bert", store, root) == "other-bert"
    assert find_model("google/electra", store, root) == "google/electra"


def test_the_embedded_encoder_is_made_in_the_results_folder(store, monkeypatch):
    monkeypatch.setattr(encoder, "tiny_bert", lambda texts, folder: folder)
    assert find_model(TINY_BERT, store) == store.model_dir(TINY_BERT)
    with store.scratch(TEXT) as scratch:
        assert find_model(TINY_BERT, scratch) == store.model_dir(TINY_BERT)


def test_the_augmenter_of_a_run_reads_what_the_run_has_filled(store, small_bert):
    config = TEXT.replace(mask_ratio=0.2)
    task = task_of(config, store)
    (cached,) = store.augmentation_dir().iterdir()
    before, augmenter = cached.read_bytes(), build_augmenter(config, small_bert, store, CPU)
    train = subset(config.data.load()["train"], 24)
    rows = [task.sequences.batch(torch.tensor([n]))["input_ids"].tolist() for n in range(24)]
    assert augmenter.ids(train.sentences) == rows
    assert list(store.augmentation_dir().iterdir()) == [cached]
    assert cached.read_bytes() == before


@pytest.mark.parametrize(("device", "bf16"), [("cpu", False), ("cuda", True)])
def test_a_gpu_augments_in_bf16_and_the_record_says_so(store, device, bf16, small_bert, monkeypatch):
    network = load_masked_lm(small_bert)
    network.to = lambda device: network
    monkeypatch.setattr(encoder, "load_masked_lm", lambda source: network)
    found = build_augmenter(TEXT, small_bert, store, torch.device(device))
    monkeypatch.setattr("mmel.study.train.texts.build_augmenter", lambda *_: found)
    assert found.bf16 is bf16
    assert task_of(TEXT, store).provenance["augmentation_precision"] == ("bf16" if bf16 else "fp32")
