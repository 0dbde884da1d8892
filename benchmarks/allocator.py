"""What does it bring on the CPU to keep freed memory (`mmel.train.machine.keep_freed_memory`)?"""

import statistics

from benchmarks.common import PAPER_BATCH, Side, alternate, our_steps, ratio, table


def measure(rounds: int = 3, steps: int = 3) -> str:
    """Our step with the allocator's setting and without, each in its own process."""
    images = PAPER_BATCH.batch_size * PAPER_BATCH.num_augmented
    with Side(our_steps, steps, True) as kept, Side(our_steps, steps, False) as returned:
        seconds = alternate({"kept": kept, "given back (glibc's default)": returned}, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [(name, f"{median:.2f}", f"{images / median:.0f}") for name, median in medians.items()]
    return (
        table(("freed memory is", "seconds a step", "augmented images/s"), *rows)
        + f"\n\nKept over given back: {ratio(*reversed(seconds.values()))}, {rounds} rounds of {steps} steps."
    )
