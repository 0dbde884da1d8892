"""How tables on images and on texts are laid out, and the labels of what stands in them."""

from dataclasses import dataclass

from mmel.study.datasets import DATASETS, GLUE
from mmel.study.methods import METHODS

# The columns of a GLUE table: MNLI has two dev sets, and Avg is the mean of the nine before it.
COLUMNS = {
    name + suffix: DATASETS[name].label + mark
    for name in GLUE
    for suffix, mark in ((("", "-m"), ("_mm", "-mm")) if "dev_mm" in DATASETS[name].sizes else (("", ""),))
}
AVERAGE = "avg"
METHOD_LABELS = {name: method.label for name, method in METHODS.items()}
METRIC_LABELS = {
    "accuracy_pct": "accuracy (%)",
    "matthews_pct": "Matthews corr. (%)",
    "spearman_pct": "Spearman corr. (%)",
}


@dataclass(frozen=True)
class Layout:
    """How tables on one kind of data are laid out.

    Attributes:
        place: headings of a place.
        baseline: the method that times are compared with.
        examples: of the evaluation.
        decimals: of the paper's scores.
        joiner: between a method and its settings, in the name of an arm.
        arms_across: whether arms are columns and places rows, or the other way round.
        times: the table of the paper whose time column stands beside ours.
    """

    place: tuple[str, ...]
    baseline: str
    examples: str
    decimals: int
    joiner: str
    arms_across: bool
    times: str


LAYOUTS = {
    "images": Layout(("Data set", "Model"), "baseline_da", "test images", 2, "-", True, "table1"),
    "text": Layout(("Task",), "baseline", "dev texts", 1, ", ", False, "table3"),
}
