"""What does the notebook path cost? Table 1 at mini size, ResNet-8, seed 0, through papermill and in one process."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.common import ROOT, alternate, ratio, table

ONLY = ("model=resnet8", "seed=0")


def sweep(only: Sequence[str], *options: str) -> tuple[float, str]:
    """Wall seconds of a sweep into an empty results folder, and the last line that it prints."""
    command = [sys.executable, "-m", "mmel", "sweep", "--table", "table1", "--device", "cpu", *options]
    for entry in only:
        command += ["--only", entry]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        output = subprocess.check_output([*command, "--results", folder], cwd=ROOT, text=True)
        return time.perf_counter() - begin, output.splitlines()[-1]


def measure(rounds: int = 3, only: Sequence[str] = ONLY) -> str:
    """Both ways in turn; the share is what `mmel sweep` itself prints in its last round."""
    sides = {"papermill": lambda: sweep(only), "--no-notebook": lambda: sweep(only, "--no-notebook")}
    values = alternate(sides, rounds, warmup=0)
    seconds = {name: [wall for wall, _ in runs] for name, runs in values.items()}
    rows = [(name, f"{statistics.median(seconds[name]):.1f}", values[name][-1][1]) for name in sides]
    return (
        table(("way", "seconds", "`mmel sweep` says"), *rows)
        + f"\n\nThe first over the second: {ratio(*seconds.values())}."
    )
