"""The header of a record: where the run comes from."""

from datetime import UTC, datetime

import torch

from mmel.study import code_version
from mmel.study.config import SCHEMA, Run
from mmel.study.records import Line
from mmel.study.train import machine, processes
from mmel.study.train.encoder import check_encoder
from mmel.study.train.precision import probe
from mmel.study.train.task import Task


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
