"""ImageRun and TextRun: everything that decides the result of one training run, validated, with a stable name.

Standard library only, so that planning a thousand runs imports nothing heavy.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from mmel.study.datasets import IMAGE_MODELS, ImageDataset, TextDataset, dataset
from mmel.study.fields import check_value, typed
from mmel.study.methods import METHODS, SOFT, Method, methods_for

# Raised if the meaning of a field changes: old records then keep their old names.
SCHEMA = 1
# The values that a name leaves out: in schema 1 texts had the defaults of images.
UNNAMED = {
    "dataset": "cifar10",
    "model": "resnet20",
    "num_augmented": 10,
    "epochs": 200,
    "lr": 0.1,
    "batch_size": 128,
    "weight_decay": 5e-4,
}

# Settings that no table varies.
MOMENTUM = 0.9
LR_DECAY = 0.2
MAX_LENGTH = 128
AUGMENTATION_SEED = 0

# Images for which a transform of torchvision's v2 may be named as well: `v2.AugMix`.
SMALL_IMAGE_AUGMENTATIONS = ("crop_flip", "crop", "cutout", "randaugment", "trivialaugment")
# Fields of a run on texts that only augmented texts give a meaning.
AUGMENTED = ("mask_ratio", "fill", "pair_mode", "label_source")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run; the fields that images and texts share.

    Attributes:
        profile: `mini` (embedded data), `reduced` (real data, scaled down) or `paper`.
        dataset: name of the data set, see `mmel.study.datasets`.
        model: name of the network.
        method: name of the training method, see `mmel.study.methods`.
        seed: of initialisation, example order and augmentation.
        num_augmented: K = |B(x)|, the original included; 1 for `baseline` and `baseline_da`. `baseline_da_long` takes
            K times the steps: on images by K times the epochs, on text by the K samples of each example.
        lambda_p: KL coefficient of Eq. 6.
        lambda_t: weight of MMEL-S's second term (Eq. 8); None if it is chosen on held-out images, by the recorded
            runs that `mmel.study.needs.candidates` lists.
        base_loss: `cross_entropy`, or `kl` against probabilities: the entropy of a target, which no model can avoid,
            then weighs nothing in P*. Scores have the squared error.
        target_gradient: let MMEL-S' gradient flow through its soft target f(x) too.
        epochs: passes over the training set (before `baseline_da_long` stretches them).
        lr: initial learning rate.
        batch_size: N, originals per step.
        weight_decay: on every parameter.
        train_size: examples in a fixed subset of the training set, classes balanced (on text: in proportion); 0 for
            all.
        precision: `bf16` (autocast), `fp32`, or `auto`: the faster of the two on the device at hand, which a short
            probe tells (`mmel.study.train.precision`) and the record says.
        micro_batch: originals that go through the network at once; 0 for the whole batch. A smaller one changes
            the statistics of BatchNorm.
        evals_per_epoch: evaluations, evenly spaced, in each epoch.

    Raises:
        ValueError: on a value out of range or a combination without meaning, naming the field, its value and those
            that are allowed.
    """

    kind: ClassVar[str]

    profile: str = "mini"
    dataset: str
    model: str
    method: str = "mmel_h"
    seed: int = 0
    num_augmented: int
    lambda_p: float = 1.0
    lambda_t: float | None = 1.0
    base_loss: str = "cross_entropy"
    target_gradient: bool = False
    epochs: int
    lr: float
    batch_size: int
    weight_decay: float
    train_size: int = 0
    precision: str = "auto"
    micro_batch: int = 0
    evals_per_epoch: int = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, typed(field, getattr(self, field.name)))
        for name, value in self.to_dict().items():
            check_value(name, value)
        self._check()

    @property
    def data(self) -> ImageDataset | TextDataset:
        """The record of the data set."""
        return dataset(self.dataset)

    @property
    def plan(self) -> Method:
        """The record of the method."""
        return METHODS[self.method]

    @property
    def is_text(self) -> bool:
        """Whether the data set is text; else it is images."""
        return self.kind == "text"

    @property
    def is_regression(self) -> bool:
        """Whether the targets are scores, not classes."""
        return self.is_text and self.data.is_regression

    @property
    def num_views(self) -> int:
        """Views of an example in a step: K, or 1 for the methods that train on one view at a time."""
        return self.num_augmented if self.plan.all_views else 1

    @property
    def stretch(self) -> int:
        """Factor on steps: K for `baseline_da_long`, else 1."""
        return self.num_augmented if self.plan.stretches else 1

    @property
    def total_epochs(self) -> int:
        """Epochs actually trained."""
        return self.epochs

    @property
    def run_id(self) -> str:
        """A readable, stable name: model, method, K, seed and a hash of all that is not at its default."""
        content = {"schema": SCHEMA, **self.non_defaults()}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        # A hub name holds a slash, which a file name cannot.
        return f"{self.model.replace('/', '--')}-{self.method}-k{self.num_augmented}-s{self.seed}-{digest}"

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    def non_defaults(self) -> dict[str, Any]:
        """The fields that a name hashes, as JSON takes them: those that differ from their default of schema 1."""
        usual = {field.name: field.default for field in dataclasses.fields(self)} | UNNAMED
        return {name: value for name, value in self.to_dict().items() if getattr(self, name) != usual[name]}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def with_method(self, method: str, seed: int) -> Self:
        """This run trained by another method, with the fields that the method does not have at their defaults."""
        plan = METHODS[method]
        absent = {*SOFT} - {*plan.fields} | ({*AUGMENTED} if self.is_text and not plan.augments else set())
        single = {"num_augmented": 1} if plan.is_single else {}
        return self.replace(method=method, seed=seed, **self.defaults(absent), **single)

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def defaults(cls, names: Any) -> dict[str, Any]:
        """The defaults of some fields."""
        return {field.name: field.default for field in dataclasses.fields(cls) if field.name in names}

    def _check(self) -> None:
        methods = methods_for(self.kind)
        if self.method not in methods:
            self._refuse("method", f"one of {', '.join(methods)} for dataset={self.dataset!r}")
        data, plan = self.data, self.plan
        if not isinstance(data, {"images": ImageDataset, "text": TextDataset}[self.kind]):
            self._refuse("dataset", f"a data set of {self.kind} for {type(self).__name__}")
        if data.embedded and self.profile == "paper":
            self._refuse("profile", f"'mini' or 'reduced' for dataset={self.dataset!r}, which is made for the study")
        if plan.is_single != (self.num_augmented == 1):
            self._refuse("num_augmented", f"{'1' if plan.is_single else 'at least 2'} for method={self.method!r}")
        if self.micro_batch >= self.batch_size:
            self._refuse("micro_batch", f"0 (the whole batch) or below batch_size={self.batch_size}")
        self._keep_defaults({*SOFT} - {*plan.fields}, f"method={self.method!r}, which has none")

    def _keep_defaults(self, names: Any, where: str) -> None:
        """Refuse other values than the default of fields without a meaning: one run has one name."""
        for name, default in self.defaults(names).items():
            if getattr(self, name) != default:
                self._refuse(name, f"{default!r} (its default) for {where}")

    def _refuse(self, name: str, allowed: str) -> None:
        raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class ImageRun(Run):
    """A run on images. The defaults are the paper's recipe for CIFAR (section 4.1).

    Attributes:
        decay_epochs: epochs after which the learning rate is multiplied by `LR_DECAY`.
        augment: name of the image augmentation, see `mmel.augment.images.build_augmentation`; for small images also
            `v2.` and the name of a transform of torchvision.transforms.v2, which follows crop and flip.
        original: whether index 0 of B(x) is x itself (`clean`) or one more random view (`augmented`).
        redraw: draw the augmentations anew each epoch; False draws B(x) once, as Algorithm 1 is written.
        shortcut: of the CIFAR ResNet, `A` or `B`.
        image_size: pixels of a side of the views of images that are decoded step by step; None for the data set's.
        holdout: training images held out and evaluated on in place of the test set; 0 for none.
    """

    kind: ClassVar[str] = "images"

    dataset: str = "cifar10"
    model: str = "resnet20"
    num_augmented: int = 10
    epochs: int = 200
    lr: float = 0.1
    batch_size: int = 128
    weight_decay: float = 5e-4
    decay_epochs: tuple[int, ...] = (60, 120, 160)
    augment: str = "crop_flip"
    original: str = "clean"
    redraw: bool = True
    shortcut: str = "A"
    image_size: int | None = None
    holdout: int = 0

    @property
    def side(self) -> int:
        """Pixels of a side of a view."""
        return self.image_size or self.data.side

    @property
    def total_epochs(self) -> int:
        """Epochs actually trained."""
        return self.epochs * self.stretch

    @property
    def total_decay_epochs(self) -> tuple[int, ...]:
        """Epochs after which the learning rate actually falls."""
        return tuple(epoch * self.stretch for epoch in self.decay_epochs)

    def _check(self) -> None:
        super()._check()
        where = f"for dataset={self.dataset!r}"
        if self.model not in self.data.models:
            self._refuse("model", f"one of {', '.join(self.data.models)} {where}")
        if self.data.decoded_per_step:
            if self.augment != "resized_crop_flip":
                self._refuse("augment", f"'resized_crop_flip' {where}")
            self._keep_defaults(["shortcut"], f"model={self.model!r}, whose shortcuts are convolutions")
            if self.image_size == self.data.side:
                self._refuse("image_size", f"None for the size of dataset={self.dataset!r}")
        else:
            # Those two have a name of their own.
            transform = re.fullmatch(r"v2\.(?!RandAugment$|TrivialAugmentWide$)[A-Z]\w*", self.augment)
            if self.augment not in SMALL_IMAGE_AUGMENTATIONS and not transform:
                self._refuse("augment", f"one of {', '.join(SMALL_IMAGE_AUGMENTATIONS)}, v2.<Transform> {where}")
            self._keep_defaults(["image_size"], f"dataset={self.dataset!r}, whose images have one size")
        if self.dataset == "digits" and self.augment != "crop":
            self._refuse("augment", "'crop' for dataset='digits': a flipped digit is another")
        before = (0, *self.decay_epochs)
        if any(a >= b for a, b in zip(before, self.decay_epochs, strict=False)) or before[-1] >= self.epochs:
            self._refuse("decay_epochs", f"positive, increasing and below epochs={self.epochs} (set both)")
        if self.method == "mmel_h":
            self._keep_defaults(["base_loss"], "method='mmel_h' on images, whose targets are classes")
        if not self.plan.all_views:
            self._keep_defaults(["original"], f"method={self.method!r}, which never sees the original")
        if self.holdout and self.lambda_t is None:
            self._refuse("holdout", "0 if lambda_t is None: it is chosen on held-out images")


@dataclass(frozen=True, kw_only=True)
class TextRun(Run):
    """A run on text. The defaults are the paper's recipe for GLUE (Table 7).

    Attributes:
        model: of a Hugging Face encoder with a masked-LM head, see `mmel.study.models.encoder`.
        mask_ratio: share of the word pieces that Algorithm 2 replaces.
        fill: `greedy` (Algorithm 2) or `beam`.
        pair_mode: whether the sentences of a pair are augmented one by one (`separate`) or as one text (`joint`).
        label_source: whether augmented texts take a teacher's output (`predicted`) or the example's label
            (`original`).
        hidden_dropout: of the encoder; None if it is chosen on seeds of its own, see `mmel.study.needs.candidates`.
        attention_dropout: of the attention probabilities, likewise.
    """

    kind: ClassVar[str] = "text"

    dataset: str = "cola"
    model: str = "bert-base-uncased"
    num_augmented: int = 5
    epochs: int = 10
    lr: float = 3e-5
    batch_size: int = 32
    weight_decay: float = 0.0
    mask_ratio: float = 0.4
    fill: str = "greedy"
    pair_mode: str = "separate"
    label_source: str = "predicted"
    hidden_dropout: float | None = 0.1
    attention_dropout: float | None = 0.1

    def _check(self) -> None:
        super()._check()
        if self.model in IMAGE_MODELS or not self.model or self.model != self.model.strip():
            self._refuse("model", f"a text encoder for dataset={self.dataset!r}")
        if (self.hidden_dropout is None) != (self.attention_dropout is None):
            raise ValueError(
                "hidden_dropout and attention_dropout are chosen together, "
                f"got {self.hidden_dropout!r} and {self.attention_dropout!r}"
            )
        if self.lambda_t is None:
            self._refuse("lambda_t", "a number on text, for which the paper fixes it")
        if not self.plan.augments:
            self._keep_defaults(AUGMENTED, f"method={self.method!r}, which augments nothing")
        if not self.data.is_pair:
            self._keep_defaults(["pair_mode"], f"dataset={self.dataset!r}, which has no pairs")
        if self.is_regression:
            self._keep_defaults(["base_loss"], f"dataset={self.dataset!r}, whose targets are scores")
        if self.label_source == "original" and self.method == "mmel_h":
            self._keep_defaults(["base_loss"], "label_source='original', whose targets are classes")


def run_type(name: str) -> type[ImageRun] | type[TextRun]:
    """The type of the runs on a data set.

    Raises:
        ValueError: if there is no data set of that name.
    """
    return TextRun if isinstance(dataset(name), TextDataset) else ImageRun
