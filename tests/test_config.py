import dataclasses
import hashlib
import json
import re

import pytest

from mmel.config import SCHEMA, RunConfig, field_names, parse_field
from mmel.grids import TABLES, table1, table2
from mmel.names import (
    AUGMENTED_TEXT_FIELDS,
    CIFAR_MODELS,
    CLASS_LOSSES,
    DATASETS,
    ENCODED_IMAGE_AUGMENTATIONS,
    FILLS,
    GLUE_DATASETS,
    IMAGE_FIELDS,
    IMAGE_METHODS,
    IMAGENET_MODELS,
    LABEL_SOURCES,
    METHODS,
    ORIGINALS,
    PAIR_MODES,
    PRECISIONS,
    PROFILES,
    REGRESSION_DATASETS,
    SHORTCUTS,
    SMALL_IMAGE_AUGMENTATIONS,
    SMALL_IMAGE_DATASETS,
    SOFT_FIELDS,
    TEXT_DATASETS,
    TEXT_FIELDS,
    TEXT_METHODS,
)

PAPER = RunConfig(profile="paper")
MINI = next(run for run in table1("mini") if run.method == "mmel_s" and run.model == "resnet14" and run.seed == 1)
BASELINE = next(run for run in table2("paper") if run.method == "baseline_da" and run.dataset == "cifar100")
REDUCED = next(run for run in table1("reduced") if run.method == "mmel_h" and run.seed == 2)
TEXT = RunConfig(dataset="cola", model="bert-base-uncased")
ENCODED = RunConfig(dataset="imagenet", model="resnet50", augment="resized_crop_flip")
BEAM = TEXT.replace(dataset="grammar_rte", num_augmented=5, fill="beam", mask_ratio=0.2, hidden_dropout=0.0, seed=3)

# One value for each field that is valid beside the defaults of all others (for the last ones: of TEXT's) and is not
# the default.
OTHER = {
    "profile": "paper",
    "dataset": "cifar100",
    "model": "resnet56",
    "method": "mmel_s",
    "seed": 3,
    "num_augmented": 5,
    "lambda_p": 0.5,
    "lambda_t": 2.0,
    "base_loss": "kl",
    "target_gradient": True,
    "epochs": 300,
    "lr": 0.05,
    "decay_epochs": (6, 12),
    "lr_decay": 0.1,
    "batch_size": 64,
    "momentum": 0.0,
    "nesterov": True,
    "weight_decay": 0.0,
    "augment": "cutout",
    "original": "augmented",
    "redraw": False,
    "drop_last": False,
    "shortcut": "B",
    "image_size": 96,
    "train_size": 5000,
    "holdout": 5000,
    "precision": "fp32",
    "micro_batch": 32,
    "sync_batch_norm": True,
    "evals_per_epoch": 4,
    "max_length": 64,
    "mask_ratio": 0.2,
    "fill": "beam",
    "beam_width": 12,
    "pair_mode": "joint",
    "augment_seed": 1,
    "label_source": "original",
    "threshold": 0.25,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.2,
}


def needs(name):
    """What a field cannot do without."""
    if name in TEXT_FIELDS:
        text = {"dataset": "cola", "model": "bert-base-uncased"}
        own = {"beam_width": {"fill": "beam"}, "threshold": {"dataset": "stsb", "method": "mmel_s"}}
        return text | own.get(name, {})
    if name == "image_size":
        return {"dataset": "imagenet", "model": "resnet18", "augment": "resized_crop_flip"}
    return {"method": "mmel_s"} if name in (*SOFT_FIELDS, "base_loss") else {}


def changed(name):
    """A configuration in which one field, and what it cannot do without, is not at its default."""
    return RunConfig(**needs(name), **{name: OTHER[name]})


# The name of a run. Were one of these to change, every recorded run would be lost: raise SCHEMA instead.


@pytest.mark.parametrize(
    ("config", "run_id"),
    [
        (PAPER, "resnet20-mmel_h-k10-s0-913547c6"),
        (MINI, "resnet14-mmel_s-k5-s1-f17933f1"),
        (BASELINE, "resnet20-baseline_da-k1-s0-2195baa4"),
        (REDUCED, "resnet20-mmel_h-k5-s2-0432fc28"),
        (TEXT, "bert-base-uncased-mmel_h-k10-s0-cb27c8bf"),
        (TEXT.replace(model="google/electra"), "google--electra-mmel_h-k10-s0-fd66f037"),
        (BEAM, "bert-base-uncased-mmel_h-k5-s3-97bc39eb"),
    ],
    ids=["paper", "mini", "baseline_da", "reduced", "text", "hub name", "beam"],
)
def test_run_id_is_pinned(config, run_id):
    assert config.run_id == run_id


def test_every_field_has_another_value_here():
    assert tuple(OTHER) == field_names()


@pytest.mark.parametrize("name", OTHER)
def test_non_defaults_is_what_differs(name):
    config = changed(name)
    assert name in config.non_defaults()
    assert set(config.non_defaults()) == {name, *needs(name)}
    value = OTHER[name]
    assert config.non_defaults()[name] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("name", OTHER)
def test_every_field_is_part_of_the_run_id(name):
    # All that is needed for this field to be set is the same on both sides.
    without = changed(name).replace(**{name: getattr(RunConfig(), name)})
    assert changed(name).run_id != without.run_id


@pytest.mark.parametrize(
    "config", [RunConfig(), MINI, BASELINE, REDUCED, TEXT], ids=["default", "mini", "baseline", "reduced", "text"]
)
def test_run_id_hashes_the_schema_and_what_is_not_default(config):
    # Nothing else goes in: a field that a later version adds leaves the names of old runs alone.
    content = json.dumps({"schema": SCHEMA, **config.non_defaults()}, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    assert config.run_id == f"{config.model}-{config.method}-k{config.num_augmented}-s{config.seed}-{digest}"


def test_defaults_spelled_out_change_no_run_id():
    assert RunConfig().non_defaults() == {}
    defaults = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    assert RunConfig(**defaults).run_id == RunConfig().run_id
    assert MINI.run_id == RunConfig(**defaults | MINI.non_defaults()).run_id


def test_defaults_of_schema_1():
    # A run's name leaves defaults out, so under one schema a default must not change: old records would silently stand
    # for other runs. A new field may be added; its default then belongs here.
    defaults = {
        "profile": "mini",
        "dataset": "cifar10",
        "model": "resnet20",
        "method": "mmel_h",
        "seed": 0,
        "num_augmented": 10,
        "lambda_p": 1.0,
        "lambda_t": 1.0,
        "base_loss": "cross_entropy",
        "target_gradient": False,
        "epochs": 200,
        "lr": 0.1,
        "decay_epochs": [60, 120, 160],
        "lr_decay": 0.2,
        "batch_size": 128,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "augment": "crop_flip",
        "original": "clean",
        "redraw": True,
        "drop_last": True,
        "shortcut": "A",
        "image_size": 0,
        "train_size": 0,
        "holdout": 0,
        "precision": "auto",
        "micro_batch": 0,
        "sync_batch_norm": False,
        "evals_per_epoch": 1,
        "max_length": 128,
        "mask_ratio": 0.4,
        "fill": "greedy",
        "beam_width": 0,
        "pair_mode": "separate",
        "augment_seed": 0,
        "label_source": "predicted",
        "threshold": 0.5,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
    }
    assert (SCHEMA, RunConfig().to_dict()) == (1, defaults)


def test_schema_is_part_of_the_run_id(monkeypatch):
    before = PAPER.run_id
    monkeypatch.setattr("mmel.config.SCHEMA", SCHEMA + 1)
    assert PAPER.run_id != before


@pytest.mark.parametrize("name", ["lambda_p", "lr", "lr_decay", "momentum", "weight_decay"])
def test_whole_numbers_name_the_same_run_as_floats(name):
    one, other = RunConfig(**{name: 1}), RunConfig(**{name: 1.0})
    assert one == other
    assert hash(one) == hash(other)
    assert one.run_id == other.run_id
    assert type(getattr(one, name)) is float


def test_minus_zero_names_the_same_run_as_zero():
    assert RunConfig(momentum=-0.0).run_id == RunConfig(momentum=0.0).run_id


def test_lists_name_the_same_run_as_tuples():
    # A notebook's parameters cell and JSON have lists.
    one, other = RunConfig(decay_epochs=[6, 12]), RunConfig(decay_epochs=(6, 12))
    assert one == other
    assert hash(one) == hash(other)
    assert one.run_id == other.run_id


def test_runs_of_the_grids_have_distinct_names():
    runs = {run for profile in PROFILES for table in TABLES.values() for run in table(profile)}
    assert len({run.run_id for run in runs}) == len(runs)


# To and from other forms.


@pytest.mark.parametrize("config", [RunConfig(), PAPER, MINI, BASELINE, REDUCED, TEXT, *map(changed, OTHER)])
def test_json_round_trip(config):
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.run_id == config.run_id
    assert tuple(config.to_dict()) == field_names()


def test_from_dict_fills_in_defaults():
    assert RunConfig.from_dict({"seed": 3}) == RunConfig(seed=3)


def test_from_dict_refuses_unknown_fields():
    with pytest.raises(
        ValueError, match=r"unknown field\(s\) lambda, speed; RunConfig has profile, dataset, .*lambda_p"
    ):
        RunConfig.from_dict({"speed": 1, "seed": 0, "lambda": 2})


NOTEBOOK = {"seed": 3, "decay_epochs": [1], "Path": object, "len": len, "In": [""], "Out": {}, "_": 0, "_i1": "seed"}


def test_from_namespace_takes_fields_and_leaves_what_is_no_parameter():
    config = RunConfig(seed=3, decay_epochs=(1,))
    assert RunConfig.from_namespace(NOTEBOOK) == config
    # A person's own names, once the notebook has its configuration.
    assert RunConfig.from_namespace(NOTEBOOK | {"config": config, "mine": 5, "lines": [{}]}) == config


@pytest.mark.parametrize("value", [3, 0.5, "mmel_h", True, [1], {}, None], ids=repr)
def test_from_namespace_refuses_parameters_that_it_does_not_know(value):
    with pytest.raises(ValueError, match=r"lamda_p.*; .*\blambda_p\b"):
        RunConfig.from_namespace(NOTEBOOK | {"lamda_p": value})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "3", 3),
        ("lr", "1", 1.0),
        ("lr", "5e-2", 0.05),
        ("nesterov", "true", True),
        ("redraw", "False", False),
        ("decay_epochs", "6,12,16", (6, 12, 16)),
        ("decay_epochs", "", ()),
        ("model", "resnet8", "resnet8"),
        ("mask_ratio", "1", 1.0),
        ("hidden_dropout", "-1", -1.0),
        ("evals_per_epoch", "4", 4),
    ],
)
def test_parse_field(name, text, value):
    parsed = parse_field(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("seed", "1.5", "int"),
        ("seed", "", "int"),
        ("lr", "fast", "float"),
        ("redraw", "1", "bool"),
        ("decay_epochs", "6,x", "int,int,..."),
    ],
)
def test_parse_field_refuses(name, text, kind):
    with pytest.raises(ValueError, match=f"^{name} must be of type {kind}, got '{text}'$"):
        parse_field(name, text)


def test_parse_field_refuses_unknown_fields():
    with pytest.raises(ValueError, match=r"unknown field speed; RunConfig has profile, dataset, .*micro_batch"):
        parse_field("speed", "1")


# What is refused: the message names the field, what it got and what it may be.


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("profile", PROFILES),
        ("dataset", DATASETS),
        ("original", ORIGINALS),
        ("shortcut", SHORTCUTS),
        ("precision", PRECISIONS),
        ("fill", FILLS),
        ("pair_mode", PAIR_MODES),
        ("label_source", LABEL_SOURCES),
        ("base_loss", CLASS_LOSSES),
    ],
)
def test_unknown_names_are_refused_with_what_there_is(name, allowed):
    with pytest.raises(ValueError, match=f"^{name} must be one of {', '.join(allowed)}, got 'nope'$"):
        RunConfig(**needs(name), **{name: "nope"})


@pytest.mark.parametrize(
    ("name", "allowed", "base"),
    [
        ("model", CIFAR_MODELS, RunConfig()),
        ("model", IMAGENET_MODELS, ENCODED),
        ("method", IMAGE_METHODS, RunConfig()),
        ("method", TEXT_METHODS, TEXT),
        ("augment", ENCODED_IMAGE_AUGMENTATIONS, ENCODED),
        ("augment", (*SMALL_IMAGE_AUGMENTATIONS, "v2.<Transform>"), RunConfig()),
    ],
    ids=["model", "model of ImageNet", "method of images", "method of text", "crops of ImageNet", "augmentation"],
)
def test_unknown_names_are_refused_with_what_there_is_for_the_data(name, allowed, base):
    message = f"^{name} must be one of {', '.join(allowed)} for dataset='{base.dataset}', got 'nope'$"
    with pytest.raises(ValueError, match=message):
        base.replace(**{name: "nope"})


def test_images_and_text_share_four_methods():
    # The first baseline is "Baseline(DA)" on images and naive training on text (section 4.2).
    assert set(METHODS) == {*IMAGE_METHODS, *TEXT_METHODS}
    assert set(IMAGE_METHODS) ^ set(TEXT_METHODS) == {"baseline_da", "baseline"}
    with pytest.raises(ValueError, match=r"^method must be .* for dataset='cifar10', got 'baseline'$"):
        RunConfig(method="baseline", num_augmented=1)
    with pytest.raises(ValueError, match=r"^method must be .* for dataset='cola', got 'baseline_da'$"):
        TEXT.replace(method="baseline_da", num_augmented=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        # Numbers out of range.
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"seed": 2**31}, "seed must be below 2**31, got 2147483648"),
        ({"num_augmented": 10**20}, "num_augmented must be below 2**31, got 100000000000000000000"),
        ({"epochs": 10**20}, "epochs must be below 2**31, got 100000000000000000000"),
        ({"train_size": -1}, "train_size must be 0 or more, got -1"),
        ({"holdout": -5}, "holdout must be 0 or more, got -5"),
        ({"micro_batch": -1}, "micro_batch must be 0 or more, got -1"),
        ({"micro_batch": 129}, "micro_batch must be at most batch_size=128, got 129"),
        ({"momentum": -0.1}, "momentum must be 0 or more and finite, got -0.1"),
        ({"momentum": float("nan")}, "momentum must be 0 or more and finite, got nan"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more and finite, got -1.0"),
        ({"num_augmented": 0}, "num_augmented must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"evals_per_epoch": 0}, "evals_per_epoch must be at least 1, got 0"),
        ({"batch_size": -128}, "batch_size must be at least 1, got -128"),
        ({"lambda_p": 0}, "lambda_p must be positive and finite, got 0.0"),
        ({"lambda_p": -1.0}, "lambda_p must be positive and finite, got -1.0"),
        ({"lambda_p": float("inf")}, "lambda_p must be positive and finite, got inf"),
        ({"lambda_p": float("nan")}, "lambda_p must be positive and finite, got nan"),
        ({"lr": 0.0}, "lr must be positive and finite, got 0.0"),
        ({"lr_decay": -0.2}, "lr_decay must be positive and finite, got -0.2"),
        ({"method": "mmel_s", "lambda_t": -1.0}, "lambda_t must be 0 or more and finite, got -1.0"),
        ({"method": "mmel_s", "lambda_t": float("inf")}, "lambda_t must be 0 or more and finite, got inf"),
        ({"decay_epochs": (60, 20)}, r"decay_epochs must be positive and increasing, got (60, 20)"),
        ({"decay_epochs": (60, 60)}, r"decay_epochs must be positive and increasing, got (60, 60)"),
        ({"decay_epochs": (0, 60)}, r"decay_epochs must be positive and increasing, got (0, 60)"),
        ({"decay_epochs": (-1,)}, r"decay_epochs must be positive and increasing, got (-1,)"),
        ({"decay_epochs": (60, 200)}, "decay_epochs must be below epochs=200 (set both), got (60, 200)"),
        ({"epochs": 20}, "decay_epochs must be below epochs=20 (set both), got (60, 120, 160)"),
        ({"threshold": -0.5}, "threshold must be 0 or more and finite, got -0.5"),
        ({"beam_width": -1}, "beam_width must be 0 or more, got -1"),
        # Combinations that mean nothing.
        *(
            (
                {"profile": "paper", "dataset": name},
                f"profile must be 'mini' or 'reduced' for dataset='{name}', which is made for the study, got 'paper'",
            )
            for name in ("digits", "drawings", "grammar_rte")
        ),
        ({"method": "baseline_da"}, "num_augmented must be 1 for method='baseline_da', which sees one view, got 10"),
        *(
            (
                {"method": method, "num_augmented": 1},
                f"num_augmented must be at least 2 for method='{method}', got 1",
            )
            for method in ("baseline_da_long", "baseline_da_uni", "mmel_h", "mmel_s")
        ),
        *(
            (
                {"method": method, "num_augmented": k, "lambda_t": 0.5},
                f"lambda_t must be 1.0 (its default) for method='{method}', which has none, got 0.5",
            )
            for method, k in (("baseline_da", 1), ("baseline_da_long", 10), ("baseline_da_uni", 10), ("mmel_h", 10))
        ),
        *(
            (
                {"method": method, "num_augmented": k, "lambda_p": 0.5},
                f"lambda_p must be 1.0 (its default) for method='{method}', which has none, got 0.5",
            )
            for method, k in (("baseline_da", 1), ("baseline_da_long", 10), ("baseline_da_uni", 10))
        ),
        *(
            (
                {"method": method, "num_augmented": k, "original": "augmented"},
                f"original must be 'clean' for method='{method}', which sees one random view and never the original, "
                "got 'augmented'",
            )
            for method, k in (("baseline_da", 1), ("baseline_da_long", 10))
        ),
        (
            {"target_gradient": True},
            "target_gradient must be False (its default) for method='mmel_h', which has none, got True",
        ),
        (
            {"base_loss": "kl"},
            "base_loss must be 'cross_entropy' (its default) for method='mmel_h' on images, whose targets are classes, "
            "got 'kl'",
        ),
        (
            {"method": "baseline_da_uni", "base_loss": "kl"},
            "base_loss must be 'cross_entropy' (its default) for method='baseline_da_uni', which trains alike with "
            "either, got 'kl'",
        ),
        (
            {"method": "mmel_s", "lambda_t": 0, "holdout": 5000},
            "lambda_t=0 (chosen on held-out images) cannot itself hold images out; set holdout=0",
        ),
        (
            {"dataset": "digits"},
            "augment must be 'crop' for dataset='digits': a flipped digit is another, got 'crop_flip'",
        ),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)
def test_refused(fields, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        RunConfig(**fields)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("base", "fields", "message"),
    [
        (
            ENCODED,
            {"shortcut": "B"},
            "shortcut must be 'A' (its default) for model='resnet50', whose shortcuts are convolutions, got 'B'",
        ),
        *(
            (
                ENCODED,
                {"image_size": size},
                f"image_size must be 0 (for 224), or another number from 32 on for dataset='imagenet', got {size}",
            )
            for size in (31, 224)
        ),
        (ENCODED, {"image_size": -1}, "image_size must be 0 or more, got -1"),
        (
            RunConfig(),
            {"image_size": 64},
            "image_size must be 0 (its default) for dataset='cifar10', whose images have one size, got 64",
        ),
    ],
)
def test_refused_of_encoded_images(base, fields, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        base.replace(**fields)
    assert str(caught.value) == message


def test_the_views_of_encoded_images_have_a_size():
    assert ENCODED.pixels_a_side == 224
    assert ENCODED.replace(image_size=96).pixels_a_side == 96
    assert ENCODED.replace(dataset="drawings").pixels_a_side == 64


def default(name):
    return getattr(RunConfig(), name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"augment_seed": -1}, "augment_seed must be 0 or more, got -1"),
        ({"augment_seed": 2**31}, "augment_seed must be below 2**31, got 2147483648"),
        ({"max_length": 7}, "max_length must be at least 8, got 7"),
        ({"mask_ratio": 0}, "mask_ratio must be above 0 and at most 1, got 0.0"),
        ({"mask_ratio": 1.5}, "mask_ratio must be above 0 and at most 1, got 1.5"),
        ({"mask_ratio": float("nan")}, "mask_ratio must be above 0 and at most 1, got nan"),
        *(
            ({name: value}, f"{name} must be in [0, 1), or -1 for 'to be chosen', got {value}")
            for name in ("hidden_dropout", "attention_dropout")
            for value in (1.0, -0.5, float("nan"))
        ),
        *(
            ({name: -1}, f"hidden_dropout and attention_dropout are chosen together, got {name}=-1 alone")
            for name in ("hidden_dropout", "attention_dropout")
        ),
        (
            {"beam_width": 12},
            "beam_width must be 0 (its default) for fill='greedy', got 12",
        ),
        *(
            (
                {"fill": "beam", "beam_width": width},
                f"beam_width must be 0 (for K - 1 = 9), or more than that, got {width}",
            )
            for width in (8, 9)
        ),
        (
            {"method": "mmel_s", "threshold": 0.25},
            "threshold must be 0.5 (its default) for dataset='cola', whose targets are classes, got 0.25",
        ),
        (
            {"dataset": "stsb", "threshold": 0.25},
            "threshold must be 0.5 (its default) for method='mmel_h', which has none, got 0.25",
        ),
        (
            {"dataset": "stsb", "method": "mmel_s", "label_source": "original", "threshold": 0.25},
            "threshold must be 0.5 (its default) for label_source='original', where no teacher is asked, got 0.25",
        ),
        (
            {"dataset": "stsb", "base_loss": "kl"},
            "base_loss must be 'cross_entropy' (its default) for dataset='stsb', whose targets are scores, got 'kl'",
        ),
        (
            {"label_source": "original", "base_loss": "kl"},
            "base_loss must be 'cross_entropy' (its default) for method='mmel_h' with label_source='original', whose "
            "targets are classes, got 'kl'",
        ),
        # The images' way of saying "to be chosen".
        ({"method": "mmel_s", "lambda_t": 0}, "lambda_t must be positive on text, where the paper fixes it, got 0.0"),
        *(
            ({"model": model}, f"model must be a text encoder for dataset='cola', got {model!r}")
            for model in ("resnet20", "", " ", "bert-base-uncased ")
        ),
        ({"method": "baseline"}, "num_augmented must be 1 for method='baseline', which sees one view, got 10"),
        *(
            ({"method": method, "num_augmented": 1}, f"num_augmented must be at least 2 for method='{method}', got 1")
            for method in TEXT_METHODS[1:]
        ),
        *(
            (
                {name: OTHER[name]},
                f"{name} must be {default(name)!r} (its default) for dataset='cola', which is text, "
                f"got {OTHER[name]!r}",
            )
            for name in IMAGE_FIELDS
        ),
        *(
            (
                {"method": "baseline", "num_augmented": 1, name: OTHER[name]},
                f"{name} must be {default(name)!r} (its default) for method='baseline', which augments nothing, "
                f"got {OTHER[name]!r}",
            )
            for name in AUGMENTED_TEXT_FIELDS
        ),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)
def test_refused_on_text(fields, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        TEXT.replace(**fields)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_fields_of_text_are_refused_on_images(name):
    # Else two names would stand for one run.
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        RunConfig(method="mmel_s", **{name: OTHER[name]})
    assert str(caught.value) == (
        f"{name} must be {default(name)!r} (its default) for dataset='cifar10', which is images, got {OTHER[name]!r}"
    )


@pytest.mark.parametrize("name", ["v2.AugMix", "v2.RandomGrayscale"])
def test_a_run_may_name_a_transform(name):
    assert RunConfig(augment=name).non_defaults() == {"augment": name}


@pytest.mark.parametrize("name", ["v2.", "v2.augmix", "v2.AugMix()", "AugMix", "v2.RandAugment"])
def test_what_is_no_transform_is_refused(name):
    # RandAugment has a name of its own: one run, one name.
    with pytest.raises(
        ValueError, match=f"^augment must be one of .*, v2.<Transform> for .*, got '{re.escape(name)}'$"
    ):
        RunConfig(augment=name)


@pytest.mark.parametrize(
    "fields",
    [
        {"mask_ratio": 1.0},
        {"hidden_dropout": -1, "attention_dropout": -1},
        {"fill": "beam", "beam_width": 10},
        {"base_loss": "kl"},
        {"method": "mmel_s", "base_loss": "kl", "label_source": "original"},
        {"dataset": "stsb", "method": "mmel_s", "threshold": 0.0, "target_gradient": True},
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_are_taken(fields):
    assert TEXT.replace(**fields).non_defaults().items() >= fields.items()


def test_every_field_belongs_to_images_to_text_or_to_both():
    assert not set(IMAGE_FIELDS) & set(TEXT_FIELDS)
    assert {*IMAGE_FIELDS, *TEXT_FIELDS} <= set(field_names())
    assert set(AUGMENTED_TEXT_FIELDS) <= set(TEXT_FIELDS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", True),
        ("seed", 1.0),
        ("seed", "0"),
        ("epochs", None),
        ("lr", "0.1"),
        ("lr", False),
        ("redraw", 1),
        ("nesterov", "yes"),
        ("dataset", ["cifar10"]),
        ("method", None),
        # An epoch is a whole number; 6.0 would give another name than 6 to the same run.
        ("decay_epochs", 60),
        ("decay_epochs", None),
        ("decay_epochs", "60"),
        ("decay_epochs", ("60",)),
        ("decay_epochs", (6.0, 12.0)),
        ("decay_epochs", (True, 12)),
    ],
)
def test_wrong_types_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*got "):
        RunConfig(**{name: value})


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay"])
@pytest.mark.parametrize(
    ("number", "shown"),
    [(float("inf"), "inf"), (10**400, "inf"), (-(10**400), "-inf")],
    ids=["inf", "huge", "hugely negative"],
)
def test_infinite_numbers_are_refused(name, number, shown):
    # Records are JSON, which has no such number.
    with pytest.raises(ValueError, match=f"^{name} must be .*got {shown}$"):
        RunConfig(**{name: number})


def test_replace_validates_again():
    assert PAPER.replace(seed=4) == RunConfig(profile="paper", seed=4)
    with pytest.raises(ValueError, match=r"^seed must be 0 or more, got -1$"):
        PAPER.replace(seed=-1)


def test_frozen_and_by_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAPER.seed = 1
    with pytest.raises(TypeError):
        RunConfig("paper")


# What a run amounts to.


def test_eight_tasks_each_with_its_miniature():
    assert {*GLUE_DATASETS, *(f"grammar_{name}" for name in GLUE_DATASETS)} == set(TEXT_DATASETS)
    assert len(set(DATASETS)) == len(DATASETS) == 22
    texts = [RunConfig(dataset=name, model="bert") for name in TEXT_DATASETS]
    assert all(run.is_text for run in texts)
    assert tuple(run.dataset for run in texts if run.is_regression) == REGRESSION_DATASETS
    assert not any(RunConfig(dataset=name, augment="crop").is_text for name in SMALL_IMAGE_DATASETS)


def test_the_long_baseline_on_text_has_longer_epochs_not_more():
    # Its augmented samples are examples by themselves.
    config = TEXT.replace(method="baseline_da_long", num_augmented=5, epochs=10)
    assert config.stretch == 5
    assert config.total_epochs == 10
    assert config.num_views == 1


def test_a_hub_name_becomes_a_file_name():
    run_id = TEXT.replace(model="google/electra-small").run_id
    assert "/" not in run_id
    assert run_id.startswith("google--electra-small-mmel_h-")
    # Not the same run as that of a folder with that name.
    assert run_id != TEXT.replace(model="google--electra-small").run_id


def test_the_long_baseline_trains_as_long_as_the_paper_says():
    # Section 4.1: ten times the epochs, decays at 600, 1200 and 1600.
    config = RunConfig(profile="paper", method="baseline_da_long")
    assert config.total_epochs == 2000
    assert config.total_decay_epochs == (600, 1200, 1600)
    assert config.stretch == 10
    assert config.num_views == 1


@pytest.mark.parametrize(
    ("method", "k", "num_views"),
    [("baseline_da", 1, 1), ("baseline_da_long", 5, 1), ("baseline_da_uni", 5, 5), ("mmel_h", 5, 5), ("mmel_s", 2, 2)],
)
def test_num_views(method, k, num_views):
    assert RunConfig(method=method, num_augmented=k).num_views == num_views


def test_num_views_on_text():
    views = {m: TEXT.replace(method=m, num_augmented=1 if m == "baseline" else 5).num_views for m in TEXT_METHODS}
    assert views == {"baseline": 1, "baseline_da_long": 1, "baseline_da_uni": 5, "mmel_h": 5, "mmel_s": 5}


@pytest.mark.parametrize("method", ["baseline_da", "baseline_da_uni", "mmel_h", "mmel_s"])
def test_other_methods_train_the_epochs_they_are_given(method):
    config = RunConfig(method=method, num_augmented=1 if method == "baseline_da" else 10)
    assert config.stretch == 1
    assert config.total_epochs == 200
    assert config.total_decay_epochs == (60, 120, 160)
