import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from mmel.study.models import ModelError, encoder
from mmel.study.models.encoder import load_classifier, load_masked_lm, load_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    *(
        (f"the {who} sleeps in the {where}", f"a {who} is in the {where}")
        for who in ("dog", "cat", "horse", "bird")
        for where in ("garden", "park", "forest", "street")
    ),
    ("the dog works today", None),
]
WORDS = "a bird cat dog forest garden horse in is park sleeps street the today works".split()  # noqa: SIM905
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
SMALL = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


def tiny_bert(texts, folder, **options):
    """The tiny BERT after a few steps instead of 1500."""
    return encoder.tiny_bert(texts, folder, **{"steps": 20, **options})


def classifier(source):
    return load_classifier(source, 2, 0.1, 0.1)


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Loading.


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_masked_lm_is_in_float32_whatever_was_saved(small_bert, tmp_path, as_type):
    half = transformers.BertForMaskedLM.from_pretrained(small_bert, dtype=torch.float16)
    bert = shutil.copytree(small_bert, tmp_path / "half")
    half.save_pretrained(bert)
    model, tokenizer = load_masked_lm(as_type(bert)), load_tokenizer(as_type(bert))
    assert tokenizer("the dog", "a cat")["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert model.config.vocab_size == len(tokenizer)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training
    assert same(model, half.float())


@pytest.mark.parametrize("num_outputs", [1, 2, 3])
def test_a_classifier_has_the_encoder_of_the_folder_and_a_fresh_head(small_bert, num_outputs):
    torch.manual_seed(0)
    first = load_classifier(small_bert, num_outputs, 0.1, 0.1)
    torch.manual_seed(0)
    again, other = (load_classifier(small_bert, num_outputs, 0.1, 0.1) for _ in range(2))
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}
    assert same(first, again)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.shape == (num_outputs, 16)
    # A fixed choice here would make the library compute a loss of its own.
    assert first.config.problem_type is None
    own = first.bert.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in load_masked_lm(small_bert).bert.state_dict().items())


@pytest.mark.parametrize(
    "config",
    [
        transformers.BertConfig(**SMALL),
        transformers.DistilBertConfig(vocab_size=20, dim=16, n_layers=1, n_heads=2, hidden_dim=32),
        transformers.RobertaConfig(**SMALL),
        transformers.ElectraConfig(embedding_size=16, **SMALL),
        transformers.AlbertConfig(embedding_size=16, **SMALL),
    ],
    ids=lambda config: config.model_type,
)
def test_dropouts_are_set_whatever_an_encoder_calls_them(config, tmp_path):
    folder = tmp_path / "encoder"
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    model = load_classifier(folder, 3, 0.25, 0.125).train()
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.25, 0.125}
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert model(**inputs).logits.shape == (1, 3)
    # Without dropout two passes in training mode agree.
    still = load_classifier(folder, 3, 0, 0).train()
    assert torch.equal(still(**inputs).logits, still(**inputs).logits)


# What cannot be loaded is named, in one line.


def without(pattern, **written):
    """Makes a copy of the small BERT without some files and with others."""

    def make(bert, folder):
        shutil.copytree(bert, folder, ignore=shutil.ignore_patterns(pattern))
        for name, content in written.items():
            (folder / name.replace("_json", ".json")).write_text(content)

    return make


def saved(config, head):
    """Makes a folder of a network with random weights."""
    return lambda bert, folder: getattr(transformers, f"AutoModel{head}").from_config(config).save_pretrained(folder)


FNET = transformers.FNetConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, intermediate_size=32)
GPT = transformers.GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2)
WEIGHTED = (load_masked_lm, classifier)


@pytest.mark.parametrize(
    ("make", "loaders", "named"),
    [
        (lambda bert, folder: None, (load_tokenizer, *WEIGHTED), "config.json.* hub"),
        (lambda bert, folder: folder.mkdir(), (load_tokenizer, *WEIGHTED), "config.json.* hub"),
        (without("*.safetensors"), WEIGHTED, "weights"),
        (without("tokenizer*"), (load_tokenizer,), "tokenizer"),
        *((without("nothing", tokenizer_json=content), (load_tokenizer,), "tokenizer") for content in ("", "[]")),
        # What is missing would be made up.
        (saved(transformers.BertConfig(**SMALL), ""), (load_masked_lm,), r"masked-LM head.*cls\.predictions"),
        (saved(GPT, "ForCausalLM"), (load_masked_lm,), "text encoder"),
        (saved(FNET, "ForMaskedLM"), (classifier,), "dropout"),
    ],
)
def test_a_folder_that_lacks_something_is_named(small_bert, make, loaders, named, tmp_path):
    folder = tmp_path / "model"
    make(small_bert, folder)
    for load in loaders:
        with pytest.raises(ModelError, match=rf"^{folder}\b.*{named}") as caught:
            load(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [load_tokenizer, *WEIGHTED])
def test_the_public_encoder_is_pinned_to_a_commit_of_the_hub(load, tmp_path, monkeypatch):
    asked = []

    def unreachable(source, revision=None, **_):
        asked.append((source, revision))
        raise OSError(f"We couldn't connect to load {source}.\nCheck your connection.")

    for name in ("AutoTokenizer", "AutoConfig", "AutoModelForMaskedLM"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", unreachable)
    monkeypatch.chdir(tmp_path)
    # Then a folder of that name, which has no commits.
    for made in (lambda: None, Path("bert-base-uncased").mkdir):
        made()
        with pytest.raises(ModelError, match=r"^bert-base-uncased .*couldn't connect"):
            load("bert-base-uncased")
    with pytest.raises(ModelError, match=r"^no/such-bert .*couldn't connect"):
        load("no/such-bert")
    commit = "86b5e0934494bd15c9632b12f734a8a67f723594"
    assert asked == [("bert-base-uncased", commit), ("bert-base-uncased", None), ("no/such-bert", None)]


# The tiny BERT.


def test_tiny_bert_knows_each_word_and_no_other_and_is_made_once_in_silence(tmp_path, capfd):
    folder = tiny_bert(TEXTS, tmp_path / "deep" / "tiny")
    made = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert tiny_bert(TEXTS, folder) == folder == tmp_path / "deep" / "tiny"
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert capfd.readouterr() == ("", "")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == PIECES
    read = tokenizer.convert_ids_to_tokens(tokenizer("The dog sleeps", "a lion")["input_ids"])
    assert " ".join(read) == "[CLS] the dog sleeps [SEP] a [UNK] [SEP]"
    assert (tokenizer.mask_token, tokenizer.unk_token, tokenizer.pad_token_id) == ("[MASK]", "[UNK]", 0)
    assert load_classifier(folder, 3, 0.1, 0.1)(**tokenizer("the dog", return_tensors="pt")).logits.shape == (1, 3)


def test_tiny_bert_is_the_same_whenever_it_is_made(tmp_path):
    def digest(name):
        folder = tiny_bert(TEXTS, tmp_path / name)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    torch.manual_seed(1)
    first = digest("first")
    before = torch.manual_seed(2).get_state()
    assert digest("second") == first
    assert torch.equal(torch.get_rng_state(), before)


def test_tiny_bert_learns_what_stands_where(tmp_path):
    held_out = TEXTS[5]
    folder = tiny_bert([text for text in TEXTS if text != held_out], tmp_path / "tiny", steps=100)
    model, tokenizer = load_masked_lm(folder), load_tokenizer(folder)
    right = []
    for first, second in (TEXTS[0], held_out, TEXTS[-2]):
        entry = tokenizer(first, second, return_tensors="pt")
        pieces = entry["input_ids"]
        for place in (pieces[0] >= 5).nonzero().flatten():
            masked = {**entry, "input_ids": pieces.index_fill(1, place, tokenizer.mask_token_id)}
            with torch.no_grad():
                right.append(model(**masked).logits[0, place].argmax() == pieces[0, place])
    # Each word can be told from the others or from the other sentence; `the`, the commonest, is 3 of 12.
    assert torch.stack(right).float().mean() > 0.8


@pytest.mark.parametrize("at", ["torch.optim.AdamW.step", "transformers.BertTokenizer.save_pretrained"])
def test_a_build_that_ends_early_leaves_nothing(tmp_path, monkeypatch, at):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny_bert(TEXTS, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []
    assert load_tokenizer(tiny_bert(TEXTS, tmp_path / "tiny"))("the dog")["input_ids"]


def test_two_processes_at_once_share_one_model(tmp_path, monkeypatch):
    folder, save = tmp_path / "tiny", transformers.BertTokenizer.save_pretrained

    def overtaken(*arguments):
        monkeypatch.setattr(transformers.BertTokenizer, "save_pretrained", save)
        tiny_bert(TEXTS, folder)
        return save(*arguments)

    monkeypatch.setattr(transformers.BertTokenizer, "save_pretrained", overtaken)
    assert tiny_bert(TEXTS, folder) == folder
    assert list(tmp_path.iterdir()) == [folder]
    assert load_masked_lm(folder).config.vocab_size == len(load_tokenizer(folder))
