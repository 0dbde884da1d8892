"""How long do imports take, each in a fresh process?"""

import statistics
import subprocess
import sys
from functools import partial

from benchmarks.common import ROOT, alternate, seconds_of, table

# Statement, what its time is compared with, and the target for the difference.
IMPORTS = (
    ("pass", None, ""),
    ("import torch", "pass", ""),
    ("import mmel", "pass", "0.2 s"),
    ("from mmel import MMELHardLoss", "import torch", "0.2 s"),
    ("import mmel.report.tables", "pass", ""),
)


def run(statement: str) -> None:
    """Run one statement in a fresh Python."""
    subprocess.run([sys.executable, "-c", statement], check=True, cwd=ROOT)


def measure(rounds: int = 5) -> str:
    """Medians of the processes' wall times, and of the differences within each round."""
    sides = {statement: partial(seconds_of, partial(run, statement)) for statement, _, _ in IMPORTS}
    seconds = alternate(sides, rounds)
    rows = []
    for statement, base, target in IMPORTS:
        difference = ""
        if base:
            pairs = zip(seconds[statement], seconds[base], strict=True)
            difference = f"{statistics.median(a - b for a, b in pairs):.3f} over `{base}`"
        rows.append((f"`{statement}`", f"{statistics.median(seconds[statement]):.3f}", difference, target))
    return table(("process", "seconds", "difference", "target: under"), *rows)
