"""What a person who watches a sweep sees."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Status = Callable[[int, int, str], None]


@contextmanager
def watch() -> Iterator[tuple[Callable[[str], None], Status | None]]:
    """Functions that show a sweep, as `mmel.sweep.driver.sweep` takes them: `report` and `status`.

    On a terminal a bar stays below the lines of the finished runs and says what is under way; elsewhere the lines are
    all there is, and `status` is None.
    """
    if not sys.stderr.isatty():
        yield lambda line: print(line, flush=True), None
        return
    with tqdm(total=0, bar_format="{n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}", leave=False) as bar:

        def status(done: int, total: int, text: str) -> None:
            bar.n, bar.total = done, total
            bar.set_postfix_str(text)

        yield tqdm.write, status
