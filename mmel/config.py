"""RunConfig: everything that decides what one training run computes, validated, with a stable name.

Standard library only, so that planning a thousand runs imports nothing heavy.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Raised whenever a default below, or what a field means, changes: old records then keep their old names.
SCHEMA = 1

PROFILES = ("mini", "reduced", "paper")
IMAGE_METHODS = ("baseline_da", "baseline_da_long", "baseline_da_uni", "mmel_h", "mmel_s")
TEXT_METHODS = ("baseline", "baseline_da_long", "baseline_da_uni", "mmel_h", "mmel_s")
METHODS = ("baseline", *IMAGE_METHODS)
PRECISIONS = ("bf16", "fp32")
ORIGINALS = ("clean", "augmented")
SHORTCUTS = ("A", "B")
# The loaders and builders behind these names live in mmel.data and mmel.models.
SMALL_IMAGE_DATASETS = ("cifar10", "cifar100", "digits")
# Images that are decoded step by step, and the pixels of a side that their views have by default.
ENCODED_IMAGE_SIZES = {"imagenet": 224, "imagenette": 224, "drawings": 64}
IMAGE_DATASETS = (*SMALL_IMAGE_DATASETS, *ENCODED_IMAGE_SIZES)
GLUE_DATASETS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
TEXT_DATASETS = (*GLUE_DATASETS, *(f"grammar_{name}" for name in GLUE_DATASETS))
DATASETS = (*IMAGE_DATASETS, *TEXT_DATASETS)
CIFAR_MODELS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56")
IMAGENET_MODELS = ("resnet18", "resnet34", "resnet50", "resnet18_narrow")
IMAGE_MODELS = (*CIFAR_MODELS, *IMAGENET_MODELS)
SMALL_IMAGE_AUGMENTATIONS = ("crop_flip", "crop", "cutout", "randaugment", "trivialaugment")
ENCODED_IMAGE_AUGMENTATIONS = ("resized_crop_flip",)
AUGMENTATIONS = (*SMALL_IMAGE_AUGMENTATIONS, *ENCODED_IMAGE_AUGMENTATIONS)
FILLS = ("greedy", "beam")
PAIR_MODES = ("separate", "joint")
LABEL_SOURCES = ("predicted", "original")

# What a field stands at when its value is to be chosen by runs of its own (`grids.candidates`).
CHOSEN_LAMBDA_T = 0.0
CHOSEN_DROPOUT = -1.0

ONE_VIEW_METHODS = ("baseline", "baseline_da", "baseline_da_long")
# Fields that mean nothing for the other kind of data stay at their default there, so that one run has one name.
_SGD_FIELDS = ("decay_epochs", "lr_decay", "momentum", "nesterov")
IMAGE_FIELDS = (*_SGD_FIELDS, "augment", "original", "redraw", "shortcut", "image_size", "holdout")
AUGMENTED_TEXT_FIELDS = ("mask_ratio", "fill", "pair_mode", "augment_seed", "label_source")
TEXT_FIELDS = (*AUGMENTED_TEXT_FIELDS, "max_length", "hidden_dropout", "attention_dropout")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run. The defaults are the paper's recipe for CIFAR (section 4.1); `grids.recipe` has that for GLUE.

    Attributes:
        profile: `mini` (embedded data), `reduced` (real data, scaled down) or `paper`.
        dataset: name of the data set.
        model: name of the network; for text that of a Hugging Face encoder with a masked-LM head, see
            `mmel.models.text`.
        method: name of the training method, see `mmel.methods`.
        seed: of initialisation, example order and augmentation.
        num_augmented: K = |B(x)|, the original included; 1 for `baseline` and `baseline_da`. `baseline_da_long` takes
            K times the steps: on images by K times the epochs, on text by the K samples of each example.
        lambda_p: KL coefficient of Eq. 6.
        lambda_t: weight of MMEL-S's second term (Eq. 8); 0 stands for "chosen on held-out images", from the recorded
            runs that `grids.candidates` lists.
        epochs: passes over the training set (before `baseline_da_long` stretches them).
        lr: initial learning rate; of SGD with steps for images, of AdamW with linear decay to 0 for text.
        decay_epochs: epochs after which the learning rate is multiplied by `lr_decay`.
        lr_decay: the factor.
        batch_size: N, originals a step.
        momentum: of SGD.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: on every parameter.
        augment: name of the image augmentation, see `mmel.augment.image`.
        original: whether index 0 of B(x) is x itself (`clean`) or one more random view (`augmented`).
        redraw: draw the augmentations anew each epoch; False draws B(x) once, as Algorithm 1 is written.
        drop_last: drop the partial batch that ends an epoch.
        shortcut: of the CIFAR ResNet, `A` or `B`.
        image_size: pixels of a side of the views of `imagenet`, `imagenette` and `drawings`; 0 for 224, of `drawings` 64.
        train_size: examples in a fixed subset of the training set, classes balanced (on text: in proportion); 0 for
            all.
        holdout: training images held out and evaluated on in place of the test set; 0 for none.
        precision: `bf16` (autocast) or `fp32`.
        micro_batch: originals that go through the network at once; 0 for the whole batch. A smaller one changes
            what BatchNorm sees.
        evals_per_epoch: evaluations, evenly spaced, in each epoch.
        max_length: word pieces to which a text is cut, special ones included.
        mask_ratio: share of the word pieces that Algorithm 2 replaces.
        fill: `greedy` (Algorithm 2) or `beam`.
        pair_mode: whether the sentences of a pair are augmented by themselves (`separate`) or as one (`joint`).
        augment_seed: of the positions that Algorithm 2 replaces; the same for all runs, which share the samples.
        label_source: whether augmented texts take a teacher's output (`predicted`) or the example's label
            (`original`).
        hidden_dropout: of the encoder; -1 stands for "chosen on seeds of their own", see `grids.candidates`.
        attention_dropout: of the attention probabilities, likewise.

    Raises:
        ValueError: on a value out of range or a combination that means nothing, naming the field, what it got and
            what it may be.
    """

    profile: str = "mini"
    dataset: str = "cifar10"
    model: str = "resnet20"
    method: str = "mmel_h"
    seed: int = 0
    num_augmented: int = 10
    lambda_p: float = 1.0
    lambda_t: float = 1.0
    epochs: int = 200
    lr: float = 0.1
    decay_epochs: tuple[int, ...] = (60, 120, 160)
    lr_decay: float = 0.2
    batch_size: int = 128
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    augment: str = "crop_flip"
    original: str = "clean"
    redraw: bool = True
    drop_last: bool = True
    shortcut: str = "A"
    image_size: int = 0
    train_size: int = 0
    holdout: int = 0
    precision: str = "bf16"
    micro_batch: int = 0
    evals_per_epoch: int = 1
    max_length: int = 128
    mask_ratio: float = 0.4
    fill: str = "greedy"
    pair_mode: str = "separate"
    augment_seed: int = 0
    label_source: str = "predicted"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name), field.default))
        _one_of("profile", self.profile, PROFILES)
        _one_of("dataset", self.dataset, DATASETS)
        _one_of("precision", self.precision, PRECISIONS)
        for name in ("num_augmented", "epochs", "batch_size", "evals_per_epoch"):
            _require(name, self, getattr(self, name) >= 1, "at least 1")
        for name in ("seed", "train_size", "holdout", "micro_batch", "augment_seed", "image_size"):
            _require(name, self, getattr(self, name) >= 0, "0 or more")
        for name in ("seed", "augment_seed"):
            # Seeds are multiplied and hashed in 64 bits.
            _require(name, self, getattr(self, name) < 2**31, "below 2**31")
        for name in ("lambda_t", "momentum", "weight_decay"):
            _require(name, self, 0 <= getattr(self, name) < float("inf"), "0 or more and finite")
        for name in ("lambda_p", "lr", "lr_decay"):
            _require(name, self, 0 < getattr(self, name) < float("inf"), "positive and finite")
        _require("micro_batch", self, self.micro_batch <= self.batch_size, f"at most batch_size={self.batch_size}")
        self._check_methods()
        if self.is_text:
            self._check_text()
        else:
            self._check_images()

    def _check_methods(self) -> None:
        methods = TEXT_METHODS if self.is_text else IMAGE_METHODS
        _one_of("method", self.method, methods, f" for dataset={self.dataset!r}")
        if self.method in ("baseline", "baseline_da"):
            allowed = f"1 for method={self.method!r}, which sees one view"
            _require("num_augmented", self, self.num_augmented == 1, allowed)
        else:
            _require("num_augmented", self, self.num_augmented >= 2, f"at least 2 for method={self.method!r}")
        if self.method != "mmel_s":
            _require("lambda_t", self, self.lambda_t == 1.0, f"1.0 for method={self.method!r}, which has none")
        if self.method not in ("mmel_h", "mmel_s"):
            _require("lambda_p", self, self.lambda_p == 1.0, f"1.0 for method={self.method!r}, which has none")

    def _check_images(self) -> None:
        where = f" for dataset={self.dataset!r}"
        if self.is_encoded:
            _one_of("model", self.model, IMAGENET_MODELS, where)
            _one_of("augment", self.augment, ENCODED_IMAGE_AUGMENTATIONS, where)
            self._refuse(("shortcut",), f"model={self.model!r}, whose shortcuts are convolutions")
            # One size has one name.
            usual = ENCODED_IMAGE_SIZES[self.dataset]
            allowed = f"0 (for {usual}), or another number from 32 on{where}"
            _require("image_size", self, not 0 < self.image_size < 32 and self.image_size != usual, allowed)
        else:
            _one_of("model", self.model, CIFAR_MODELS, where)
            _one_of("augment", self.augment, SMALL_IMAGE_AUGMENTATIONS, where)
            self._refuse(("image_size",), f"dataset={self.dataset!r}, whose images have one size")
        _one_of("original", self.original, ORIGINALS)
        _one_of("shortcut", self.shortcut, SHORTCUTS)
        increasing = all(a < b for a, b in zip((0, *self.decay_epochs), self.decay_epochs, strict=False))
        _require("decay_epochs", self, increasing, "positive and increasing")
        self._refuse(TEXT_FIELDS, f"dataset={self.dataset!r}, which is images")
        if self.method in ONE_VIEW_METHODS:
            allowed = f"'clean' for method={self.method!r}, which sees one random view and never the original"
            _require("original", self, self.original == "clean", allowed)
        if self.holdout and self.lambda_t == CHOSEN_LAMBDA_T:
            raise ValueError("lambda_t=0 (chosen on held-out images) cannot itself hold images out; set holdout=0")
        if self.dataset == "digits":
            _require("augment", self, self.augment == "crop", "'crop' for dataset='digits': a flipped digit is another")

    def _check_text(self) -> None:
        if self.model in IMAGE_MODELS or self.model != self.model.strip() or not self.model:
            raise ValueError(f"model must be a text encoder for dataset={self.dataset!r}, got {self.model!r}")
        _one_of("fill", self.fill, FILLS)
        _one_of("pair_mode", self.pair_mode, PAIR_MODES)
        _one_of("label_source", self.label_source, LABEL_SOURCES)
        _require("mask_ratio", self, 0 < self.mask_ratio <= 1, "above 0 and at most 1")
        _require("max_length", self, self.max_length >= 8, "at least 8")
        for name in ("hidden_dropout", "attention_dropout"):
            value = getattr(self, name)
            _require(name, self, 0 <= value < 1 or value == CHOSEN_DROPOUT, "in [0, 1), or -1 for 'to be chosen'")
        chosen = [name for name in ("hidden_dropout", "attention_dropout") if getattr(self, name) == CHOSEN_DROPOUT]
        if len(chosen) == 1:
            raise ValueError(f"hidden_dropout and attention_dropout are chosen together, got {chosen[0]}=-1 alone")
        _require("lambda_t", self, self.lambda_t > 0, "positive on text, where the paper fixes it")
        self._refuse(IMAGE_FIELDS, f"dataset={self.dataset!r}, which is text")
        if self.method == "baseline":
            self._refuse(AUGMENTED_TEXT_FIELDS, "method='baseline', which augments nothing")

    def _refuse(self, names: tuple[str, ...], where: str) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            allowed = f"{defaults[name]!r} (its default) for {where}"
            _require(name, self, getattr(self, name) == defaults[name], allowed)

    @property
    def is_text(self) -> bool:
        """Whether the data set is text; else it is images."""
        return self.dataset in TEXT_DATASETS

    @property
    def is_encoded(self) -> bool:
        """Whether the data set is of images that stay encoded until a step wants them."""
        return self.dataset in ENCODED_IMAGE_SIZES

    @property
    def pixels_a_side(self) -> int:
        """Pixels of a side of the views of encoded images."""
        return self.image_size or ENCODED_IMAGE_SIZES[self.dataset]

    @property
    def num_views(self) -> int:
        """Views of an example that a step sees: K, or 1 for the methods that train on one random view."""
        return 1 if self.method in ONE_VIEW_METHODS else self.num_augmented

    @property
    def stretch(self) -> int:
        """Factor on steps: K for `baseline_da_long`, else 1."""
        return self.num_augmented if self.method == "baseline_da_long" else 1

    @property
    def total_epochs(self) -> int:
        """Epochs actually trained. On text `baseline_da_long` has longer epochs instead of more of them."""
        return self.epochs if self.is_text else self.epochs * self.stretch

    @property
    def total_decay_epochs(self) -> tuple[int, ...]:
        """Epochs after which the learning rate actually falls."""
        return tuple(epoch * self.stretch for epoch in self.decay_epochs)

    @property
    def run_id(self) -> str:
        """A readable, stable name: model, method, K, seed and a hash of all that is not at its default."""
        content = {"schema": SCHEMA, **self.non_defaults()}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        # A hub name holds a slash, which a file name cannot.
        return f"{self.model.replace('/', '--')}-{self.method}-k{self.num_augmented}-s{self.seed}-{digest}"

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return {**dataclasses.asdict(self), "decay_epochs": list(self.decay_epochs)}

    def non_defaults(self) -> dict[str, Any]:
        """The fields that differ from their default, as JSON takes them."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {k: v for k, v in self.to_dict().items() if getattr(self, k) != defaults[k]}

    def replace(self, **changes: Any) -> "RunConfig":
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """The inverse of `to_dict`.

        Raises:
            ValueError: if `values` names a field that does not exist, or as the class does.
        """
        unknown = sorted(set(values) - set(field_names()))
        if unknown:
            raise ValueError(f"unknown field(s) {', '.join(unknown)}; RunConfig has {', '.join(field_names())}")
        return cls(**values)

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, Any]) -> "RunConfig":
        """The configuration that a notebook's parameters cell spells out; other names in it are left alone."""
        return cls(**{name: namespace[name] for name in field_names() if name in namespace})


def field_names() -> tuple[str, ...]:
    """Names of RunConfig's fields, in order."""
    return tuple(field.name for field in dataclasses.fields(RunConfig))


def parse_field(name: str, text: str) -> Any:
    """The value of field `name` that `text` stands for on a command line.

    Raises:
        ValueError: if there is no such field, or `text` is not of its type.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    if name not in defaults:
        raise ValueError(f"unknown field {name}; RunConfig has {', '.join(defaults)}")
    default = defaults[name]
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(int(part) for part in text.split(",") if part)
        return type(default)(text)
    except (KeyError, ValueError):
        kind = "int,int,..." if isinstance(default, tuple) else type(default).__name__
        raise ValueError(f"{name} must be of type {kind}, got {text!r}") from None


def _typed(name: str, value: Any, default: Any) -> Any:
    """`value` as the type of the field's default, so that 1 and 1.0 name the same run."""
    wanted = type(default)
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) > 1e308:
            # Out of every field's range, and as an integer possibly beyond all floats.
            return float("inf") if value > 0 else float("-inf")
        # Adding 0.0 gives -0.0 the name of 0.0.
        return float(value) + 0.0
    if wanted is tuple and isinstance(value, list | tuple) and all(type(entry) is int for entry in value):
        return tuple(value)
    if type(value) is not wanted or wanted is tuple:
        kind = "a list of int" if wanted is tuple else f"of type {wanted.__name__}"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return value


def _one_of(name: str, value: str, allowed: tuple[str, ...], where: str = "") -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}{where}, got {value!r}")


def _require(name: str, config: RunConfig, condition: bool, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {getattr(config, name)!r}")
