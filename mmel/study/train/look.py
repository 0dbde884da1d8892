"""A look at the weights of a run, before and after its training, for its notebook."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmel.study.config import Run
from mmel.study.needs import teacher_of
from mmel.study.records import Store
from mmel.study.train import machine
from mmel.study.train.loop import train
from mmel.study.train.task import build_task, load_trained
from mmel.study.train.teacher import ensure_teacher


def look(
    config: Run,
    store: Store,
    show: Callable[..., Any],
    *,
    trained: bool = True,
    data_root: str | Path | None = None,
    device: str | None = None,
) -> Any:
    """Show the example whose views a run's network finds most unequal, with their losses and weights.

    Args:
        config: the run.
        store: the results folder.
        show: draws the result of the task's `most_uneven`.
        trained: look at the trained network; else at the one that training starts from, whose teacher is trained first
            if it is missing.
        data_root: as `mmel.study.train.train`.
        device: as `mmel.study.train.train`.

    Returns:
        The result of `show`, or a sentence in Markdown if the run was recorded elsewhere: its weights are not here.
    """
    if trained or store.read(config) is not None:
        for run in filter(None, (config, teacher_of(config))):
            if not store.weights_path(run).exists():
                from IPython.display import Markdown

                return Markdown(
                    f"No weights of `{run.run_id}` are in this results folder: records travel without them, and a "
                    "sweep keeps those of small networks and of teachers alone. To train a run and look at it, give "
                    "`seed` a value that is not recorded yet."
                )
    if trained:
        task = load_trained(config, store, data_root=data_root, device=device)
    else:
        ensure_teacher(config, store, train)
        task = build_task(config, store, data_root, machine.pick_device(device), config.precision)
    return show(**task.most_uneven())
