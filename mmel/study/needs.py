"""The runs that a run needs: its teacher, and those that choose its hyperparameters. Standard library only."""

from mmel.study.config import ImageRun, Run, TextRun
from mmel.study.methods import AUGMENTED
from mmel.study.records import ResultsError, Store

# Seeds of the runs that choose a hyperparameter, apart from those whose results are reported.
SELECTION_SEED = 1000
LAMBDA_T_CANDIDATES = (0.5, 1.0, 2.0)
DROPOUT_CANDIDATES = (0.0, 0.1)
HOLDOUT = 5000
TEACHER_SEED = 0


def teacher_of(run: Run) -> TextRun | None:
    """The run whose network labels the augmented texts of `run`, or None."""
    if not isinstance(run, TextRun) or not run.plan.augments or run.label_source == "original":
        return None
    # A run that tries out dropout rates takes the teacher of the runs that it serves. Only `paper` has such runs.
    tries = run.profile == "paper" and run.seed == SELECTION_SEED
    unresolved = {"hidden_dropout": None, "attention_dropout": None} if tries else {}
    return run.with_method("baseline", TEACHER_SEED).replace(**unresolved)


def is_teacher(run: Run) -> bool:
    """Whether other runs may need the network of this one: a text baseline of the teachers' seed."""
    return run.method == "baseline" and run.seed == TEACHER_SEED


def candidates(run: Run) -> list[Run]:
    """The runs that choose the unresolved fields of `run`, each with a value in their place; [] if none is unresolved.

    `lambda_t` (section 4.1): {0.5, 1, 2}, K = 10, by the accuracy on 5,000 training images held out. The two dropout
    rates (Table 7): {0, 0.1} each, by the dev score, once for each task and method whatever Table 4 or 6 varies. Both
    on a seed of their own.
    """
    if isinstance(run, ImageRun) and run.lambda_t is None:
        # A run that checks the precision takes the value of the runs that it is compared with.
        base = run.replace(num_augmented=10, seed=SELECTION_SEED, holdout=HOLDOUT, lambda_t=1.0, precision="auto")
        return [base.replace(lambda_t=value) for value in LAMBDA_T_CANDIDATES]
    if isinstance(run, TextRun) and run.hidden_dropout is None:
        base = run.replace(seed=SELECTION_SEED, **run.defaults(AUGMENTED))
        return [
            base.replace(hidden_dropout=hidden, attention_dropout=attention)
            for hidden in DROPOUT_CANDIDATES
            for attention in DROPOUT_CANDIDATES
        ]
    return []


def needs(run: Run) -> list[Run]:
    """The runs whose records `run` needs before it trains: those that choose for it, and its teacher."""
    teacher = teacher_of(run)
    return [*candidates(run), *([teacher] if teacher else [])]


def stage(run: Run) -> int:
    """The order of training: choices of baselines, teachers, other choices, all else, checks of the precision."""
    if run.precision == "fp32":
        return 4
    if run.seed == SELECTION_SEED:
        return 0 if teacher_of(run) is None else 2
    return 1 if is_teacher(run) else 3


def with_choices(config: Run, store: Store) -> Run:
    """`config` with the values of its best recorded candidate in its unresolved fields.

    The best has the highest score on held-out images, or on the dev split of a text; ties go to the smaller value.

    Raises:
        ResultsError: if a run that the choice needs is not recorded, naming those that are missing.
    """
    records = {run: store.read(run) for run in candidates(config)}
    if not records:
        return config
    missing = [run.run_id for run, record in records.items() if record is None or not record.finished]
    if missing:
        raise ResultsError(
            f"{config.run_id} takes the value that does best in runs of its own; first train {', '.join(missing)} (a "
            "sweep does so), or set lambda_t, hidden_dropout and attention_dropout"
        )
    # `max` keeps the first of equals, and the candidates ascend.
    best = max(records, key=lambda run: records[run].score)
    names = ("hidden_dropout", "attention_dropout") if config.is_text else ("lambda_t",)
    return config.replace(**{name: getattr(best, name) for name in names})
