"""The embedded text data: miniatures of the eight GLUE tasks, written by small grammars over one lexicon.

Each writer below states the rule that gives a label. Two things hold for all of them. A label depends on which word
stands with which other rather than on which words there are, so that a bag of words says little. And replacing one word
can flip it, as a masked language model does, so that augmented samples need a teacher. What a rule does not look at
(nouns, times, the choice between synonyms) is drawn apart from the label.
"""

import hashlib
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from mmel.study.data.glue import Examples
from mmel.study.datasets import DATASETS, GLUE, TextDataset

# The lexicon. What stands in one tuple of a tuple means the same, but for STATES, whose two words are opposites.
ANIMALS = ("dog", "cat", "horse", "bird", "goat", "rabbit")
PEOPLE = ("farmer", "doctor", "teacher", "singer", "painter", "student")
BEINGS = (*ANIMALS, *PEOPLE)
PLACES = ("in the garden", "in the park", "in the forest", "near the river")
ROOMS = ("in the kitchen", "in the office", "in the library", "near the door")
TIMES = ("today", "at night", "on monday", "this week")
NUMBERS = ("two", "three", "four", "five")
MANNERS = ("often", "always", "rarely", "sometimes")
ADJECTIVES = ("big", "small", "young", "old", "quiet", "clever")
STATES = (("asleep", "awake"), ("hungry", "full"))
# Verbs as third person and plural.
ACTIONS = (("sleeps", "sleep"), ("waits", "wait"), ("sings", "sing"), ("runs", "run"), ("works", "work"))
DEEDS = (("chased", "pursued"), ("helped", "assisted"), ("called", "phoned"))
GOOD = ("great", "good", "wonderful", "charming", "brilliant", "lovely")
BAD = ("awful", "bad", "dull", "boring", "terrible", "clumsy")
PARTS = ("film", "story", "plot", "acting", "script", "music", "ending", "humor")
DEGREES = ("really", "quite", "rather", "truly")
QUESTIONS = (
    ("how can i", "what is the best way to"),
    ("when should i", "what is the right time to"),
    ("where can i", "which place is best to"),
)
CHORES = ("buy", "fix", "wash", "draw", "move", "sell")
LOOKS = ("red", "blue", "new", "heavy", "cheap", "strong")
THINGS = ("car", "truck", "boat", "bike", "coat", "chair")

Example = tuple[str, str | None]


class _Draws:
    """Random draws, alike in every process and Python: of `random`, only `random()` promises to keep its sequence."""

    def __init__(self, name: str):
        self._random = random.Random(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big"))

    def pick(self, options: Sequence):
        return options[int(self._random.random() * len(options))]

    def other(self, options: Sequence, taken):
        return self.pick([option for option in options if option != taken])

    def chance(self, probability: float = 0.5) -> bool:
        return self._random.random() < probability

    def shuffled(self, items: Sequence) -> list:
        return sorted(items, key=lambda _: self._random.random())


def _cola(draw: _Draws, target: int) -> Example:
    """1 if the verb agrees with the subject, the first noun; a noun between the two mostly has the other number."""
    several, agrees = draw.chance(), bool(target)
    subject, between = draw.shuffled(BEINGS)[:2]
    words = ["the", *([draw.pick(ADJECTIVES)] if draw.chance(0.3) else []), subject + "s" * several]
    if draw.chance(0.6):
        words += [draw.pick(("near", "behind", "beside")), "the", between + "s" * (several == draw.chance(0.25))]
    words += [draw.pick(MANNERS)] if draw.chance(0.3) else []
    words += [draw.pick(ACTIONS)[several == agrees]]
    words += [draw.pick((*PLACES, *TIMES))] if draw.chance(0.6) else []
    return " ".join(words), None


def _sst2(draw: _Draws, target: int) -> Example:
    """1 if the main clause praises: `although` opens another one, `but` the main one, and `not` turns what follows."""

    def clause(part: str, praises: bool) -> str:
        negated = draw.chance(0.35)
        words = draw.shuffled(GOOD if praises != negated else BAD)
        said = f"{words[0]} and {words[1]}" if draw.chance(0.35) else words[0]
        return f"the {part} is {'not' if negated else draw.pick(DEGREES)} {said}"

    first, second = draw.shuffled(PARTS)[:2]
    main, beside = clause(first, bool(target)), clause(second, not target)
    return draw.pick(
        (f"i think {main}", f"people say {main}", f"{beside} but {main}", f"although {beside} {main}")
    ), None


def _state(draw: _Draws, state: tuple[str, str], holds: bool, negated: float = 0.25) -> str:
    """A state or its opposite; `not` with a word is the opposite of that word."""
    return f"not {state[holds]}" if draw.chance(negated) else state[not holds]


def _mrpc(draw: _Draws, target: int) -> Example:
    """1 if both tell of one deed, in whatever voice and synonym; else the deeds differ."""
    who, whom = draw.shuffled(BEINGS)[:2]
    deed = draw.pick(DEEDS)

    def told(words: tuple[str, str]) -> str:
        word = draw.pick(words)
        return f"the {whom} was {word} by the {who}" if draw.chance(0.3) else f"the {who} {word} the {whom}"

    return f"{told(deed)} {draw.pick(TIMES)}", told(deed if target else draw.other(DEEDS, deed))


def _stsb(draw: _Draws, target: float) -> Example:
    """Points: the deeds the same or synonyms 2; the places the same 2; the times the same 1."""
    same = draw.pick([same for same in product((0, 1), repeat=3) if 2 * same[0] + 2 * same[1] + same[2] == target])
    slots = (DEEDS, PLACES[:3], TIMES[:3])
    first = [draw.pick(options) for options in slots]
    second = [
        value if alike else draw.other(options, value) for value, alike, options in zip(first, same, slots, strict=True)
    ]
    who, whom = draw.shuffled(BEINGS)[:2]

    def told(event: list) -> str:
        return f"the {who} {draw.pick(event[0])} the {whom} {event[1]} {event[2]}"

    return told(first), told(second)


def _qqp(draw: _Draws, target: int) -> Example:
    """1 if both ask the same of one chore, whatever the wording; else one asks how and the other when, say."""
    question = draw.pick(QUESTIONS)
    chore = f"{draw.pick(CHORES)} a {draw.pick(LOOKS)} {draw.pick(THINGS)}"
    second = question if target else draw.other(QUESTIONS, question)
    return f"{draw.pick(question)} {chore}", f"{draw.pick(second)} {chore}"


def _mnli(
    draw: _Draws, target: int, nouns: Sequence = ANIMALS, kind: str = "animal", places: Sequence = PLACES
) -> Example:
    """0 if the hypothesis gives the state that the premise gives, 2 if its opposite, 1 if it speaks of another one."""
    noun, state, holds = draw.pick(nouns), draw.pick(STATES), draw.chance()
    premise = f"the {draw.pick(ADJECTIVES)} {noun} {draw.pick(places)} is {_state(draw, state, holds)}"
    # What is said of a dog is said of an animal.
    noun = kind if draw.chance(0.3) else noun
    if target == 1:
        return premise, f"the {noun} is {_state(draw, draw.other(STATES, state), draw.chance(), 0)}"
    return premise, f"the {noun} is {_state(draw, state, holds == (target == 0), 0)}"


def _qnli(draw: _Draws, target: int) -> Example:
    """0 if the sentence says what is asked for: where, when or how many; else it says something else."""
    verbs, noun = draw.pick(ACTIONS), draw.pick(BEINGS) + "s"
    asked = draw.pick(("where", "when", "how many"))
    told = draw.other(("where", "when", "how many"), asked) if target else asked
    question = f"{asked} {noun} {verbs[1]}" if asked == "how many" else f"{asked} do the {noun} {verbs[1]}"
    many = draw.pick(NUMBERS) if told == "how many" else f"the {draw.pick(ADJECTIVES)}"
    ending = {"where": draw.pick((*PLACES, *ROOMS)), "when": draw.pick(TIMES), "how many": draw.pick(MANNERS)}[told]
    return question, f"{many} {noun} {verbs[1]} {ending}"


def _rte(draw: _Draws, target: int) -> Example:
    """0 if the hypothesis gives the state that the text gives of that being, 1 if it gives the opposite."""
    noun, state, holds = draw.pick(BEINGS), draw.pick(STATES), draw.chance()
    text = f"the {noun} {draw.pick((*PLACES, *ROOMS))} is {_state(draw, state, holds)} {draw.pick(TIMES)}"
    # What is said of a dog is said of an animal.
    said = ("animal" if noun in ANIMALS else "person") if draw.chance(0.2) else noun
    return text, f"the {said} is {draw.pick(('really', 'now'))} {_state(draw, state, holds == (target == 0), 0)}"


WRITERS = dict(zip(GLUE, (_cola, _sst2, _mrpc, _stsb, _qqp, _mnli, _qnli, _rte), strict=True))
MISMATCHED = {"nouns": PEOPLE, "kind": "person", "places": ROOMS}
# Targets of the pairs that read like ordinary text, whose second sentence continues the first.
COHERENT = {"mrpc": 1, "stsb": 5.0, "qqp": 1, "mnli": 0, "qnli": 0, "rte": 0}
TARGETS = {"stsb": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), "mnli": (0, 1, 2)}


def load(data: TextDataset, data_root: str | Path | None = None) -> dict[str, Examples]:
    """Write a miniature task, the same at every call, in every process.

    Returns:
        `train`, `dev` and `test`, and for MNLI `dev_mm` and `test_mm`, which speak of people and rooms rather than of
        animals and places outside. Labels are numbered as in Hugging Face's GLUE. No example is in two splits.
    """
    seen: set[frozenset] = set()
    return {split: _written(data.task, split, size, seen) for split, size in data.sizes.items()}


def corpus() -> list[tuple[str, str | None]]:
    """The texts of the embedded masked LM: the training sentences and pairs of all eight tasks."""
    texts: list[Example] = []
    for task in GLUE:
        part = load(DATASETS[f"grammar_{task}"])["train"]
        for first, second, target in zip(part.sentences, part.pairs or [None] * len(part), part.targets, strict=True):
            if second is None or target == COHERENT[task]:
                texts.append((first, second))
            else:
                texts += [(first, None), (second, None)]
    return texts


def _written(task: str, split: str, size: int, seen: set[frozenset]) -> Examples:
    draw, targets = _Draws(f"{task}/{split}"), TARGETS.get(task, (0, 1))
    rows: list[tuple[str, str | None, float]] = []
    while len(rows) < size:
        target = targets[len(rows) % len(targets)]
        example = WRITERS[task](draw, target, **(MISMATCHED if split.endswith("_mm") else {}))
        # A pair turned round is the same pair.
        if frozenset(example) not in seen and example[0] != example[1]:
            seen.add(frozenset(example))
            rows.append((*example, target))
    sentences, pairs, labels = (list(column) for column in zip(*draw.shuffled(rows), strict=True))
    return Examples(sentences, None if pairs[0] is None else pairs, labels)
