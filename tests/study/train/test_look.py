"""Scores of the splits, and a look at the example whose samples a network finds most unequal."""

import json
import math

import pytest
import torch
from tiny import FILES, IMAGES, STILL, TAUGHT, one_by_one, reloaded, task_of, trained

from mmel.augment.text import MaskedLMAugmenter, encode
from mmel.study.data.glue import subset
from mmel.study.datasets import dataset
from mmel.study.models.encoder import load_masked_lm
from mmel.study.needs import teacher_of
from mmel.study.train import look
from mmel.study.train.texts import score

pytestmark = pytest.mark.usefixtures("one_thread")


# Metrics, worked by hand: eight texts with 3 hits, 1 miss and 2 false alarms of class 1.
GUESSES, TRUTHS = [1, 1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("metric", "predictions", "targets", "expected"),
    [
        ("accuracy_pct", GUESSES, TRUTHS, 62.5),
        # Of class 1: 2 * 3 / (2 * 3 + 1 + 2); of class 0 it would be 4 / 7.
        ("f1_pct", GUESSES, TRUTHS, 200 / 3),
        ("f1_pct", [0, 0], [0, 0], 0),
        # (3 * 2 - 2 * 1) / sqrt(5 * 4 * 4 * 3).
        ("matthews_pct", GUESSES, TRUTHS, 400 / math.sqrt(240)),
        ("matthews_pct", [1, 1, 1], [0, 1, 0], 0),
        # Ranks only: 1 - 6 * 2 / (4 * 15); ties share the mean of their ranks, 1.5: 1.5 / sqrt(1.5 * 2).
        ("spearman_pct", [0.1, 30.0, 20.0, 5000.0], [1.0, 2.0, 3.0, 4.0], 80),
        ("spearman_pct", [1.0, 1.0, 2.0], [1.0, 2.0, 3.0], 150 / math.sqrt(3)),
        # A record is JSON, which has no NaN; and a network that says one thing of all texts knows nothing.
        ("spearman_pct", [2.0, 2.0, 2.0], [1.0, 3.0, 2.0], 0),
        ("spearman_pct", [1.0, 3.0], [4.0, 4.0], 0),
    ],
)
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_scores(metric, predictions, targets, expected):
    found = score(metric, predictions, targets)
    assert type(found) is float
    assert found == pytest.approx(expected)


# Splits.


@pytest.mark.parametrize(
    ("name", "metric", "test_metric"),
    [
        ("grammar_stsb", "spearman_pct", "spearman_pct"),
        ("grammar_mrpc", "accuracy_pct", "f1_pct"),
        ("grammar_mnli", "accuracy_pct", "accuracy_pct"),
    ],
)
def test_a_task_is_scored_as_glue_scores_it(name, metric, test_metric, store, text_model, few_texts):
    config = teacher_of(TAUGHT).replace(dataset=name, train_size=0, epochs=1)
    task, splits, said = task_of(config, store), dataset(name).load(), {}
    # By hand, one text at a time.
    for split, part in splits.items():
        entries = encode(task.tokenizer, part.sentences, part.pairs)
        outputs = one_by_one(task.model, [[entry.ids] for entry in entries], [entry.type_ids for entry in entries])[
            :, 0
        ]
        said[split] = outputs[:, 0].tolist() if name == "grammar_stsb" else outputs.argmax(dim=1).tolist()
    scores = {metric: score(metric, said["dev"], splits["dev"].targets)}
    tested = {f"test_{test_metric}": score(test_metric, said["test"], splits["test"].targets)}
    if name == "grammar_mnli":
        scores["accuracy_mm_pct"] = score(metric, said["dev_mm"], splits["dev_mm"].targets)
        tested["test_accuracy_mm_pct"] = score(metric, said["test_mm"], splits["test_mm"].targets)
    assert task.evaluate() == pytest.approx(scores, abs=1e-6)
    found, predictions = task.test()
    right = {} if name == "grammar_stsb" else found.pop("correct")
    assert (found, predictions) == (pytest.approx(tested, abs=1e-6), {})
    for split, part in splits.items():
        if split != "train" and right:
            hits = [one == true for one, true in zip(said[split], part.targets, strict=True)]
            assert right[split] == "".join("01"[hit] for hit in hits)
    # Without labels they are predicted, for GLUE's server; scores keep their decimals.
    few_texts |= {"test", "test_mm"}
    predictions = {split: pytest.approx(values, abs=1e-5) for split, values in said.items() if "test" in split}
    scores, found = task_of(config, store).test()
    assert (scores.get("correct", {}), found) == ({}, predictions)
    trained(config, store)
    task = reloaded(config, store)
    task.evaluate()
    scores, predictions = task.test()
    assert json.loads(store.predictions_path(config).read_text()) == predictions
    assert store.read(config).result.get("correct") == scores.get("correct")


def test_images_that_cannot_be_decoded_are_counted_and_named(store, few_files, capsys):
    few_files |= {"train/checks/001.jpg", "val/dots/002.jpg"}
    trained(FILES, store)
    record = store.read(FILES)
    assert record.header["sizes"]["sampled"] == ["train", "val"]
    assert record.result["num_unreadable"] == 2
    assert record.result["unreadable"] == sorted(few_files)
    # A share of the eleven images that could be looked at.
    marks = record.result["correct"]["val"]
    assert record.score == pytest.approx(100 * marks.count("1") / 11)
    assert [n for n, mark in enumerate(marks) if mark == "-"] == [2]
    assert capsys.readouterr().err.count("cannot decode train/checks/001.jpg") == 1


# A look.


@pytest.mark.parametrize("method", ["baseline_da_uni", "mmel_h", "mmel_s"])
def test_the_most_uneven_example_is_shown_with_its_weights(config, method, store):
    config = config.replace(method=method, epochs=1, **(STILL if config.is_text else {"decay_epochs": ()}))
    trained(config, store)
    task = reloaded(config, store)
    task.model.eval()
    with torch.no_grad():
        terms = task.terms(torch.arange(config.train_size), 1)
    # The weights that MMEL-H would give to equal ones; MMEL-S weighs the other views alone (Eq. 9).
    weights = terms.sample_losses.softmax(dim=1) if method == "baseline_da_uni" else terms.weights
    index, unweighted = int(weights.amax(dim=1).argmax()), [math.nan] * (method == "mmel_s")
    shown = look(config, store, dict, device="cpu")
    if config.is_text:
        train = subset(config.data.load()["train"], 24).take([index])
        augmenter = MaskedLMAugmenter(load_masked_lm(task.model.name_or_path), task.tokenizer, 3)
        (masked,), (ids,) = (of(train.sentences) for of in (augmenter.positions, augmenter.ids))
        texts = []
        for row in ids:
            pieces = task.tokenizer.convert_ids_to_tokens(row)
            texts.append(" ".join(f"[{piece}]" if n in masked else piece for n, piece in enumerate(pieces[:-1]) if n))
        # All that was masked is marked, also where the masked LM put the same piece back.
        assert shown["text"] == texts
    else:
        views = task.views(torch.arange(config.train_size), 1)[0][index].permute(0, 2, 3, 1)
        assert shown["views"].tolist() == views.tolist()
        start = look(config, store, dict, trained=False, device="cpu")
        assert start["views"].shape == (3, 8, 8, 1)
        assert start["losses"] != shown["losses"]
    for name, values in (("losses", terms.sample_losses), ("weights", weights)):
        assert shown[name] == pytest.approx(unweighted + values[index].tolist(), abs=1e-5, nan_ok=True)


def test_a_look_at_a_method_of_one_view(store, text_model, few_files):
    for config in (IMAGES, FILES):
        for method, k in (("baseline_da", 10), ("baseline_da_long", 3)):
            one = config.with_method(method, 0)
            shown = look(one, store, dict, trained=False, device="cpu")
            assert shown["views"].shape == (k, config.side, config.side, 1 if config == IMAGES else 3)
            assert sum(shown["weights"]) == pytest.approx(1, abs=1e-5)
    shown = look(teacher_of(TAUGHT), store, dict, trained=False, device="cpu")
    assert set(shown) == {"text", "target", "losses", "weights"}
    assert "[" not in shown["text"][0]
    trained(long := TAUGHT.replace(method="baseline_da_long"), store)
    shown = look(long, store, dict, device="cpu")
    assert shown["weights"] == [1]
    assert "[" in shown["text"][0]
    assert shown["target"][0] in (shown["teacher"][0], [1.0, 0.0], [0.0, 1.0])


@pytest.mark.parametrize("method", ["mmel_h", "mmel_s"])
@pytest.mark.parametrize("source", ["predicted", "original"])
def test_targets_of_a_look_are_those_of_the_training(method, source, store, text_model):
    config = TAUGHT.replace(method=method, label_source=source, lambda_p=1e-3)
    trained(config, store)
    shown = look(config, store, dict, device="cpu")
    # A small coefficient puts all on one sample.
    assert max(shown["weights"][method == "mmel_s" :]) > 0.8
    assert ("teacher" in shown) == (source == "predicted")
    own, *others = shown["target"]
    if method == "mmel_h":
        assert others == (shown["teacher"][1:] if source == "predicted" else [own, own])
    assert own in ((0, 1) if (method, source) == ("mmel_h", "original") else ([1.0, 0.0], [0.0, 1.0]))
    if method == "mmel_s":
        assert all(sum(target) == pytest.approx(1) for target in others)


@pytest.mark.parametrize("lost", [lambda config: config, teacher_of], ids=["its own", "its teacher's"])
def test_a_recorded_run_without_weights_says_so(lost, store, text_model):
    trained(TAUGHT, store)
    store.weights_path(lost(TAUGHT)).unlink()
    assert lost(TAUGHT).run_id in look(TAUGHT, store, None, device="cpu").data
