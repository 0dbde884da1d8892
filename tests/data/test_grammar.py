import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import matthews_corrcoef

from mmel.data.grammar import corpus, grammar

SINGLE = ("cola", "sst2")
PAIRS = ("mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
TASKS = (*SINGLE, *PAIRS)
each_task = pytest.mark.parametrize("task", TASKS)

DIGEST = "21369f482a09693b"

# The rules, written apart from the module: what a reader of the sentences would say.

NOUNS = "dog cat horse bird goat rabbit farmer doctor teacher singer painter student".split()
VERBS = {form: form.endswith("s") for verb in "sleep wait sing run work".split() for form in (verb, f"{verb}s")}
PRAISE = set("great good wonderful charming brilliant lovely".split())
BLAME = set("awful bad dull boring terrible clumsy".split())
DEEDS = {"chased": 0, "pursued": 0, "helped": 1, "assisted": 1, "called": 2, "phoned": 2}
STATES = {"asleep": ("sleep", True), "awake": ("sleep", False), "hungry": ("food", False), "full": ("food", True)}
PLACES = "garden park forest river kitchen office library door".split()
TIMES = ("today", "night", "monday", "week")
NUMBERS = {"two", "three", "four", "five"}


def only(words, allowed):
    """The one word of a sentence that is among some."""
    (found,) = [word for word in words if word in allowed]
    return found


def agrees(sentence):
    words = sentence.split()
    subject = next(word for word in words if word.removesuffix("s") in NOUNS)
    return int(subject.endswith("s") != VERBS[only(words, VERBS)])


def praises(sentence):
    main = sentence.rsplit("the ", 1)[1].split()
    words = [word for word in main if word in PRAISE | BLAME]
    assert len({word in PRAISE for word in words}) == 1, sentence
    return int((words[0] in PRAISE) != ("not" in main))


def deed(sentence):
    return DEEDS[only(sentence.split(), DEEDS)]


def question(sentence):
    starts = {
        "how can": 0,
        "what is the best way": 0,
        "when": 1,
        "what is the right time": 1,
        "where": 2,
        "which place": 2,
    }
    return next(kind for start, kind in starts.items() if sentence.startswith(start))


def state(sentence):
    words = sentence.split()
    about, holds = STATES[only(words, STATES)]
    return about, holds != ("not" in words)


def similarity(first, second):
    points = 2 * (deed(first) == deed(second))
    for words, worth in ((PLACES, 2), (TIMES, 1)):
        points += worth * (only(first.split(), words) == only(second.split(), words))
    return float(points)


def follows(premise, hypothesis):
    (about, holds), (also, claimed) = state(premise), state(hypothesis)
    return 1 if about != also else 0 if holds == claimed else 2


def answers(asked, told):
    words = told.split()
    kinds = {"how": words[0] in NUMBERS, "when": words[-1] in TIMES, "where": words[-1] in PLACES}
    assert sum(kinds.values()) == 1, told
    return int(not kinds[asked.split()[0]])


RULES = {
    "cola": lambda sentence, pair: agrees(sentence),
    "sst2": lambda sentence, pair: praises(sentence),
    "mrpc": lambda sentence, pair: int(deed(sentence) == deed(pair)),
    "stsb": similarity,
    "qqp": lambda sentence, pair: int(question(sentence) == question(pair)),
    "mnli": follows,
    "qnli": answers,
    "rte": lambda sentence, pair: int(follows(sentence, pair) == 2),
}


def examples(task, split):
    sentences, pairs, targets = grammar(f"grammar_{task}")[split]
    return list(zip(sentences, pairs or [None] * len(sentences), targets, strict=True))


def splits(task):
    return ("train", "dev", "test", "dev_mm", "test_mm") if task == "mnli" else ("train", "dev", "test")


def digest():
    written = json.dumps([grammar(f"grammar_{task}") for task in TASKS] + [corpus()])
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def test_text_is_alike_in_every_process():
    # Recorded runs were trained on these very words: whoever changes them changes what `mini` means.
    assert digest() == DIGEST
    code = "from tests.data.test_grammar import digest; print(digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == DIGEST, done.stderr


@each_task
def test_sizes_and_columns(task):
    parts = grammar(f"grammar_{task}")
    assert {split: len(part[0]) for split, part in parts.items()} == {
        split: 400 if split == "train" else 300 for split in splits(task)
    }
    for sentences, pairs, targets in parts.values():
        assert len(sentences) == len(targets)
        assert (pairs is None) == (task in SINGLE)
        assert pairs is None or len(pairs) == len(sentences)
        assert {type(target) for target in targets} == {float if task == "stsb" else int}


@each_task
def test_classes_are_balanced_and_mixed(task):
    for split in splits(task):
        targets = [target for *_, target in examples(task, split)]
        counts = Counter(targets)
        assert set(counts) == {"stsb": set(range(6)), "mnli": {0, 1, 2}}.get(task, {0, 1})
        assert max(counts.values()) - min(counts.values()) <= 1
        # In any quarter all of them occur: a fixed subset is no class.
        quarter = len(targets) // 4
        assert all(set(targets[at : at + quarter]) == set(counts) for at in range(0, len(targets), quarter))


@each_task
def test_no_example_occurs_twice(task):
    everything = [frozenset(example[:2]) for split in splits(task) for example in examples(task, split)]
    assert len(set(everything)) == len(everything)
    # A second sentence that is the first one again would be an example of nothing.
    assert all(len(example) == 2 for example in everything)


@each_task
def test_sentences_are_short_words_in_lower_case(task):
    for split in splits(task):
        for *texts, _ in examples(task, split):
            for text in filter(None, texts):
                assert text == " ".join(text.split())
                assert all(word.isascii() and word.isalpha() and word.islower() for word in text.split())
                assert 4 <= len(text.split()) <= 14


@each_task
def test_labels_follow_the_rule(task):
    for split in splits(task):
        for sentence, pair, target in examples(task, split):
            assert RULES[task](sentence, pair) == target, (sentence, pair)


def flips(task, sentence, pair, target, words):
    """Whether one word replaced by another gives an example of another label."""
    last = (pair or sentence).split()
    for place in range(len(last)):
        for word in words:
            changed = " ".join((*last[:place], word, *last[place + 1 :]))
            try:
                if RULES[task](*((sentence, changed) if pair else (changed, None))) != target:
                    return True
            except (ValueError, StopIteration, AssertionError, IndexError):  # not a sentence that the rule can read
                continue
    return False


@each_task
def test_one_word_can_flip_a_label(task):
    sample = examples(task, "dev")[:60]
    words = sorted(
        {word for *texts, _ in examples(task, "train") for text in filter(None, texts) for word in text.split()}
    )
    share = np.mean([flips(task, *example, words) for example in sample])
    # Of questions it takes two words, where the wording is longer than one.
    assert share == 1 if task != "qqp" else share > 0.2


def bag_of_words(task, split, apart):
    """Dev metric (accuracy as a fraction) of a linear model on word counts, of both sentences together or apart."""
    train, other = examples(task, "train"), examples(task, split)

    def marked(rows):
        sides = [(sentence.split(), (pair or "").split()) for sentence, pair, _ in rows]
        return [first + [f"{word}/2" if apart else word for word in second] for first, second in sides]

    counts = CountVectorizer(analyzer=lambda words: words).fit(marked(train))
    model = Ridge() if task == "stsb" else LogisticRegression(max_iter=1000)
    model.fit(counts.transform(marked(train)), [target for *_, target in train])
    said, targets = model.predict(counts.transform(marked(other))), [target for *_, target in other]
    if task == "stsb":
        return spearmanr(said, targets).statistic
    return matthews_corrcoef(targets, said) if task == "cola" else np.mean(said == np.array(targets))


@each_task
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_a_bag_of_words_says_little(task, apart):
    # Chance is 0 for the two correlations, a third for MNLI, a half elsewhere.
    bound = {"cola": 0.2, "stsb": 0.25, "mnli": 0.45}.get(task, 0.62)
    for split in splits(task)[1:]:
        assert bag_of_words(task, split, apart) < bound


def test_the_corpus_is_training_text_in_every_word_of_the_tasks():
    texts = corpus()
    words = {word for text in texts for sentence in text if sentence for word in sentence.split()}
    assert 100 < len(words) < 250
    trained = set()
    for task in TASKS:
        trained |= {sentence for *sentences, _ in examples(task, "train") for sentence in sentences if sentence}
        for split in splits(task):
            for *sentences, _ in examples(task, split):
                assert words.issuperset(word for text in filter(None, sentences) for word in text.split()), split
    # Nothing of a dev or test split that is not in a training split as well.
    assert {sentence for text in texts for sentence in text if sentence} == trained


@pytest.mark.parametrize("name", ["cola", "grammar_", "grammar_wnli", "grammar", ""])
def test_unknown_name(name):
    with pytest.raises(ValueError, match=r"^dataset must be one of grammar_cola, .*grammar_rte, got '" + name + "'$"):
        grammar(name)
