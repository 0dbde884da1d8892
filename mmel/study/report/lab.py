"""The lab's numbers, text and figures: contrasts of `mmel.study.lab`, paired by seed, and how arms train."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from IPython.display import HTML
from scipy import stats

from mmel.study import lab
from mmel.study.methods import METHODS
from mmel.study.records import Store
from mmel.study.report.claims import VERDICTS, verdict
from mmel.study.report.figures import one_legend, panels_of
from mmel.study.report.pictures import Picture
from mmel.study.report.runs import load_runs
from mmel.study.report.statistics import Cell, Contrast, holm, paired, seeds_needed, shared_error, welch
from mmel.study.report.tables import interval, level, seeds_text

CELL_LABELS = {name: cell.label for name, cell in lab.CELLS.items()}
QUESTIONS = {
    1: "Do weights beat equal weights, and longer training?",
    2: "What does lambda_P do, and another worst case?",
    3: "Does the accuracy saturate in K?",
    4: "And if a fifth of the labels is wrong?",
    5: "Is one drawn view as good as all?",
    6: "And on CIFAR-100, where the paper's effect is largest?",
    7: "What does MMEL-S gain by, step by step?",
}
_EMPTY = (
    *("question", "place", "label", "method", "source", "quantity", "direction"),
    *("n", "planned", "difference", "low", "high", "primary", "verdict", "p"),
)
_LAMBDAS = {**{name: value for value, name in lab.LAMBDAS.items()}, lab.H: 1.0}


def load(store: Store, profile: str) -> pd.DataFrame:
    """One row for each planned run: `cell`, `arm`, `counts`, and the columns of `runs.load_runs`.

    `counts` says whether its seed is analysed: all arms of the cell that plan it have finished. A report of `paper`
    shows the lab of `reduced`: it has no larger form.
    """
    profile = "mini" if profile == "mini" else "reduced"
    names = ["digits100"] if profile == "mini" else [*lab.CELLS]
    parts = [
        load_runs(store, lab.runs_of_arm(cell, arm, profile)).assign(cell=cell, arm=arm)
        for cell in names
        for arm in lab.CELLS[cell].arms
    ]
    runs = pd.concat(parts, ignore_index=True)
    return runs.assign(counts=runs["score"].notna().groupby([runs["cell"], runs["seed"]]).transform("all"))


def contrasts(runs: pd.DataFrame) -> pd.DataFrame:
    """The contrasts of the plan on the seeds that count.

    Returns:
        One row for each with at least two seeds, as `figures.forest` takes them: `question`, `place` (the cell),
        `label`, `method` (of the first arm), `n` and `planned` (seeds), `difference`, `low`, `high` (paired by seed),
        `half_width`, `verdict`, `direction`, `primary`, `p` of the paired t test (by Holm's method; NaN if not
        primary), `correlation` of the seeds, `welch_low`, `welch_high`, `seeds` that would decide it if difference and
        spread stay (NaN if decided), and `set_error` (`statistics.shared_error`; NaN if each seed holds out other
        images).
    """
    scores, rows = _scores(runs), []
    for contrast in lab.CONTRASTS:
        here = scores.get(contrast.cell, pd.DataFrame())
        if len(both := here.reindex(columns=[contrast.a, contrast.b]).dropna()) < 2:
            continue
        first, second = (both[arm].to_numpy(float) for arm in (contrast.a, contrast.b))
        found = paired(first, second)
        apart = welch(*(Cell(side.mean(), side.std(ddof=1), len(side)) for side in (first, second)))
        said, half = verdict(found.low, found.high, contrast.direction, lab.MARGIN), (found.high - found.low) / 2
        planned = runs[(runs["cell"] == contrast.cell) & runs["arm"].isin([contrast.a, contrast.b])]
        wanted = _to_a_verdict(found.difference, contrast.direction)
        rows.append(
            {
                "question": contrast.question,
                "place": contrast.cell,
                "label": f"{contrast.a} − {contrast.b}",
                "method": lab.ARMS[contrast.a]["method"],
                "source": "ours",
                "quantity": "score",
                "direction": contrast.direction,
                "primary": contrast.primary,
                "n": len(both),
                "planned": int(planned["arm"].value_counts().min()),
                **found._asdict(),
                "half_width": half,
                "verdict": said,
                "welch_low": apart.low,
                "welch_high": apart.high,
                "correlation": both[contrast.a].corr(both[contrast.b]),
                "p": stats.ttest_rel(first, second).pvalue if contrast.primary else np.nan,
                "seeds": seeds_needed(half, len(both), wanted) if said == "undecided" else np.nan,
                "set_error": shared_error(*(_marks(planned, arm) for arm in (contrast.a, contrast.b))),
            }
        )
    # Without rows a column of objects would select columns.
    found = pd.DataFrame(rows, columns=[*(rows[0] if rows else _EMPTY)]).astype({"primary": bool})
    for _, p in found["p"].dropna().groupby(found["question"] == 6):
        found.loc[p.index, "p"] = holm(p.tolist())
    return found


def _to_a_verdict(difference: float, direction: str) -> float:
    """The half-width at which an interval about a difference gets the nearest verdict, by `claims.verdict`."""
    if direction == ">=":
        return abs(difference + lab.MARGIN)
    size = abs(difference)
    return abs(lab.MARGIN - size) if direction == "=" else max(size, lab.MARGIN - size)


def _marks(runs: pd.DataFrame, arm: str) -> list[str]:
    """Which examples of the evaluation set, if all seeds share it, each run of an arm got right."""
    shared = runs[(runs["arm"] == arm) & (runs["holdout"] == 0)]
    return [mark for correct in shared["correct"] if isinstance(correct, dict) for mark in correct.values()]


def _scores(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Cell -> scores of the seeds that count, a row for each seed and a column for each arm."""
    return {
        cell: rows.pivot(index="seed", columns="arm", values="score")
        for cell, rows in runs[runs["counts"]].groupby("cell", sort=False)
    }


def primary(found: pd.DataFrame) -> pd.DataFrame:
    """The primary contrasts as text, from `contrasts`: a row for each training set; of question 4 the risk."""
    rows = found[found["primary"]]
    # Where it is a risk that is stated, opposed is above.
    risks = rows["verdict"].replace({"supported": "below, as feared", "opposed": "above, against the risk"})
    said = risks.where(rows["direction"] == "<", rows["verdict"])
    numbers = [interval(*row) for row in rows[["difference", "low", "high"]].itertuples(index=False)]
    seeds = [
        f"{n}" if n == planned else f"{n} of {planned}" for n, planned in zip(rows["n"], rows["planned"], strict=True)
    ]
    cells = rows.assign(text=pd.Series(numbers, rows.index, dtype=str) + " " + said, n=seeds)
    order = pd.MultiIndex.from_frame(cells[["place", "n"]].drop_duplicates())
    wide = cells.pivot(index=["place", "n"], columns="label", values="text").rename_axis(columns=None)
    wide = wide.reindex(index=order, columns=rows["label"].unique()).fillna("").reset_index()
    return wide.assign(place=wide["place"].map(CELL_LABELS)).rename(columns={"place": "Training set", "n": "Seeds"})


def by_question(found: pd.DataFrame) -> list[str]:
    """For each question the statements that are decided, from `contrasts`, and how many are not."""
    lines, words = [], {">": "above", "<": "below", "=": "like", ">=": "not below"}
    for question, rows in found.groupby("question"):
        told = []
        for said in VERDICTS[:3]:
            items = []
            for (label, direction), mine in rows[rows["verdict"] == said].groupby(["label", "direction"], sort=False):
                where = f" ({', '.join(mine['place'].map(CELL_LABELS))})" if rows["place"].nunique() > 1 else ""
                items.append(label.replace("−", words[direction]) + where)
            if items:
                told.append(f"*{said}*: {'; '.join(items)}")
        told.append(f"*undecided*: {(rows['verdict'] == 'undecided').sum()} of {len(rows)}")
        early = rows.loc[rows["n"] < rows["planned"], ["n", "planned"]].min()
        seeds = f" With {early['n']:.0f} of {early['planned']:.0f} seeds so far." if early.notna().all() else ""
        lines.append(f"**{QUESTIONS[question]}** {'. '.join(told)}.{seeds}")
    return lines


def table(found: pd.DataFrame) -> pd.DataFrame:
    """The contrasts as text, from `contrasts`."""
    return pd.DataFrame(
        {
            "Question": row["question"],
            "Training set": CELL_LABELS[row["place"]],
            "Contrast": row["label"] + (" *" if row["primary"] else ""),
            "Statement": row["direction"],
            "Difference [95 %], paired": interval(row["difference"], row["low"], row["high"]),
            "Verdict": row["verdict"],
            "Seeds": row["n"],
            "Welch's interval": f"[{row['welch_low']:+.2f}, {row['welch_high']:+.2f}]",
            "Correlation of seeds": f"{row['correlation']:.2f}",
            "p (Holm)": "" if pd.isna(row["p"]) else f"{row['p']:.3f}",
            "Seeds to decide, as it stands": "" if pd.isna(row["seeds"]) else seeds_text(row["seeds"]),
            "Error of the test set": "" if pd.isna(row["set_error"]) else f"{row['set_error']:.2f}",
        }
        for row in found.to_dict("records")
    )


def levels(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, mean ± std (n), of each arm on each training set, on the seeds that count."""
    cells = _scores(runs)
    rows = {
        arm: {
            CELL_LABELS[cell]: level(scores[arm].mean(), scores[arm].std(), scores[arm].count())
            for cell, scores in cells.items()
            if arm in scores
        }
        for arm in lab.ARMS
    }
    return pd.DataFrame.from_dict(rows, orient="index").dropna(how="all").fillna("").rename_axis("Arm").reset_index()


def records(runs: pd.DataFrame) -> pd.DataFrame:
    """Every run that counts: for each training set and arm its seeds, as links to their records."""
    groups = runs[runs["counts"]].groupby(["cell", "arm"], sort=False)[["seed", "record"]]
    rows = []
    for (cell, arm), mine in groups:
        links = [f'<a href="../results/{path}">{seed}</a>' for seed, path in mine.itertuples(index=False)]
        rows.append((CELL_LABELS[cell], arm, HTML(" ".join(links))))
    return pd.DataFrame(rows, columns=["Training set", "Arm", "Records by seed"])


def fit(runs: pd.DataFrame) -> pd.DataFrame:
    """How the wrong labels are fitted: means over the seeds that count, in percent of the training images."""
    rows = runs[runs["counts"] & runs["wrong_followed"].notna()]
    means = rows.groupby("arm", sort=False)[["wrong_followed", "train_accuracy", "score"]].mean()
    names = {
        "wrong_followed": "Wrong labels that it predicts (%)",
        "train_accuracy": "Given labels that it predicts (%)",
        "score": "Accuracy on held-out images (%)",
    }
    return means.map("{:.1f}".format).rename(columns=names).rename_axis("Arm").reset_index()


def sampled_time(runs: pd.DataFrame) -> str:
    """The training time of one drawn view over that of all views, seed by seed: medians and the middle half."""
    told = []
    for cell, rows in runs[runs["counts"]].groupby("cell", sort=False):
        seconds = rows.pivot(index="seed", columns="arm", values="train_seconds").astype(float)
        if lab.SAMPLED in seconds:
            low, middle, high = (seconds[lab.SAMPLED] / seconds[lab.H]).quantile([0.25, 0.5, 0.75])
            told.append(f"{CELL_LABELS[cell]} {middle:.2f} ({low:.2f} to {high:.2f})")
    return (
        "Training time over that of MMEL-H in the same seed, median and middle half of the seeds, on cores that other "
        f"runs shared: {'; '.join(told) or 'no runs yet'}. By count it is 0.53."
    )


def lambda_figure(runs: pd.DataFrame) -> Picture:
    """Accuracy less that of equal weights over lambda_P: means and 95 % bands of seeds' differences, for each cell."""
    return _less_uni(runs, _LAMBDAS, "$\\lambda_P$", "MMEL-H − equal weights, over lambda_P")


def views_figure(runs: pd.DataFrame) -> Picture:
    """Accuracy over K of MMEL-H and of equal weights, less that of equal weights at K = 5."""
    over, others = (
        {name: k for (method, k), name in lab.VIEWS.items() if method == wanted} for wanted in (lab.H, lab.UNI)
    )
    about = "Accuracy less that of equal weights at K = 5, over K"
    return _less_uni(runs, over | {lab.H: 5}, "K", about, others)


def _less_uni(
    runs: pd.DataFrame,
    over: Mapping[str, float],
    axis_label: str,
    about: str,
    others: Mapping[str, float] | None = None,
) -> Picture:
    """A line over the values of MMEL-H's arms, and one over those of others with equal weights."""
    lines = {lab.H: over, **({lab.UNI: others} if others else {})}
    cells = {cell: scores for cell, scores in _scores(runs).items() if set(over) <= set(scores)}
    told = []
    with panels_of({CELL_LABELS[cell]: scores for cell, scores in cells.items()}) as (figure, panels):
        for axis, scores in panels:
            axis.axhline(0, color=METHODS["baseline_da_uni"].colour, ls="--", lw=1.2)
            for method, arms in lines.items():
                values = sorted((value, arm) for arm, value in arms.items())
                found = [_difference(scores, arm) for _, arm in values]
                means, low, high = (
                    np.array([getattr(one, name) for one in found]) for name in ("difference", "low", "high")
                )
                color = METHODS["mmel_h" if method == lab.H else "baseline_da_uni"].colour
                axis.plot([value for value, _ in values], means, "o-", ms=3.5, lw=1.4, color=color, label=method)
                axis.fill_between([value for value, _ in values], low, high, color=color, alpha=0.16, lw=0)
                told += [
                    f"{axis.get_title()}, {arm}: {interval(*one[:3])}"
                    for (_, arm), one in zip(values, found, strict=True)
                ]
            axis.set_xscale("log")
            ticks = sorted(over.values())
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
            axis.set_xlabel(axis_label)
            axis.legend(fontsize=7)
        figure.supylabel("points less equal weights", fontsize=9)
    return Picture(figure, f"{about}. {'; '.join(told)}." if told else "No runs yet.")


def _difference(scores: pd.DataFrame, arm: str) -> Contrast:
    both = scores[[arm, lab.UNI]].dropna()
    return paired(both[arm].to_numpy(float), both[lab.UNI].to_numpy(float))


def effective_figure(runs: pd.DataFrame) -> Picture:
    """The effective number of views over training, mean over the seeds that count: a panel for each cell."""
    styles = {lab.LAMBDAS[0.1]: "--", lab.LAMBDAS[0.3]: ":"}
    arms = (lab.UNI, *styles, lab.H, lab.S, lab.CVAR, lab.CHI_SQUARE)
    shown = runs[runs["counts"] & runs["arm"].isin(arms)]
    told = []
    with panels_of({CELL_LABELS[cell]: rows for cell, rows in shown.groupby("cell", sort=False)}) as (figure, panels):
        for axis, rows in panels:
            for (arm, method), mine in rows.groupby(["arm", "method"], sort=False):
                share = np.linspace(0, 100, len(mine["effective_views"].iloc[0]) + 1)[1:]
                mean = np.mean(mine["effective_views"].tolist(), axis=0)
                line = {"ls": styles.get(arm, "-"), "color": METHODS[method].colour, "label": arm}
                axis.plot(share, mean, lw=1.4, marker="o", ms=2.5, **line)
                told.append(f"{axis.get_title()}, {arm}: from {mean[0]:.2f} to {mean[-1]:.2f}")
            axis.set_xlabel("training done (%)")
            axis.legend(fontsize=7)
        figure.supylabel("effective views of 5 (MMEL-S: of 4)", fontsize=9)
    return Picture(figure, f"Effective number of views over training. {'; '.join(told)}." if told else "No runs yet.")


def cost_figure(runs: pd.DataFrame) -> Picture:
    """Accuracy over cost, means over the seeds that count, a panel for each cell.

    Cost is by count: a view's forward and backward pass are 3, its forward pass 1; Baseline(DA)'s step is 1.
    """
    told = []
    cells = {CELL_LABELS[cell]: rows for cell, rows in runs[runs["counts"]].groupby("cell", sort=False)}
    with panels_of(cells) as (figure, panels):
        for axis, rows in panels:
            for (arm, method), mine in rows.groupby(["arm", "method"], sort=False):
                k, sampled = mine["num_augmented"].iloc[0], mine["backward"].iloc[0] == "sampled"
                cost = (k + 3) / 3 if sampled else k
                marker = "D" if sampled else "o"
                name = METHODS[method].label + (", sampled" if sampled else "")
                axis.plot(cost, mine["score"].mean(), marker, ms=5, color=METHODS[method].colour, label=name)
                told.append(f"{axis.get_title()}, {arm}: {mine['score'].mean():.2f} at {cost:.2f}")
            axis.set_xscale("log")
            axis.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
            axis.minorticks_off()
            axis.set_xlim(0.8, 25)
            axis.set_xlabel("cost, Baseline(DA) = 1")
        one_legend(figure)
        figure.supylabel("accuracy (%)", fontsize=9)
    return Picture(figure, f"Accuracy over cost. {'; '.join(told)}." if told else "No runs yet.")
