import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch

from mmel.models import ModelError, text
from mmel.models.text import load_classifier, load_masked_lm, load_tokenizer, tiny_bert

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
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def save(config, folder, head="MaskedLM", dtype=torch.float32):
    """A network with random weights, saved as Hugging Face does."""
    import transformers

    model = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel").from_config(config)
    model.to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Folder of a small BERT in half precision, with its tokenizer."""
    from transformers import BertConfig, BertTokenizer

    folder = tmp_path_factory.mktemp("models") / "encoder"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    save(BertConfig(vocab_size=len(pieces), **LAYERS), folder, dtype=torch.float16)
    BertTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(text, "PRETRAIN_STEPS", 20)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Loading.


def test_masked_lm_in_float32_whatever_was_saved(encoder):
    from transformers import BertForMaskedLM

    model = load_masked_lm(encoder)
    assert isinstance(model, BertForMaskedLM)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    stored = BertForMaskedLM.from_pretrained(encoder, dtype=torch.float16)
    assert same(weights(model), weights(stored.float()))


@pytest.mark.parametrize("as_type", [str, Path])
def test_folders_by_string_and_by_path(encoder, as_type):
    tokenizer = load_tokenizer(as_type(encoder))
    assert tokenizer("the dog", "a cat")["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert load_masked_lm(as_type(encoder)).config.vocab_size == len(tokenizer)


@pytest.mark.parametrize("num_outputs", [1, 2, 3])
def test_classifier_has_the_encoder_of_the_folder_and_a_fresh_head(encoder, num_outputs):
    torch.manual_seed(0)
    first = load_classifier(encoder, num_outputs, 0.1, 0.1)
    torch.manual_seed(0)
    again = load_classifier(encoder, num_outputs, 0.1, 0.1)
    other = load_classifier(encoder, num_outputs, 0.1, 0.1)
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}
    assert same(weights(first), weights(again))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.shape == (num_outputs, 16)
    # A fixed choice here would make the library compute a loss of its own.
    assert first.config.problem_type is None
    stored = weights(load_masked_lm(encoder).bert)
    assert all(torch.equal(first.bert.state_dict()[name], tensor) for name, tensor in stored.items())
    assert first.config._attn_implementation == "sdpa"


def test_dropouts_of_bert(encoder):
    model = load_classifier(encoder, 2, 0.25, 0.125)
    assert (model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob) == (0.25, 0.125)
    # Where they act, not only where they are written down.
    assert model.bert.embeddings.dropout.p == model.dropout.p == 0.25
    for layer in model.bert.encoder.layer:
        assert layer.attention.output.dropout.p == layer.output.dropout.p == 0.25
        assert layer.attention.self.dropout.p == 0.125
    assert {module.p for module in load_classifier(encoder, 2, 0, 0).modules() if hasattr(module, "p")} == {0}


def distilbert():
    from transformers import DistilBertConfig

    return DistilBertConfig(vocab_size=20, dim=16, n_layers=1, n_heads=2, hidden_dim=32)


def roberta():
    from transformers import RobertaConfig

    return RobertaConfig(vocab_size=20, **LAYERS)


def electra():
    from transformers import ElectraConfig

    return ElectraConfig(vocab_size=20, embedding_size=16, **LAYERS)


def albert():
    from transformers import AlbertConfig

    return AlbertConfig(vocab_size=20, embedding_size=16, **LAYERS)


@pytest.mark.parametrize("config", [distilbert, roberta, electra, albert], ids=lambda config: config.__name__)
def test_dropouts_of_other_encoders(config, tmp_path):
    folder = save(config(), tmp_path / "encoder")
    model = load_classifier(folder, 3, 0.25, 0.125).train()
    rates = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert set(rates) == {0.25, 0.125}
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert model(**inputs).logits.shape == (1, 3)
    # Without dropout two passes in training mode agree.
    still = load_classifier(folder, 3, 0, 0).train()
    assert torch.equal(still(**inputs).logits, still(**inputs).logits)


def test_an_encoder_without_such_dropouts(tmp_path):
    from transformers import FNetConfig

    folder = save(FNetConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, intermediate_size=32), tmp_path / "f")
    with pytest.raises(ModelError, match=r"fnet has none of the dropouts attention_probs_dropout_prob, attention_dr"):
        load_classifier(folder, 2, 0.1, 0.1)


def test_loading_is_quiet_and_leaves_the_library_as_talkative_as_before(encoder, capfd):
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_info()
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_classifier(encoder, 2, 0.1, 0.1)
    load_masked_lm(encoder)
    load_tokenizer(encoder)
    assert capfd.readouterr() == ("", "")
    after = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(level)
    assert after == before


LOADERS = {
    "tokenizer": load_tokenizer,
    "masked LM": load_masked_lm,
    "classifier": lambda source: load_classifier(source, 2, 0.1, 0.1),
}
each_loader = pytest.mark.parametrize("load", LOADERS.values(), ids=list(LOADERS))


@each_loader
@pytest.mark.parametrize("there", [False, True], ids=["no folder", "an empty folder"])
def test_a_missing_model_is_named_with_the_way_to_get_it(load, there, tmp_path):
    folder = tmp_path / "my-bert"
    if there:
        folder.mkdir()
    with pytest.raises(ModelError) as caught:
        load(folder)
    for part in (str(folder), "config.json", "Hugging Face hub", "--text-model", "docs/data.md"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@each_loader
def test_a_name_that_the_hub_cannot_give(load, monkeypatch):
    import transformers

    def unreachable(name, **_):
        raise OSError(f"We couldn't connect to load {name}.\nCheck your connection.")

    for name in ("AutoTokenizer", "AutoConfig", "AutoModelForMaskedLM"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", unreachable)
    with pytest.raises(ModelError, match=r"^no/such-bert is no text encoder .*We couldn't connect"):
        load("no/such-bert")


@pytest.mark.parametrize("load", [load_masked_lm, LOADERS["classifier"]], ids=["masked LM", "classifier"])
def test_a_folder_without_weights(load, encoder, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(encoder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelError, match="half"):
        load(folder)


def test_a_tokenizer_is_not_made_up(encoder, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(encoder, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ModelError, match=r"bare has no tokenizer"):
        load_tokenizer(folder)


def test_a_masked_lm_head_is_not_made_up(tmp_path):
    from transformers import BertConfig

    folder = save(BertConfig(vocab_size=20, **LAYERS), tmp_path / "headless", head="")
    with pytest.raises(ModelError, match=r"headless has no masked-LM head: it lacks cls\.predictions\.bias"):
        load_masked_lm(folder)


@pytest.mark.parametrize("load", [load_masked_lm, LOADERS["classifier"]], ids=["masked LM", "classifier"])
def test_weights_that_end_early(load, encoder, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(encoder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ModelError, match="cut is no text encoder"):
        load(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_tokenizer_that_holds_nothing(encoder, tmp_path, content):
    folder = tmp_path / "empty"
    shutil.copytree(encoder, folder)
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"empty is no text encoder .*tokenizer"):
        load_tokenizer(folder)


class Harmful:
    """What a pickle may make of a machine."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_executed(encoder, tmp_path):
    folder, trace = tmp_path / "pickled", tmp_path / "trace"
    shutil.copytree(encoder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"weights": Harmful(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled is no text encoder") as caught:
        load_masked_lm(folder)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_a_model_that_is_no_encoder_has_no_masked_lm(tmp_path):
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2)
    folder = save(config, tmp_path / "gpt", head="CausalLM")
    with pytest.raises(ModelError, match=r"gpt is no text encoder"):
        load_masked_lm(folder)


def test_minilm_predicts_words():
    root, name = os.environ.get("MMEL_DATA"), "minilm-l6-mlm"
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"needs {name} in the folder that MMEL_DATA names (MMEL_DATA={root!r})")
    model, tokenizer = load_masked_lm(Path(root) / name), load_tokenizer(Path(root) / name)
    entry = tokenizer("the capital of france is [MASK] .", return_tensors="pt")
    masked = entry["input_ids"][0] == tokenizer.mask_token_id
    with torch.no_grad():
        best = model(**entry).logits[0, masked].topk(5).indices[0]
    assert "paris" in tokenizer.convert_ids_to_tokens(best)


# The tiny BERT.


def test_tiny_bert_knows_each_word_and_no_other(few_steps, tmp_path):
    folder = tiny_bert(TEXTS, tmp_path / "deep" / "tiny")
    assert folder == tmp_path / "deep" / "tiny"
    tokenizer = load_tokenizer(folder)
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
    ]
    entry = tokenizer("The dog sleeps", "a lion")
    assert tokenizer.convert_ids_to_tokens(entry["input_ids"]) == [
        "[CLS]", "the", "dog", "sleeps", "[SEP]", "a", "[UNK]", "[SEP]"
    ]  # fmt: skip
    assert (tokenizer.mask_token, tokenizer.unk_token, tokenizer.pad_token_id) == ("[MASK]", "[UNK]", 0)
    assert load_masked_lm(folder).config.vocab_size == len(tokenizer)
    assert load_classifier(folder, 3, 0.1, 0.1)(**tokenizer("the dog", return_tensors="pt")).logits.shape == (1, 3)


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_tiny_bert_is_the_same_whenever_it_is_made(few_steps, tmp_path):
    torch.manual_seed(1)
    first = digest(tiny_bert(TEXTS, tmp_path / "first"))
    before = torch.manual_seed(2).get_state()
    assert digest(tiny_bert(TEXTS, tmp_path / "second")) == first
    assert torch.equal(torch.get_rng_state(), before)
    other = digest(tiny_bert(TEXTS, tmp_path / "other", seed=1))
    assert other["model.safetensors"] != first["model.safetensors"]
    assert other["tokenizer.json"] == first["tokenizer.json"]


def test_tiny_bert_learns_what_stands_where(monkeypatch, tmp_path):
    monkeypatch.setattr(text, "PRETRAIN_STEPS", 100)
    held_out, seen = TEXTS[5], [pair for pair in TEXTS if pair != TEXTS[5]]
    folder = tiny_bert(seen, tmp_path / "tiny")
    model, tokenizer = load_masked_lm(folder), load_tokenizer(folder)
    right = []
    for first, second in (TEXTS[0], held_out, TEXTS[-2]):
        entry = tokenizer(first, second, return_tensors="pt")
        pieces = entry["input_ids"]
        for place in range(pieces.shape[1]):
            if pieces[0, place] >= 5:
                masked = {**entry, "input_ids": pieces.index_fill(1, torch.tensor([place]), tokenizer.mask_token_id)}
                with torch.no_grad():
                    right.append(model(**masked).logits[0, place].argmax() == pieces[0, place])
    # Each word can be told from the others or from the other sentence; `the`, the commonest, is 3 of 12.
    assert torch.stack(right).float().mean() > 0.8


def test_tiny_bert_is_made_once(few_steps, tmp_path, monkeypatch):
    folder = tiny_bert(TEXTS, tmp_path / "tiny")
    made = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(text, "_pretrain", lambda *_: pytest.fail("trained again"))
    assert tiny_bert(TEXTS, folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == made


@pytest.mark.parametrize("at", ["_pretrain", "save"])
def test_a_build_that_ends_early_leaves_nothing(few_steps, tmp_path, monkeypatch, at):
    from transformers import BertTokenizer

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(text, "_pretrain", interrupted) if at == "_pretrain" else patch.setattr(
            # By then the weights are written.
            BertTokenizer,
            "save_pretrained",
            interrupted,
        )
        with pytest.raises(KeyboardInterrupt):
            tiny_bert(TEXTS, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []
    assert load_tokenizer(tiny_bert(TEXTS, tmp_path / "tiny"))("the dog")["input_ids"]


def test_two_processes_at_once_share_one_model(few_steps, tmp_path, monkeypatch):
    folder, pretrain = tmp_path / "tiny", text._pretrain

    def overtaken(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(text, "_pretrain", pretrain)
            tiny_bert(TEXTS, folder)
        pretrain(*arguments)

    monkeypatch.setattr(text, "_pretrain", overtaken)
    assert tiny_bert(TEXTS, folder) == folder
    assert list(tmp_path.iterdir()) == [folder]
    assert load_masked_lm(folder).config.vocab_size == len(load_tokenizer(folder))


def test_making_the_tiny_bert_is_quiet(few_steps, tmp_path, capfd):
    tiny_bert(TEXTS, tmp_path / "tiny")
    assert capfd.readouterr() == ("", "")
