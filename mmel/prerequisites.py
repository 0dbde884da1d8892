"""What a run cannot do without: its teacher, and the runs that choose its hyperparameters. Standard library only."""

from typing import Any

from mmel.config import RunConfig
from mmel.names import AUGMENTED_TEXT_FIELDS, CHOSEN_DROPOUT, CHOSEN_LAMBDA_T, SOFT_FIELDS

# Seeds of the runs that choose a hyperparameter, apart from those whose results are reported.
SELECTION_SEED = 1000
LAMBDA_T_CANDIDATES = (0.5, 1.0, 2.0)
DROPOUT_CANDIDATES = (0.0, 0.1)
HOLDOUT = 5000
TEACHER_SEED = 0


def with_method(base: RunConfig, method: str, seed: int) -> RunConfig:
    """`base` trained by `method`, with the fields that the method does not have at their neutral value."""
    absent = () if method == "mmel_s" else SOFT_FIELDS
    if method not in ("mmel_h", "mmel_s"):
        absent += ("lambda_p", "base_loss")
    if method == "baseline":
        absent += AUGMENTED_TEXT_FIELDS
    single = {"num_augmented": 1} if method in ("baseline", "baseline_da") else {}
    return base.replace(method=method, seed=seed, **_defaults(absent), **single)


def teacher_of(config: RunConfig) -> RunConfig | None:
    """The run whose network labels the augmented texts of `config`; None where none does."""
    if not config.is_text or config.method == "baseline" or config.label_source == "original":
        return None
    dropout = {"hidden_dropout": CHOSEN_DROPOUT, "attention_dropout": CHOSEN_DROPOUT} if _chooses(config) else {}
    return with_method(config, "baseline", TEACHER_SEED).replace(**dropout)


def is_teacher(config: RunConfig) -> bool:
    """Whether other runs may need the network of this one: a text baseline of the teachers' seed."""
    return config.is_text and config.method == "baseline" and config.seed == TEACHER_SEED


def candidates(config: RunConfig) -> list[RunConfig]:
    """The runs that choose what `config` leaves to be chosen, each with a value in its place; [] where nothing is.

    `lambda_t` (section 4.1): {0.5, 1, 2}, K = 10, by the accuracy on 5,000 training images held out. The two dropout
    rates (Table 7): {0, 0.1} each, by the dev score, once for each task and method whatever Table 4 or 6 varies. Both
    on a seed of their own.
    """
    if config.lambda_t == CHOSEN_LAMBDA_T:
        base = config.replace(method="mmel_s", num_augmented=10, seed=SELECTION_SEED, lambda_t=1.0, holdout=HOLDOUT)
        # A run that checks the precision takes the value that the runs it is compared with take.
        base = base.replace(**_defaults(("precision",)))
        return [base.replace(lambda_t=value) for value in LAMBDA_T_CANDIDATES]
    if config.hidden_dropout == CHOSEN_DROPOUT:
        base = config.replace(seed=SELECTION_SEED, **_defaults(AUGMENTED_TEXT_FIELDS))
        return [
            base.replace(hidden_dropout=hidden, attention_dropout=attention)
            for hidden in DROPOUT_CANDIDATES
            for attention in DROPOUT_CANDIDATES
        ]
    return []


def needs(config: RunConfig) -> list[RunConfig]:
    """The runs whose records `config` cannot be trained without: those that choose for it, and its teacher."""
    teacher = teacher_of(config)
    return [*candidates(config), *([teacher] if teacher else [])]


def stage(run: RunConfig) -> int:
    """What must be trained before what: choices of baselines, teachers, other choices, all else, checks of bf16."""
    if run.precision == "fp32":
        return 4
    if run.seed == SELECTION_SEED:
        return 0 if teacher_of(run) is None else 2
    return 1 if is_teacher(run) else 3


def _defaults(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(RunConfig(), name) for name in names}


def _chooses(config: RunConfig) -> bool:
    # A run that tries out dropout rates takes the teacher that the runs it serves will take. Only `paper` has such
    # runs; elsewhere their seed is a seed like any other.
    tries = config.is_text and config.profile == "paper" and config.seed == SELECTION_SEED
    return config.hidden_dropout == CHOSEN_DROPOUT or tries
