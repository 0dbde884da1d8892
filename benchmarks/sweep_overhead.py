"""What does a sweep of 64 mini runs cost beside the training: one by one, two side by side, on Ray?"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import ROOT, table

RUNS = 64
WAYS = {
    "serial": [],
    "pack 2": ["--pack", "2"],
    "Ray, two workers": ["--executor", "ray", "--address", "auto"],
}
# Runs of one sweep whose `run_id` differs from those of every table.
SWEEP = """
import sys
from mmel import grids
grids.TABLES["table1"] = lambda profile: [
    run.replace(seed=seed, epochs=5, decay_epochs=())
    for run in grids.table1("mini") if run.model == "resnet8" and run.method == "baseline_da" and run.seed == 0
    for seed in range(int(sys.argv.pop(1)))
]
from mmel.cli import main
sys.exit(main())
"""


def sweep(options: list[str], runs: int) -> tuple[float, float]:
    """Wall seconds of a sweep into an empty results folder, and seconds that its records count, summed over runs."""
    command = [sys.executable, "-c", SWEEP, str(runs), "sweep", "--table", "table1", "--device", "cpu", *options]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.check_output([*command, "--results", folder], cwd=ROOT)
        wall = time.perf_counter() - begin
        records = [path.read_text().splitlines()[-1] for path in Path(folder).glob("runs/*/*/*.jsonl")]
        return wall, sum(json.loads(record)["wall_seconds"] for record in records)


def ray(*arguments: str) -> None:
    """Run the `ray` command that belongs to this Python."""
    subprocess.check_output([str(Path(sys.executable).with_name("ray")), *arguments], stderr=subprocess.STDOUT)


def measure(runs: int = RUNS) -> str:
    """One round each: a round of all takes many minutes. A cluster of two CPUs is begun before its clock runs."""
    rows = []
    for name, options in WAYS.items():
        on_ray = "--executor" in options
        if on_ray:
            ray("start", "--head", "--num-cpus=2", "--include-dashboard=false")
        try:
            wall, training = sweep(options, runs)
        finally:
            if on_ray:
                ray("stop")
        places = 1 if name == "serial" else 2
        overhead = wall * places - training
        rows.append((name, f"{wall:.0f}", f"{overhead / runs:.2f}", f"{overhead / (wall * places):.0%}"))
    return table(("way", "wall seconds", "overhead a run, seconds of a worker", "share of the workers' time"), *rows)
