"""What does a sweep of mini runs cost beside its work: one by one, side by side, on Ray; with notebooks and without?

The runs are the cheapest of the mini tables, as they are but for their seeds (Baseline(DA), ResNet-8, 20 epochs of the
digits), so the share is the largest that any of them has. Work is what the records count (`wall_seconds`: loading,
training, evaluation, checkpoints). Overhead is all else that the workers' time goes into, from the start of the command
to its end: start-up, imports, kernels, notebooks, waiting.
"""

import contextlib
from collections.abc import Iterator

from benchmarks.common import table, table_line, timed_sweep

RUNS, WORKERS, TARGET_PCT = 64, 2, 10
NOTEBOOKS = {"papermill": [], "none": ["--no-notebook"]}
# Runs of one sweep whose `run_id` differs from those of every table.
SWEEP = """
import sys
from mmel import grids
count = int(sys.argv.pop(1))
(run,) = (
    run for run in grids.table1("mini") if run.model == "resnet8" and run.method == "baseline_da" and run.seed == 0
)
grids.TABLES["table1"] = lambda profile: [run.replace(seed=seed) for seed in range(count)]
from mmel.cli import main
sys.exit(main())
"""


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


def measure(runs: int = RUNS) -> Iterator[str]:
    """One round each: a round of all takes minutes. Ray's cluster is begun before its clock runs."""
    yield f"{runs} runs each; overhead is seconds of a worker; target: under {TARGET_PCT} % of the work.\n"
    head = ("way", "notebooks", "wall seconds", "work a run, s", "overhead a run, s", "overhead, % of the work")
    yield table(head)
    for notebooks, flags in NOTEBOOKS.items():
        yield _line("one by one", notebooks, flags, 1, runs)
        yield _line(f"--pack {WORKERS}", notebooks, ["--pack", str(WORKERS), *flags], WORKERS, runs)
    with ray_cluster() as address:
        for notebooks, flags in NOTEBOOKS.items():
            on_ray = ["--executor", "ray", "--address", address, *flags]
            yield _line(f"Ray, {WORKERS} workers", notebooks, on_ray, WORKERS, runs)


def _line(way: str, notebooks: str, options: list[str], workers: int, runs: int) -> str:
    wall, recorded = timed_sweep(("-c", SWEEP, str(runs)), *options)
    if len(recorded) != runs:
        raise RuntimeError(f"the sweep recorded {len(recorded)} of {runs} runs")
    work = sum(recorded)
    overhead = wall * workers - work
    cells = (f"{wall:.0f}", f"{work / runs:.2f}", f"{overhead / runs:.2f}", f"{overhead / work:.0%}")
    return table_line(way, notebooks, *cells)
