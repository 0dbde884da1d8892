"""What a record says of a run beside its evaluations: where it comes from, what came of it."""

from datetime import UTC, datetime

from mmel.config import SCHEMA, RunConfig
from mmel.records import Line
from mmel.train import machine, processes
from mmel.train.step import Task


def header(config: RunConfig, task: Task, device: Line) -> Line:
    """The first line of a record: configuration, data set sizes, `device`, versions, commit."""
    return {
        "kind": "run",
        "schema": SCHEMA,
        "run_id": config.run_id,
        "config": config.to_dict(),
        # What was chosen by runs of its own; equal to the configuration where nothing was.
        **{name: getattr(task.config, name) for name in ("lambda_t", "hidden_dropout", "attention_dropout")},
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
    """The header of a process that goes on with a run: its own, and which machines and commits came before it."""
    # The first process' header would claim that its device and commit made the whole run.
    before = {key: old[key] for key in ("device", "versions", "commit", "dirty", "started")}
    return new | {"resumed_from": [*old.get("resumed_from", []), before]}


def epochs_done(intervals: int, evals_per_epoch: int) -> int | float:
    """Whole epochs as an integer, as the records of runs with one evaluation an epoch have them."""
    whole, part = divmod(intervals, evals_per_epoch)
    return whole + round(part / evals_per_epoch, 4) if part else whole


def engines(seen: list[Line]) -> Line:
    """How a run's processes, one after the other, took its steps (`Step.engine`), each way and reason named once."""
    return {
        name: "; ".join(dict.fromkeys(entry[name] for entry in seen if entry[name])) or None
        for name in ("engine", "why_eager")
    }


def outcome(evaluations: list[Line], metric: str) -> Line:
    """The last scores, and the best of the one that the run is judged by."""
    best = max(evaluations, key=lambda line: line[metric])
    last = {name: value for name, value in evaluations[-1].items() if name.endswith("_pct")}
    return {**last, f"best_{metric}": best[metric], "best_epoch": best["epoch"]}
