"""The augmented samples of one text, for a run's notebook."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler


def weighted_texts(samples: Sequence[Mapping[str, Any]]) -> Styler:
    """The samples of one text below each other, each with its weight under P*; the original first.

    Args:
        samples: of each its text, target and weight, and what a teacher says of it, where there is one; numbers and
            lists of them.
    """

    def rounded(value: object) -> str:
        if isinstance(value, list):
            return ", ".join(map(rounded, value))
        return "" if value != value else f"{value:.3f}" if isinstance(value, float) else str(value)

    return pd.DataFrame(samples).style.format(rounded).set_properties(**{"text-align": "left"})
