"""What the workloads of `benchmarks/gpu.py` share: how much is measured, and a line of their table."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import floor
from benchmarks.common import table_line
from benchmarks.text_augmentation import BASE, TINY
from mmel.records import Line

HEAD = ("work", "a second", "measured", "at the floor", "its multiple", "bound by", "target", "", "paper's V100")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        train_size: images an epoch; 0 for all.
        holdout: of them, held out for a whole run to be evaluated on; 0 for the 10,000 test images.
        batch_size: of the runs on images.
        rounds: epochs (of Algorithm 2: passes) that count, after one that warms up.
        packs: numbers of runs side by side.
        shape: of the BERT with random weights.
        num_augment: sentences that Algorithm 2 augments.
        num_finetune: sentences that are trained on.
        noise_steps: of each run of the self-check.
    """

    train_size: int
    holdout: int
    batch_size: int
    rounds: int
    packs: tuple[int, ...]
    shape: dict[str, int]
    num_augment: int
    num_finetune: int
    noise_steps: int


FULL = Sizes(0, 0, 128, 3, (1, 2, 4, 8), BASE, 8192, 2048, 100)
SMALL = Sizes(20, 10, 10, 1, (2,), TINY, 20, 32, 10)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what is done.
        unit: of which there are so many a second.
        rates: measured, one a round.
        per_step: how many of them one `step` is.
        step: what has to be done for that.
        target: in the same unit.
        paper: the paper's V100, in the same unit.
    """

    work: str
    unit: str
    rates: list[float]
    per_step: float
    step: floor.Work
    target: float | None = None
    paper: float | None = None

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    def line(self, rates: floor.Rates, judged: bool) -> str:
        """The line, with the floor at a machine's rates, and the target's verdict where it is judged."""
        seconds, bound = rates.floor(self.step)
        limit = self.per_step / seconds
        verdict = "-" if self.target is None or not judged else "met" if self.rate >= self.target else "missed"
        spread = f"{self.rate:,.0f} ({min(self.rates):,.0f} to {max(self.rates):,.0f})"
        wanted, paper = ("-" if value is None else f"{value:,.0f}" for value in (self.target, self.paper))
        multiple = f"{limit / self.rate:.1f}"
        return table_line(self.work, self.unit, spread, f"{limit:,.0f}", multiple, bound, wanted, verdict, paper)


# What a failed one is called, and what measures it when called.
Workload = tuple[str, Callable[[], Iterator[Row]]]


def rates_of(lines: list[Line]) -> list[float]:
    """Images or sequences a second of some evaluations."""
    return [value for line in lines for name, value in line.items() if name.endswith("s_per_second")]
