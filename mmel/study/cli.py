"""The command line: `mmel run | sweep | report | augment | data`; `python -m mmel.study` is the same."""

import argparse
import math
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mmel import __version__
from mmel.study.config import ImageRun, Run, TextRun, run_type
from mmel.study.data import DataError
from mmel.study.datasets import DATASETS
from mmel.study.fields import PROFILES, parse_field
from mmel.study.methods import METHODS, methods_for
from mmel.study.models import ModelError, text_model_name
from mmel.study.records import ResultsError, Store
from mmel.study.sweep import NotebookError
from mmel.study.tables import TABLES, TEXT_MODELS, recipe

if TYPE_CHECKING:
    from mmel.study.sweep.local import Executor

RUN_FIELDS = tuple(dict.fromkeys((*ImageRun.field_names(), *TextRun.field_names())))
# The fields of a run that `mmel augment` takes.
AUGMENT_FIELDS = ("num_augmented", "mask_ratio", "fill", "pair_mode")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Args:
        argv: the arguments, by default those of the process.
    """
    try:
        arguments = _parser().parse_args(argv)
        # An empty field may mean something; the run checks it.
        if empty := [name for name, value in vars(arguments).items() if value == "" and name not in RUN_FIELDS]:
            raise ValueError(f"{empty[0]} must not be empty")
        # Variables, because grids, notebooks and kernels must see the same choice.
        for name, variable in (("data_root", "MMEL_DATA"), ("text_model", "MMEL_TEXT_MODEL")):
            if value := getattr(arguments, name, None):
                os.environ[variable] = value
        status = arguments.command(arguments)
        # Here, as an error at the end of Python is a traceback.
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        print(
            f"mmel: {error.name} is missing: pip install '.[study]' in the checkout, or use `make study`'s environment",
            file=sys.stderr,
        )
    except (OSError, ValueError, ImportError, DataError, ModelError, NotebookError, ResultsError) as error:
        if isinstance(error, BrokenPipeError):
            # As of other tools whose reader has gone (`mmel sweep --plan | head`).
            return 128 + signal.SIGPIPE
        print(f"mmel: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("mmel: interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    finally:
        _drop_unwritable_output()
    return 2


def _drop_unwritable_output() -> None:
    """Drop what standard output still holds if it cannot be written: as Python ends it would raise once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmel",
        description="Minimizing the maximal expected loss: the study",
        epilog="Exit status: 0 done, 1 a run failed, 2 an argument or a file is at fault, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"mmel {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="train one configuration and print a line for each evaluation",
        description="Defaults are those of CIFAR / of GLUE; ImageNet has its own recipe, and plain baselines K = 1.",
    )
    run.set_defaults(command=_run)
    _add_fields(run, RUN_FIELDS)
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
        help="only runs with this value, and what they need; several values of one field mean any of them",
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

    report = commands.add_parser("report", help="write the tables of a profile and build its book")
    report.set_defaults(command=_report)
    _add_tables(report)
    _add_places(report, device=False)
    report.add_argument(
        "--glue-submission",
        metavar="METHOD",
        choices=methods_for("text"),
        help="instead: write the zip for the GLUE server from the test predictions of this method's best runs",
    )

    augment = commands.add_parser("augment", help="augment a text column of a CSV, TSV or Parquet file (Algorithm 2)")
    augment.set_defaults(command=_augment)
    augment.add_argument("source", help="the file")
    augment.add_argument("target", help="the file to write: a row a variant, in the format of its suffix")
    augment.add_argument("--column", required=True, help="the sentences")
    augment.add_argument("--pair-column", help="the second sentences, of a pair task")
    _add_fields(augment, AUGMENT_FIELDS, (TextRun,))
    _add_places(augment, results="MMEL_RESULTS, else the user's cache folder")

    data = commands.add_parser("data", help="fetch and check a data set")
    data.set_defaults(command=_data)
    data.add_argument("dataset", help=f"one of {', '.join(DATASETS)}")
    _add_data_root(data)
    return parser


def _add_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table", nargs="+", choices=TABLES, default=[*TABLES], metavar="TABLE", help=f"default: {' '.join(TABLES)}"
    )
    parser.add_argument("--profile", choices=PROFILES, default="mini", help="default: mini")


def _add_fields(
    parser: argparse.ArgumentParser, names: Sequence[str], kinds: Sequence[type[Run]] = (ImageRun, TextRun)
) -> None:
    for name in names:
        defaults = [kind.defaults([name])[name] for kind in kinds if name in kind.field_names()]
        texts = dict.fromkeys(",".join(map(str, d)) if isinstance(d, tuple) else str(d) for d in defaults)
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"default: {' / '.join(texts)}")


def _given(arguments: argparse.Namespace, kind: type[Run], names: Sequence[str]) -> dict[str, Any]:
    return {name: parse_field(kind, name, text) for name in names if (text := getattr(arguments, name)) is not None}


def _add_places(
    parser: argparse.ArgumentParser, device: bool = True, results: str = "MMEL_RESULTS, else ./results"
) -> None:
    parser.add_argument("--results", metavar="DIR", help=f"default: {results}")
    parser.add_argument(
        "--text-model",
        metavar="NAME",
        help="encoder with a masked-LM head, by Hugging Face name or folder; default: MMEL_TEXT_MODEL, the profile's",
    )
    _add_data_root(parser)
    if device:
        parser.add_argument("--device", help="cpu, cuda, cuda:1; default: the first GPU, else the CPU")


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", metavar="DIR", help="default: MMEL_DATA, else ./data")


def _run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    store = Store.find(arguments.results)

    from mmel.study.train import TrainingError, processes, train

    try:
        for line in train(config, store, device=arguments.device):
            scores = [f"{name.removesuffix('_pct')} {line[name]:.2f} %" for name in line if name.endswith("_pct")]
            unit = next(name for name in line if name.endswith("_per_second"))
            speed = f"{line[unit]:.0f} {unit.removesuffix('_per_second')}/s"
            print(f"epoch {line['epoch']:6g}  loss {line['train_loss']:.4f}", *scores, speed, sep="  ")
    except TrainingError as error:
        print(f"mmel: {error}", file=sys.stderr)
        return 1
    if processes.is_main():
        print(f"recorded at {store.run_path(config)}")
    return 0


def _config(arguments: argparse.Namespace) -> Run:
    """The given fields on top of the paper's recipe for that data set."""
    name = arguments.dataset or ImageRun.dataset
    kind = run_type(name)
    fields = {"dataset": name} | recipe(name)
    if kind is TextRun:
        fields["model"] = text_model_name() or fields.get("model", TextRun.model)
    if arguments.method in METHODS and METHODS[arguments.method].is_single:
        fields["num_augmented"] = 1
    return kind(**(fields | _given(arguments, kind, RUN_FIELDS)))


def _sweep(arguments: argparse.Namespace) -> int:
    from mmel.study.sweep import Outcome
    from mmel.study.sweep.driver import Sweep
    from mmel.study.sweep.plan import duration, estimate_speed, plan
    from mmel.study.sweep.view import plan_lines, sigterm_as_interrupt, watch

    store = Store.find(arguments.results)
    on_ray = arguments.executor == "ray"
    if not on_ray and (arguments.address or arguments.gpus_per_run is not None):
        raise ValueError("address and gpus_per_run are for executor 'ray', got executor 'local'")
    if on_ray and arguments.pack != 1:
        raise ValueError(f"pack must be 1 with executor 'ray', which fills the cluster by itself, got {arguments.pack}")
    if arguments.pack < 1:
        raise ValueError(f"pack must be at least 1, got {arguments.pack}")
    stop_at = _stop_time(arguments.budget_minutes)
    # Which devices a cluster has shows in what it records; a record's times are cut to whole seconds.
    device = None if on_ray else _describe_device(arguments.device, arguments.pack)
    since = datetime.now(UTC).replace(microsecond=0) if on_ray else None

    def replan() -> list:
        speed = estimate_speed(store, device=device, since=since)
        return plan(arguments.table, arguments.profile, store, arguments.only, speed, text_model_name())

    if arguments.plan:
        print(*plan_lines(replan(), arguments.table, device and device["name"]), sep="\n")
        return 0
    # Else each run would fail by itself where nothing can be written.
    tempfile.TemporaryFile(dir=store.root).close()
    begin = time.perf_counter()
    with sigterm_as_interrupt(), watch() as (report, status), _executor(arguments, store, stop_at) as executor:
        sweep = Sweep(
            replan,
            store,
            executor,
            slots=None if on_ray else arguments.pack,
            stop_at=math.inf if stop_at is None else stop_at,
            retry_failed=arguments.retry_failed,
            report=report,
            status=status,
        )
        ended = sweep.run()
    count = Counter(outcome for _, (outcome, _) in ended)
    spent = duration(time.perf_counter() - begin)
    print(f"{count[Outcome.RECORDED]} recorded before, {count[Outcome.TRAINED]} trained in {spent}")
    for run, (outcome, reason) in ended:
        if reason:
            recorded = outcome is Outcome.FAILED and store.read(run.config) is not None
            again = "--retry-failed trains it again" if recorded else "the next sweep tries it again"
            print(f"{outcome.value}: {run.config.run_id}: {reason}; {again}")
    return 1 if count[Outcome.FAILED] or count[Outcome.LOST] else 0


def _executor(arguments: argparse.Namespace, store: Store, stop_at: float | None) -> "Executor":
    options = {
        "notebook": not arguments.no_notebook,
        "data_root": arguments.data_root,
        "device": arguments.device,
        "stop_at": stop_at,
    }
    if arguments.executor == "ray":
        from mmel.study.sweep.ray import RayExecutor

        return RayExecutor(store, address=arguments.address, gpus_per_run=arguments.gpus_per_run, **options)
    from mmel.study.sweep.local import local_executor

    return local_executor(store, slots=arguments.pack, **options)


def _stop_time(budget_minutes: float | None) -> float | None:
    """When a sweep has to stop: after its budget, or at MMEL_STOP_AT."""
    if budget_minutes is not None:
        if not 0 <= budget_minutes < math.inf:
            raise ValueError(f"budget_minutes must be a number from 0, got {budget_minutes}")
        return time.time() + budget_minutes * 60
    if not os.environ.get("MMEL_STOP_AT"):
        return None
    from mmel.study.train.loop import stop_time

    return stop_time()


def _describe_device(device: str | None, pack: int) -> dict[str, Any]:
    """The device, and the precision that `auto` takes, as runs see them of which `pack` share the device."""
    from mmel.study.sweep.local import threads_of
    from mmel.study.train.machine import describe_device, pick_device
    from mmel.study.train.precision import resolve

    chosen = pick_device(device)
    described = describe_device(chosen) | {"precision": resolve("auto", chosen)}
    return described | {"threads": threads_of(pack)} if pack > 1 and "threads" in described else described


def _report(arguments: argparse.Namespace) -> int:
    store = Store.find(arguments.results)
    if arguments.glue_submission:
        from mmel.study.report.glue_submission import submit

        path, notes = submit(store, arguments.profile, arguments.glue_submission, text_model_name())
        print("\n".join([f"submission: {path}", *notes]))
        return 0
    from mmel.study.report.book import report

    print(f"book: open {report(arguments.table, arguments.profile, store, text_model_name())} in a browser")
    return 0


def _augment(arguments: argparse.Namespace) -> int:
    # Validates the settings before anything is loaded; of a pair task, where either `pair_mode` has a meaning.
    model = text_model_name() or TEXT_MODELS["paper"]
    config = TextRun(dataset="mrpc", model=model, **_given(arguments, TextRun, AUGMENT_FIELDS))

    from platformdirs import user_cache_path

    from mmel.study.augment_files import augment_file, check_files

    # It is of use without a study too, whose results folder then is none that it should write to.
    named = arguments.results or os.environ.get("MMEL_RESULTS")
    places = (arguments.source, arguments.target, arguments.column)
    check_files(*places, arguments.pair_column)
    store = Store.find(named) if named else Store(user_cache_path("mmel", ensure_exists=True))

    from mmel.study.train.encoder import build_augmenter, find_model
    from mmel.study.train.machine import pick_device

    augmenter = build_augmenter(config, find_model(config.model, store), store, pick_device(arguments.device))
    rows = augment_file(*places, augmenter, arguments.pair_column)
    print(f"{rows} rows written to {arguments.target}")
    return 0


def _data(arguments: argparse.Namespace) -> int:
    name = arguments.dataset
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    data = DATASETS[name]
    loaded = data.load()
    parts = loaded if isinstance(loaded, dict) else dict(zip(data.sizes, loaded, strict=True))
    lengths = {split: len(part) for split, part in parts.items()}
    other = data.sampled(lengths)
    found = ", ".join(f"{split} {length}" for split, length in lengths.items())
    print(f"{name}: {found}" + (f" (not the official size: {', '.join(other)})" if other else ""))
    return 0
