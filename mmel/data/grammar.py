"""The embedded text data: miniatures of the eight GLUE tasks, written by small grammars over one lexicon.

Each writer below states the rule that gives a label. Two things hold for all of them. A label depends on which word
stands where rather than on which words there are, so that a bag of words says little. And replacing one word can flip
it, as a masked language model does, so that augmented samples need a teacher. For that the wording (synonyms, voice,
what is left out) is drawn apart from the meaning.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence

SIZES = {"train": 400, "dev": 300, "test": 300}
MISMATCHED_SIZES = {"dev_mm": 300, "test_mm": 300}
TEXT_SIZE = 1500

# The lexicon. What stands in one tuple of a tuple means the same.
ANIMALS = ("dog", "cat", "horse", "bird", "goat", "rabbit")
PEOPLE = ("farmer", "doctor", "teacher", "singer", "painter", "student")
BEINGS = (*ANIMALS, *PEOPLE)
KINDS = {
    "animal": ANIMALS,
    "person": PEOPLE,
    "flower": ("rose", "tulip", "orchid"),
    "vehicle": ("car", "truck", "boat"),
}
NUMBERS = ("two", "three", "four", "five")
PLACES = ("garden", "park", "forest", "street")
ROOMS = ("kitchen", "school", "office", "library")
TIMES = ("today", "at night", "on monday", "every day")
MANNERS = ("often", "always", "rarely", "sometimes")
ADJECTIVES = (("big", "large"), ("small", "little"), ("fast", "quick"), ("rich", "wealthy"), ("smart", "clever"))
OPPOSITES = {"young": "old", "old": "young", "white": "black", "black": "white", "tall": "short", "short": "tall"}
STATES = {"asleep": "awake", "awake": "asleep", "hungry": "full", "full": "hungry"}
MOODS = {"happy": "sad", "sad": "happy", "busy": "idle", "idle": "busy"}
# MNLI's two registers: nouns, their kind, places and states.
REGISTERS = {"matched": (ANIMALS, "animal", PLACES, STATES), "mismatched": (PEOPLE, "person", ROOMS, MOODS)}
# Verbs as third person, plural and participle.
ACTIONS = (("sleeps", "sleep"), ("waits", "wait"), ("sings", "sing"), ("runs", "run"), ("works", "work"))
DEEDS = (
    (("helps", "help", "helped"), ("assists", "assist", "assisted")),
    (("chases", "chase", "chased"), ("pursues", "pursue", "pursued")),
    (("watches", "watch", "watched"), ("observes", "observe", "observed")),
    (("pushes", "push", "pushed"), ("shoves", "shove", "shoved")),
    (("praises", "praise", "praised"), ("applauds", "applaud", "applauded")),
    (("calls", "call", "called"), ("phones", "phone", "phoned")),
)
TRADES = (("bought", "purchased"), ("sold", "traded"), ("found", "discovered"), ("lost", "misplaced"))
GOOD = ("great", "good", "wonderful", "charming", "brilliant", "lovely")
BAD = ("awful", "bad", "dull", "boring", "terrible", "clumsy")
PARTS = ("film", "story", "plot", "acting", "script", "music", "ending", "humor")
DEGREES = ("really", "quite", "rather", "truly")
QUESTIONS = (
    ("how can i", "what is the best way to"),
    ("when should i", "what is the right time to"),
    ("why should i", "what is a good reason to"),
    ("where can i", "which place is best to"),
)
CHORES = (("buy", "get"), ("fix", "repair"), ("wash", "clean"), ("draw", "sketch"), ("move", "carry"))
LOOKS = (("big", "large"), ("small", "little"), ("strong", "sturdy"), ("nice", "pretty"), ("new", "modern"))
THINGS = (("car",), ("truck",), ("boat",), ("bike",), ("coat",), ("chair",))

Split = tuple[list[str], list[str] | None, list[int] | list[float]]


class _Draws:
    """Random draws, alike in every process and Python: of `random`, only `random()` promises to keep its sequence."""

    def __init__(self, name: str):
        self._random = random.Random(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big"))

    def pick(self, options: Sequence):
        return options[int(self._random.random() * len(options))]

    def other(self, options: Sequence, *taken):
        return self.pick([option for option in options if option not in taken])

    def chance(self, probability: float = 0.5) -> bool:
        return self._random.random() < probability

    def shuffled(self, items: Sequence) -> list:
        return sorted(items, key=lambda _: self._random.random())


def _plural(noun: str) -> str:
    return "people" if noun == "person" else f"{noun}s"


def _replaced(slots: tuple, slot: int, value) -> tuple:
    return (*slots[:slot], value, *slots[slot + 1 :])


def _the(draw: _Draws, being: tuple) -> str:
    """A being is (noun, whether there are several, synonymous adjectives or none)."""
    noun, several, adjectives = being
    return " ".join(["the", *([draw.pick(adjectives)] if adjectives else []), _plural(noun) if several else noun])


def _told(draw: _Draws, event: tuple) -> str:
    """An event is (a being that does it, a row of DEEDS, a being that it is done to)."""
    agent, deed, patient = event
    present, plural, participle = draw.pick(deed)
    if draw.chance(0.25):
        return f"{_the(draw, patient)} {'are' if patient[1] else 'is'} {participle} by {_the(draw, agent)}"
    return f"{_the(draw, agent)} {plural if agent[1] else present} {_the(draw, patient)}"


def _cola(draw: _Draws, target: int, register: str) -> tuple[str, None]:
    """1 if the verb agrees with the subject, the first noun; the noun between the two mostly has the other number."""
    several, agrees = draw.chance(), bool(target)
    subject, between = draw.shuffled(BEINGS)[:2]
    words = [_the(draw, (subject, several, draw.pick(ADJECTIVES) if draw.chance(0.3) else None))]
    if draw.chance(0.75):
        words += [draw.pick(("near", "behind", "beside")), _the(draw, (between, several == draw.chance(0.25), None))]
    manner = [draw.pick(MANNERS)] if draw.chance(0.3) else []
    if draw.chance(0.35):
        words += ["are" if several == agrees else "is", *manner, draw.pick(tuple(MOODS))]
    else:
        words += [*manner, draw.pick(ACTIONS)[several == agrees]]
    words += [f"in the {draw.pick(PLACES + ROOMS)}"] if draw.chance(0.4) else []
    return " ".join(words), None


def _sst2(draw: _Draws, target: int, register: str) -> tuple[str, None]:
    """1 if the main clause praises: `although` opens another clause, `but` the main one, and `not` turns what follows."""

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


def _two_wordings(write: Callable[[tuple], str], first: tuple, second: tuple) -> tuple[str, str]:
    sentence = pair = write(first)
    while pair == sentence:
        pair = write(second)
    return sentence, pair


def _mrpc(draw: _Draws, target: int, register: str) -> tuple[str, str]:
    """1 if both tell of one event, in whatever voice and synonyms; else who, deed, whom or the roles are changed."""
    who, whom = draw.shuffled(BEINGS)[:2]
    event = ((who, draw.chance(), draw.pick(ADJECTIVES)), draw.pick(DEEDS), (whom, draw.chance(), None))
    changed, slot = event, draw.pick(("roles", 0, 1, 2))
    if not target and slot == "roles":
        changed = event[::-1]
    elif not target:
        new = draw.other(DEEDS, event[1]) if slot == 1 else (draw.other(BEINGS, who, whom), *event[slot][1:])
        changed = _replaced(event, slot, new)
    return _two_wordings(lambda event: _told(draw, event), event, changed)


def _qqp(draw: _Draws, target: int, register: str) -> tuple[str, str]:
    """1 if both ask one thing, whatever the wording; else the question, the chore, the look or the thing is changed."""
    slots = (QUESTIONS, CHORES, LOOKS, THINGS)
    event = tuple(draw.pick(options) for options in slots)
    slot = draw.pick(range(4))
    changed = event if target else _replaced(event, slot, draw.other(slots[slot], event[slot]))
    return _two_wordings(lambda event: "{} {} a {} {}".format(*map(draw.pick, event)), event, changed)


def _stsb(draw: _Draws, target: float, register: str) -> tuple[str, str]:
    """Points: the noun the same 2, of the same kind 1; the deed the same or a synonym 2; the place the same 1."""
    scores = [(noun, deed, place) for noun in (0, 1, 2) for deed in (0, 2) for place in (0, 1)]
    noun, deed, place = draw.pick([points for points in scores if sum(points) == target])
    first = (draw.pick(BEINGS), draw.pick(DEEDS), draw.pick(PLACES))
    kin = ANIMALS if first[0] in ANIMALS else PEOPLE
    second = (
        (draw.other(BEINGS, *kin), draw.other(kin, first[0]), first[0])[noun],
        first[1] if deed else draw.other(DEEDS, first[1]),
        first[2] if place else draw.other(PLACES, first[2]),
    )
    several = draw.chance()

    def write(event: tuple) -> str:
        done = draw.pick(event[1])[2]
        return f"{_the(draw, (event[0], several, None))} {'are' if several else 'is'} {done} in the {event[2]}"

    return _two_wordings(write, first, second)


def _mnli(draw: _Draws, target: int, register: str) -> tuple[str, str]:
    """Two descriptions of one scene: 2 if a slot is at odds, else 1 if the hypothesis says more in a slot, else 0.

    `not` with a state is its opposite; a kind (animal) says less than a noun (dog), and an empty slot less than a word.
    """
    nouns, kind, places, states = REGISTERS[register]
    options = (NUMBERS, tuple(OPPOSITES), nouns, places, tuple(states))
    empty = (None, None, kind, None, None)
    said = [slot for slot in range(4) if draw.chance(0.55)]
    unsaid = [slot for slot in range(4) if slot not in said]
    if not (unsaid if target == 1 else said):
        return _mnli(draw, target, register)
    premise = tuple(draw.pick(options[slot]) if slot in (*said, 4) else empty[slot] for slot in range(5))
    hypothesis = premise
    for slot in said:
        hypothesis = _replaced(hypothesis, slot, empty[slot]) if draw.chance(0.3) else hypothesis
    if target == 1:
        slot = draw.pick(unsaid)
        hypothesis = _replaced(hypothesis, slot, draw.pick(options[slot]))
    elif target == 2:
        slot = draw.pick((4, 4, *said))
        opposite = {**OPPOSITES, **states}.get(premise[slot])
        hypothesis = _replaced(hypothesis, slot, opposite or draw.other(options[slot], premise[slot]))

    def write(scene: tuple) -> str:
        number, look, noun, place, state = scene
        state = f"not {states[state]}" if draw.chance(0.3) else state
        where = f"in the {place}" if place else ""
        return " ".join(f"the {number or ''} {look or ''} {_plural(noun)} are {state} {where}".split())

    return write(premise), write(hypothesis)


def _qnli(draw: _Draws, target: int, register: str) -> tuple[str, str]:
    """0 if the sentence tells of the deed that is asked about and says what is asked for: who, where or when."""
    who, whom, stranger = ((noun, draw.chance(), None) for noun in draw.shuffled(BEINGS)[:3])
    event = (who, draw.pick(DEEDS), whom)
    asked = draw.pick(("who", "where", "when"))
    ending = {"where": f"in the {draw.pick(PLACES)}", "when": draw.pick(TIMES)}
    said = draw.pick(tuple(ending)) if asked == "who" else asked
    told = event
    if target and asked != "who" and draw.chance(0.6):
        said = "when" if asked == "where" else "where"
    elif target:
        slot = draw.pick(("roles", 1, 2))
        told = (
            event[::-1]
            if slot == "roles"
            else _replaced(event, slot, draw.other(DEEDS, event[1]) if slot == 1 else stranger)
        )
    present, plural, _ = draw.pick(event[1])
    question = f"{asked} {'do' if who[1] else 'does'} {_the(draw, who)} {plural} {_the(draw, whom)}"
    if asked == "who":
        question = f"who {present} {_the(draw, whom)} {ending[said]}"
    return question, f"{_told(draw, told)} {ending[said]}"


def _rte(draw: _Draws, target: int, register: str) -> tuple[str, str]:
    """0 if the text's clause on that person entails the hypothesis; `some` and kinds say less than numbers and nouns."""
    people, trades = draw.shuffled(PEOPLE)[:2], draw.shuffled(TRADES)[:2]
    kinds = draw.shuffled(("animal", "flower", "vehicle"))[:2]
    facts = [
        (
            people[clause],
            trades[clause],
            "some" if draw.chance(0.25) else draw.pick(NUMBERS),
            kinds[clause] if draw.chance(0.25) else draw.pick(KINDS[kinds[clause]]),
        )
        for clause in (0, 1)
    ]
    clause = draw.pick((0, 1))
    person, trade, number, noun = facts[clause]
    claim = (person, trade, "some" if draw.chance(0.3) else number, kinds[clause] if draw.chance(0.3) else noun)
    if target:
        slot = draw.pick((0, 1, 2, 3))
        options = (people, trades, NUMBERS, KINDS[kinds[clause]])[slot]
        claim = _replaced(claim, slot, draw.other(options, facts[clause][slot]))

    def write(fact: tuple) -> str:
        return f"the {fact[0]} {draw.pick(fact[1])} {fact[2]} {_plural(fact[3])}"

    return f"{write(facts[0])} and {write(facts[1])}", write(claim)


WRITERS = {
    "cola": _cola, "sst2": _sst2, "mrpc": _mrpc, "stsb": _stsb, "qqp": _qqp, "mnli": _mnli, "qnli": _qnli, "rte": _rte
}  # fmt: skip
TARGETS = {"stsb": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), "mnli": (0, 1, 2)}
# What ordinary text is like: it agrees, and what follows says the same or less.
COHERENT = {"cola": 1, "mrpc": 1, "stsb": 5.0, "qqp": 1, "mnli": 0, "qnli": 0, "rte": 0}


def grammar(dataset: str) -> dict[str, Split]:
    """Write a miniature task, the same at every call, in every process.

    Args:
        dataset: `grammar_` and a GLUE name: `grammar_cola`, `grammar_sst2`, `grammar_mrpc`, `grammar_stsb`,
            `grammar_qqp`, `grammar_mnli`, `grammar_qnli`, `grammar_rte`.

    Returns:
        `train`, `dev` and `test`, and for MNLI `dev_mm` and `test_mm`, which speak of people and rooms rather than of
        animals and places outside. Each is (sentences, second sentences or None for CoLA and SST-2, targets): labels
        as Hugging Face's GLUE numbers them, scores from 0 to 5 for STS-B. No example is in two splits.

    Raises:
        ValueError: on another name.
    """
    task = dataset.removeprefix("grammar_")
    if task == dataset or task not in WRITERS:
        raise ValueError(f"dataset must be one of {', '.join(f'grammar_{name}' for name in WRITERS)}, got {dataset!r}")
    return _splits(task, set())


def _splits(task: str, seen: set) -> dict[str, Split]:
    splits = {}
    for split, size in {**SIZES, **(MISMATCHED_SIZES if task == "mnli" else {})}.items():
        draw = _Draws(f"{task}/{split}")
        rows = _rows(
            draw, task, TARGETS.get(task, (0, 1)), size, "mismatched" if split.endswith("_mm") else "matched", seen
        )
        sentences, pairs, targets = (list(column) for column in zip(*draw.shuffled(rows), strict=True))
        splits[split] = (sentences, None if pairs[0] is None else pairs, targets)
    return splits


def _rows(draw, task, targets, size, register, seen):
    rows = []
    while len(rows) < size:
        target = targets[len(rows) % len(targets)]
        sentence, pair = WRITERS[task](draw, target, register)
        # A pair turned round is the same pair, and one sentence twice is none.
        if (
            sentence == pair
            or frozenset((sentence, pair)) in seen
            or min(len(t.split()) for t in (sentence, pair) if t) < 5
        ):
            continue
        seen.add(frozenset((sentence, pair)))
        rows.append((sentence, pair, target))
    return rows


def corpus() -> list[str]:
    lines = []
    for task in WRITERS:
        seen = set()
        _splits(task, seen)
        draw = _Draws(f"{task}/text")
        if task in COHERENT:
            n = TEXT_SIZE // 2 if task == "mnli" else 2 * TEXT_SIZE if task == "cola" else TEXT_SIZE
            rows = _rows(draw, task, (COHERENT[task],), n, "matched", seen)
            if task == "mnli":
                rows += _rows(draw, task, (COHERENT[task],), n, "mismatched", seen)
        else:
            rows = _rows(draw, task, (0, 0, 1, 1), 2 * TEXT_SIZE, "matched", seen)
        if SORT:
            rows = sorted(rows, key=lambda r: r[0]) if rows[0][1] else rows
        lines += [t for r in rows for t in r[:2] if t]
    return lines


SORT = False
