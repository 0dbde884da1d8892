"""A record's lines beside its evaluations: where a run comes from, how it ended; and its progress bar."""

import os
import sys
from datetime import UTC, datetime

from tqdm import tqdm

from mmel.study.config import SCHEMA, Run
from mmel.study.records import Line
from mmel.study.train import machine, processes
from mmel.study.train.task import Task


def header(config: Run, task: Task, device: Line) -> Line:
    """The first line of a record: configuration, data set sizes, `device`, versions, commit."""
    # The choices of runs of their own; equal to the configuration if it left nothing to be chosen.
    chosen = ("lambda_t", "hidden_dropout", "attention_dropout") if config.is_text else ("lambda_t",)
    return {
        "kind": "run",
        "schema": SCHEMA,
        "run_id": config.run_id,
        "config": config.to_dict(),
        **{name: getattr(task.config, name) for name in chosen},
        "metric": task.metric,
        "sizes": task.sizes,
        **task.provenance,
        "num_parameters": sum(p.numel() for p in task.model.parameters()),
        "device": device,
        "processes": processes.count(),
        "versions": machine.versions(),
        **machine.code_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def resumed_header(new: Line, old: Line) -> Line:
    """The header of a process that resumes a run: its own, and the machines and commits before it."""
    # The first process' header would claim that its device and commit made the whole run.
    before = {key: old[key] for key in ("device", "versions", "commit", "dirty", "started")}
    return new | {"resumed_from": [*old.get("resumed_from", []), before]}


def epochs_done(intervals: int, evals_per_epoch: int) -> int | float:
    """Whole epochs as an integer, as in the records of runs with one evaluation per epoch."""
    whole, part = divmod(intervals, evals_per_epoch)
    return whole + round(part / evals_per_epoch, 4) if part else whole


def outcome(evaluations: list[Line], metric: str) -> Line:
    """The last scores, and the best of the one by which the run is judged."""
    best = max(evaluations, key=lambda line: line[metric])
    last = {name: value for name, value in evaluations[-1].items() if name.endswith("_pct")}
    return {**last, f"best_{metric}": best[metric], "best_epoch": best["epoch"]}


def progress(config: Run, done: int, total: int) -> tqdm:
    """A bar over steps with ETA; if nobody watches, a line every half minute (a notebook keeps each one)."""
    watched = sys.stderr.isatty() or ("ipykernel" in sys.modules and "MMEL_HEADLESS" not in os.environ)
    return tqdm(
        desc=config.run_id,
        initial=done,
        total=total,
        unit="step",
        mininterval=0.5 if watched else 30,
        disable=not processes.is_main(),
        file=sys.stderr,
    )
