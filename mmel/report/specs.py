"""The facts about tables and data sets that the report alone needs: plain data, no logic."""

from dataclasses import dataclass, field

from mmel.names import GLUE_DATASETS

_GLUE_LABELS = dict(zip(GLUE_DATASETS, ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE"), strict=True))
DATASET_LABELS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "digits": "Digits",
    "imagenet": "ImageNet",
    "imagenette": "Imagenette",
    "drawings": "Drawings",
    **_GLUE_LABELS,
}
# The columns of a GLUE table: MNLI has two dev sets, and Avg is the mean of the nine before it.
_COLUMN_ORDER = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli_mm", "qnli", "rte")
COLUMNS = {name: {**_GLUE_LABELS, "mnli": "MNLI-m", "mnli_mm": "MNLI-mm"}[name] for name in _COLUMN_ORDER}
AVERAGE = "avg"
METRIC_LABELS = {
    "accuracy_pct": "accuracy (%)",
    "matthews_pct": "Matthews corr. (%)",
    "spearman_pct": "Spearman corr. (%)",
}
# Okabe and Ito's colours, which stay apart for colour-blind readers.
METHOD_COLORS = {
    "baseline": "#7f7f7f",
    "baseline_da": "#7f7f7f",
    "baseline_da_long": "#56b4e9",
    "baseline_da_uni": "#0072b2",
    "mmel_h": "#d55e00",
    "mmel_s": "#009e73",
}


@dataclass(frozen=True)
class Kind:
    """What tables on images, or on texts, have in common.

    Attributes:
        place: headings of where a contrast is made: within a data set and model, or within a task.
        baseline: the method that times are compared with.
        examples: what it is evaluated on.
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


IMAGES = Kind(("Data set", "Model"), "baseline_da", "test images", 2, "-", True, "table1")
TEXTS = Kind(("Task",), "baseline", "dev texts", 1, ", ", False, "table3")


@dataclass(frozen=True)
class TableSpec:
    """One table or figure of the study.

    Attributes:
        title: start of its caption.
        kind: of its data.
        shows: what a cell is.
        settings: fields of a run that tell its arm apart, beside the method, and their headings.
        splits: the evaluation sets that have rows of their own; () if it has one.
        borrowed: arms that the paper prints in another table: method -> table.
        pooled: whether its claims are about all pairs of arms that differ in one setting.
        notes: what a reader must know of this table whatever is recorded.
    """

    title: str
    kind: Kind
    shows: str
    settings: dict[str, str]
    splits: tuple[str, ...] = ()
    borrowed: dict[str, str] = field(default_factory=dict)
    pooled: bool = False
    notes: tuple[str, ...] = ()


_ACCURACY = "test accuracy in percent after the last epoch, mean ± std (n) over seeds"
_SCORES = "Matthews correlation for CoLA, Spearman correlation for STS-B, else accuracy"
_GRID = (
    "Rows, columns and cells that are missing or empty are not in this profile's grid. Avg is the mean of nine "
    "columns, MNLI's two among them, over the seeds that have all nine, and is shown only if they exist."
)

TABLES = {
    "table1": TableSpec("Table 1 (five methods)", IMAGES, _ACCURACY, {}),
    "table2": TableSpec("Table 2 (MMEL with |B(x)| = K)", IMAGES, _ACCURACY, {"num_augmented": "K"}),
    "table3": TableSpec(
        "Table 3 (methods on text)",
        TEXTS,
        f"score in percent after the last epoch, mean ± std (n) over seeds ({_SCORES}; test: F1 for MRPC and QQP)",
        {},
        splits=("dev", "test"),
        notes=(
            _GRID,
            "GLUE's test labels are not public: its server scores the files of `mmel report --glue-submission METHOD`, "
            "so on the tasks themselves the test part has the paper's rows alone.",
            "Time is training alone, the median over seeds, summed over tasks: augmented texts and the teacher's "
            "outputs are made once, before it, and the teacher is the first run of Baseline. SMART is quoted as the "
            "paper quotes it. Contrasts are of the dev sets. Times on CPU cores that other work shared, as of the "
            "committed `reduced` runs, are no measure of cost.",
        ),
    ),
    "table4": TableSpec(
        "Table 4 (labels of augmented texts: their example's, or a teacher's)",
        TEXTS,
        f"dev score in percent after the last epoch, mean ± std (n) over seeds ({_SCORES})",
        {"label_source": "Labels"},
        borrowed={"baseline": "table3"},
        notes=(
            "The paper's rows with MMEL repeat single runs of its Table 6, its Baseline is Table 3's mean of five.",
        ),
    ),
    "table5": TableSpec("Table 5 (three methods)", IMAGES, _ACCURACY, {}),
    "table6": TableSpec(
        "Table 6 (ways of augmenting a text)",
        TEXTS,
        f"dev score in percent after the last epoch, one run (1) per cell ({_SCORES})",
        {"fill": "Search", "pair_mode": "Pair", "mask_ratio": "Masked"},
        pooled=True,
        notes=(
            _GRID,
            "One run per cell: differences of a point or two are what seeds alone make, and no claim is decided here. "
            "A task of single sentences has no pair to join; the paper prints such rows all the same, and how they "
            "differ from the separate ones (CoLA 62.8 and 61.8, MMEL-H, greedy, 0.4) shows how much its runs scatter.",
        ),
    ),
    "figure2": TableSpec(
        "Figure 2 (dev score over training)",
        TEXTS,
        f"dev score in percent at each evaluation, mean and range over seeds ({_SCORES}; MNLI on its matched dev set)",
        {},
    ),
}
