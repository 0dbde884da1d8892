"""The progress bar of a run."""

import os
import sys

from tqdm import tqdm

from mmel.config import RunConfig
from mmel.train import processes


def progress(config: RunConfig, done: int, total: int) -> tqdm:
    """A bar over steps with ETA; where nobody watches, one line every half minute (a notebook keeps each one)."""
    watched = sys.stderr.isatty() or ("ipykernel" in sys.modules and "MMEL_HEADLESS" not in os.environ)
    return tqdm(
        desc=config.run_id,
        initial=done,
        total=total,
        unit="step",
        mininterval=0.5 if watched else 30,
        disable=not processes.is_main(),
        file=sys.stderr,
    )
