"""A look at what a finished run learned, for its notebook."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmel.config import RunConfig
from mmel.grids import teacher_of
from mmel.records import Store
from mmel.train.loop import load_trained


def look(
    config: RunConfig,
    store: Store,
    show: Callable[..., Any],
    *,
    data_root: str | Path | None = None,
    device: str | None = None,
) -> Any:
    """Show the example whose samples a run's network finds most unequal, where the network is still here.

    Records travel without weights, and a sweep deletes those of large encoders.

    Args:
        config: the run; it is recorded.
        store: where its weights may be.
        show: draws what the task's `most_uneven` gives: on images `(views, weights)`, on text a list of samples.
        data_root: as `mmel.train.train`.
        device: as `mmel.train.train`.

    Returns:
        What `show` returns, or a sentence in Markdown where the weights, or its teacher's, are not here.
    """
    for run in filter(None, (config, teacher_of(config))):
        if not store.weights_path(run).exists():
            from IPython.display import Markdown

            return Markdown(
                f"No weights of `{run.run_id}` are in this results folder: records travel without them, and a sweep "
                "keeps those of small networks and of teachers alone. To train a run and look at it, give `seed` a "
                "value that is not recorded yet."
            )
    found = load_trained(config, store, data_root=data_root, device=device).most_uneven()
    return show(found) if config.is_text else show(*(part.numpy() for part in found))
