"""The tables and figures: one record for each, with its runs. Standard library only.

A new table is a record here, a run notebook and a plot notebook.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from mmel.study import lab
from mmel.study.config import ImageRun, Run, TextRun
from mmel.study.datasets import DATASETS, GLUE
from mmel.study.fields import PROFILES
from mmel.study.methods import methods_for
from mmel.study.needs import SELECTION_SEED, TEACHER_SEED, candidates, stage

SEEDS = {"mini": (0, 1), "reduced": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}
# The text encoder of each profile, unless another is named.
TINY_BERT = "tiny-bert"
TEXT_MODELS = {"mini": TINY_BERT, "reduced": "minilm-l6-mlm", "paper": "bert-base-uncased"}
MMEL = ("mmel_h", "mmel_s")
MASK_RATIOS = (0.2, 0.4)
NUM_AUGMENTED = (2, 5, 10, 20)
IMAGENET_RECIPE = {"epochs": 100, "decay_epochs": (30, 60, 90), "batch_size": 256, "augment": "resized_crop_flip"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or figure of the paper.

    Attributes:
        name: as commands and notebooks name it.
        title: as pages print it.
        about: what it compares, in a few words.
        shows: what a cell is.
        grid: its runs, from a profile and the name of a text encoder.
        kind: `images` or `text`.
        settings: fields of a run that tell its arm apart, beside the method, and their headings.
        splits: the evaluation sets that have rows of their own; () if it has one.
        borrowed: arms that the paper prints in another table: method -> table.
        notes: what a reader must know of it whatever is recorded.
    """

    name: str
    title: str
    about: str
    shows: str
    grid: Callable[[str, str], list[Run]]
    kind: str
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    splits: tuple[str, ...] = ()
    borrowed: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    def runs(self, profile: str, text_model: str | None = None) -> list[Run]:
        """The runs of the table, those first that choose a hyperparameter of others.

        Raises:
            ValueError: on a profile that does not exist.
        """
        if profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
        runs = self.grid(profile, text_model or TEXT_MODELS[profile])
        return list(dict.fromkeys([*(choice for run in runs for choice in candidates(run)), *runs]))

    def reported(self, profile: str, text_model: str | None = None) -> list[Run]:
        """The runs whose results the table shows: not those that choose a hyperparameter or check the precision."""
        runs = self.runs(profile, text_model)
        return [run for run in runs if run.seed != SELECTION_SEED and run.precision != "fp32"]

    def float32_checks(self, profile: str) -> list[Run]:
        """The runs that show the difference between bf16 and float32."""
        return [run for run in self.runs(profile) if run.precision == "fp32"]


def table1(profile: str, text_model: str) -> list[Run]:
    """Five methods on ResNets of several depths, K fixed."""
    methods = ("baseline_da", "baseline_da_long", "baseline_da_uni", *MMEL)
    runs = [run for base in _image_bases(profile) for method in methods for run in _seeded(base, method)]
    # One seed of each cell of `paper` in float32 too: bf16 is our choice. Baseline(DA+Long) takes too long for it.
    checks = [run for run in runs if run.profile == "paper" and run.seed == 0 and not run.plan.stretches]
    return runs + [run.replace(precision="fp32") for run in checks]


def table2(profile: str, text_model: str) -> list[Run]:
    """MMEL-H and MMEL-S for several K, beside Baseline(DA)."""
    runs: list[Run] = []
    for base in _image_bases(profile)[: 1 if profile == "mini" else None]:
        runs += _seeded(base, "baseline_da")
        for k, method in product(NUM_AUGMENTED, MMEL):
            runs += _seeded(base.replace(num_augmented=k), method)
    return runs


def table3(profile: str, text_model: str) -> list[Run]:
    """Six methods on the eight GLUE tasks."""
    # Scaled-down profiles save time on SMART, with its four passes a step, and on Baseline(DA+Long).
    smooth = {"mini": ("cola", "stsb"), "reduced": ("cola",)}.get(profile, GLUE)
    return [
        run
        for base in _text_bases(profile, text_model)
        for method in methods_for("text")
        for run in _seeded(base, method)
        if not (run.plan.smooth and run.data.task not in smooth) and not (run.plan.stretches and profile == "reduced")
    ]


def table4(profile: str, text_model: str) -> list[Run]:
    """Labels of augmented samples from the teacher, or from the example; the baseline beside them."""
    runs: list[Run] = []
    for base in _text_bases(profile, text_model, ("cola", "rte"), ("cola",)):
        runs += _seeded(base, "baseline")
        for source, method in product(("original", "predicted"), MMEL):
            runs += _seeded(base.replace(label_source=source), method)
    return runs


def table5(profile: str, text_model: str) -> list[Run]:
    """Three methods on ImageNet; one seed, as the paper's table has no deviations."""
    small = {"lr": 0.02, "batch_size": 16, "num_augmented": 5}
    if profile == "mini":
        grid = [("drawings", "resnet18_narrow")]
        scale = small | {"epochs": 8, "decay_epochs": (3, 5, 7)}
    elif profile == "reduced":
        grid = [("imagenette", "resnet18_narrow")]
        scale = small | {"epochs": 6, "decay_epochs": (2, 4, 5), "image_size": 64}
    else:
        grid, scale = [("imagenet", model) for model in ("resnet18", "resnet34", "resnet50")], {}
    return [
        ImageRun(**(IMAGENET_RECIPE | scale), profile=profile, dataset=name, model=model).with_method(method, 0)
        for name, model in grid
        for method in ("baseline_da", *MMEL)
    ]


def table6(profile: str, text_model: str) -> list[Run]:
    """Ways of generating augmented texts; one seed, as the paper's table has no deviations."""
    runs: list[Run] = []
    for base in _text_bases(profile, text_model, ("cola", "rte"), ("cola", "mrpc")):
        runs.append(base.with_method("baseline", TEACHER_SEED))
        # A single sentence has no second one to be separate from.
        modes = ("separate", "joint") if base.data.is_pair else ("separate",)
        for method, fill, mode, ratio in product(MMEL, ("greedy", "beam"), modes, MASK_RATIOS):
            runs.append(base.replace(fill=fill, pair_mode=mode, mask_ratio=ratio).with_method(method, TEACHER_SEED))
    return runs


def figure2(profile: str, text_model: str) -> list[Run]:
    """The runs of Table 3 without Baseline(DA+Long), whose steps are other steps."""
    return [run for run in table3(profile, text_model) if not run.plan.stretches]


_ACCURACY = "test accuracy in percent after the last epoch, mean ± std (n) over seeds"
_SCORES = "Matthews correlation for CoLA, Spearman correlation for STS-B, else accuracy"
_GRID = (
    "Rows, columns and cells that are missing or empty are not in this profile's grid. Avg is the mean of nine "
    "columns, MNLI's two among them, over the seeds that have all nine, and is shown only if they exist."
)
_INHERITED = (
    "Dropout, where it is chosen, is chosen for the arm with {} and taken over by the others, which favours the choice "
    "of the paper."
)

TABLES: dict[str, Table] = {
    each.name: each
    for each in (
        Table(name="table1", title="Table 1", about="five methods", shows=_ACCURACY, grid=table1, kind="images"),
        Table(
            name="table2",
            title="Table 2",
            about="MMEL with |B(x)| = K",
            shows=_ACCURACY,
            grid=table2,
            kind="images",
            settings={"num_augmented": "K"},
        ),
        Table(
            name="table3",
            title="Table 3",
            about="methods on text",
            shows=f"score in percent after the last epoch, mean ± std (n) over seeds ({_SCORES}; test: F1 for MRPC and "
            "QQP)",
            grid=table3,
            kind="text",
            splits=("dev", "test"),
            notes=(
                _GRID,
                "GLUE's test labels are not public: its server scores the files of `mmel report --glue-submission "
                "METHOD`. Until its scores are entered (`--glue-scores FILE`), the test part has only the paper's rows "
                "on the tasks themselves.",
                "Time is training alone, the median over seeds, summed over tasks: augmented texts and the teacher's "
                "outputs are made once, before it, and the teacher is the first run of Baseline. Contrasts are of the "
                "dev sets.",
                "The paper's numbers of SMART are quoted from Jiang et al. 2020; our runs are from their equations.",
            ),
        ),
        Table(
            name="table4",
            title="Table 4",
            about="labels of augmented texts: their example's, or a teacher's",
            shows=f"dev score in percent after the last epoch, mean ± std (n) over seeds ({_SCORES})",
            grid=table4,
            kind="text",
            settings={"label_source": "Labels"},
            borrowed={"baseline": "table3"},
            notes=(
                "The paper's rows with MMEL repeat single runs of its Table 6, its Baseline is Table 3's mean of five.",
                _INHERITED.format("a teacher's labels"),
            ),
        ),
        Table(name="table5", title="Table 5", about="three methods", shows=_ACCURACY, grid=table5, kind="images"),
        Table(
            name="table6",
            title="Table 6",
            about="ways of augmenting a text",
            shows=f"dev score in percent after the last epoch, one run (1) per cell ({_SCORES})",
            grid=table6,
            kind="text",
            settings={"fill": "Search", "pair_mode": "Pair", "mask_ratio": "Masked"},
            notes=(
                _GRID,
                "One run per cell: differences of a point or two are what seeds alone make, and no claim is decided "
                "here. A task of single sentences has no pair to join: its joint cells (†) repeat the separate ones, "
                "so that Avg exists. The paper prints such rows with other numbers (CoLA 62.8 and 61.8, MMEL-H, "
                "greedy, 0.4), which shows how much its runs scatter.",
                _INHERITED.format("greedy, separate, 0.4"),
            ),
        ),
        Table(
            name="figure2",
            title="Figure 2",
            about="dev score over training",
            shows=f"dev score in percent at each evaluation, mean and range over seeds ({_SCORES}; MNLI on its matched "
            "dev set)",
            grid=figure2,
            kind="text",
        ),
    )
}


LAB = Table(
    name="lab",
    title="The lab",
    about="weights against equal weights on small real data, many seeds",
    shows=_ACCURACY,
    grid=lab.grid,
    kind="images",
)
# All that can be trained: the paper's tables, and an experiment of our own.
GRIDS = TABLES | {"lab": LAB}


def runs_of(tables: Iterable[str], profile: str, text_model: str | None = None) -> dict[Run, str]:
    """The runs of several tables, each once, in the order of training, with the first table that has each.

    Raises:
        ValueError: on a table or profile that does not exist.
    """
    homes: dict[Run, str] = {}
    for name in tables:
        if name not in GRIDS:
            raise ValueError(f"table must be one of {', '.join(GRIDS)}, got {name!r}")
        for run in GRIDS[name].runs(profile, text_model):
            homes.setdefault(run, name)
    # Seed by seed: whenever a sweep stops, its records are as balanced as can be. The sort is stable.
    return {run: homes[run] for run in sorted(homes, key=lambda run: (stage(run), run.seed))}


def recipe(name: str) -> dict[str, Any]:
    """The fields of a run on a data set that differ from its type's defaults at paper scale (Tables 5 and 7).

    Raises:
        ValueError: if there is no data set of that name.
    """
    data = DATASETS.get(name)
    if name == "digits":
        return {"augment": "crop"}
    if data and data.name.startswith("grammar_"):
        return {"model": TINY_BERT} | recipe(data.task)
    if name in ("mnli", "qqp"):
        return {"epochs": 3}
    return {"model": "resnet18", **IMAGENET_RECIPE} if getattr(data, "decoded_per_step", False) else {}


def _seeded(base: Run, method: str) -> list[Run]:
    """A method's runs, one for each seed."""
    seeds = SEEDS[base.profile]
    # Eight tasks in `mini` are many runs. The paper trains Baseline(DA+Long) once, "which is slow in training"; so do
    # `reduced` and `paper`.
    once = base.is_text if base.profile == "mini" else method == "baseline_da_long"
    return [base.with_method(method, seed) for seed in seeds[: 1 if once else None]]


def _image_bases(profile: str) -> list[ImageRun]:
    """One run for each data set and model of Tables 1 and 2, still without method or seed."""
    scale: dict[str, Any] = {"epochs": 20, "decay_epochs": (6, 12, 16), "num_augmented": 5}
    if profile == "mini":
        scale |= {"train_size": 500, "batch_size": 64, "augment": "crop"}
        grid = [("digits", model) for model in ("resnet8", "resnet14")]
    elif profile == "reduced":
        # A balanced tenth of CIFAR-10 and a tenth of the epochs, the decays at the paper's fractions of training.
        scale |= {"train_size": 5000}
        grid = [("cifar10", "resnet20")]
    else:
        # Chosen on held-out images at paper scale alone.
        scale = {"lambda_t": None}
        models = ("resnet20", "resnet32", "resnet44", "resnet56")
        grid = [(name, model) for name in ("cifar10", "cifar100") for model in models]
    return [ImageRun(profile=profile, dataset=name, model=model, method="mmel_s", **scale) for name, model in grid]


def _text_bases(
    profile: str, text_model: str, mini: tuple[str, ...] = GLUE, reduced: tuple[str, ...] = ()
) -> list[TextRun]:
    """One run for each task of `mini`, `reduced` (() for all that it has) or GLUE, still without method or seed."""
    if profile == "mini":
        # Two layers trained from nothing in half a minute: many small steps, and nothing to regularize.
        scale = {"model": TINY_BERT, "lr": 1.5e-3, "batch_size": 16, "hidden_dropout": 0.0, "attention_dropout": 0.0}
        # Tasks on two sentences start late: in fewer epochs these four would show nothing but chance.
        late = {"cola": 8, "mnli": 12, "mrpc": 16, "rte": 16, "stsb": 20}
        tasks = {f"grammar_{name}": {"epochs": late.get(name, 5)} for name in mini}
    elif profile == "reduced":
        # A small model and a fraction of the data want a larger learning rate and more steps than Table 7's. After
        # three epochs on 2,000 sentences of CoLA the model still calls every sentence acceptable.
        scale = {"model": text_model, "lr": 1e-4, "batch_size": 16, "evals_per_epoch": 2}
        tasks = {"cola": {"train_size": 2000, "epochs": 6}}
        tasks |= {name: {"train_size": 1000, "epochs": 3} for name in ("mrpc", "stsb", "rte")}
        tasks = {name: tasks[name] for name in reduced or tasks}
    else:
        scale = {"model": text_model, "evals_per_epoch": 4, "hidden_dropout": None, "attention_dropout": None}
        tasks = {name: recipe(name) for name in GLUE}
    return [
        TextRun(profile=profile, dataset=name, method="mmel_s", **scale, **fields) for name, fields in tasks.items()
    ]
