"""RunConfig: everything that decides what one training run computes, validated, with a stable name.

Standard library only, so that planning a thousand runs imports nothing heavy.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmel.checks import check
from mmel.names import (
    CHOSEN_DROPOUT,
    CHOSEN_LAMBDA_T,
    DATASETS,
    ENCODED_IMAGE_SIZES,
    GLUE_DATASETS,
    IMAGE_METHODS,
    ONE_VIEW_METHODS,
    PROFILES,
    REGRESSION_DATASETS,
    TEXT_DATASETS,
    TEXT_METHODS,
)

# What most who plan or report runs want is a configuration and some of the names that stand in it.
__all__ = [
    "CHOSEN_DROPOUT",
    "CHOSEN_LAMBDA_T",
    "DATASETS",
    "ENCODED_IMAGE_SIZES",
    "GLUE_DATASETS",
    "IMAGE_METHODS",
    "PROFILES",
    "SCHEMA",
    "TEXT_DATASETS",
    "TEXT_METHODS",
    "RunConfig",
    "field_names",
    "parse_field",
]

# Raised whenever a default below, or what a field means, changes: old records then keep their old names.
SCHEMA = 1
# The types of a notebook's parameters, and what IPython has under such types without an underscore.
PLAIN_TYPES = (bool, int, float, str, list, tuple, dict, type(None))
IPYTHON_NAMES = ("In", "Out")


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
            runs that `mmel.prerequisites.candidates` lists.
        base_loss: `cross_entropy` or `kl` against classes and probabilities (scores have the squared error): with `kl`
            what cannot be avoided of a loss, the entropy of its target, weighs nothing in P*.
        target_gradient: let MMEL-S' gradient flow through its soft target f(x) too.
        epochs: passes over the training set (before `baseline_da_long` stretches them).
        lr: initial learning rate; of SGD with steps for images, of AdamW with linear decay to 0 for text.
        decay_epochs: epochs after which the learning rate is multiplied by `lr_decay`.
        lr_decay: the factor.
        batch_size: N, originals a step.
        momentum: of SGD.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: on every parameter.
        augment: name of the image augmentation, see `mmel.augment.image.build_augmentation`; for small images also
            `v2.` and the name of a transform of torchvision.transforms.v2, which follows crop and flip.
        original: whether index 0 of B(x) is x itself (`clean`) or one more random view (`augmented`).
        redraw: draw the augmentations anew each epoch; False draws B(x) once, as Algorithm 1 is written.
        drop_last: drop the partial batch that ends an epoch.
        shortcut: of the CIFAR ResNet, `A` or `B`.
        image_size: pixels of a side of the views of `imagenet`, `imagenette` and `drawings`; 0 for 224, for `drawings`
            64.
        train_size: examples in a fixed subset of the training set, classes balanced (on text: in proportion); 0 for
            all.
        holdout: training images held out and evaluated on in place of the test set; 0 for none.
        precision: `bf16` (autocast), `fp32`, or `auto`: the faster of the two on the device at hand, which a short
            probe tells (`mmel.train.precision`) and the record says.
        micro_batch: originals that go through the network at once; 0 for the whole batch. A smaller one changes
            what BatchNorm sees.
        sync_batch_norm: where several processes share a run on GPUs, BatchNorm over the whole batch rather than over
            each one's share.
        evals_per_epoch: evaluations, evenly spaced, in each epoch.
        max_length: word pieces to which a text is cut, special ones included.
        mask_ratio: share of the word pieces that Algorithm 2 replaces.
        fill: `greedy` (Algorithm 2) or `beam`.
        beam_width: of the beam search; 0 for K - 1.
        pair_mode: whether the sentences of a pair are augmented by themselves (`separate`) or as one (`joint`).
        augment_seed: of the positions that Algorithm 2 replaces; the same for all runs, which share the samples.
        label_source: whether augmented texts take a teacher's output (`predicted`) or the example's label
            (`original`).
        threshold: on scores, how far f(x) and the teacher may differ before MMEL-S takes the teacher's.
        hidden_dropout: of the encoder; -1 stands for "chosen on seeds of their own", see
            `mmel.prerequisites.candidates`.
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
    base_loss: str = "cross_entropy"
    target_gradient: bool = False
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
    precision: str = "auto"
    micro_batch: int = 0
    sync_batch_norm: bool = False
    evals_per_epoch: int = 1
    max_length: int = 128
    mask_ratio: float = 0.4
    fill: str = "greedy"
    beam_width: int = 0
    pair_mode: str = "separate"
    augment_seed: int = 0
    label_source: str = "predicted"
    threshold: float = 0.5
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name), field.default))
        check(self)

    @property
    def is_text(self) -> bool:
        """Whether the data set is text; else it is images."""
        return self.dataset in TEXT_DATASETS

    @property
    def is_regression(self) -> bool:
        """Whether the targets are scores, not classes."""
        return self.dataset in REGRESSION_DATASETS

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
        """The configuration that a notebook's parameters spell out, in the notebook's `globals()`.

        papermill only logs a parameter that the notebook does not have. So a number, text or list under another name is
        refused, until the notebook holds a configuration: the names that a person adds after that are left alone.

        Raises:
            ValueError: if there is such a name, or as the class does.
        """
        known = field_names()
        if not any(isinstance(value, cls) for value in namespace.values()):
            unknown = [
                name
                for name, value in namespace.items()
                if name not in (*known, *IPYTHON_NAMES) and not name.startswith("_") and isinstance(value, PLAIN_TYPES)
            ]
            if unknown:
                names = ", ".join(unknown)
                raise ValueError(f"unknown parameter(s) {names} (mended? `del {names}`); a run has {', '.join(known)}")
        return cls(**{name: namespace[name] for name in known if name in namespace})


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
