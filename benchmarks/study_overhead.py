"""What does the notebook path cost? Table 1 at mini size, ResNet-8, seed 0, through papermill and in one process.

Work is what the records count (`wall_seconds`: loading, training, evaluation, checkpoints); overhead is the rest of the
wall time, from the start of the command to its end.
"""

import statistics
from collections.abc import Sequence

from benchmarks.common import alternate, ratio, table, timed_sweep

ONLY = ("model=resnet8", "seed=0")


def measure(rounds: int = 3, only: Sequence[str] = ONLY) -> str:
    """Both ways in turn; the first round counts, too, since every sweep starts anew."""
    options = [word for entry in only for word in ("--only", entry)]
    sides = {
        "papermill": lambda: timed_sweep(("-m", "mmel"), *options),
        "--no-notebook": lambda: timed_sweep(("-m", "mmel"), *options, "--no-notebook"),
    }
    values = alternate(sides, rounds, warmup=0)
    seconds = {name: [wall for wall, _ in found] for name, found in values.items()}
    rows = []
    for name, found in values.items():
        works = [sum(recorded) for _, recorded in found]
        overheads = [100 * (wall - work) for wall, work in zip(seconds[name], works, strict=True)]
        cells = (f"{statistics.median(seconds[name]):.1f}", f"{statistics.median(works):.1f}", ratio(overheads, works))
        rows.append((name, len(found[0][1]), *cells))
    return (
        table(("way", "runs", "wall seconds", "work, s", "overhead, % of the work"), *rows)
        + f"\n\nThe first over the second: {ratio(*seconds.values())}."
    )
