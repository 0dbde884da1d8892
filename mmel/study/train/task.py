"""Data, network and loss of a run: the contract of the two kinds of data with the loop, and the header of a record."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

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


class Task(Protocol):
    """Data, network and loss of one run.

    Attributes:
        config: the run, with nothing left to be chosen; its precision is `bf16` or `fp32`.
        model: the network.
        parts: the modules that a checkpoint holds, by name: the network, and others that training changes.
        steps: steps of an epoch.
        sizes: data set sizes, for the record.
        unit: `images` or `sequences`, for the record.
        provenance: for the record, all else that decides the result.
        why_eager: why a step cannot be a CUDA graph; None if it can.
    """

    config: Run
    model: nn.Module
    parts: dict[str, nn.Module]
    steps: int
    sizes: dict[str, Any]
    unit: str
    provenance: dict[str, Any]
    why_eager: str | None

    def build_optimizer(self) -> Optimizer:
        """The optimizer, with one group of parameters."""

    def build_scheduler(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """The schedule of the learning rate, stepped after each of `total_steps` steps."""

    def order(self, epoch: int) -> Tensor:
        """Indices of the training examples in the order of an epoch (from 1)."""

    def terms(self, index: Tensor, epoch: int | Tensor) -> LossTerms:
        """The loss of some examples: one joint forward over all views, and one over drawn views if the run has it."""

    def evaluate(self) -> dict[str, float]:
        """Scores on the dev or test split, in percent."""

    def test(self) -> tuple[dict[str, Any], dict[str, list]]:
        """More fields for the record's result, and predictions on splits without public labels."""

    def example(self, index: Tensor, place: int) -> dict[str, Any]:
        """The samples of the training example `index[place]`, to be shown."""


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
    """The first line of a record: configuration, data set sizes, device, versions, commit.

    Args:
        config: the run.
        task: its task.
        device: where it trains.
        before: the header of the process that this one resumes.

    Raises:
        ModelError: if that process had another text encoder.
    """
    # The choices of runs of their own; equal to the configuration if it left nothing to be chosen.
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
