"""A look at the weights of a run, before and after its training, for its notebook."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from mmel.losses import augmentation_weights
from mmel.study.config import Run
from mmel.study.needs import teacher_of
from mmel.study.records import Store
from mmel.study.train import checkpoint, machine
from mmel.study.train.loop import train
from mmel.study.train.task import build_task
from mmel.study.train.teacher import ensure_teacher
from mmel.study.train.texts import LOOKED_AT

# Views of an image for a method that trains on one view.
SHOWN_VIEWS = 10


def look(
    config: Run,
    store: Store,
    show: Callable[..., Any],
    *,
    trained: bool = True,
    data_root: str | Path | None = None,
    device: str | None = None,
) -> Any:
    """Show the example whose views a run's network finds most unequal, of the first hundred of the training set.

    Args:
        config: the run.
        store: the results folder.
        show: draws `losses` and `weights` of the K views, with NaN for x in MMEL-S, and the task's `example`. MMEL-S
            has the weights of Eq. 9, all other methods those of Eq. 6, as MMEL-H would weigh them.
        trained: look at the trained network; else at the one that training starts from.
        data_root: as for `train`.
        device: as for `train`.

    Returns:
        The result of `show`, or a sentence in Markdown if the weights of a recorded run are not here.
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
    else:
        ensure_teacher(config, store, train, data_root=data_root, device=device)
    seen = config
    if not config.is_text and not config.plan.all_views:
        # All views of an image, which such a method sees one by one.
        k = SHOWN_VIEWS if config.plan.is_single else config.num_augmented
        seen = config.replace(method="baseline_da_uni", num_augmented=k)
    task = build_task(seen, store, data_root, machine.pick_device(device), config.precision)
    if trained:
        checkpoint.load(store.weights_path(config), model=task.model)
    task.model.eval()
    index = torch.arange(min(LOOKED_AT, task.sizes["train"]))
    with torch.no_grad():
        losses = task.terms(index, seen.total_epochs).sample_losses
    weights = augmentation_weights(losses, config.lambda_p)
    place = int(weights.amax(dim=1).argmax())
    # MMEL-S weighs the views other than x.
    first = (seen.num_views - losses.shape[1], 0)
    losses, weights = (F.pad(values[place], first, value=torch.nan).tolist() for values in (losses, weights))
    return show(losses=losses, weights=weights, **task.example(index, place))
