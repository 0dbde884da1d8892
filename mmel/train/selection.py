"""The choice of lambda_t on held-out training images (section 4.1)."""

from mmel.config import RunConfig
from mmel.grids import lambda_t_candidates
from mmel.records import ResultsError, Store


def effective_lambda_t(config: RunConfig, store: Store) -> float:
    """`config.lambda_t`, or, where that is 0, the candidate with the best recorded held-out accuracy.

    Ties go to the smaller value.

    Raises:
        ResultsError: if a run that the choice needs is not recorded, naming those that are missing.
    """
    if config.lambda_t:
        return config.lambda_t
    records = {run: store.read(run) for run in lambda_t_candidates(config)}
    missing = [run.run_id for run, record in records.items() if record is None or not record.finished]
    if missing:
        raise ResultsError(
            f"{config.run_id} takes the lambda_t that does best on held-out images; first train {', '.join(missing)} "
            "(a sweep does so), or set lambda_t"
        )
    return max(records, key=lambda run: (records[run].result["accuracy_pct"], -run.lambda_t)).lambda_t
