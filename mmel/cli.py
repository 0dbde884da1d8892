"""The command line: `mmel run | sweep | report | data`; `python -m mmel` is the same."""

import argparse
import os
import sys
from collections.abc import Sequence

from mmel import __version__
from mmel.config import PROFILES, RunConfig, field_names, parse_field
from mmel.data import DataError
from mmel.grids import TABLES
from mmel.records import ResultsError, Store
from mmel.sweep import NotebookError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Args:
        argv: the arguments, by default those of the process.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.data_root:
        os.environ["MMEL_DATA"] = arguments.data_root
    try:
        return arguments.command(arguments)
    except ModuleNotFoundError as error:
        print(
            f"mmel: {error.name} is missing: pip install 'mmel[study]', or use the environment of `make study`",
            file=sys.stderr,
        )
    except (ValueError, DataError, NotebookError, ResultsError) as error:
        print(f"mmel: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("mmel: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmel", description="Minimizing the maximal expected loss: the study")
    parser.add_argument("--version", action="version", version=f"mmel {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train one configuration and print a line an epoch")
    run.set_defaults(command=_run)
    defaults = RunConfig()
    for name in field_names():
        default = getattr(defaults, name)
        text = ",".join(map(str, default)) if isinstance(default, tuple) else default
        run.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"default: {text}")
    _add_places(run)

    sweep = commands.add_parser("sweep", help="train what is missing of one or more tables")
    sweep.set_defaults(command=_sweep)
    _add_tables(sweep)
    sweep.add_argument("--only", action="append", default=[], metavar="FIELD=VALUE", help="only runs with this value")
    sweep.add_argument("--plan", action="store_true", help="list the runs and their cost; train nothing")
    sweep.add_argument("--budget-minutes", type=float, metavar="M", help="begin no run that would end later than this")
    sweep.add_argument("--retry-failed", action="store_true", help="train runs again that failed")
    sweep.add_argument("--no-notebook", action="store_true", help="train in this process, without papermill")
    _add_places(sweep)

    report = commands.add_parser("report", help="render the plotting notebooks and the tables of a profile")
    report.set_defaults(command=_report)
    _add_tables(report)
    _add_places(report, device=False)

    data = commands.add_parser("data", help="fetch and check a data set")
    data.set_defaults(command=_data)
    data.add_argument("dataset", help="cifar10, cifar100 or digits")
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


def _add_places(parser: argparse.ArgumentParser, device: bool = True) -> None:
    parser.add_argument("--results", metavar="DIR", help="default: MMEL_RESULTS, else ./results")
    _add_data_root(parser)
    if device:
        parser.add_argument("--device", help="cpu, cuda, cuda:1; default: the first GPU, else the CPU")


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", metavar="DIR", help="default: MMEL_DATA, else ./data")


def _run(arguments: argparse.Namespace) -> int:
    given = {name: parse_field(name, text) for name in field_names() if (text := getattr(arguments, name)) is not None}
    config = RunConfig(**given)
    store = Store.find(arguments.results)

    from mmel.train import TrainingError, train

    try:
        for line in train(config, store, device=arguments.device):
            print(
                f"epoch {line['epoch']:4d}  loss {line['train_loss']:.4f}  accuracy {line['accuracy_pct']:.2f} %  "
                f"{line['images_per_second']:.0f} images/s"
            )
    except TrainingError as error:
        print(f"mmel: {error}", file=sys.stderr)
        return 1
    print(f"recorded at {store.run_path(config)}")
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from mmel.sweep.driver import sweep
    from mmel.sweep.plan import estimate_speed, plan

    store = Store.find(arguments.results)

    def replan() -> list:
        return plan(arguments.table, arguments.profile, store, arguments.only)

    if arguments.plan:
        for run in replan():
            print(f"{run.state:9} {_duration(run.predicted_seconds):>10}  {run.table}  {run.config.run_id}")
        left = [run.predicted_seconds for run in replan() if run.state == "missing"]
        total = sum(left) if None not in left else None
        device = estimate_speed(store).device
        source = f", at the speed recorded on {device}" if device else ": no run is recorded yet that would tell"
        print(f"{len(left)} runs to train: {_duration(total)}{source}")
        return 0
    outcome = sweep(
        replan,
        store,
        budget_minutes=arguments.budget_minutes,
        retry_failed=arguments.retry_failed,
        notebook=not arguments.no_notebook,
        data_root=arguments.data_root,
        device=arguments.device,
    )
    share = 1 - outcome.train_seconds / outcome.wall_seconds if outcome.trained else 0.0
    print(
        f"{len(outcome.recorded)} recorded before, {len(outcome.trained)} trained in "
        f"{_duration(outcome.wall_seconds)} ({share:.0%} of it outside training)"
    )
    for run, error in outcome.failed:
        print(f"failed: {run.config.run_id}: {error}; --retry-failed trains it again")
    for run in outcome.left:
        print(f"left: {run.config.run_id}: predicted {_duration(run.predicted_seconds)}")
    return 1 if outcome.failed else 0


def _report(arguments: argparse.Namespace) -> int:
    from mmel.report.render import render

    page = render(arguments.table, arguments.profile, Store.find(arguments.results))
    print(f"report: {page}")
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from mmel.data.vision import load_images

    train, test = load_images(arguments.dataset)
    print(f"{arguments.dataset}: {len(train)} training and {len(test)} test images, {train.num_classes} classes")
    return 0


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
