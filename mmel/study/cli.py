"""The command line: `mmel run | sweep | report | augment | data`; `python -m mmel.study` is the same."""

import argparse
import functools
import math
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmel import __version__
from mmel.study.config import ImageRun, Run, TextRun, run_type
from mmel.study.data import DataError
from mmel.study.datasets import DATASETS
from mmel.study.fields import PROFILES, parse_field
from mmel.study.methods import METHODS, methods_for
from mmel.study.models import ModelError, text_model_name
from mmel.study.records import ResultsError, Store
from mmel.study.sweep import NotebookError
from mmel.study.tables import GRIDS, TEXT_MODELS, recipe

# Variables, because notebooks, kernels and workers must see the same choice.
VARIABLES = {"data_root": "MMEL_DATA", "text_model": "MMEL_TEXT_MODEL", "device": "MMEL_DEVICE"}
RUN_FIELDS = tuple(dict.fromkeys((*ImageRun.field_names(), *TextRun.field_names())))
AUGMENT_FIELDS = ("num_augmented", "mask_ratio", "fill", "pair_mode")


def _option(text: str, **keywords: Any) -> dict[str, Any]:
    return {"help": text, **keywords}


# Option or argument -> its keywords for argparse; the fields of runs are options too.
OPTIONS = {
    "--results": _option("default: MMEL_RESULTS, else ./results (augment: the user's cache folder)", metavar="DIR"),
    "--text-model": _option("encoder, by hub name or folder; default: MMEL_TEXT_MODEL, the profile's", metavar="NAME"),
    "--data-root": _option("default: MMEL_DATA, else ./data", metavar="DIR"),
    "--device": _option("cpu, cuda, cuda:1; default: MMEL_DEVICE, else the first GPU, else the CPU"),
    "--table": _option(f"default: {' '.join(GRIDS)}", nargs="+", choices=GRIDS, default=[*GRIDS], metavar="TABLE"),
    "--profile": _option("default: mini", choices=PROFILES, default="mini"),
    "--only": _option("keep runs with this value, and the runs they need", action="append", metavar="FIELD=VALUE"),
    "--plan": _option("list the runs and their cost; train nothing", action="store_true"),
    "--budget-minutes": _option("stop before; a run that has begun is evaluated once", type=float, metavar="M"),
    "--pack": _option("train N runs side by side; default: 1", type=int, metavar="N"),
    "--executor": _option("default: local", choices=("local", "ray"), default="local"),
    "--address": _option("with --executor ray: of the cluster (auto, host:port); default: this machine"),
    "--gpus-per-run": _option("with --executor ray; default: 1 if there are any", type=float, metavar="G"),
    "--retry-failed": _option("train runs again that failed", action="store_true"),
    "--no-notebook": _option("train without papermill, as `mmel run` always does", action="store_true"),
    "--glue-submission": _option("instead: zips for GLUE's server", metavar="METHOD", choices=methods_for("text")),
    "--glue-scores": _option("instead: keep GLUE's scores (CSV: method,seed,task,score)", metavar="FILE"),
    "source": _option("the file"),
    "target": _option("the file to write: a row for each variant, in the format of its suffix"),
    "--column": _option("the sentences", required=True),
    "--pair-column": _option("the second sentences, of a pair task"),
    "dataset": _option(f"one of {', '.join(DATASETS)}", choices=DATASETS, metavar="DATASET"),
}


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
        os.environ |= {VARIABLES[name]: value for name, value in vars(arguments).items() if name in VARIABLES and value}
        status = arguments.command(arguments)
        # Here, as an error at the end of Python is a traceback.
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        print(
            f"mmel: {error.name} is missing: pip install '.[study]' in the checkout (or `make study`)", file=sys.stderr
        )
    except BrokenPipeError:
        # As of other tools whose reader has gone (`mmel sweep --plan | head`).
        return 128 + signal.SIGPIPE
    except (OSError, ValueError, ImportError, DataError, ModelError, NotebookError, ResultsError) as error:
        print(f"mmel: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("mmel: interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            # Text that cannot be written would raise once more as Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmel",
        description="Minimizing the maximal expected loss: the study",
        epilog="Exit status: 0 done, 1 a run failed, 2 an argument or a file is at fault, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"mmel {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tables, places = ("--table", "--profile"), ("--results", "--text-model", "--data-root")
    cluster = ("--executor", "--address", "--gpus-per-run")
    sweep = (*tables, "--only", "--plan", "--budget-minutes", "--pack", *cluster, "--retry-failed", "--no-notebook")
    glue = ("--glue-submission", "--glue-scores")
    files = ("source", "target", "--column", "--pair-column")
    for command, help_text, options, fields in (
        (_run, "train one run and print its evaluations", (*places, "--device", "--no-notebook"), RUN_FIELDS),
        (_sweep, "train the missing runs of one or more tables", (*sweep, *places, "--device"), ()),
        (_report, "write the tables of a profile and build its book", (*tables, *places, *glue), ()),
        (_augment, "augment a text column of a file (Algorithm 2)", (*files, *places, "--device"), AUGMENT_FIELDS),
        (_data, "fetch and check a data set", ("dataset", "--data-root"), ()),
    ):
        subparser = commands.add_parser(command.__name__.removeprefix("_"), help=help_text, description=help_text)
        subparser.set_defaults(command=command)
        for name in options:
            subparser.add_argument(name, **OPTIONS[name])
        for name in fields:
            subparser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"default: {_defaults(name)}")
    return parser


def _defaults(name: str) -> str:
    """The defaults of a field, of runs on images and on text if they differ, as one writes them."""
    values = [kind.defaults([name])[name] for kind in (ImageRun, TextRun) if name in kind.field_names()]
    return " / ".join(dict.fromkeys(",".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values))


def _given(arguments: argparse.Namespace, kind: type[Run], names: Iterable[str]) -> dict[str, Any]:
    return {name: parse_field(kind, name, text) for name in names if (text := getattr(arguments, name)) is not None}


def _run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    store = Store.find(arguments.results)

    from mmel.study.train import TrainingError, processes, train

    try:
        for line in train(config, store):
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
    from mmel.study.sweep.cost import Speed, duration, plan_lines
    from mmel.study.sweep.driver import Sweep
    from mmel.study.sweep.plan import plan

    on_ray = arguments.executor == "ray"
    for name in ("pack",) if on_ray else ("address", "gpus_per_run"):
        if (value := getattr(arguments, name)) is not None:
            raise ValueError(f"{name} must not be given with executor {arguments.executor!r}, got {value!r}")
    if (pack := 1 if arguments.pack is None else arguments.pack) < 1:
        raise ValueError(f"pack must be at least 1, got {pack}")
    if (minutes := arguments.budget_minutes) is not None:
        if not 0 <= minutes < math.inf:
            raise ValueError(f"budget_minutes must be a number from 0, got {minutes}")
        os.environ["MMEL_STOP_AT"] = repr(time.time() + minutes * 60)
    store = Store.find(arguments.results)
    runs = plan(arguments.table, arguments.profile, arguments.only or (), text_model_name())
    # Those of a cluster are not known.
    device = None if on_ray else _describe_device(pack)
    records = (record for profile in PROFILES for record in store.records(profile) if record.finished)
    speed = Speed(device, records)
    if arguments.plan:
        print(*plan_lines(runs, store, speed, device and device["name"]), sep="\n")
        return 0
    from mmel.study.train.loop import stop_time

    stop_at = stop_time()
    # Else each run would fail by itself where nothing can be written.
    tempfile.TemporaryFile(dir=store.root).close()
    # As batch systems send it before they kill.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = time.perf_counter()
    with _executor(arguments, store, pack) as executor:
        slots = None if on_ray else pack
        ended = Sweep(runs, store, executor.submit, speed, slots, stop_at, arguments.retry_failed).run()
    count = Counter(outcome for outcome, _ in ended.values())
    spent = duration(time.perf_counter() - begin)
    print(f"{count[Outcome.RECORDED]} recorded before, {count[Outcome.TRAINED]} trained in {spent}")
    if others := [(run, outcome, reason) for run, (outcome, reason) in ended.items() if reason]:
        print(*(f"{outcome.value}: {run.run_id}: {reason}" for run, outcome, reason in others), sep="\n")
        print("The same command trains them; those that are recorded as failed, with --retry-failed.")
    return 1 if count[Outcome.FAILED] or count[Outcome.LOST] else 0


def _executor(arguments: argparse.Namespace, store: Store, pack: int) -> Any:
    notebook = not arguments.no_notebook
    if arguments.executor == "local":
        from mmel.study.sweep.local import LocalExecutor

        return LocalExecutor(store, slots=pack, notebook=notebook)
    from mmel.study.sweep.ray import RayExecutor

    return RayExecutor(store, address=arguments.address, gpus_per_run=arguments.gpus_per_run, notebook=notebook)


def _describe_device(pack: int) -> dict[str, Any]:
    """The device as runs see it of which `pack` share it."""
    from mmel.study.sweep.local import threads_of
    from mmel.study.train.machine import describe_device, pick_device

    described, threads = describe_device(pick_device()), threads_of(pack)
    return described | {"threads": threads} if threads and "threads" in described else described


def _report(arguments: argparse.Namespace) -> int:
    store = Store.find(arguments.results)
    if arguments.glue_submission:
        from mmel.study.report.glue_submission import submit

        paths, notes = submit(store, arguments.profile, arguments.glue_submission)
        print(*(f"submission: {path}" for path in paths), *notes, sep="\n")
        return 0
    if arguments.glue_scores:
        from mmel.study.report.glue_submission import enter_scores

        kept = enter_scores(store, arguments.profile, Path(arguments.glue_scores))
        print(f"scores kept in {kept}; `mmel report --profile {arguments.profile}` shows them in Table 3")
        return 0
    from mmel.study.report.book import report

    print(f"book: open {report(arguments.table, arguments.profile, store)} in a browser")
    return 0


def _augment(arguments: argparse.Namespace) -> int:
    # Validates the settings before anything is loaded; of a pair task, where either `pair_mode` has a meaning.
    model = text_model_name() or TEXT_MODELS["paper"]
    config = TextRun(dataset="mrpc", model=model, **_given(arguments, TextRun, AUGMENT_FIELDS))

    from platformdirs import user_cache_path

    from mmel.study.augment_files import augment_file
    from mmel.study.train.encoder import build_augmenter, find_model
    from mmel.study.train.machine import pick_device

    # It is of use without a study too, whose results folder then is none that it should write to.
    named = arguments.results or os.environ.get("MMEL_RESULTS")
    store = Store.find(named) if named else Store(user_cache_path("mmel", ensure_exists=True))
    columns = [arguments.column, *filter(None, [arguments.pair_column])]
    build = functools.partial(build_augmenter, config, find_model(config.model, store), store, pick_device())
    rows = augment_file(Path(arguments.source), Path(arguments.target), columns, build)
    print(f"{rows} rows written to {arguments.target}")
    return 0


def _data(arguments: argparse.Namespace) -> int:
    data = DATASETS[arguments.dataset]
    loaded = data.load()
    parts = loaded if isinstance(loaded, dict) else dict(zip(data.sizes, loaded, strict=True))
    lengths = {split: len(part) for split, part in parts.items()}
    other = data.sampled(lengths)
    found = ", ".join(f"{split} {length}" for split, length in lengths.items())
    print(f"{data.name}: {found}" + (f" (not the official size: {', '.join(other)})" if other else ""))
    return 0
