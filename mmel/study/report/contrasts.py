"""The paper's claims on its own numbers and on ours: contrasts, verdicts, and an answer for each claim.

A *place* is where methods are compared: a data set and network (`cifar10/resnet20`), or a column of the GLUE tables
(`cola`). An *arm* is a method with its settings (`MMEL-H-5`; `MMEL-H, predicted`).
"""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from mmel.study.datasets import DATASETS
from mmel.study.methods import METHODS
from mmel.study.records import Store
from mmel.study.report import frames
from mmel.study.report.claims import VERDICTS, Claim, claims_of
from mmel.study.report.frames import PLAIN, RecordedTable, arm_label
from mmel.study.report.layout import AVERAGE
from mmel.study.report.runs import finished, timed
from mmel.study.report.statistics import (
    Cell,
    Contrast,
    Pooled,
    combination,
    holm,
    paired,
    pooled,
    seeds_needed,
    shared_error,
    welch,
)
from mmel.study.tables import TABLES, Table

# From so many shared seeds on their differences make the interval.
PAIRED_FROM = 6
# The paper prints hours to one decimal.
_ROUNDING_HOURS = 0.05
_Pair = dict[str, Any]


def contrasts(table: RecordedTable) -> pd.DataFrame:
    """Each claim of a table at each place, on the paper's numbers and on ours.

    Returns:
        One row for each claim, place, pair of arms and `source` (`paper` or `ours`), in the claims' order: `claim` (its
        index in `claims_of`), `label`, `quantity`, `primary`, `place`, `arm_a`, `arm_b`, `n_a`, `n_b`, all fields of
        `statistics.Contrast`, `verdict`, `half_width`, and of the paper's contrast there `paper_difference`,
        `paper_low`, `paper_high` and `paper_verdict`, if it has one. `effect` is the distance of the paper's from the
        value that the claim is compared with; the median of all such sizes if there is none there. Of ours also `seeds`
        (a side, that would bring the half-width down to the effect; NaN if decided), `differs_in_size` (decided, and
        disjoint from the paper's interval) and `set_error` (`statistics.shared_error` of an accuracy). Arms without a
        run are left out.
    """
    claims, rows = claims_of(table.spec.name), []
    sides = product({claim.quantity for claim in claims}, ("paper", "ours"))
    arms = {side: _arms(table, *side) for side in sides}
    for number, claim in enumerate(claims):
        head = {"claim": number, "label": claim_label(table.spec, claim), "quantity": claim.quantity}
        head |= {"primary": claim.primary, "null": claim.null}
        for source in ("paper", "ours"):
            pairs = _pairs(table.spec, claim, arms[claim.quantity, source])
            for pair, found in _interaction(claim, pairs) if claim.against else _each(claim, pairs):
                verdict = claim.verdict(found.low, found.high)
                rows.append({**pair, **head, "source": source, **found._asdict(), "verdict": verdict})
    first = ["claim", "label", "quantity", "primary", "null", "source", "place", "arm_a", "arm_b", "n_a", "n_b"]
    found = pd.DataFrame(rows, columns=[*first, *Contrast._fields, "verdict"])
    found["half_width"] = (found["high"] - found["low"]) / 2
    found["set_error"] = [_set_error(table, row) for row in found.to_dict("records")]
    return _beside_the_paper(found).drop(columns="null")


def _set_error(table: RecordedTable, row: _Pair) -> float:
    if (row["source"], row["quantity"]) != ("ours", "score"):
        return np.nan
    runs, place = finished(table.runs), row["place"].removesuffix("_mm")
    runs = runs[(runs["place"] == place) & (runs["metric"] == "accuracy_pct")]
    # Of images the one evaluation split, test or held out.
    number = 1 if row["place"] != place else 0
    sides = [
        [[*correct.values()][number] for correct in runs.loc[runs["arm"] == arm, "correct"] if correct]
        for arm in (row["arm_a"], row["arm_b"])
    ]
    return shared_error(*sides)


def _beside_the_paper(found: pd.DataFrame) -> pd.DataFrame:
    """With the paper's contrast, its effect, seeds needed, and whether a decided contrast differs from it in size."""
    paper, keys = found[found["source"] == "paper"], ["claim", "place", "arm_a", "arm_b"]
    numbers = paper[["difference", "low", "high", "verdict"]].add_prefix("paper_")
    typical = (paper["difference"] - paper["null"]).abs().groupby(paper["claim"]).median()
    found = found.merge(paper[keys].join(numbers), on=keys, how="left")
    found["effect"] = (found["paper_difference"] - found["null"]).fillna(found["claim"].map(typical))
    ours, decided = found["source"] == "ours", found["verdict"] != "undecided"
    apart = (found["low"] > found["paper_high"]) | (found["high"] < found["paper_low"])
    found["differs_in_size"] = ours & decided & apart
    n, width, effect = found[["n_a", "n_b"]].min(axis="columns"), found["half_width"], found["effect"].abs()
    wanted = ours & ~decided & (n > 1) & (effect > 0) & (width > effect)
    needed = [seeds_needed(*row) for row in zip(width[wanted], n[wanted], effect[wanted], strict=True)]
    found["seeds"] = pd.Series(needed, index=found.index[wanted], dtype=float)
    return found


def _arms(table: RecordedTable, quantity: str, source: str) -> pd.DataFrame:
    """The arms of a table with runs, in the grid's order, of times each device apart.

    Returns:
        `place`, `arm`, its fields, `device`, `cell`, its `n`, and `runs`: seed -> value, empty for the paper.
    """
    keys = ["place", "arm", "method", *table.spec.settings, "device"]
    columns = [*keys, "cell", "n", "runs"]
    if source == "paper":
        # The paper prints no numbers with its Figure 2.
        return pd.DataFrame(columns=columns) if quantity == "progress" else _printed(table.spec, quantity)[columns]
    found, rows = _values(table, quantity), []
    for key, group in found[found["place"] != AVERAGE].dropna(subset="value").groupby(keys, sort=False):
        runs = group.set_index("seed")["value"].astype(float)
        cell = Cell(runs.mean(), runs.std(), len(runs))
        rows.append((*key, cell, cell.n, runs.to_dict()))
    return pd.DataFrame(rows, columns=columns)


def _printed(spec: Table, quantity: str) -> pd.DataFrame:
    if quantity == "time":
        found = frames.paper_hours(spec.name).rename(columns={"paper_hours": "mean"})
        found = found.assign(sd=np.nan, n=1, **dict.fromkeys(["arm", *spec.settings], np.nan))
    else:
        # A number that is printed without its runs is taken as of one run.
        found = frames.paper_cells(spec.name).query("place != @AVERAGE").fillna({"n": 1}).astype({"n": int})
    cells = [Cell(*cell) for cell in found[["mean", "sd", "n"]].itertuples(index=False)]
    return found.assign(device="", cell=cells, runs=[{} for _ in cells])


def _values(table: RecordedTable, quantity: str) -> pd.DataFrame:
    """Our runs with their `value`: the score, its mean over the evaluations, or the logarithm of the training time."""
    if quantity == "score":
        return frames.scores(table).rename(columns={"score": "value"}).assign(device="")
    if quantity == "progress":
        runs = finished(table.runs)
        means = [np.mean([score for _, score in history]) for history in runs["history"]]
        return runs.assign(value=means, device="")
    runs = timed(table.runs)
    return runs.assign(value=np.log(runs["train_seconds"].astype(float)))


def _pairs(spec: Table, claim: Claim, arms: pd.DataFrame) -> list[_Pair]:
    """The pairs of arms that a claim compares, at each place; `_a` and `_b` mark the two sides."""
    # A plain baseline has no settings to be alike in; times are of no setting.
    alone = claim.b["method"] in PLAIN or claim.quantity == "time"
    alike = ["place", "device", *([] if alone else set(spec.settings) - set(claim.a))]
    first, second = (arms[arms[list(side)].eq(pd.Series(side)).all(axis="columns")] for side in (claim.a, claim.b))
    found, about = first.merge(second, on=alike, suffixes=("_a", "_b")), (*claim.places, *claim.against)
    return found[found["place"].str.removesuffix("_mm").isin(about) | (not about)].to_dict("records")


def _each(claim: Claim, pairs: list[_Pair]) -> Iterator[tuple[_Pair, Contrast]]:
    for pair in pairs:
        first, second = pair["cell_a"], pair["cell_b"]
        seeds, *runs = _shared(pair)
        if claim.quantity == "time" and pair["runs_a"]:
            ratio = welch(first, second)
            yield pair, Contrast(*np.exp(ratio[:3]).tolist(), ratio.kind)
        elif claim.quantity == "time":
            errors = (-_ROUNDING_HOURS, _ROUNDING_HOURS)
            low, high = ((first.mean + error) / (second.mean - error) for error in errors)
            yield pair, Contrast(first.mean / second.mean, low, high, "rounding")
        else:
            yield pair, paired(*runs) if seeds >= PAIRED_FROM else welch(first, second)


def _shared(pair: _Pair) -> tuple[int, list[float], list[float]]:
    """How many seeds the two sides share, and the values of both, seed by seed."""
    sides = pair["runs_a"], pair["runs_b"]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    return len(seeds), *([side[seed] for seed in seeds] for side in sides)


def _interaction(claim: Claim, pairs: list[_Pair]) -> Iterator[tuple[_Pair, Contrast]]:
    """The mean contrast of some data sets less that of others, if both have one."""
    inside, outside = ([pair for pair in pairs if pair["place"] in of] for of in (claim.places, claim.against))
    if inside and outside:
        signs = [(pair, 1 / len(inside)) for pair in inside] + [(pair, -1 / len(outside)) for pair in outside]
        terms = [(sign * side, pair[cell]) for pair, sign in signs for cell, side in (("cell_a", 1), ("cell_b", -1))]
        least = min(cell.n for _, cell in terms)
        yield {**inside[0], "place": " + ".join(claim.places), "n_a": least, "n_b": least}, combination(terms)


def claim_label(spec: Table, claim: Claim) -> str:
    """`MMEL-H − Baseline(DA)`; `MMEL-H, beam − greedy` of a claim about all settings that differ in nothing else."""
    if set(spec.settings) - set(claim.a):
        varied = (f"{claim.a[name]} − {claim.b[name]}" for name in spec.settings if name in claim.a)
        label = f"{METHODS[claim.a['method']].label}, {next(varied, 'all settings − Baseline')}"
    else:
        joiner = " / " if claim.quantity == "time" else " − "
        label = joiner.join(arm_label(spec, side) for side in (claim.a, claim.b))
    if claim.against:
        return f"{label}, {', '.join(DATASETS[name].label for name in claim.places)} less the others"
    if claim.quantity == "progress":
        return f"{label}, over training" + (" (similar)" if claim.direction == "=" else "")
    return label


def pooled_tests(table: RecordedTable) -> pd.DataFrame:
    """Each claim about scores over all models or tasks at once, on our runs; MNLI counts once.

    Returns:
        One row for each claim that can be tested: `claim`, `label`, `places`, `runs`, of `statistics.Pooled` all
        fields.
    """
    arms, rows = _arms(table, "score", "ours"), []
    for number, claim in enumerate(claims_of(table.spec.name)):
        if claim.quantity != "score" or claim.against:
            continue
        pairs = [_shared(pair) for pair in _pairs(table.spec, claim, arms) if pair["place"] != "mnli_mm"]
        cells = [sides for seeds, *sides in pairs if seeds > 1]
        if found := pooled(cells):
            runs = 2 * sum(len(first) for first, _ in cells)
            rows.append((number, claim_label(table.spec, claim), len(cells), runs, *found))
    return pd.DataFrame(rows, columns=["claim", "label", "places", "runs", *Pooled._fields])


def overall(verdicts: Iterable[str]) -> str:
    """One word for a claim at several places: a verdict of at least half of them, if none says the opposite.

    Returns:
        One of `VERDICTS`, or `mixed` if it is supported here and opposed there.
    """
    said = list(verdicts)
    if {"supported", "opposed"} <= set(said):
        return "mixed"
    return next((name for name in VERDICTS[:3] if said.count(name) * 2 >= len(said) > 0), "undecided")


def answers_of(table: RecordedTable) -> pd.DataFrame:
    """The claims of one table with their answers from the paper's own numbers and from ours.

    Returns:
        One row per claim: `table`, `method` (of its first arm), `label`, `words`, `section`, `primary`, `quantity`.
        For `paper` and `ours` `<source>_supported` and so on (places), `<source>_toward` (pairs whose difference is as
        claimed), `<source>_tested` (that have an interval), `<source>_places` (pairs) and `<source>` (`overall`).
        `agrees`: True, False, or None if one of them is undecided. `half_width` of ours and `seeds` needed, each from
        `_low` to `_high` over places. `p` of a primary claim, pooled; NaN if not tested.
    """
    name, found, rows = table.spec.name, contrasts(table), []
    p = pooled_tests(table).set_index("claim")["p"]
    for number, claim in enumerate(claims_of(name)):
        row = {
            "table": name,
            "method": claim.a["method"],
            "label": claim_label(table.spec, claim),
            "words": claim.words,
        }
        row |= {"section": claim.section, "primary": claim.primary, "quantity": claim.quantity}
        mine = found[found["claim"] == number]
        parts = {source: mine[mine["source"] == source] for source in ("paper", "ours")}
        for source, of in parts.items():
            row |= {f"{source}_{said}": int((of["verdict"] == said).sum()) for said in VERDICTS}
            # Numbers of one decimal subtract to 1e-15 rather than to 0.
            toward = [claim.verdict(value, value) for value in of["difference"].astype(float).round(9)]
            row[f"{source}_toward"] = toward.count("supported")
            row[f"{source}_tested"] = int(of["low"].notna().sum())
            row[f"{source}_places"], row[source] = len(of), overall(of["verdict"])
        row["agrees"] = None if "undecided" in (row["paper"], row["ours"]) else row["paper"] == row["ours"]
        for key in ("half_width", "seeds"):
            row |= {f"{key}_low": parts["ours"][key].min(), f"{key}_high": parts["ours"][key].max()}
        rows.append(row | {"p": p.get(number, np.nan) if claim.primary else np.nan})
    return pd.DataFrame(rows)


def answers(store: Store, profile: str) -> pd.DataFrame:
    """All claims, as `answers_of` has those of a table; their `p` adjusted by Holm's method."""
    found = pd.concat((answers_of(frames.load(name, store, profile)) for name in TABLES), ignore_index=True)
    tested = found["p"].notna()
    found.loc[tested, "p"] = holm(found.loc[tested, "p"].tolist())
    return found


def weights(store: Store, profile: str) -> pd.DataFrame:
    """How unequal the trained weights are: by place and method of Tables 1, 3 and 5 the largest weight against 1/K.

    Returns:
        One row for each: `table`, `place`, `method`, `num_weighted` (K, or K - 1 for MMEL-S, which weighs the others),
        `largest` (mean over examples and seeds at the last evaluation), `equal` (1 / `num_weighted`), `n`.
    """
    rows = []
    for name in ("table1", "table3", "table5"):
        runs = finished(frames.load(name, store, profile).runs).dropna(subset="weight_max")
        weighted = runs[runs["method"].isin(["mmel_h", "mmel_s"])]
        for (place, method), group in weighted.groupby(["place", "method"], sort=False):
            number = int(group["num_augmented"].iloc[0]) - METHODS[method].soft_targets
            rows.append((name, place, method, number, group["weight_max"].mean(), 1 / number, len(group)))
    return pd.DataFrame(rows, columns=["table", "place", "method", "num_weighted", "largest", "equal", "n"])
