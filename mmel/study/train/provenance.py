"""Where a run comes from, for its record: configuration, data, versions, commit."""

import contextlib
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata

import torch
from packaging.version import Version

from mmel.study import code_version
from mmel.study.config import SCHEMA, Run
from mmel.study.records import Line
from mmel.study.train import processes
from mmel.study.train.task import Task

# As in pyproject.toml.
LEAST = {"torch": "2.11", "torchvision": "0.26", "transformers": "5.17"}


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
        "versions": versions(),
        **code_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def resumed_header(new: Line, old: Line) -> Line:
    """The header of a process that resumes a run: its own, and the machines and commits before it."""
    # The first process' header would claim that its device and commit made the whole run.
    before = {key: old[key] for key in ("device", "versions", "commit", "dirty", "started")}
    return new | {"resumed_from": [*old.get("resumed_from", []), before]}


def check_versions() -> None:
    """Refuse a package that is too old, as a machine without an installer may have; a missing one is named in use.

    Raises:
        ImportError: naming the package, its version and the oldest that will do.
    """
    for package, found in _installed(LEAST).items():
        if Version(found) < Version(least := LEAST[package]):
            raise ImportError(f"{package} must be {least} or newer, got {found}: pip install -U '{package}>={least}'")


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that decide a result."""
    found = _installed(("mmel", *LEAST, "datasets"))
    # The build says more than the metadata (which CUDA, if any).
    return {"python": platform.python_version(), **found, "torch": str(torch.__version__)}


def _installed(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
