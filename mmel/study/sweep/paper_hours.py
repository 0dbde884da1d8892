"""The time of a run of the `paper` profile, by the time columns of their Tables 1 and 3."""

import csv
from functools import cache
from importlib import resources

from mmel.study.config import Run, TextRun
from mmel.study.datasets import GLUE
from mmel.study.sweep.plan import work
from mmel.study.tables import TEXT_MODELS, recipe


def paper_hours(config: Run) -> float | None:
    """Hours on one V100.

    For images Table 1's, scaled by K and the number of training images where these differ. For text Table 3's, taken as
    the time of all eight tasks with one seed, of which a task has its share of all word pieces; for Tables 4 and 6 as
    well.

    Returns:
        The hours, or None where the paper has no time: for ImageNet, another encoder, another method, another profile.
    """
    if config.profile != "paper":
        return None
    if not config.is_text:
        cell = _image_hours().get((config.dataset, config.model, config.method))
        if cell is None:
            return None
        k, hours = cell
        return hours * work(config) / work(config.replace(num_augmented=k, holdout=0))
    if config.model != TEXT_MODELS["paper"]:
        return None
    hours = _text_hours().get(config.method)
    if hours is None:
        return None
    tasks = (
        config.replace(dataset=name, epochs=recipe(name).get("epochs", TextRun.epochs), pair_mode="separate")
        for name in GLUE
    )
    return hours * _pieces(config) / sum(map(_pieces, tasks))


def _pieces(config: Run) -> float:
    return work(config) * config.data.pieces


@cache
def _image_hours() -> dict[tuple[str, str, str], tuple[int, float]]:
    """(data set, model, method) -> K and hours, of Table 1."""
    return {
        (row["dataset"], row["model"], row["method"]): (int(row["num_augmented"]), float(row["train_hours_v100"]))
        for row in _rows("table1.csv")
    }


@cache
def _text_hours() -> dict[str, float]:
    """Method -> hours, of Table 3."""
    return {row["method"]: float(row["train_hours_v100"]) for row in _rows("table3.csv") if row["train_hours_v100"]}


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("mmel.study.paper").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
