"""The choice of hyperparameters by runs of their own: lambda_t (section 4.1) and the dropout rates (Table 7)."""

from mmel.config import RunConfig
from mmel.grids import candidates
from mmel.records import ResultsError, Store


def with_choices(config: RunConfig, store: Store) -> RunConfig:
    """`config` with the value of its best recorded candidate in the place of what it leaves to be chosen.

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
    return config.replace(
        lambda_t=best.lambda_t, hidden_dropout=best.hidden_dropout, attention_dropout=best.attention_dropout
    )
