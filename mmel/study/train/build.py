"""From a run to its task: data, network and loss, with the choices of other runs in their place."""

from pathlib import Path

import torch

from mmel.study.config import Run, TextRun
from mmel.study.needs import teacher_of, with_choices
from mmel.study.records import Store
from mmel.study.train import checkpoint, machine
from mmel.study.train.images import ImageTask
from mmel.study.train.precision import resolve
from mmel.study.train.task import Task
from mmel.study.train.texts import TextTask


def build_task(config: Run, store: Store, data_root: str | Path | None, device: torch.device, precision: str) -> Task:
    """The task of a run.

    Args:
        config: the run.
        store: the recorded runs that choose for it, and the cache of augmented texts.
        data_root: folder of the data sets.
        device: where to train.
        precision: `bf16` or `fp32`.

    Raises:
        ResultsError: if a run that it needs is not recorded.
        DataError: if the data set is missing or damaged.
    """
    resolved = with_choices(config, store).replace(precision=precision)
    if isinstance(resolved, TextRun):
        # The teacher of the run that was asked for: its unresolved fields are chosen by other runs.
        return TextTask(resolved, teacher_of(config), store, data_root, device)
    return ImageTask(resolved, data_root, device)


def load_trained(config: Run, store: Store, *, data_root: str | Path | None = None, device: str | None = None) -> Task:
    """The task of a finished run with its trained network.

    Raises:
        FileNotFoundError: if the weights are not in this results folder: records travel without them, and a sweep
            keeps those of small networks and of teachers alone.
        ResultsError: if they cannot be used.
    """
    path = store.weights_path(config)
    if not path.exists():
        raise FileNotFoundError(f"no weights of {config.run_id} in this results folder; train it here to have them")
    chosen = machine.pick_device(device)
    task = build_task(config, store, data_root, chosen, resolve(config.precision, chosen))
    checkpoint.load(path, model=task.model)
    task.model.eval()
    return task
