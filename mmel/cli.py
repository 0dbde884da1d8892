"""The command line: `mmel run | sweep | report | augment | data`; `python -m mmel` is the same."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mmel import __version__
from mmel.config import (
    DATASETS,
    ENCODED_IMAGE_SIZES,
    PROFILES,
    TEXT_DATASETS,
    TEXT_METHODS,
    RunConfig,
    field_names,
    parse_field,
)
from mmel.data import DataError
from mmel.grids import PAPER_TEXT_MODEL, TABLES, recipe, text_model
from mmel.models import ModelError
from mmel.records import ResultsError, Store
from mmel.requirements import VersionError
from mmel.sweep import NotebookError

# What `mmel augment` takes of a run's fields.
AUGMENT_FIELDS = ("num_augmented", "mask_ratio", "fill", "beam_width", "pair_mode", "max_length", "augment_seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Args:
        argv: the arguments, by default those of the process.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    # Variables, because grids, notebooks and kernels must see the same choice.
    for name, variable in (("data_root", "MMEL_DATA"), ("text_model", "MMEL_TEXT_MODEL")):
        if value := getattr(arguments, name, None):
            os.environ[variable] = value
    try:
        return arguments.command(arguments)
    except ModuleNotFoundError as error:
        print(
            f"mmel: {error.name} is missing: pip install '.[study]' in the checkout, or use `make study`'s environment",
            file=sys.stderr,
        )
    except (ValueError, DataError, ModelError, NotebookError, ResultsError, VersionError) as error:
        print(f"mmel: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("mmel: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmel", description="Minimizing the maximal expected loss: the study")
    parser.add_argument("--version", action="version", version=f"mmel {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="train one configuration and print a line for each evaluation",
        description="Defaults are CIFAR's; texts and ImageNet have their own recipes, and plain baselines K = 1.",
    )
    run.set_defaults(command=_run)
    _add_fields(run, field_names(), {**vars(RunConfig()), "num_augmented": "10, 5 for text, 1 for plain baselines"})
    run.add_argument("--no-notebook", action="store_true", help="as with sweep; a run never uses one")
    _add_places(run)

    sweep = commands.add_parser("sweep", help="train what is missing of one or more tables")
    sweep.set_defaults(command=_sweep)
    _add_tables(sweep)
    sweep.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only runs with this value, and what they need",
    )
    sweep.add_argument("--plan", action="store_true", help="list the runs and their cost; train nothing")
    sweep.add_argument(
        "--budget-minutes",
        type=float,
        metavar="M",
        help="stop before, runs under way at an evaluation after their first",
    )
    sweep.add_argument("--pack", type=int, default=1, metavar="N", help="train N runs side by side; default: 1")
    sweep.add_argument("--executor", choices=("local", "ray"), default="local", help="default: local")
    sweep.add_argument("--address", help="with --executor ray: of the cluster (auto, host:port); default: this machine")
    sweep.add_argument(
        "--gpus-per-run", type=float, metavar="G", help="with --executor ray; default: 1 if there are any"
    )
    sweep.add_argument("--retry-failed", action="store_true", help="train runs again that failed")
    sweep.add_argument("--no-notebook", action="store_true", help="train in this process, without papermill")
    _add_places(sweep)

    report = commands.add_parser("report", help="render the plotting notebooks and the tables of a profile")
    report.set_defaults(command=_report)
    _add_tables(report)
    _add_places(report, device=False)
    report.add_argument(
        "--glue-submission",
        metavar="METHOD",
        choices=TEXT_METHODS,
        help="instead: write the zip for the GLUE server from the test predictions of this method's best runs",
    )

    augment = commands.add_parser("augment", help="augment a text column of a CSV, TSV or Parquet file (Algorithm 2)")
    augment.set_defaults(command=_augment)
    augment.add_argument("source", help="the file")
    augment.add_argument("target", help="the file to write: a row a variant, in the format of its suffix")
    augment.add_argument("--column", required=True, help="the sentences")
    augment.add_argument("--pair-column", help="the second sentences, of a pair task")
    _add_fields(augment, AUGMENT_FIELDS, {**vars(RunConfig()), **recipe("cola")})
    _add_places(augment, results="MMEL_RESULTS, else the user's cache folder")

    data = commands.add_parser("data", help="fetch and check a data set")
    data.set_defaults(command=_data)
    data.add_argument(
        "dataset", help="cifar10, cifar100, digits, imagenet, imagenette, drawings, or a GLUE task: cola, ..."
    )
    _add_data_root(data)
    return parser


def _add_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        nargs="+",
        choices=TABLES,
        default=list(TABLES),
        metavar="TABLE",
        help=f"default: all ({' '.join(TABLES)})",
    )
    parser.add_argument("--profile", choices=PROFILES, default="mini", help="default: mini")


def _add_fields(parser: argparse.ArgumentParser, names: Sequence[str], defaults: Mapping[str, object]) -> None:
    for name in names:
        default = defaults[name]
        text = ",".join(map(str, default)) if isinstance(default, tuple) else default
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"default: {text}")


def _given(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: parse_field(name, text) for name in names if (text := getattr(arguments, name)) is not None}


def _add_places(
    parser: argparse.ArgumentParser, device: bool = True, results: str = "MMEL_RESULTS, else ./results"
) -> None:
    parser.add_argument("--results", metavar="DIR", help=f"default: {results}")
    parser.add_argument(
        "--text-model",
        metavar="NAME",
        help="Hugging Face encoder with a masked-LM head, by hub name or folder, in place of the profile's; default: "
        "MMEL_TEXT_MODEL",
    )
    _add_data_root(parser)
    if device:
        parser.add_argument("--device", help="cpu, cuda, cuda:1; default: the first GPU, else the CPU")


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", metavar="DIR", help="default: MMEL_DATA, else ./data")


def _run(arguments: argparse.Namespace) -> int:
    config = _config(_given(arguments, field_names()))
    store = Store.find(arguments.results)

    from mmel.train import TrainingError, processes, train

    try:
        for line in train(config, store, device=arguments.device):
            scores = "  ".join(
                f"{name.removesuffix('_pct')} {line[name]:.2f} %" for name in line if name.endswith("_pct")
            )
            speed = "  ".join(
                f"{line[name]:.0f} {name.removesuffix('_per_second')}/s"
                for name in line
                if name.endswith("_per_second")
            )
            print(f"epoch {line['epoch']:6g}  loss {line['train_loss']:.4f}  {scores}  {speed}")
    except TrainingError as error:
        print(f"mmel: {error}", file=sys.stderr)
        return 1
    if processes.is_main():
        print(f"recorded at {store.run_path(config)}")
    return 0


def _config(given: dict[str, Any]) -> RunConfig:
    """What was given on top of the paper's recipe for that data set."""
    dataset, method = given.get("dataset", RunConfig.dataset), given.get("method", RunConfig.method)
    fields = recipe(dataset)
    if dataset in TEXT_DATASETS:
        fields["model"] = text_model(fields["model"])
    if method in ("baseline", "baseline_da"):
        fields["num_augmented"] = 1
    return RunConfig(**(fields | given))


def _sweep(arguments: argparse.Namespace) -> int:
    from mmel.sweep.driver import sweep
    from mmel.sweep.plan import duration, estimate_speed, plan
    from mmel.sweep.view import plan_lines, watch
    from mmel.sweep.workers import Cluster

    store = Store.find(arguments.results)
    on_ray = arguments.executor == "ray"
    if not on_ray and (arguments.address or arguments.gpus_per_run is not None):
        raise ValueError("address and gpus_per_run are for executor 'ray', got executor 'local'")
    if on_ray and arguments.pack != 1:
        raise ValueError(f"pack must be 1 with executor 'ray', which fills the cluster by itself, got {arguments.pack}")
    # Which devices a cluster has shows in what it records; a record's times are cut to whole seconds.
    device = None if on_ray else _device_name(arguments.device)
    since = datetime.now(UTC).replace(microsecond=0) if on_ray else None

    def replan() -> list:
        speed = estimate_speed(store, device=device, since=since)
        return plan(arguments.table, arguments.profile, store, arguments.only, speed)

    if arguments.plan:
        print(*plan_lines(replan(), arguments.table, device), sep="\n")
        return 0
    with watch() as (report, status):
        outcome = sweep(
            replan,
            store,
            pack=arguments.pack,
            cluster=Cluster(arguments.address, arguments.gpus_per_run) if on_ray else None,
            budget_minutes=arguments.budget_minutes,
            retry_failed=arguments.retry_failed,
            notebook=not arguments.no_notebook,
            data_root=arguments.data_root,
            device=arguments.device,
            report=report,
            status=status,
        )
    spent = duration(outcome.wall_seconds)
    if outcome.trained and not on_ray:
        slots = min(arguments.pack, len(outcome.trained))
        spent += f" ({1 - outcome.train_seconds / (outcome.wall_seconds * slots):.0%} of it outside training)"
    print(f"{len(outcome.recorded)} recorded before, {len(outcome.trained)} trained in {spent}")
    for run, error in outcome.failed:
        again = "--retry-failed trains it again" if store.read(run.config) else "the next sweep tries it again"
        print(f"failed: {run.config.run_id}: {error}; {again}")
    for run in outcome.left:
        print(f"left: {run.config.run_id}: predicted {duration(run.predicted_seconds)}")
    return 1 if outcome.failed else 0


def _device_name(device: str | None) -> str:
    from mmel.train.machine import describe_device, pick_device

    return describe_device(pick_device(device))["name"]


def _report(arguments: argparse.Namespace) -> int:
    store = Store.find(arguments.results)
    if arguments.glue_submission:
        from mmel.report.glue_submission import submit

        path, notes = submit(store, arguments.profile, arguments.glue_submission)
        print("\n".join([f"submission: {path}", *notes]))
        return 0
    from mmel.report.render import render

    print(f"report: {render(arguments.table, arguments.profile, store)}")
    return 0


def _augment(arguments: argparse.Namespace) -> int:
    fields = {**recipe("cola"), **_given(arguments, AUGMENT_FIELDS)}
    # Validates the settings before anything is loaded.
    config = RunConfig(**{**fields, "dataset": "cola", "model": text_model(PAPER_TEXT_MODEL)})

    from mmel.augment.files import augment_file, check_files, user_cache

    # It is of use without a study too, whose results folder then is none that it should write to.
    named = arguments.results or os.environ.get("MMEL_RESULTS")
    places = (arguments.source, arguments.target, arguments.column)
    try:
        check_files(*places, arguments.pair_column)
        store = Store.find(named) if named else Store(user_cache())

        from mmel.train.encoder import build_augmenter

        augmenter = build_augmenter(config, store, device=arguments.device)
        rows = augment_file(*places, augmenter, arguments.pair_column)
    except OSError as error:
        print(f"mmel: {error}", file=sys.stderr)
        return 2
    print(f"{rows} rows written to {arguments.target}")
    return 0


def _data(arguments: argparse.Namespace) -> int:
    if arguments.dataset in TEXT_DATASETS:
        from mmel.data.glue import load_text

        data = load_text(arguments.dataset)
        sizes = ", ".join(f"{name} {len(part)}" for name, part in data.splits.items())
        sampled = f" (not the official size: {', '.join(data.sampled)})" if data.is_sample else ""
        print(f"{arguments.dataset}: {sizes}{sampled}")
        return 0
    if arguments.dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {arguments.dataset!r}")
    note = ""
    if arguments.dataset in ENCODED_IMAGE_SIZES:
        from mmel.data.imagenet import load_encoded, sampled

        train, test = load_encoded(arguments.dataset)
        if parts := sampled(arguments.dataset, train, test):
            note = f" (not the official size: {', '.join(parts)})"
    else:
        from mmel.data.vision import load_images

        train, test = load_images(arguments.dataset)
    print(f"{arguments.dataset}: {len(train)} training and {len(test)} test images, {train.num_classes} classes{note}")
    return 0
