"""Turns contrasts and the answers to claims into text, once, at the end."""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import pandas as pd
from IPython.display import HTML

from mmel.study import lab
from mmel.study.report import contrasts
from mmel.study.report.claims import VERDICTS, Claim, claims_of
from mmel.study.report.frames import RecordedTable
from mmel.study.report.layout import METHOD_LABELS
from mmel.study.report.tables import interval, labels, number, place_label, seeds_text
from mmel.study.tables import TABLES

# The places of the primary claims.
_COUNTED = {"table1": "image cells", "table3": "GLUE columns"}


def every_contrast(table: RecordedTable) -> pd.DataFrame:
    """The claims of a table wherever we have runs of both arms: ours and the paper's, each with interval and verdict.

    Where the paper has no such place the range of its differences stands.
    """
    found = contrasts.contrasts(table)
    paper = found[found["source"] == "paper"].groupby("claim")["difference"].agg(["min", "max", "size"])
    names, claims, rows = labels(table, columns=True), claims_of(table.spec.name), []
    for row in found[found["source"] == "ours"].to_dict("records"):
        ratio, said = row["quantity"] == "time", ""
        if pd.notna(row["paper_difference"]):
            bounds = (row[f"paper_{name}"] for name in ("difference", "low", "high"))
            said = f"{interval(*bounds, ratio=ratio)}, {row['paper_verdict']}"
        elif row["claim"] in paper.index:
            low, high, count = paper.loc[row["claim"]]
            said = f"{number(low, ratio)} to {number(high, ratio)} ({count:.0f} cells)"
        mine = interval(row["difference"], row["low"], row["high"], ratio=ratio)
        rows.append(
            {
                "Where": names.get(row["place"], "all tasks"),
                # A claim about many pairs of settings names each pair.
                "Contrast": f"{row['arm_a']} − {row['arm_b']}" if len(table.spec.settings) > 1 else row["label"],
                "Claimed": _claimed(claims[row["claim"]]),
                "Ours [95 %] (runs)": f"{mine}, {row['verdict']} ({row['n_a']} + {row['n_b']})",
                "Paper [95 %]": said,
                "Note": _note(row),
            }
        )
    return pd.DataFrame(rows)


def _claimed(claim: Claim) -> str:
    if claim.quantity == "time":
        return {"<": "< 1", "=": f"1 ± {claim.margin:g}"}[claim.direction]
    forms = {">": f"> {claim.more_than:g}", "<": "< 0", "=": f"0 ± {claim.margin:g}", ">=": f"> -{claim.margin:g}"}
    return forms[claim.direction]


def _note(row: Mapping[str, Any]) -> str:
    """Of an undecided contrast how much it can see, of a decided one whether it differs in size from the paper's."""
    none, single = row["kind"] == "none", max(row["n_a"], row["n_b"]) == 1
    undecided = row["verdict"] == "undecided" and row["quantity"] != "time" and not none
    notes = {
        "single runs": none and single,
        "no spread": none and not single,
        f"sees {row['half_width']:.1f}": undecided,
        "one run on a side, equal spread assumed": row["kind"] == "prediction",
        "paired by seed": row["kind"] == "paired",
        f"set's error {row['set_error']:.2f}": pd.notna(row["set_error"]),
        f"the paper's effect would take {seeds_text(row['seeds'])} seeds a side": undecided and pd.notna(row["seeds"]),
        "differs in size from the paper's": row["differs_in_size"],
    }
    return "; ".join(note for note, holds in notes.items() if holds)


def over_places(table: RecordedTable) -> pd.DataFrame:
    """Each claim over all models or tasks at once, where enough runs share their seeds."""
    found = contrasts.pooled_tests(table)
    return pd.DataFrame(
        {
            "Contrast": found["label"],
            "Cells": found["places"],
            "Runs": found["runs"],
            "Mean difference in standard deviations": found["effect"].map("{:+.2f}".format),
            "One cell left out": found["low"].map("{:+.2f}".format) + " to " + found["high"].map("{:+.2f}".format),
            "p (two-sided)": found["p"].map(_p_text),
        }
    )


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def every_claim(found: pd.DataFrame, profile: str, *, linked: bool = False) -> pd.DataFrame:
    """The claims table of the first page, from `contrasts.answers`; if `linked`, each leads to its table's page."""
    agrees = {True: "yes", False: "no", None: "cannot tell"}
    return pd.DataFrame(
        {
            "Claim": _stated(row),
            "Contrast": row["label"] + (" *" if row["primary"] else ""),
            "The paper's own numbers": _counted(row, "paper"),
            f"Ours ({profile})": _counted(row, "ours"),
            "Agree?": agrees[row["agrees"]] if row["ours_places"] else "no runs yet",
            "Ours can see": _detectable(row),
            "More": _more(row["table"]) if linked else TABLES[row["table"]].title,
        }
        for row in found.to_dict("records")
    )


def _more(name: str) -> HTML:
    return HTML(f'<a href="plot_{name}.ipynb">{TABLES[name].title}</a>')


def _stated(row: Mapping[str, Any]) -> str:
    if row["section"] == "-":
        return f"Not a claim of the paper: {row['words']}"
    return f"“{row['words']}” ({row['section']})"


def _counted(row: Mapping[str, Any], source: str) -> str:
    """`supported in 5 of 8`; of single runs `as claimed in 54 of 72, single runs`; empty without any."""
    number_of = row[f"{source}_places"]
    if not number_of:
        return ""
    if not row[f"{source}_tested"]:
        return f"as claimed in {row[f'{source}_toward']} of {number_of}, single runs"
    told = [f"{said} in {row[f'{source}_{said}']}" for said in VERDICTS[:3] if row[f"{source}_{said}"]]
    return f"{', '.join(told)} of {number_of}" if told else f"undecided in {number_of}"


def _detectable(row: Mapping[str, Any]) -> str:
    if pd.isna(row["half_width_low"]) or row["quantity"] == "time":
        return ""
    ends = {key: [row[f"{key}_{end}"] for end in ("low", "high")] for key in ("half_width", "seeds")}
    sees = " to ".join(dict.fromkeys(f"{end:.1f}" for end in ends["half_width"])) + " points"
    if pd.isna(row["seeds_low"]):
        return sees
    return f"{sees}; the paper's effect takes {' to '.join(dict.fromkeys(map(seeds_text, ends['seeds'])))} seeds"


def headline(found: pd.DataFrame, in_lab: pd.DataFrame, profile: str) -> str:
    """The first sentence of the first page, from `contrasts.answers` and `lab.contrasts`."""
    rows, risk = found[found["primary"]], in_lab["primary"] & (in_lab["direction"] == "<")
    clean, told = in_lab[in_lab["primary"] & ~risk], []
    for method in ("mmel_h", "mmel_s"):
        mine = rows[rows["method"] == method].to_dict("records")
        paper = (f"{_yes(row, 'paper')} {_COUNTED[row['table']]}" for row in mine)
        ours = (_yes(row, "ours") for row in mine)
        many = clean.loc[clean["method"] == method, "verdict"].value_counts()
        counts = {f"lab_{said}": many.get(said, 0) for said in VERDICTS} | {"lab_places": many.sum()}
        told.append(
            f"**{METHOD_LABELS[method]}**: yes in {' and '.join(paper)} by the paper's own numbers, in "
            f"{' and '.join(ours)} by ours (`{profile}`), in {_yes(counts, 'lab')} training sets of the lab"
        )
    apart = (in_lab["label"] == f"{lab.S} − {lab.S_EQUAL}") & in_lab["place"].isin(clean["place"])
    alone = in_lab.loc[apart, "verdict"]
    yes = f"{(alone == 'supported').sum()} of {len(alone)}"
    parts = f" **MMEL-S's weights alone**: yes in {yes} of these." if len(alone) else ""
    spoiled = in_lab.loc[risk, ["method", "difference"]].itertuples(index=False)
    gains = ", ".join(f"{METHOD_LABELS[method]} {number(difference)}" for method, difference in spoiled)
    wrong = f" With a fifth of the labels wrong: {gains} points." if gains else ""
    return f"**Is MMEL above equal weights?** {'; '.join(told)}.{parts}{wrong}"


def _yes(row: Mapping[str, Any], source: str) -> str:
    against = f" (no in {row[f'{source}_opposed']})" if row[f"{source}_opposed"] else ""
    return f"{row[f'{source}_supported']} of {row[f'{source}_places']}{against}"


def pooled_sentence(found: pd.DataFrame) -> str:
    """The p-values of the primary claims over all places, from `contrasts.answers`."""
    tested = found[found["primary"] & found["p"].notna()]
    intervals = int(found["ours_tested"].sum() + found["paper_tested"].sum())
    rows = tested[["label", "table", "p"]].itertuples(index=False)
    said = [f"{label} ({TABLES[table].title}) p = {_p_text(p)}" for label, table, p in rows]
    pooled = f" Over all cells at once, by Holm's method: {'; '.join(said)}." if said else ""
    return f"The table rests on {intervals} intervals; of as many, 1 in 20 misses by chance.{pooled}"


def answer(table: RecordedTable) -> str:
    """One sentence on the first claim of a table, for MMEL-H and MMEL-S, from the paper's numbers and ours."""
    return _first_claim(contrasts.answers_of(table), table.profile)


def table_by_table(found: pd.DataFrame, profile: str) -> list[str]:
    """One sentence on the first claim of each table that is not primary, from `contrasts.answers`, and its page."""
    return [
        f"[{TABLES[name].title}](plot_{name}.ipynb): {_first_claim(rows, profile)}"
        for name, rows in found[~found["primary"]].groupby("table", sort=False)
    ]


def _first_claim(found: pd.DataFrame, profile: str) -> str:
    parts = []
    for row in found[found["words"] == found["words"].iloc[0]].to_dict("records"):
        low = row["half_width_low"]
        sees = "" if pd.isna(low) else f" (sees {low:.1f} points or more)"
        told = f"the paper's own numbers: {_counted(row, 'paper') or 'none'}; ours (`{profile}`): "
        parts.append(f"**{row['label']}** — {told}{_counted(row, 'ours') or 'no runs yet'}{sees}.")
    return " ".join(parts)


def weights(found: pd.DataFrame) -> pd.DataFrame:
    """How unequal the trained weights are, from `contrasts.weights`."""
    return pd.DataFrame(
        {
            "Where": found["place"].map(place_label),
            "Method": found["method"].map(METHOD_LABELS),
            "Views weighted": found["num_weighted"],
            "Largest weight, mean": found["largest"].map("{:.3f}".format),
            "Equal weights": found["equal"].map("{:.3f}".format),
            "Ratio": (found["largest"] / found["equal"]).map("{:.2f}".format),
            "Runs": found["n"],
        }
    )


def most_unequal(found: pd.DataFrame) -> str:
    """Where the trained weights are most unequal, from `contrasts.weights`."""
    if found.empty:
        return ""
    ratios = (found["largest"] / found["equal"]).sort_values(ascending=False)
    first = found.loc[ratios.index[0]]
    others = f"; everywhere else at most {ratios.iloc[1]:.2f} times" if len(ratios) > 1 else ""
    return (
        f"Most unequal are those of {METHOD_LABELS[first['method']]} on {place_label(first['place'])}, the largest "
        f"{ratios.iloc[0]:.2f} times an equal weight{others}."
    )


def slips() -> str:
    """The misprints and overstatements of the paper, from the notes on its numbers."""
    text = resources.files("mmel.study.paper").joinpath("NOTES.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## What is off\n\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return "".join(sections)
