"""One evaluation interval: an epoch, or a part of one, and the evaluation after it."""

import time

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.study.config import Run
from mmel.study.records import Line
from mmel.study.train import processes
from mmel.study.train.precision import autocast, math_of
from mmel.study.train.step import DivergedError, Step
from mmel.study.train.task import Task


def first_step(task: Task, number: int) -> int:
    """Steps before evaluation interval `number`, of which each epoch has `evals_per_epoch`."""
    epoch, part = divmod(number, task.config.evals_per_epoch)
    return epoch * task.steps + part * task.steps // task.config.evals_per_epoch


def train_and_evaluate(task: Task, step: Step, number: int, bar: tqdm) -> Line:
    """Train one interval, then evaluate."""
    config, device = task.config, step.device
    first, last = first_step(task, number), first_step(task, number + 1)
    epoch = number // config.evals_per_epoch + 1
    learning_rate = step.optimizer.param_groups[0]["lr"]
    begin = time.perf_counter()
    losses = torch.zeros(last - first, device=device)
    sums = torch.zeros(2, device=device)
    before = (epoch - 1) * task.steps
    # Evaluating, and asking a teacher, ends in evaluation mode.
    task.model.train()
    batches = task.order(epoch).split(config.batch_size)[first - before : last - before]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), math_of(config.precision):
        # Dropout masks that depend on seed, interval and process alone, so that a resumed run draws them again.
        torch.manual_seed(config.seed * 1_000_003 + number + 1 + (processes.rank() << 40))
        for place, index in enumerate(batches):
            losses[place], statistics = step(index, epoch)
            sums += statistics
            # Reading a loss makes a GPU wait, so there all are looked at in the end; the CPU is in step anyway.
            if device.type == "cpu" or place + 1 == len(losses):
                _check_finite(losses[: place + 1], first, epoch, config)
            bar.update()
    train_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    # BatchNorm's running statistics are the only state in which the processes differ.
    statistics = [buffer for buffer in task.model.buffers() if buffer.is_floating_point()]
    processes.add_up(statistics)
    for buffer in statistics:
        buffer.div_(processes.count())
    with autocast(config.precision, device, cache=config.is_text), math_of(config.precision):
        metrics = task.evaluate()
    bar.set_postfix(epoch=epoch, **{k: f"{v:.2f}" for k, v in metrics.items()}, refresh=False)
    examples = sum(map(len, batches))
    whole, part = divmod(number + 1, config.evals_per_epoch)
    entropy, largest = (sums / examples).tolist()
    return {
        "kind": "epoch",
        # Whole epochs as an integer, as in the records of runs with one evaluation per epoch.
        "epoch": whole + round(part / config.evals_per_epoch, 4) if part else whole,
        "train_loss": losses.mean().item(),
        **metrics,
        "learning_rate": learning_rate,
        "train_seconds": train_seconds,
        "eval_seconds": time.perf_counter() - begin,
        f"{task.unit}_per_second": examples * config.num_views / train_seconds,
        "weight_entropy": entropy,
        "weight_max": largest,
    }


def _check_finite(losses: Tensor, first: int, epoch: int, config: Run) -> None:
    bad = torch.nonzero(~torch.isfinite(losses)).flatten()
    if len(bad):
        step = first + int(bad[0]) + 1
        raise DivergedError(
            f"loss is {losses[bad[0]].item()} at step {step} (epoch {epoch}); config: {config.non_defaults()}"
        )
