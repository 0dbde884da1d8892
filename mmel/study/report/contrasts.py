"""The paper's claims on its own numbers and on ours: contrasts, verdicts, and an answer for each claim.

A *place* is where methods are compared: a data set and network (`cifar10/resnet20`), or a column of the GLUE tables
(`cola`). An *arm* is a method with its settings (`MMEL-H-5`; `MMEL-H, predicted`).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from mmel.study.datasets import DATASETS
from mmel.study.records import Store
from mmel.study.report import frames
from mmel.study.report.claims import Claim, claims_of
from mmel.study.report.frames import PLAIN, RecordedTable, arm_label
from mmel.study.report.layout import AVERAGE, METHOD_LABELS
from mmel.study.report.runs import finished
from mmel.study.report.statistics import Cell, Contrast, Pooled, combination, holm, paired, pooled, seeds_needed, welch
from mmel.study.tables import TABLES, Table

VERDICTS = ("supported", "opposed", "negligible", "undecided")
# From so many shared seeds on their differences make the interval.
PAIRED_FROM = 6
# The paper prints hours to one decimal.
_ROUNDING_HOURS = 0.05
_Arm = dict[str, Any]


def contrasts(table: RecordedTable) -> pd.DataFrame:
    """Each claim of a table at each place, on the paper's numbers and on ours.

    Returns:
        One row for each claim, place, pair of arms and `source` (`paper` or `ours`), in the claims' order: `claim` (its
        index in `claims_of`), `label`, `quantity`, `place`, `arm_a`, `arm_b`, `n_a`, `n_b`, all fields of
        `statistics.Contrast`, `verdict`, `half_width`. `effect` is the paper's distance there from the value that the
        claim is compared with; if it has no such place, the median of its sizes. Of ours also `seeds` (a side, that
        would bring the half-width down to the effect; NaN if decided) and `differs_in_size` (decided, and disjoint from
        the paper's interval). Arms without a run are left out.
    """
    claims, rows, arms = claims_of(table.spec.name), [], {}
    for number, claim in enumerate(claims):
        head = {"claim": number, "label": claim_label(table.spec, claim), "quantity": claim.quantity}
        for source in ("paper", "ours"):
            key = (claim.quantity, source)
            if key not in arms:
                arms[key] = _arms(table, *key)
            rows += [{**head, "source": source, **row} for row in _rows(table.spec, claim, arms[key], source)]
    names = [
        "claim",
        "label",
        "quantity",
        "source",
        "place",
        "arm_a",
        "arm_b",
        "n_a",
        "n_b",
        *Contrast._fields,
        "verdict",
    ]
    found = pd.DataFrame(rows, columns=[*names, "null"])
    found["half_width"] = (found["high"] - found["low"]) / 2
    return _beside_the_paper(found).drop(columns="null")


def _beside_the_paper(found: pd.DataFrame) -> pd.DataFrame:
    """Effect of the paper, seeds needed, and whether a decided contrast differs from it in size."""
    paper = found[found["source"] == "paper"]
    keys = ["claim", "place", "arm_a", "arm_b"]
    beside = paper[[*keys, "difference", "low", "high"]].rename(columns=lambda c: c if c in keys else f"paper_{c}")
    typical = (paper["difference"] - paper["null"]).abs().groupby(paper["claim"]).median()
    found = found.merge(beside, on=keys, how="left")
    found["effect"] = (found["paper_difference"] - found["null"]).fillna(found["claim"].map(typical))
    ours, decided = found["source"] == "ours", found["verdict"] != "undecided"
    found["differs_in_size"] = (
        ours & decided & ((found["low"] > found["paper_high"]) | (found["high"] < found["paper_low"]))
    )
    found["seeds"] = [
        seeds_needed(width, int(n), abs(effect)) if wanted and n > 1 and width > abs(effect) > 0 else np.nan
        for wanted, width, effect, n in zip(
            ours & ~decided, found["half_width"], found["effect"], found[["n_a", "n_b"]].min(axis=1), strict=True
        )
    ]
    return found.drop(columns=["paper_difference", "paper_low", "paper_high"])


def _rows(spec: Table, claim: Claim, arms: list[_Arm], source: str) -> Iterator[dict[str, Any]]:
    both = list(_pairs(spec, claim, arms))
    if claim.against:
        yield from _interaction(claim, both)
        return
    for first, second in both:
        if not claim.places or first["place"].removesuffix("_mm") in claim.places:
            yield _row(claim, first, second, _contrast(claim, first, second, source))


def _contrast(claim: Claim, first: _Arm, second: _Arm, source: str) -> Contrast:
    one, other = first["cell"], second["cell"]
    if claim.quantity == "time":
        if source == "paper":
            low, high = ((one.mean + e) / (other.mean - e) for e in (-_ROUNDING_HOURS, _ROUNDING_HOURS))
            return Contrast(one.mean / other.mean, low, high, np.nan, "rounding")
        ratio = welch(one, other)
        return Contrast(*np.exp(ratio[:3]).tolist(), ratio.p, ratio.kind)
    shared = sorted(first["runs"].keys() & second["runs"].keys())
    if len(shared) >= PAIRED_FROM:
        return paired(*([side["runs"][seed] for seed in shared] for side in (first, second)))
    return welch(one, other)


def _interaction(claim: Claim, both: list[tuple[_Arm, _Arm]]) -> Iterator[dict[str, Any]]:
    """The mean contrast of some data sets less that of others, if both have one."""
    inside, outside = ([pair for pair in both if pair[0]["place"] in of] for of in (claim.places, claim.against))
    if inside and outside:
        terms = [
            (sign * side / len(part), arm["cell"])
            for part, sign in ((inside, 1), (outside, -1))
            for pair in part
            for arm, side in zip(pair, (1, -1), strict=True)
        ]
        least = min(cell.n for _, cell in terms)
        first, second = ({**arm, "place": " + ".join(claim.places), "cell": Cell(0, 0, least)} for arm in inside[0])
        yield _row(claim, first, second, combination(terms))


def _row(claim: Claim, first: _Arm, second: _Arm, found: Contrast) -> dict[str, Any]:
    labels = {"place": first["place"], "arm_a": first["arm"], "arm_b": second["arm"]}
    numbers = {"n_a": first["cell"].n, "n_b": second["cell"].n, **found._asdict()}
    return {**labels, **numbers, "verdict": claim.verdict(found.low, found.high), "null": claim.null}


def _arms(table: RecordedTable, quantity: str, source: str) -> list[_Arm]:
    """The arms of a table with runs, in the grid's order: `place`, `arm`, its fields, `device`, `cell`, `runs`.

    Of times each device is apart; `runs` maps a seed to its value and is empty for the paper.
    """
    spec = table.spec
    keys = ["place", "arm", "method", *spec.settings]
    if source == "paper":
        if quantity == "progress":
            # The paper prints no numbers with its Figure 2.
            return []
        if quantity == "time":
            found = frames.paper_hours(spec.name).rename(columns={"paper_hours": "mean"}).assign(sd=np.nan, n=1)
        else:
            # A number that is printed without its runs is taken as of one run.
            found = frames.paper_cells(spec.name).fillna({"n": 1})
        rows = found[found["place"] != AVERAGE].reindex(columns=[*keys, "mean", "sd", "n"]).to_dict("records")
        return [{**row, "device": "", "cell": Cell(row["mean"], row["sd"], int(row["n"])), "runs": {}} for row in rows]
    if quantity == "score":
        found = frames.scores(table).assign(device="", value=lambda runs: runs["score"])
    else:
        found = finished(table.runs).assign(device="" if quantity == "progress" else table.runs["device"])
        if quantity == "progress":
            found["value"] = [np.mean([score for _, score in history]) for history in found["history"]]
        else:
            # Times of CPU cores, which other work may share, are no measure of cost.
            found = found[found["threads"] == 0].dropna(subset="train_seconds")
            found["value"] = np.log(found["train_seconds"].astype(float))
    rows = []
    found = found[found["place"] != AVERAGE].dropna(subset="value")
    for key, group in found.groupby([*keys, "device"], sort=False):
        values = group["value"].astype(float)
        cell = Cell(values.mean(), values.std(), len(values))
        runs = dict(zip(group["seed"], values, strict=True))
        rows.append({**dict(zip([*keys, "device"], key, strict=True)), "cell": cell, "runs": runs})
    return rows


def _pairs(spec: Table, claim: Claim, arms: list[_Arm]) -> Iterator[tuple[_Arm, _Arm]]:
    """The pairs of arms that a claim compares, at each place."""
    # A plain baseline has no settings to be alike in; times are of no setting.
    alone = claim.b["method"] in PLAIN or claim.quantity == "time"
    alike = ["place", "device", *([] if alone else sorted(set(spec.settings) - set(claim.a)))]
    for first in arms:
        if all(first[name] == value for name, value in claim.a.items()):
            for second in arms:
                same = all(first[name] == second[name] for name in alike)
                if same and all(second[name] == value for name, value in claim.b.items()):
                    yield first, second


def claim_label(spec: Table, claim: Claim) -> str:
    """`MMEL-H − Baseline(DA)`; `MMEL-H, beam − greedy` of a claim about all settings that differ in nothing else."""
    over_training = claim.quantity == "progress"
    open_settings = set(spec.settings) - set(claim.a) and not claim.a.keys() & {"num_augmented", "label_source"}
    if not open_settings:
        label = (" / " if claim.quantity == "time" else " − ").join(
            arm_label(spec, side) for side in (claim.a, claim.b)
        )
    else:
        varied = [f"{claim.a[name]} − {claim.b[name]}" for name in spec.settings if name in claim.a]
        label = f"{METHOD_LABELS[claim.a['method']]}, {(varied or ['all settings − Baseline'])[0]}"
    where = ", ".join(DATASETS[name].label for name in claim.places)
    if claim.against:
        return f"{label}, {where} less the others"
    return f"{label}, over training" + (" (similar)" if claim.direction == "=" else "") if over_training else label


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
        cells = []
        for first, second in _pairs(table.spec, claim, arms):
            seeds = sorted(first["runs"].keys() & second["runs"].keys())
            if len(seeds) > 1 and first["place"] != "mnli_mm":
                cells.append(tuple([side["runs"][seed] for seed in seeds] for side in (first, second)))
        if (found := pooled(cells)) is not None:
            runs = sum(len(a) + len(b) for a, b in cells)
            label = claim_label(table.spec, claim)
            rows.append({"claim": number, "label": label, "places": len(cells), "runs": runs, **found._asdict()})
    return pd.DataFrame(rows, columns=["claim", "label", "places", "runs", *Pooled._fields])


def overall(verdicts: Iterable[str]) -> str:
    """One word for a claim at several places: a verdict of at least half of them, if none says the opposite.

    Returns:
        One of `VERDICTS`, or `mixed` if it is supported here and opposed there.
    """
    said = list(verdicts)
    counts = {name: said.count(name) for name in VERDICTS}
    if counts["supported"] and counts["opposed"]:
        return "mixed"
    return next((name for name in VERDICTS[:3] if counts[name] * 2 >= len(said) > 0), "undecided")


def answers_of(table: RecordedTable) -> pd.DataFrame:
    """The claims of one table with their answers from the paper's own numbers and from ours.

    Returns:
        One row per claim: `table`, `label`, `words`, `section`, `primary`, `quantity`. For `paper` and `ours`
        `<source>_supported` and so on (places), `<source>_toward` (pairs whose difference is as claimed),
        `<source>_tested` (that have an interval), `<source>_places` (pairs) and `<source>` (`overall`). `agrees`: True,
        False, or None if one of them is undecided. `half_width` of ours, `effect` of the paper and `seeds` needed:
        medians over places. `p` of a primary claim, pooled; NaN if not tested.
    """
    name, found, rows = table.spec.name, contrasts(table), []
    pooled_p = pooled_tests(table).set_index("claim")["p"]
    for number, claim in enumerate(claims_of(name)):
        mine = found[found["claim"] == number]
        row = {"table": name, "label": claim_label(table.spec, claim), "words": claim.words}
        row |= {"section": claim.section, "primary": claim.primary, "quantity": claim.quantity}
        for source in ("paper", "ours"):
            of = mine[mine["source"] == source]
            row |= {f"{source}_{said}": int((of["verdict"] == said).sum()) for said in VERDICTS}
            row[f"{source}_toward"] = int(_toward(claim, of["difference"]).sum())
            row[f"{source}_tested"] = int(of["low"].notna().sum())
            row[f"{source}_places"], row[source] = len(of), overall(of["verdict"])
        told = {row["paper"], row["ours"]}
        row["agrees"] = None if "undecided" in told else len(told) == 1
        ours = mine[mine["source"] == "ours"]
        row |= {key: ours[key].abs().median() for key in ("half_width", "effect", "seeds")}
        rows.append(row | {"p": pooled_p.get(number, np.nan) if claim.primary else np.nan})
    return pd.DataFrame(rows)


def answers(store: Store, profile: str, text_model: str | None = None) -> pd.DataFrame:
    """All claims, as `answers_of` has those of a table; their `p` adjusted by Holm's method."""
    tables = (frames.load(name, store, profile, text_model) for name in TABLES)
    found = pd.concat(map(answers_of, tables), ignore_index=True)
    tested = found["p"].notna()
    found.loc[tested, "p"] = holm(found.loc[tested, "p"].tolist())
    return found


def primary(tables: Iterable[RecordedTable]) -> pd.DataFrame:
    """The contrasts of the primary claims of several tables, one after the other."""
    parts = []
    for table in tables:
        numbers = [number for number, claim in enumerate(claims_of(table.spec.name)) if claim.primary]
        found = contrasts(table)
        parts.append(found[found["claim"].isin(numbers)])
    return pd.concat(parts, ignore_index=True)


def _toward(claim: Claim, differences: pd.Series) -> pd.Series:
    """Which differences are as claimed; those of one decimal subtract to 1e-15 rather than to 0."""
    over = (differences.astype(float) - claim.null).round(9)
    return {">": over > 0, "<": over < 0, "=": over.abs() < claim.margin, ">=": over > -claim.margin}[claim.direction]


def weights(store: Store, profile: str, text_model: str | None = None) -> pd.DataFrame:
    """How unequal the trained weights are: by place and method of Tables 1 and 3 the largest weight against 1/K.

    Returns:
        One row for each: `table`, `place`, `method`, `num_weighted` (K, or K - 1 for MMEL-S, which weighs the others),
        `largest` (mean over examples and seeds at the last evaluation), `equal` (1 / `num_weighted`), `n`.
    """
    rows = []
    for name in ("table1", "table3"):
        table = frames.load(name, store, profile, text_model)
        runs = finished(table.runs)
        weighted = runs[runs["method"].isin(["mmel_h", "mmel_s"])].dropna(subset="weight_max")
        for (place, method), group in weighted.groupby(["place", "method"], sort=False):
            number = int(group["num_augmented"].iloc[0]) - (method == "mmel_s")
            largest = group["weight_max"].mean()
            rows.append((name, place, method, number, largest, 1 / number, len(group)))
    return pd.DataFrame(rows, columns=["table", "place", "method", "num_weighted", "largest", "equal", "n"])
