"""The numbers of a table: from one row per run to one row per cell and time. `tables` makes text of them.

For *place* and *arm* see `contrasts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import pandas as pd

from mmel.study.datasets import DATASETS
from mmel.study.methods import METHODS
from mmel.study.models import text_model_name
from mmel.study.records import Store
from mmel.study.report.glue_submission import read_scores
from mmel.study.report.layout import AVERAGE, COLUMNS, LAYOUTS, METHOD_LABELS, Layout
from mmel.study.report.runs import finished, load_runs, timed
from mmel.study.tables import TABLES, Table

PLAIN = [name for name, method in METHODS.items() if method.is_single]


@dataclass(frozen=True)
class RecordedTable:
    """A table or figure with its runs.

    Attributes:
        spec: its record.
        profile: whose runs.
        runs: from `load_runs`, each with its `arm`.
        checks: likewise, the runs that were trained in float32 too.
    """

    spec: Table
    profile: str
    runs: pd.DataFrame
    checks: pd.DataFrame

    @property
    def layout(self) -> Layout:
        """How tables on its kind of data are laid out."""
        return LAYOUTS[self.spec.kind]


def load(name: str, store: Store, profile: str) -> RecordedTable:
    """One of `mmel.study.tables.TABLES` with what is recorded of its runs.

    The text encoder is that of MMEL_TEXT_MODEL, which `mmel report --text-model` sets, else the profile's.
    """
    spec = TABLES[name]
    loaded = [
        load_runs(store, runs) for runs in (spec.reported(profile, text_model_name()), spec.float32_checks(profile))
    ]
    runs, checks = (_with_arms(spec, runs) if len(runs) else runs for runs in loaded)
    if spec.splits and (path := store.glue_scores_path(profile)).exists():
        entered = read_scores(path, profile)
        keys = runs[["method", "seed", "place"]].to_numpy()
        for suffix in ("", "_mm"):
            found = [entered.get((method, seed, task + suffix)) for method, seed, task in keys]
            runs[f"test_score{suffix}"] = runs[f"test_score{suffix}"].fillna(pd.Series(found, runs.index, dtype=float))
    return RecordedTable(spec, profile, runs, checks)


def paper_table(name: str) -> pd.DataFrame:
    """The paper's own numbers of a table, as `mmel/study/paper/<name>.csv` has them."""
    with resources.files("mmel.study.paper").joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def scores(table: RecordedTable, split: str = "dev", *, single_as_joint: bool = False) -> pd.DataFrame:
    """One row for each run and column of the table, planned runs too (their score is NaN).

    `split` is `dev`, which stands for the test set of images, or `test`: the miniatures', whose labels are here, and
    GLUE's once a score of its server is entered. `single_as_joint` repeats Table 6's runs on single sentences, which
    have no pair to join, as those of `joint`.

    Returns:
        `place`, `arm`, the arm's fields, `seed`, `score`. MNLI has two columns; Avg is over the seeds that have all
        nine, for the arms that have all nine in the grid.
    """
    keys = ["place", "arm", "method", *table.spec.settings, "seed"]
    if table.layout.arms_across:
        return table.runs[[*keys, "score"]]
    runs, score = table.runs, "score"
    if single_as_joint and "pair_mode" in table.spec.settings:
        single = runs[is_single(runs) & (runs["pair_mode"] == "separate")]
        runs = pd.concat([runs, _with_arms(table.spec, single.assign(pair_mode="joint"))])
    if split == "test":
        score = "test_score"
        if runs[[score, f"{score}_mm"]].isna().all(axis=None):
            runs = runs[[DATASETS[name].embedded for name in runs["dataset"]]]
    mnli = runs[runs["place"] == "mnli"]
    mismatched = mnli[keys].assign(place="mnli_mm", score=mnli[f"{score}_mm"])
    found = pd.concat([runs[keys].assign(score=runs[score]), mismatched])
    whole = found.groupby(["arm", "seed"])["place"].transform("nunique") == len(COLUMNS)
    means = found[whole].groupby(keys[1:], sort=False)["score"].agg(lambda values: values.mean(skipna=False))
    return pd.concat([found, means.reset_index().assign(place=AVERAGE)], ignore_index=True)


def cells(table: RecordedTable, split: str = "dev") -> pd.DataFrame:
    """Our cells: one row for each planned place and arm, with `mean`, `sd` (ddof = 1), `n` and `planned`."""
    groups = scores(table, split, single_as_joint=True).groupby(
        ["place", "arm", "method", *table.spec.settings], sort=False
    )["score"]
    return groups.agg(mean="mean", sd="std", n="count", planned="size").reset_index()


def is_single(rows: pd.DataFrame) -> pd.Series:
    """Whether the place of each row is a task of single sentences."""
    return rows["place"].map(lambda place: place in DATASETS and not DATASETS[place].is_pair)


def paper_cells(name: str, split: str = "dev") -> pd.DataFrame:
    """The paper's cells of a table, as `cells` has ours, and their `source`; `sd` and `n` are NaN if not printed."""
    spec, names = TABLES[name], {"accuracy_pct": "mean", "score": "mean", "std_pct": "sd", "std": "sd", "num_runs": "n"}
    printed = paper_table(name).rename(columns=names)
    if spec.splits:
        printed = printed[printed["split"] == split]
    columns = ["place", "arm", "method", *spec.settings, "mean", "sd", "n"]
    printed = _with_arms(spec, printed).reindex(columns=columns).assign(source="paper")
    # SMART's numbers are quoted from elsewhere, runs unknown.
    parts = [printed.assign(n=printed["n"].mask(printed["method"] == "smart"))]
    for method, other in spec.borrowed.items():
        source, lines = f"paper, {other.replace('table', 'Table ')}", paper_cells(other)
        parts.insert(0, lines[lines["method"] == method].assign(source=source, **dict.fromkeys(spec.settings, "")))
    return pd.concat(parts, ignore_index=True)


def times(table: RecordedTable) -> pd.DataFrame:
    """Training time of each cell on each kind of GPU by itself: times on different devices do not mix.

    Returns:
        One row for each `place`, `arm` and `device`, in the grid's order: its fields, `seconds` (median over runs),
        `n`, `baseline_seconds` (on the same device, NaN if it was not trained there), and `paper_hours` and
        `paper_ratio` of the method: in the same place, or of all tasks together.
    """
    layout, here = table.layout, ["place", "device"]
    keys = [*dict.fromkeys(["place", "arm", "method", "num_augmented", *table.spec.settings]), "device"]
    runs = timed(table.runs).groupby(keys, sort=False)["train_seconds"]
    found = runs.agg(seconds="median", n="size").reset_index()
    baselines = found.loc[found["method"] == layout.baseline, [*here, "seconds"]]
    found = found.merge(baselines.rename(columns={"seconds": "baseline_seconds"}), on=here, how="left")
    keys = ["place", "method"] if layout.arms_across else ["method"]
    return found.merge(paper_hours(table.spec.name)[[*keys, "paper_hours", "paper_ratio"]], on=keys, how="left")


def paper_hours(name: str) -> pd.DataFrame:
    """The paper's hours on one V100, of images by place and method, of texts for all tasks together."""
    layout = LAYOUTS[TABLES[name].kind]
    printed = paper_table(layout.times).rename(columns={"train_hours_v100": "paper_hours"})
    printed = _with_arms(TABLES[layout.times], printed).dropna(subset="paper_hours")
    if not layout.arms_across:
        printed["place"] = "all tasks"
    printed = printed.drop_duplicates(["place", "method"])
    base = printed[printed["method"] == layout.baseline].set_index("place")["paper_hours"]
    ratio = printed["paper_hours"] / printed["place"].map(base)
    return printed[["place", "method", "paper_hours"]].assign(paper_ratio=ratio)


def total_times(table: RecordedTable) -> pd.DataFrame:
    """By arm `seconds`, `baseline_seconds` and `tasks`: training times over the tasks that both have on one device.

    If a task was trained on several such devices, the one with most runs of the arm counts.
    """
    shared = times(table).dropna(subset="baseline_seconds").sort_values("n", ascending=False, kind="stable")
    groups = shared.drop_duplicates(["place", "arm"]).groupby("arm")
    return groups[["seconds", "baseline_seconds"]].sum().assign(tasks=groups.size())


def curves(table: RecordedTable) -> pd.DataFrame:
    """The score over training.

    Returns:
        One row for each data set, method and evaluation, in the grid's order: `place`, `dataset`, `method`, `metric`,
        `epoch` (epochs done, a fraction within one), `mean`, `min` and `max` of the score over seeds, `num_runs`.
    """
    lines = finished(table.runs).explode("history")
    lines["epoch"] = [float(epoch) for epoch, _ in lines["history"]]
    lines["score"] = [score for _, score in lines["history"]]
    groups = lines.groupby(["place", "dataset", "method", "metric", "epoch"], sort=False)["score"]
    return groups.agg(mean="mean", min="min", max="max", num_runs="size").reset_index()


def arm_label(spec: Table, fields: Mapping[str, object]) -> str:
    """Name of an arm of a table: `MMEL-H, predicted`, in Table 2 `MMEL-H-5`; a plain baseline has no settings."""
    settings = () if fields["method"] in PLAIN else spec.settings
    return LAYOUTS[spec.kind].joiner.join([METHOD_LABELS[fields["method"]], *(str(fields[name]) for name in settings)])


def _with_arms(spec: Table, found: pd.DataFrame) -> pd.DataFrame:
    """Runs, or lines of the paper's table, with their `place` and `arm`; a text baseline's settings are emptied."""
    if "place" not in found:
        place = found["dataset"] + "/" + found["model"] if spec.kind == "images" else found["dataset"]
        found = found.assign(place=place)
    empty = {key: found[key].astype(object).mask(found["method"] == "baseline", "") for key in spec.settings}
    found = found.assign(**empty)
    return found.assign(arm=[arm_label(spec, line) for line in found.to_dict("records")])
