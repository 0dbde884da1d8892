"""The data sets: one record for each, with all that the study knows of it. Standard library only.

A new data set is a record here and a loader that the record names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set.

    Attributes:
        name: as a run names it.
        label: as tables print it.
        loader: `module:function`, called with this record and the data root.
        sizes: examples of each official split.
        metric: score on the dev or test split by which a run is judged.
        embedded: whether it is made for, or embedded in, the study: never the paper's.
    """

    name: str
    label: str
    loader: str
    sizes: Mapping[str, int] = field(hash=False)
    metric: str = "accuracy_pct"
    embedded: bool = False

    def load(self, data_root: Any = None) -> Any:
        """Load it; the loader's docstring gives the types.

        Args:
            data_root: the folder of the data sets; None for MMEL_DATA, else ./data.
        """
        return resolve_name(self.loader)(self, data_root)

    def sampled(self, lengths: Mapping[str, int]) -> list[str]:
        """The splits, of those given with their lengths, that are not of the official size."""
        return [name for name, length in lengths.items() if length != self.sizes.get(name, length)]


@dataclass(frozen=True, kw_only=True)
class ImageDataset(Dataset):
    """Images of classes.

    Attributes:
        side: pixels of a side of a view.
        decoded_per_step: whether the images are files that are decoded step by step.
    """

    side: int
    decoded_per_step: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """Networks that take its images."""
        return IMAGENET_MODELS if self.decoded_per_step else CIFAR_MODELS


@dataclass(frozen=True, kw_only=True)
class TextDataset(Dataset):
    """A GLUE task, or its embedded miniature; the label of a task is also the name of its folder.

    Attributes:
        columns: of the sentence, or of both, in GLUE's files.
        label_column: in GLUE's files.
        labels: words for the classes in GLUE's files, in the order of the integers; none for scores from 0 to 5.
        header: columns of the train and dev files if these have no header line.
        test_metric: the score that GLUE's server gives.
        pieces: mean word pieces of an example, by bert-base-uncased's vocabulary.
    """

    columns: tuple[str, ...]
    label_column: str = "label"
    labels: tuple[str, ...] = ("0", "1")
    header: tuple[str, ...] = ()
    test_metric: str
    pieces: int

    @property
    def is_regression(self) -> bool:
        """Whether targets are scores, not classes."""
        return not self.labels

    @property
    def is_pair(self) -> bool:
        """Whether an example has two sentences."""
        return len(self.columns) == 2

    @property
    def num_outputs(self) -> int:
        """Outputs of a model for it: one for each class, or one score."""
        return len(self.labels) or 1

    @property
    def task(self) -> str:
        """The GLUE task: `cola` of `cola` and of `grammar_cola`."""
        return self.name.removeprefix("grammar_")


CIFAR_MODELS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56")
IMAGENET_MODELS = ("resnet18", "resnet34", "resnet50", "resnet18_narrow")
IMAGE_MODELS = (*CIFAR_MODELS, *IMAGENET_MODELS)
_ONE, _PAIR = ("sentence",), ("sentence1", "sentence2")
_STRINGS, _QUESTIONS = ("#1 String", "#2 String"), ("question1", "question2")
_COLA_HEADER = ("source", "label", "mark", "sentence")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")


def _images(name: str, label: str, loader: str, train: int, test: int, side: int, **more: Any) -> ImageDataset:
    sizes = {"train": train, "val" if more.get("decoded_per_step") else "test": test}
    return ImageDataset(name=name, label=label, loader=f"mmel.study.data.{loader}", sizes=sizes, side=side, **more)


def _glue(
    name: str, label: str, sizes: tuple[int, ...], pieces: int, columns: tuple[str, ...], **more: Any
) -> TextDataset:
    splits = ("train", "dev", "dev_mm", "test", "test_mm") if name == "mnli" else ("train", "dev", "test")
    return TextDataset(
        name=name,
        label=label,
        loader="mmel.study.data.glue:load",
        sizes=dict(zip(splits, sizes, strict=True)),
        pieces=pieces,
        columns=columns,
        **{"test_metric": more.get("metric", "accuracy_pct"), **more},
    )


_IMAGES = (
    _images("cifar10", "CIFAR-10", "image_sets:load_cifar", 50_000, 10_000, 32),
    _images("cifar100", "CIFAR-100", "image_sets:load_cifar", 50_000, 10_000, 32),
    _images("digits", "Digits", "image_sets:load_digits", 1_437, 360, 8, embedded=True),
    _images("imagenet", "ImageNet", "image_sets:load_imagenet", 1_281_167, 50_000, 224, decoded_per_step=True),
    _images("imagenette", "Imagenette", "image_sets:load_imagenet", 9_469, 3_925, 224, decoded_per_step=True),
    _images("drawings", "Drawings", "drawings:load", 480, 240, 64, decoded_per_step=True, embedded=True),
)
# The tasks of the paper's tables; another text task stands beside them in DATASETS. Sizes are the hub's, which leaves
# out QQP's broken rows.
_GLUE = (
    _glue("cola", "CoLA", (8551, 1043, 1063), 11, _ONE, header=_COLA_HEADER, metric="matthews_pct"),
    _glue("sst2", "SST-2", (67349, 872, 1821), 13, _ONE),
    _glue("mrpc", "MRPC", (3668, 408, 1725), 53, _STRINGS, label_column="Quality", test_metric="f1_pct"),
    _glue("stsb", "STS-B", (5749, 1500, 1379), 28, _PAIR, label_column="score", labels=(), metric="spearman_pct"),
    _glue("qqp", "QQP", (363846, 40430, 390965), 31, _QUESTIONS, label_column="is_duplicate", test_metric="f1_pct"),
    _glue("mnli", "MNLI", (392702, 9815, 9832, 9796, 9847), 40, _PAIR, label_column="gold_label", labels=_NLI),
    _glue("qnli", "QNLI", (104743, 5463, 5463), 49, ("question", "sentence"), labels=_ENTAILMENT),
    _glue("rte", "RTE", (2490, 277, 3000), 67, _PAIR, labels=_ENTAILMENT),
)
# Sentences of a small grammar. The mismatched splits come last, since no example is in two splits.
_SIZES = {"train": 400, "dev": 300, "test": 300}
_SIZES_MNLI = _SIZES | {"dev_mm": 300, "test_mm": 300}
_MINIATURES = tuple(
    replace(
        task,
        name=f"grammar_{task.name}",
        label=f"{task.label} (miniature)",
        loader="mmel.study.data.grammar:load",
        sizes=_SIZES_MNLI if task.name == "mnli" else _SIZES,
        pieces=17,
        embedded=True,
    )
    for task in _GLUE
)

DATASETS: dict[str, ImageDataset | TextDataset] = {each.name: each for each in (*_IMAGES, *_GLUE, *_MINIATURES)}
GLUE = tuple(task.name for task in _GLUE)


def dataset(name: str) -> ImageDataset | TextDataset:
    """The record of a data set.

    Raises:
        ValueError: if there is none of that name.
    """
    # A damaged record may hold anything.
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name]
