"""The runs behind each table: profile -> list of RunConfig. Standard library only."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmel.config import RunConfig
from mmel.names import (
    CHOSEN_DROPOUT,
    CHOSEN_LAMBDA_T,
    ENCODED_IMAGE_SIZES,
    GLUE_DATASETS,
    IMAGE_METHODS,
    PROFILES,
    TEXT_METHODS,
)
from mmel.prerequisites import (
    DROPOUT_CANDIDATES,
    SELECTION_SEED,
    TEACHER_SEED,
    candidates,
    is_teacher,
    needs,
    stage,
    teacher_of,
    with_method,
)

# Who plans or reads the runs of a table asks for what they need as well.
__all__ = [
    "DROPOUT_CANDIDATES",
    "PAPER_TEXT_MODEL",
    "SELECTION_SEED",
    "TABLES",
    "TEACHER_SEED",
    "TINY_BERT",
    "candidates",
    "float32_checks",
    "is_teacher",
    "needs",
    "recipe",
    "reported",
    "runs_of",
    "teacher_of",
    "text_model",
    "with_method",
]

SEEDS = {"mini": (0, 1), "reduced": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}
# The embedded text encoder, and the one of `reduced`; MMEL_TEXT_MODEL names another than the profile's.
TINY_BERT = "tiny-bert"
REDUCED_TEXT_MODEL = "minilm-l6-mlm"
PAPER_TEXT_MODEL = "bert-base-uncased"

IMAGENET_METHODS = ("baseline_da", "mmel_h", "mmel_s")
PAPER_IMAGENET_MODELS = ("resnet18", "resnet34", "resnet50")
PAPER_IMAGE_MODELS = ("resnet20", "resnet32", "resnet44", "resnet56")
MASK_RATIOS = (0.2, 0.4)


def table1(profile: str) -> list[RunConfig]:
    """Table 1: five methods on ResNets of several depths, K fixed."""
    runs: list[RunConfig] = []
    for base in _image_bases(profile):
        for method in IMAGE_METHODS:
            runs += _with_selection([with_method(base, method, seed) for seed in _seeds(profile, method)])
    return runs + _float32_checks(runs)


def table2(profile: str) -> list[RunConfig]:
    """Table 2: MMEL-H and MMEL-S for several K, beside Baseline(DA)."""
    bases = _image_bases(profile)
    if profile == "mini":
        bases = bases[:1]
    runs: list[RunConfig] = []
    for base in bases:
        runs += [with_method(base, "baseline_da", seed) for seed in SEEDS[profile]]
        for k in (2, 5, 10, 20):
            for method in ("mmel_h", "mmel_s"):
                wider = base.replace(num_augmented=k)
                runs += _with_selection([with_method(wider, method, seed) for seed in SEEDS[profile]])
    # One choice of lambda_t serves every K.
    return list(dict.fromkeys(runs))


def table3(profile: str) -> list[RunConfig]:
    """Table 3: five methods on the eight GLUE tasks."""
    runs: list[RunConfig] = []
    for base in _text_bases(profile):
        for method in TEXT_METHODS:
            # Nothing in `reduced` shows five times the steps; two hours of CPU are what it is made for.
            if method == "baseline_da_long" and profile == "reduced":
                continue
            runs += _with_selection([with_method(base, method, seed) for seed in _text_seeds(profile, method)])
    return runs


def table4(profile: str) -> list[RunConfig]:
    """Table 4: labels of augmented samples from the teacher, or from the example; the baseline beside them."""
    datasets = {"mini": ("grammar_cola", "grammar_rte"), "reduced": ("cola",), "paper": GLUE_DATASETS}[profile]
    runs: list[RunConfig] = []
    for base in _text_bases(profile, datasets):
        runs += _with_selection([with_method(base, "baseline", seed) for seed in _text_seeds(profile)])
        for source in ("original", "predicted"):
            for method in ("mmel_h", "mmel_s"):
                labelled = base.replace(label_source=source)
                runs += _with_selection([with_method(labelled, method, seed) for seed in _text_seeds(profile)])
    # One choice of dropout rates serves both sources of labels.
    return list(dict.fromkeys(runs))


def table5(profile: str) -> list[RunConfig]:
    """Table 5: three methods on ImageNet; one seed, as the paper's table has no deviations."""
    if profile == "mini":
        scale = {"epochs": 8, "decay_epochs": (3, 5, 7), "lr": 0.02, "batch_size": 16, "num_augmented": 5}
        grid = [("drawings", "resnet18_narrow")]
    elif profile == "reduced":
        scale = {
            "epochs": 6,
            "decay_epochs": (2, 4, 5),
            "lr": 0.02,
            "batch_size": 16,
            "num_augmented": 5,
            "image_size": 64,
        }
        grid = [("imagenette", "resnet18_narrow")]
    else:
        scale = {}
        grid = [("imagenet", model) for model in PAPER_IMAGENET_MODELS]
    return [
        with_method(
            RunConfig(**(recipe(dataset) | {"model": model} | scale), profile=profile, dataset=dataset), method, seed
        )
        for dataset, model in grid
        for method in IMAGENET_METHODS
        for seed in SEEDS[profile][:1]
    ]


def table6(profile: str) -> list[RunConfig]:
    """Table 6: ways of generating augmented texts; one seed, as the paper's table has no deviations."""
    datasets = {"mini": ("grammar_cola", "grammar_rte"), "reduced": ("cola", "mrpc"), "paper": GLUE_DATASETS}[profile]
    runs: list[RunConfig] = []
    for base in _text_bases(profile, datasets):
        runs += _with_selection([with_method(base, "baseline", TEACHER_SEED)])
        for method in ("mmel_h", "mmel_s"):
            for fill in ("greedy", "beam"):
                for pair_mode in ("separate", "joint"):
                    for ratio in MASK_RATIOS:
                        # A single sentence has no second one to be separate from.
                        if pair_mode == "joint" and base.dataset.removeprefix("grammar_") in ("cola", "sst2"):
                            continue
                        varied = base.replace(fill=fill, pair_mode=pair_mode, mask_ratio=ratio)
                        runs += _with_selection([with_method(varied, method, TEACHER_SEED)])
    return list(dict.fromkeys(runs))


def figure2(profile: str) -> list[RunConfig]:
    """Figure 2: the runs of Table 3 without Baseline(DA+Long), whose steps are other steps."""
    return [run for run in table3(profile) if run.method != "baseline_da_long"]


TABLES: dict[str, Callable[[str], list[RunConfig]]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "figure2": figure2,
}


def runs_of(tables: list[str], profile: str) -> list[RunConfig]:
    """The runs of several tables, each once, in the order in which they should be trained.

    Raises:
        ValueError: on a table or profile that does not exist.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    unknown = [table for table in tables if table not in TABLES]
    if unknown:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, got {', '.join(unknown)}")
    runs = [run for table in tables for run in TABLES[table](profile)]
    # Seed by seed: whenever a sweep stops, what is there is as balanced as it can be. The sort is stable.
    return sorted(dict.fromkeys(runs), key=lambda run: (stage(run), run.seed))


def reported(table: str, profile: str) -> list[RunConfig]:
    """The runs of a table whose results it shows: not those that choose a hyperparameter or check the precision."""
    return [run for run in TABLES[table](profile) if run.seed != SELECTION_SEED and not _checks_precision(run)]


def float32_checks(table: str, profile: str) -> list[RunConfig]:
    """The runs of a table that are there to show what bf16 changes."""
    return [run for run in TABLES[table](profile) if _checks_precision(run)]


def recipe(dataset: str) -> dict[str, Any]:
    """The fields of a run on `dataset` that differ from RunConfig's defaults at paper scale (Table 7 for text)."""
    if dataset in ENCODED_IMAGE_SIZES:
        # Table 5's; what is not here "follows section 4.1", which is RunConfig's defaults.
        augment = {"augment": "resized_crop_flip"}
        return {"model": "resnet18", "epochs": 100, "decay_epochs": (30, 60, 90), "batch_size": 256, **augment}
    name = dataset.removeprefix("grammar_")
    if name not in GLUE_DATASETS:
        return {"augment": "crop"} if dataset == "digits" else {}
    return {
        "model": PAPER_TEXT_MODEL,
        "num_augmented": 5,
        "lr": 3e-5,
        "batch_size": 32,
        "weight_decay": 0.0,
        "epochs": 3 if name in ("mnli", "qqp") else 10,
    }


def text_model(default: str) -> str:
    """The encoder that MMEL_TEXT_MODEL names, a hub name or a folder; a run carries the folder's name, not its path."""
    named = os.environ.get("MMEL_TEXT_MODEL")
    if not named:
        return default
    return Path(named).resolve().name if Path(named).is_dir() else named


def _seeds(profile: str, method: str) -> tuple[int, ...]:
    # The paper trains Baseline(DA+Long) once, "which is slow in training"; so do `reduced` and `paper`.
    return SEEDS[profile][:1] if method == "baseline_da_long" and profile != "mini" else SEEDS[profile]


def _text_seeds(profile: str, method: str = "") -> tuple[int, ...]:
    """As for images, but one seed in `mini`: eight tasks are many runs."""
    return SEEDS["mini"][:1] if profile == "mini" else _seeds(profile, method)


def _with_selection(runs: list[RunConfig]) -> list[RunConfig]:
    """`runs`, preceded by those that choose what they leave to be chosen."""
    return [*dict.fromkeys(choice for run in runs for choice in candidates(run)), *runs]


def _checks_precision(run: RunConfig) -> bool:
    return run.precision == "fp32"


def _float32_checks(runs: list[RunConfig]) -> list[RunConfig]:
    """One seed of each cell of `paper` in float32 too: bf16 is our choice on GPUs, and this shows what it changes.

    Baseline(DA+Long), with K times the epochs, is left out.
    """
    return [
        run.replace(precision="fp32")
        for run in runs
        if (run.profile, run.seed) == ("paper", SEEDS["paper"][0]) and run.method != "baseline_da_long"
    ]


def _image_bases(profile: str) -> list[RunConfig]:
    """One configuration for each data set and model of Tables 1 and 2, still without method or seed."""
    if profile == "mini":
        scale = {
            "train_size": 500,
            "batch_size": 64,
            "epochs": 20,
            "decay_epochs": (6, 12, 16),
            "augment": "crop",
            "num_augmented": 5,
        }
        grid = [("digits", model) for model in ("resnet8", "resnet14")]
    elif profile == "reduced":
        # A balanced tenth of CIFAR-10 and a tenth of the epochs, the decays at the paper's fractions of training.
        scale = {"epochs": 20, "decay_epochs": (6, 12, 16), "train_size": 5000, "num_augmented": 5}
        grid = [("cifar10", "resnet20")]
    else:
        scale = {}
        grid = [(dataset, model) for dataset in ("cifar10", "cifar100") for model in PAPER_IMAGE_MODELS]
    # lambda_t is chosen on held-out images at paper scale alone; 0 stands for that.
    lambda_t = CHOSEN_LAMBDA_T if profile == "paper" else 1.0
    return [
        RunConfig(profile=profile, dataset=dataset, model=model, method="mmel_s", lambda_t=lambda_t, **scale)
        for dataset, model in grid
    ]


def _text_bases(profile: str, datasets: tuple[str, ...] = ()) -> list[RunConfig]:
    """One configuration for each task of Table 3, or for some of them, still without method or seed."""
    if profile == "mini":
        # Two layers trained from nothing in half a minute: many small steps, and nothing to regularize.
        scale = {"model": TINY_BERT, "lr": 1.5e-3, "batch_size": 16}
        scale |= {"hidden_dropout": 0.0, "attention_dropout": 0.0}
        sizes = {f"grammar_{name}": 0 for name in GLUE_DATASETS}
        # What compares two sentences gets going late: in fewer epochs these four would show nothing but chance.
        epochs = dict.fromkeys(sizes, 5) | {"grammar_cola": 8, "grammar_mnli": 12}
        epochs |= {"grammar_mrpc": 16, "grammar_rte": 16, "grammar_stsb": 20}
    elif profile == "reduced":
        # A small model and a fraction of the data want a larger learning rate and more steps than Table 7's.
        scale = {"model": text_model(REDUCED_TEXT_MODEL), "lr": 1e-4, "batch_size": 16, "evals_per_epoch": 2}
        sizes = {"cola": 2000, "mrpc": 1000, "stsb": 1000, "rte": 1000}
        # After three epochs on 2,000 sentences of CoLA that model still calls every sentence acceptable.
        epochs = {"cola": 6, "mrpc": 3, "stsb": 3, "rte": 3}
    else:
        chosen = {"hidden_dropout": CHOSEN_DROPOUT, "attention_dropout": CHOSEN_DROPOUT}
        scale = {"model": text_model(PAPER_TEXT_MODEL), "evals_per_epoch": 4, **chosen}
        sizes = dict.fromkeys(GLUE_DATASETS, 0)
        epochs = {name: recipe(name)["epochs"] for name in sizes}
    return [
        RunConfig(
            **(recipe(dataset) | scale | {"epochs": epochs[dataset]}),
            profile=profile,
            dataset=dataset,
            method="mmel_s",
            train_size=size,
        )
        for dataset, size in sizes.items()
        if not datasets or dataset in datasets
    ]
