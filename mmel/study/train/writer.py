"""All that a run writes: its record, checkpoints, weights and predictions. Off the main process it does nothing."""

import contextlib
import json
from typing import Any

from mmel.study.config import Run
from mmel.study.records import Line, RunWriter, Store, write_atomically
from mmel.study.train import checkpoint, processes
from mmel.study.train.step import Step


class Writer:
    """Writes one run.

    Args:
        config: the run.
        store: the results folder.
        lines: header and evaluations of the checkpoint, if any, else the header alone.
    """

    def __init__(self, config: Run, store: Store, lines: list[Line]):
        self._config, self._store = config, store
        self._record = RunWriter(store, config, lines) if processes.is_main() else None

    def append(self, line: Line) -> None:
        """Add an evaluation to the record."""
        if self._record:
            self._record.append(line)

    def save(self, lines: list[Line], step: Step, wall_seconds: float) -> None:
        """Write a checkpoint."""
        if self._record:
            parts = {"model": step.task.model, "optimizer": step.optimizer, "scheduler": step.scheduler}
            state = {name: part.state_dict() for name, part in parts.items()}
            path = self._store.checkpoint_path(self._config)
            checkpoint.save(path, {**state, "lines": lines, "wall_seconds": wall_seconds})

    def finish(self, result: Line, step: Step, predictions: dict[str, Any] | None = None) -> None:
        """End the record, after the weights and predictions of a run that finished; the checkpoint is deleted."""
        if not self._record:
            return
        if result["status"] == "finished":
            weights = {"model": step.task.model.state_dict(), "score": result[step.task.metric]}
            checkpoint.save(self._store.weights_path(self._config), weights)
        if predictions:
            write_atomically(self._store.predictions_path(self._config), json.dumps(predictions))
        self._record.finish(result)
        with contextlib.suppress(FileNotFoundError):
            self._store.checkpoint_path(self._config).unlink()
