"""ImageRun and TextRun: everything that decides the result of one training run, validated, with a stable name.

Standard library only, so that planning a thousand runs imports nothing heavy.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

from mmel.study.datasets import IMAGE_MODELS, ImageDataset, TextDataset, dataset
from mmel.study.fields import Count, Natural, NotNegative, Positive, Profile, Rate, Share, Side, checked
from mmel.study.methods import METHODS, Method, methods_for

# Raised if the meaning of a field changes: old records then keep their old names.
SCHEMA = 1
# Settings that no table varies.
MOMENTUM = 0.9
LR_DECAY = 0.2
MAX_LENGTH = 128
AUGMENTATION_SEED = 0

# Images for which a transform of torchvision's v2 may be named as well: `v2.AugMix`.
SMALL_IMAGE_AUGMENTATIONS = ("crop_flip", "crop", "cutout", "randaugment", "trivialaugment")


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
        base_loss: `cross_entropy`, or `kl`, where a target's entropy weighs nothing in P*; scores have squared errors.
        target_gradient: let MMEL-S' gradient flow through its soft target f(x) too.
        backward: `exact`, or `sampled`: MMEL-H's gradient from one view of each example, drawn from P*.
        epochs: passes over the training set (before `baseline_da_long` stretches them).
        lr: initial learning rate.
        batch_size: N, originals per step.
        weight_decay: on every parameter.
        train_size: examples in a fixed subset of the training set, classes balanced (on text, in proportion); 0: all.
        precision: `bf16` (autocast), `fp32`, or `auto`: the faster of the two on the device at hand, which a short
            probe tells (`mmel.study.train.precision`) and the record says.
        micro_batch: originals that go through the network at once; 0 for the whole batch. A smaller one changes
            the statistics of BatchNorm.
        evals_per_epoch: evaluations, evenly spaced, in each epoch.
        epochs_per_eval: epochs from one evaluation to the next; 1 beside `evals_per_epoch`.

    Raises:
        ValueError: on a value out of range or a combination without meaning, naming the field and the allowed values.
    """

    kind: ClassVar[str]

    profile: Profile = "mini"
    dataset: str
    model: str
    method: str = "mmel_h"
    seed: Natural = 0
    num_augmented: Count
    lambda_p: Positive = 1.0
    lambda_t: Positive | None = 1.0
    base_loss: Literal["cross_entropy", "kl"] = "cross_entropy"
    target_gradient: bool = False
    backward: Literal["exact", "sampled"] = "exact"
    epochs: Count
    lr: Positive
    batch_size: Count
    weight_decay: NotNegative
    train_size: Natural = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    micro_batch: Natural = 0
    evals_per_epoch: Count = 1
    epochs_per_eval: Count = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))
        for name, allowed, words in self._rules():
            if not allowed:
                raise ValueError(f"{name} must be {words}, got {getattr(self, name)!r}")

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
        """Epochs actually trained; on text a stretched epoch is longer instead."""
        return self.epochs * (1 if self.is_text else self.stretch)

    # A sweep asks for the names of all its runs every two seconds.
    @cached_property
    def run_id(self) -> str:
        """A readable, stable name: model, method, K, seed and a hash of all that is not at its default."""
        content = {"schema": SCHEMA, **self.non_defaults()}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        # A hub name holds a slash, which a file name cannot.
        return f"{self.model.replace('/', '--')}-{self.method}-k{self.num_augmented}-s{self.seed}-{digest}"

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        values = {name: getattr(self, name) for name in self.field_names()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def non_defaults(self) -> dict[str, Any]:
        """The fields that a name hashes, as JSON takes them: those that differ from their default of schema 1."""
        # In schema 1 texts had the defaults of images.
        usual = self.defaults(self.field_names()) | ImageRun.defaults(Run.field_names())
        return {name: value for name, value in self.to_dict().items() if getattr(self, name) != usual[name]}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def with_method(self, method: str, seed: int) -> Self:
        """This run trained by another method, with the fields that the method does not use at their defaults."""
        plan = METHODS[method]
        single = {"num_augmented": 1} if plan.is_single else {}
        return self.replace(method=method, seed=seed, **self.defaults(plan.unused), **single)

    # A report asks for them at each field of each of its thousands of runs.
    @classmethod
    @cache
    def field_names(cls) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def defaults(cls, names: Iterable[str]) -> dict[str, Any]:
        """The defaults of those of the named fields that runs of this type have."""
        return {field.name: field.default for field in dataclasses.fields(cls) if field.name in names}

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """A field, whether its value is allowed, and which values are; later rules rely on earlier ones.

        Fields that mean nothing for a run keep their defaults: one run has one name.
        """
        where, methods = f"for dataset={self.dataset!r}", methods_for(self.kind)
        yield "dataset", run_type(self.dataset) is type(self), f"a data set of {self.kind} for {type(self).__name__}"
        yield "method", self.method in methods, f"one of {', '.join(methods)} {where}"
        embedded, single = self.data.embedded, self.plan.is_single
        yield "profile", not embedded or self.profile != "paper", f"'mini' or 'reduced' {where}, made for the study"
        number = "1" if single else "at least 2"
        yield "num_augmented", single == (self.num_augmented == 1), f"{number} for method={self.method!r}"
        whole = f"0 (the whole batch) or below batch_size={self.batch_size}"
        yield "micro_batch", self.micro_batch < self.batch_size, whole
        fits = self.evals_per_epoch == 1 and self.total_epochs % self.epochs_per_eval == 0
        every = f"1, or with evals_per_epoch=1 a divisor of the {self.total_epochs} epochs"
        yield "epochs_per_eval", self.epochs_per_eval == 1 or fits, every
        for name, default in self.defaults(self.plan.unused).items():
            yield name, getattr(self, name) == default, f"{default!r} for method={self.method!r}, which does not use it"


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
        subset_seed: of the draw of `train_size`, `holdout` and `wrong_labels`.
        wrong_labels: share of the training images that get a wrong class, drawn at random.
        alpha: of `cvar`: the share of the views, those with the largest losses, that are weighed.
        rho: of `chi_square`: the radius of its ball, (1 / 2K) sum_k (K w_k - 1)^2 at most.
    """

    kind: ClassVar[str] = "images"

    dataset: str = "cifar10"
    model: str = "resnet20"
    num_augmented: Count = 10
    epochs: Count = 200
    lr: Positive = 0.1
    batch_size: Count = 128
    weight_decay: NotNegative = 5e-4
    decay_epochs: tuple[int, ...] = (60, 120, 160)
    augment: str = "crop_flip"
    original: Literal["clean", "augmented"] = "clean"
    redraw: bool = True
    shortcut: Literal["A", "B"] = "A"
    image_size: Side | None = None
    holdout: Natural = 0
    subset_seed: Natural = 0
    wrong_labels: Rate = 0.0
    alpha: Share = 0.5
    rho: Positive = 1.0

    @property
    def side(self) -> int:
        """Pixels of a side of a view."""
        return self.image_size or self.data.side

    @property
    def total_decay_epochs(self) -> tuple[int, ...]:
        """Epochs after which the learning rate actually falls."""
        return tuple(epoch * self.stretch for epoch in self.decay_epochs)

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        yield from super()._rules()
        data, where = self.data, f"for dataset={self.dataset!r}"
        yield "model", self.model in data.models, f"one of {', '.join(data.models)} {where}"
        if data.decoded_per_step:
            yield "augment", self.augment == "resized_crop_flip", f"'resized_crop_flip' {where}"
            yield "shortcut", self.shortcut == "A", f"'A' for model={self.model!r}, whose shortcuts are convolutions"
            yield "image_size", self.image_size != data.side, f"None for the size of dataset={self.dataset!r}"
        else:
            # Those two have a name of their own.
            transform = re.fullmatch(r"v2\.(?!RandAugment$|TrivialAugmentWide$)[A-Z]\w*", self.augment)
            names = f"one of {', '.join(SMALL_IMAGE_AUGMENTATIONS)}, v2.<Transform> {where}"
            yield "augment", bool(transform) or self.augment in SMALL_IMAGE_AUGMENTATIONS, names
            yield "image_size", self.image_size is None, f"None {where}, whose images have one size"
        yield "augment", self.dataset != "digits" or self.augment == "crop", f"'crop' {where}: a flipped 6 is no 6"
        ascending = all(a < b for a, b in pairwise((0, *self.decay_epochs, self.epochs)))
        yield "decay_epochs", ascending, f"positive, increasing and below epochs={self.epochs} (set both)"
        usual = self.base_loss == "cross_entropy"
        yield "base_loss", usual or self.method != "mmel_h", "'cross_entropy' for method='mmel_h' on images"
        chosen = self.lambda_t is None
        yield "holdout", not (self.holdout and chosen), "0 if lambda_t is None: it is chosen on held-out images"
        draws = self.train_size or self.holdout or self.wrong_labels
        yield "subset_seed", draws or not self.subset_seed, "0 without train_size, holdout and wrong_labels"


@dataclass(frozen=True, kw_only=True)
class TextRun(Run):
    """A run on text. The defaults are the paper's recipe for GLUE (Table 7).

    Attributes:
        model: of a Hugging Face encoder with a masked-LM head, see `mmel.study.models.encoder`.
        mask_ratio: share of the word pieces that Algorithm 2 replaces.
        fill: `greedy` (Algorithm 2) or `beam`.
        pair_mode: whether the sentences of a pair are augmented one by one (`separate`) or as one text (`joint`).
        label_source: of augmented texts: a teacher's output (`predicted`) or their example's label (`original`).
        hidden_dropout: of the encoder; None if it is chosen on seeds of its own, see `mmel.study.needs.candidates`.
        attention_dropout: of the attention probabilities, likewise.
    """

    kind: ClassVar[str] = "text"

    dataset: str = "cola"
    model: str = "bert-base-uncased"
    num_augmented: Count = 5
    epochs: Count = 10
    lr: Positive = 3e-5
    batch_size: Count = 32
    weight_decay: NotNegative = 0.0
    mask_ratio: Share = 0.4
    fill: Literal["greedy", "beam"] = "greedy"
    pair_mode: Literal["separate", "joint"] = "separate"
    label_source: Literal["predicted", "original"] = "predicted"
    hidden_dropout: Rate | None = 0.1
    attention_dropout: Rate | None = 0.1

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        yield from super()._rules()
        where = f"for dataset={self.dataset!r}"
        named = self.model not in IMAGE_MODELS and self.model.strip() == self.model != ""
        yield "model", named, f"a text encoder {where}"
        paired = (self.hidden_dropout is None) == (self.attention_dropout is None)
        yield "hidden_dropout", paired, f"chosen together with attention_dropout={self.attention_dropout!r}"
        yield "lambda_t", self.lambda_t is not None, "a number on text, for which the paper fixes it"
        yield "pair_mode", self.data.is_pair or self.pair_mode == "separate", f"'separate' {where}, which has no pairs"
        usual, classes = self.base_loss == "cross_entropy", self.label_source == "original" and self.method == "mmel_h"
        yield "base_loss", usual or not self.is_regression, f"'cross_entropy' {where}, whose targets are scores"
        yield "base_loss", usual or not classes, "'cross_entropy' for method='mmel_h' with label_source='original'"


def run_type(name: str) -> type[ImageRun] | type[TextRun]:
    """The type of the runs on a data set.

    Raises:
        ValueError: if there is no data set of that name.
    """
    return TextRun if isinstance(dataset(name), TextDataset) else ImageRun
