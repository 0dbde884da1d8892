import json

import pytest

from mmel.study.config import ImageRun, TextRun, run_type
from mmel.study.datasets import DATASETS
from mmel.study.fields import parse_field
from mmel.study.methods import methods_for

IMAGES = ImageRun()
FILES = ImageRun(dataset="imagenet", model="resnet50", augment="resized_crop_flip")
TEXT = TextRun()
PAIRS = TextRun(dataset="rte")
SCORES = TextRun(dataset="stsb")
NAN, INF = float("nan"), float("inf")

# For each field a value that is not its default.
SHARED = {
    **{"method": "mmel_s", "seed": 3, "num_augmented": 4, "lambda_p": 0.5, "lambda_t": 2.0, "base_loss": "kl"},
    **{"target_gradient": True, "epochs": 300, "lr": 0.05, "batch_size": 64, "weight_decay": 0.25},
    **{"backward": "sampled", "train_size": 500, "precision": "fp32", "micro_batch": 16, "evals_per_epoch": 4},
    **{"epochs_per_eval": 5},
}
OTHER = {
    ImageRun: SHARED
    | {"profile": "paper", "dataset": "cifar100", "model": "resnet56", "decay_epochs": (6, 12), "augment": "cutout"}
    | {"original": "augmented", "redraw": False, "shortcut": "B", "image_size": 96, "holdout": 5000}
    | {"subset_seed": 7, "wrong_labels": 0.2, "alpha": 0.4, "rho": 2.0},
    TextRun: SHARED
    | {"profile": "reduced", "dataset": "rte", "model": "roberta-base", "mask_ratio": 0.2, "fill": "beam"}
    | {"pair_mode": "joint", "label_source": "original", "hidden_dropout": 0.0, "attention_dropout": 0.2},
}


def base_of(kind, name):
    """A run with all at its default but what the field cannot do without."""
    if name in ("lambda_t", "target_gradient", "base_loss"):
        return kind(method="mmel_s")
    if name in ("alpha", "rho"):
        return kind(method={"alpha": "cvar", "rho": "chi_square"}[name])
    if name == "subset_seed":
        return kind(train_size=500)
    return {"image_size": FILES, "pair_mode": PAIRS}.get(name, kind())


CHANGES = [
    pytest.param(base_of(kind, name), name, value, id=f"{kind.kind}-{name}")
    for kind, others in OTHER.items()
    for name, value in others.items()
]
each_change = pytest.mark.parametrize(("base", "name", "value"), CHANGES)
each_type = pytest.mark.parametrize("kind", [ImageRun, TextRun])


# Names. Were one of them to change, its record would be lost.

# The defaults of texts under which these names were first given.
OLD = {"num_augmented": 10, "epochs": 200, "lr": 0.1, "batch_size": 128, "weight_decay": 5e-4}
CIFAR100 = {"dataset": "cifar100", "profile": "paper"}
BEAM = {"num_augmented": 5, "fill": "beam", "mask_ratio": 0.2, "hidden_dropout": 0.0, "seed": 3}


@pytest.mark.parametrize(
    ("run", "run_id"),
    [
        (ImageRun(profile="paper"), "resnet20-mmel_h-k10-s0-913547c6"),
        (IMAGES.replace(**CIFAR100).with_method("baseline_da", 0), "resnet20-baseline_da-k1-s0-2195baa4"),
        (TextRun(**OLD), "bert-base-uncased-mmel_h-k10-s0-cb27c8bf"),
        (TextRun(**OLD | {"model": "google/electra"}), "google--electra-mmel_h-k10-s0-fd66f037"),
        (TextRun(**OLD | {"dataset": "grammar_rte"} | BEAM), "bert-base-uncased-mmel_h-k5-s3-97bc39eb"),
        # A slash of a hub name becomes a file name of its own.
        (TextRun(**OLD | {"model": "google--electra"}), "google--electra-mmel_h-k10-s0-797f9e58"),
    ],
)
def test_names_are_pinned(run, run_id):
    assert run.run_id == run_id


@each_change
def test_every_field_is_part_of_the_name_and_outlives_json(base, name, value):
    run = base.replace(**{name: value})
    assert run.run_id != base.run_id
    assert set(run.non_defaults()) - {name} == set(base.non_defaults()) - {name}
    assert run.replace(**{name: getattr(base, name)}).run_id == base.run_id
    assert run.to_dict().keys() == OTHER[type(base)].keys()
    again = type(base)(**json.loads(json.dumps(run.to_dict())))
    assert (again, again.run_id) == (run, run.run_id)


@pytest.mark.parametrize(
    ("name", "one", "other"), [("lr", 1, 1.0), ("weight_decay", -0.0, 0.0), ("decay_epochs", [6, 12], (6, 12))]
)
def test_equal_values_of_other_types_give_one_run(name, one, other):
    runs = [ImageRun(**{name: value}) for value in (one, other)]
    assert runs[0] == runs[1]
    assert hash(runs[0]) == hash(runs[1])
    assert json.dumps(runs[0].to_dict()) == json.dumps(runs[1].to_dict())


# Types, ranges and choices.

WRONG = {
    bool: (1, "yes", None),
    int: (True, 1.0, "1", 2**40, 2**70, -(2**70)),
    float: ("0.1", False, [0.1], NAN, INF, -INF, 10**400, -(10**400)),
    str: (None, 3, ["a"], "nope "),
    tuple: (60, None, "60", ("60",), (6.0, 12.0), (True, 12), {6: 12}),
}


@each_change
def test_a_value_of_another_type_is_refused_by_name(base, name, value):
    for wrong in WRONG[type(value)]:
        with pytest.raises(ValueError, match=f"^{name} must be ") as caught:
            base.replace(**{name: wrong})
        assert str(caught.value).endswith(f"got {wrong!r}") or abs(wrong) == 10**400


@pytest.mark.parametrize(
    ("base", "name", "taken", "refused"),
    [
        (IMAGES, "seed", (0, 2**31 - 1), (-1, 2**31)),
        *((base, name, (1,), (0, -1)) for base in (IMAGES, TEXT) for name in ("batch_size", "evals_per_epoch")),
        (IMAGES, "num_augmented", (2, 100), (1, 0, -2)),
        (TEXT, "epochs", (1,), (0, -1, None)),
        (IMAGES, "epochs", (161,), (160, 20, 0)),
        *((IMAGES, name, (0, 1), (-1,)) for name in ("train_size", "holdout")),
        # The whole batch has one spelling.
        (IMAGES, "micro_batch", (0, 127), (-1, 128, 129)),
        (IMAGES, "lambda_p", (1e-9, 1e9), (0, -1.0)),
        (IMAGES.replace(method="mmel_s"), "lambda_t", (1e-9, None), (0, -1.0)),
        (TEXT.replace(method="mmel_s"), "lambda_t", (1e-9,), (0, -1.0, None)),
        (IMAGES, "lr", (1e-9, 10), (0, -0.1)),
        (IMAGES, "weight_decay", (0,), (-1e-9,)),
        (TEXT, "mask_ratio", (1e-9, 1), (0, 1.5, -0.1)),
        *((TEXT, f"{where}_dropout", (0, 0.99), (1, -0.5, -1, None)) for where in ("hidden", "attention")),
        (FILES, "image_size", (None, 32, 96), (0, 31, -1, 224)),
        *((base, "epochs_per_eval", (1, 2, base.epochs), (0, 3, base.epochs + 1)) for base in (IMAGES, TEXT)),
        (IMAGES.replace(evals_per_epoch=2), "epochs_per_eval", (1,), (2,)),
        (IMAGES.replace(train_size=500), "subset_seed", (0, 7), (-1,)),
        (IMAGES, "subset_seed", (0,), (7,)),
        (IMAGES, "wrong_labels", (0, 0.99), (1, -0.1)),
        (IMAGES.replace(method="cvar"), "alpha", (1e-9, 1), (0, 1.1)),
        (IMAGES.replace(method="chi_square"), "rho", (1e-9, 9), (0, -1.0)),
        (IMAGES, "decay_epochs", ((), (199,)), ((60, 20), (60, 60), (0, 60), (-1,), (60, 200))),
        (IMAGES, "augment", ("crop", "crop_flip", "cutout", "randaugment", "trivialaugment", "v2.AugMix"), ("AugMix",)),
        # Two transforms have names of their own; Python is not executed.
        (IMAGES, "augment", (), ("v2.", "v2.augmix", "v2.AugMix()", "v2.RandAugment", "v2.TrivialAugmentWide")),
        (FILES, "augment", (), ("crop_flip", "v2.AugMix")),
        (IMAGES, "model", ("resnet8", "resnet56"), ("resnet18", "bert-base-uncased", "")),
        (FILES, "model", ("resnet18", "resnet34", "resnet18_narrow"), ("resnet20",)),
        (TEXT, "model", ("any/name",), ("resnet20", "", " ", "bert-base-uncased ")),
        *((base.replace(num_augmented=2), "method", ("baseline_da_long", "baseline_da_uni", "mmel_h", "mmel_s"),
           ("baseline", "baseline_da", "smart", "nope")) for base in (IMAGES, TEXT)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_ranges_and_choices(base, name, taken, refused):
    for value in taken:
        assert getattr(base.replace(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ValueError, match=r" must be .*got ") as caught:
            base.replace(**{name: value})
        # Fields that are decided together name each other.
        assert name in str(caught.value)


# Fields that mean nothing for a run, and combinations that mean nothing: one run has one name.


def unused(method):
    """The fields that mean nothing for a method, written out."""
    soft, weighted = {"lambda_t", "target_gradient", "alpha", "rho"}, {"lambda_p", "base_loss", "backward"}
    return {
        "mmel_s": {"backward", "alpha", "rho"},
        "mmel_h": soft,
        "cvar": soft - {"alpha"} | weighted - {"base_loss"},
        "chi_square": soft - {"rho"} | weighted - {"base_loss"},
        "baseline_da_uni": soft | weighted,
        "baseline_da_long": soft | weighted | {"original"},
        "baseline_da": soft | weighted | {"original"},
        "baseline": soft | weighted | {"mask_ratio", "fill", "pair_mode", "label_source"},
    }["baseline" if method == "smart" else method]


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (ImageRun(dataset="digits", augment="crop"), {"profile": "paper"}),
        (ImageRun(dataset="drawings", model="resnet18", augment="resized_crop_flip"), {"profile": "paper"}),
        (TextRun(dataset="grammar_rte"), {"profile": "paper"}),
        (ImageRun(dataset="digits", augment="crop"), {"augment": "crop_flip"}),
        (FILES, {"shortcut": "B"}),
        (IMAGES, {"image_size": 64}),
        # One size has one spelling.
        (FILES, {"image_size": 224}),
        (IMAGES.replace(method="mmel_s", lambda_t=None), {"holdout": 5000}),
        (IMAGES, {"base_loss": "kl"}),
        *((base.with_method(method, 0), {name: OTHER[type(base)][name]})
          for base in (IMAGES, PAIRS) for method in methods_for(base.kind)
          for name in sorted(unused(method)) if name in OTHER[type(base)]),
        (TEXT, {"pair_mode": "joint"}),
        (SCORES, {"base_loss": "kl"}),
        (TEXT.replace(label_source="original"), {"base_loss": "kl"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else value.method,
)  # fmt: skip
def test_what_means_nothing_is_refused(base, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"^{name} must be .*got {changes[name]!r}$"):
        base.replace(**changes)


@each_type
def test_a_data_set_of_the_other_kind_is_refused(kind):
    for name, data in DATASETS.items():
        if run_type(name) is not kind:
            with pytest.raises(ValueError, match=r"^dataset must be"):
                kind(dataset=data.name)
    with pytest.raises(ValueError, match=r"^dataset must be one of cifar10, .*'nope'"):
        run_type("nope")


@pytest.mark.parametrize(("kind", "other"), [(ImageRun, TextRun), (TextRun, ImageRun)])
def test_a_field_of_the_other_kind_is_refused(kind, other):
    foreign = set(OTHER[other]) - set(OTHER[kind])
    assert foreign
    for name in (*foreign, "colour"):
        with pytest.raises(TypeError, match=name):
            kind(**{name: OTHER[other].get(name)})
        with pytest.raises(ValueError, match=f"unknown field {name};"):
            parse_field(kind, name, "1")


# A command line.


SPELLED = [("lr", "1", 1.0), ("lr", "5e-2", 0.05), ("redraw", "true", True), ("lambda_t", "None", None)]


@pytest.mark.parametrize(
    ("kind", "name", "text", "value"),
    [(ImageRun, *row) for row in SPELLED]
    + [
        (kind, name, ",".join(map(str, value)) if isinstance(value, tuple) else str(value), value)
        for kind, others in OTHER.items()
        for name, value in others.items()
    ],
)
def test_a_field_is_parsed_from_its_spelling(kind, name, text, value):
    parsed = parse_field(kind, name, text)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"),
    [("seed", "1.5"), ("seed", ""), ("seed", "none"), ("lr", "fast"), ("redraw", "1"), ("decay_epochs", "6,x")],
)
def test_what_cannot_be_parsed_is_refused_by_name(name, text):
    with pytest.raises(ValueError, match=f"^{name} must be .*got '{text}'$"):
        parse_field(ImageRun, name, text)


# What a run amounts to (section 4.1: ten times the epochs, decays at 600, 1200 and 1600).


@pytest.mark.parametrize("base", [IMAGES, TEXT], ids=lambda base: base.kind)
def test_views_and_epochs_of_each_method(base):
    for method in methods_for(base.kind):
        run, k, long = base.with_method(method, 0), base.num_augmented, method == "baseline_da_long"
        assert run.num_views == (k if method in ("baseline_da_uni", "mmel_h", "mmel_s", "cvar", "chi_square") else 1)
        assert run.stretch == (k if long else 1)
        # On text its augmented samples are examples by themselves, so its epochs are longer, not more.
        assert run.total_epochs == (2000 if long and not base.is_text else base.epochs)
        if base is IMAGES:
            assert run.total_decay_epochs == ((600, 1200, 1600) if long else (60, 120, 160))


@each_type
def test_another_method_changes_nothing_but_what_it_does_not_use(kind):
    left_out = ("image_size", "base_loss", "backward", "epochs_per_eval", "alpha", "rho")
    base = kind(**{name: value for name, value in OTHER[kind].items() if name not in left_out})
    for method in methods_for(base.kind):
        run, absent = base.with_method(method, 7), unused(method)
        single = {"num_augmented": 1} if method in ("baseline", "baseline_da", "smart") else {}
        usual = {name: value for name, value in kind().to_dict().items() if name in absent}
        assert run.to_dict() == base.to_dict() | usual | single | {"method": method, "seed": 7}
