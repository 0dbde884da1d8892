"""Questions about what is not training: imports, notebooks, sweeps.

Work is what the records count (`wall_seconds`: loading, training, evaluation, checkpoints). Overhead is all else that
the workers' time goes into, from the start of the command to its end: start-up, imports, kernels, notebooks, waiting.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from torch.utils.benchmark import timer

from benchmarks.common import alternate, ratio, table, table_line

ROOT = Path(__file__).resolve().parents[1]
# Statement, what its time is compared with, and the target for the difference.
IMPORTS = (
    ("pass", None, ""),
    ("import torch", "pass", ""),
    ("import mmel", "pass", "0.2 s"),
    ("from mmel import MMELHardLoss", "import torch", "0.2 s"),
    ("import mmel.study.report.tables", "pass", ""),
)
WORKERS, TARGET_PCT = 2, 10
NOTEBOOKS = {"papermill": [], "none": ["--no-notebook"]}
HEAD = ("way", "notebooks", "wall seconds", "work a run, s", "overhead a run, s", "overhead, % of the work")
# Runs of one sweep whose `run_id` differs from those of every table.
SWEEP = """
import sys
from dataclasses import replace
from mmel.study.tables import TABLES
count = int(sys.argv.pop(1))
runs = TABLES["table1"].runs("mini")
run = next(run for run in runs if (run.model, run.method, run.seed) == ("resnet8", "baseline_da", 0))
grid = lambda profile, text_model: [run.replace(seed=seed) for seed in range(count)]
TABLES["table1"] = replace(TABLES["table1"], grid=grid)
from mmel.study.cli import main
sys.exit(main())
"""


def python_seconds(*arguments: str) -> float:
    """Wall seconds of a fresh Python."""
    begin = timer()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return timer() - begin


def imports(rounds: int = 5) -> str:
    """How long do imports take, each in a fresh process? Medians, and those of the differences within each round."""
    seconds = alternate({statement: partial(python_seconds, "-c", statement) for statement, _, _ in IMPORTS}, rounds)
    rows = []
    for statement, base, target in IMPORTS:
        found = seconds[statement]
        over = statistics.median(a - b for a, b in zip(found, seconds[base or statement], strict=True))
        difference = f"{over:.3f} over `{base}`" if base else ""
        rows.append((f"`{statement}`", f"{statistics.median(found):.3f}", difference, target))
    return table(("process", "seconds", "difference", "target: under"), *rows)


def study_overhead(rounds: int = 3, only: Sequence[str] = ("model=resnet8", "seed=0")) -> str:
    """Is the notebook path dear? Table 1 at mini size, ResNet-8, seed 0, through papermill and in one process.

    The first round counts, too: every sweep starts anew.
    """
    options = [word for entry in only for word in ("--only", entry)]
    sides = {name: partial(timed_sweep, ("-m", "mmel.study"), *options, *flags) for name, flags in NOTEBOOKS.items()}
    values = alternate(sides, rounds, warmup=0)
    walls = [[wall for wall, _ in found] for found in values.values()]
    rows = [cells("one by one", name, found, 1) for name, found in values.items()]
    return f"{table(HEAD, *rows)}\n\nThe first over the second: {ratio(*walls)}."


def sweep_overhead(runs: int = 64) -> Iterator[str]:
    """Is a sweep of the cheapest mini runs dear: one by one, side by side, on Ray; with notebooks and without?

    One round each, since a round of all takes minutes. Ray's cluster is begun before its clock runs.
    """
    yield f"{runs} runs each; overhead is seconds of a worker; target: under {TARGET_PCT} % of the work.\n"
    yield table(HEAD)
    with contextlib.ExitStack() as stack:
        for way, workers in (("one by one", 1), (f"--pack {WORKERS}", WORKERS), (f"Ray, {WORKERS} workers", WORKERS)):
            options = ["--pack", str(workers)] if workers > 1 else []
            if way.startswith("Ray"):
                options = ["--executor", "ray", "--address", stack.enter_context(ray_cluster())]
            for name, flags in NOTEBOOKS.items():
                found = timed_sweep(("-c", SWEEP, str(runs)), *options, *flags)
                if len(found[1]) != runs:
                    raise RuntimeError(f"the sweep recorded {len(found[1])} of {runs} runs")
                yield table_line(*cells(way, name, [found], workers))


def timed_sweep(start: Sequence[str], *options: str) -> tuple[float, list[float]]:
    """Wall seconds of a sweep of Table 1 on the CPU into an empty folder, and what each record counts of them."""
    with tempfile.TemporaryDirectory() as folder:
        command = (*start, "sweep", "--table", "table1", "--device", "cpu", *options, "--results", folder)
        wall = python_seconds(*command)
        records = [path.read_text().splitlines()[-1] for path in Path(folder).glob("runs/*/*/*.jsonl")]
    return wall, [json.loads(record)["wall_seconds"] for record in records]


def cells(way: str, notebooks: str, found: list[tuple[float, list[float]]], workers: int) -> tuple[str, ...]:
    """The row of one way, each figure the median over its rounds."""
    runs = len(found[0][1])
    works = [sum(recorded) for _, recorded in found]
    overheads = [wall * workers - work for (wall, _), work in zip(found, works, strict=True)]
    wall, work, overhead = (statistics.median(v) for v in ([wall for wall, _ in found], works, overheads))
    share = f"{overhead / work:.0%}"
    return way, notebooks, f"{wall:.1f}", f"{work / runs:.2f}", f"{overhead / runs:.2f}", share


@contextlib.contextmanager
def ray_cluster() -> Iterator[str]:
    """The address of a Ray cluster of its own, one node with a CPU for each worker."""
    from ray.cluster_utils import Cluster

    # Runs pass nothing through Ray's object store: what it takes by default is memory for nothing.
    node = {"num_cpus": WORKERS, "include_dashboard": False, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield cluster.address
    finally:
        # Ends the processes of this cluster alone; `ray stop` would end those of others on this machine, too.
        cluster.shutdown()
