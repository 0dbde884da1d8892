"""Data, network and loss of a run as `Step` and the loop see them, and the header of its record."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmel.losses import LossTerms
from mmel.study import code_version
from mmel.study.config import SCHEMA, Run, TextRun
from mmel.study.needs import teacher_of, with_choices
from mmel.study.records import Line, Store
from mmel.study.train import machine, processes
from mmel.study.train.encoder import check_encoder
from mmel.study.train.images import ImageTask
from mmel.study.train.precision import probe, resolve
from mmel.study.train.texts import TextTask


@runtime_checkable
class Task(Protocol):
    """Data, network and loss of one run, with nothing left to be chosen.

    Attributes:
        config: the run.
        model: its network, on the training device.
        parts: the modules that a checkpoint holds, by name.
        steps: steps of an epoch.
        sizes, provenance: for the record, data set sizes and all else that decides the result.
        unit: of a speed, for the record.
        why_eager: why a step cannot be a CUDA graph; None if it can.
    """

    config: Run
    model: nn.Module
    parts: dict[str, nn.Module]
    steps: int
    sizes: Line
    provenance: Line
    unit: str
    why_eager: str | None

    def build_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of all parameters."""

    def build_scheduler(self, optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
        """The schedule of its learning rate, advanced after each step."""

    def order(self, epoch: int) -> Tensor:
        """Indices of the training examples in the order of an epoch, from 1."""

    def terms(self, index: Tensor, epoch: int | Tensor) -> LossTerms:
        """Loss, weights and losses of some training examples, (N,) indices as `order` gives them."""

    def evaluate(self) -> dict[str, float]:
        """Scores in percent, in evaluation mode."""

    def test(self) -> tuple[Line, dict[str, list]]:
        """Fields of the record's last line, and predictions on test splits without public labels."""

    def example(self, index: Tensor, place: int) -> dict[str, Any]:
        """The views of one of some training examples, as a notebook shows them."""


def build_task(config: Run, store: Store, data_root: str | Path | None, device: torch.device, precision: str) -> Task:
    """The task of a run in some precision, with the choices of recorded runs in place of unresolved fields.

    Raises:
        ResultsError: if a run that it needs is not recorded.
        DataError: if the data set is missing or damaged.
    """
    resolved = with_choices(config, store).replace(precision=precision)
    resolved = resolved.replace(precision=resolve(resolved, device))
    if isinstance(resolved, TextRun):
        # The teacher of the run that was asked for: its unresolved fields are chosen by other runs.
        return TextTask(resolved, teacher_of(config), store, data_root, device)
    return ImageTask(resolved, data_root, device)


def header(config: Run, task: Task, device: torch.device, before: Line | None = None) -> Line:
    """The first line of a record; `before` is that of the process that this one resumes.

    Raises:
        ModelError: if that process had another text encoder.
    """
    # The values that other runs chose; equal to the configuration if it left nothing to be chosen.
    chosen = ("lambda_t", "hidden_dropout", "attention_dropout") if config.is_text else ("lambda_t",)
    head = {
        "kind": "run",
        "schema": SCHEMA,
        "run_id": config.run_id,
        "config": config.to_dict(),
        **{name: getattr(task.config, name) for name in chosen},
        "metric": config.data.metric,
        "sizes": task.sizes,
        **task.provenance,
        "num_parameters": sum(p.numel() for p in task.model.parameters()),
        "device": machine.describe_device(device) | {"precision": task.config.precision},
        **({"precision_probe": probe(device)} if config.precision == "auto" else {}),
        "processes": processes.count(),
        "versions": machine.versions(),
        **code_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if before is not None:
        check_encoder(head, before)
        # Alone, this process would claim that its device and commit made the whole run.
        earlier = {key: before[key] for key in ("device", "versions", "commit", "dirty", "started")}
        head["resumed_from"] = [*before.get("resumed_from", []), earlier]
    return head
