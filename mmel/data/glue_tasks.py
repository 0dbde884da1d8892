"""What GLUE's eight tasks are: columns, labels, scores, sizes, and how their TSV files are laid out. No torch here."""

from dataclasses import dataclass

# Split -> TSV file, the hub's split.
SPLITS = {"train": ("train.tsv", "train"), "dev": ("dev.tsv", "validation"), "test": ("test.tsv", "test")}
SPLITS_MNLI = {
    "train": ("train.tsv", "train"),
    "dev": ("dev_matched.tsv", "validation_matched"),
    "dev_mm": ("dev_mismatched.tsv", "validation_mismatched"),
    "test": ("test_matched.tsv", "test_matched"),
    "test_mm": ("test_mismatched.tsv", "test_mismatched"),
}


@dataclass(frozen=True)
class GlueTask:
    """What a task asks.

    Attributes:
        name: the hub's name, or `grammar_` and that name.
        columns: the hub's name of the sentence column, or of both.
        labels: label words in the hub's integer order; empty for regression, whose scores run from 0 to 5.
        metric: what the dev score is: `matthews_pct`, `spearman_pct` or `accuracy_pct`.
        test_metric: what GLUE's test score is.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str = "accuracy_pct"
    test_metric: str = "accuracy_pct"

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
        """Outputs of a model for it: one a class, one in all for regression."""
        return len(self.labels) or 1


TASKS = {
    task.name: task
    for task in (
        GlueTask("cola", ("sentence",), ("unacceptable", "acceptable"), "matthews_pct", "matthews_pct"),
        GlueTask("sst2", ("sentence",), ("negative", "positive")),
        GlueTask("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), test_metric="f1_pct"),
        GlueTask("stsb", ("sentence1", "sentence2"), (), "spearman_pct", "spearman_pct"),
        GlueTask("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), test_metric="f1_pct"),
        GlueTask("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
        GlueTask("qnli", ("question", "sentence"), ("entailment", "not_entailment")),
        GlueTask("rte", ("sentence1", "sentence2"), ("entailment", "not_entailment")),
    )
}

# As on the hub; of the TSV files QQP's broken rows are not counted.
OFFICIAL_SIZES = {
    "cola": {"train": 8551, "dev": 1043, "test": 1063},
    "sst2": {"train": 67349, "dev": 872, "test": 1821},
    "mrpc": {"train": 3668, "dev": 408, "test": 1725},
    "stsb": {"train": 5749, "dev": 1500, "test": 1379},
    "qqp": {"train": 363846, "dev": 40430, "test": 390965},
    "mnli": {"train": 392702, "dev": 9815, "dev_mm": 9832, "test": 9796, "test_mm": 9847},
    "qnli": {"train": 104743, "dev": 5463, "test": 5463},
    "rte": {"train": 2490, "dev": 277, "test": 3000},
}


@dataclass(frozen=True)
class TaskFiles:
    """A task's TSV files: its folder, the columns that hold sentences and label, and the words for the classes.

    Attributes:
        columns: sentence columns by name.
        label: the label column.
        words: what the file says for each class, in the hub's integer order; empty for scores.
        header: the columns of train and dev where the file itself has no header line.
        skips_broken: whether rows that are short or lack their label are left out, as the hub leaves them out.
    """

    folder: str
    columns: tuple[str, ...]
    label: str
    words: tuple[str, ...] = ("0", "1")
    header: tuple[str, ...] = ()
    skips_broken: bool = False


_PAIR = ("sentence1", "sentence2")
FILES = {
    "cola": TaskFiles("CoLA", ("sentence",), "label", header=("source", "label", "mark", "sentence")),
    "sst2": TaskFiles("SST-2", ("sentence",), "label"),
    "mrpc": TaskFiles("MRPC", ("#1 String", "#2 String"), "Quality"),
    "stsb": TaskFiles("STS-B", _PAIR, "score", words=()),
    "qqp": TaskFiles("QQP", ("question1", "question2"), "is_duplicate", skips_broken=True),
    "mnli": TaskFiles("MNLI", _PAIR, "gold_label", words=TASKS["mnli"].labels),
    "qnli": TaskFiles("QNLI", ("question", "sentence"), "label", words=TASKS["qnli"].labels),
    "rte": TaskFiles("RTE", _PAIR, "label", words=TASKS["rte"].labels),
}
