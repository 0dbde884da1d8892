"""The lab's report, on invented records."""

import numpy as np
import pytest
from invented import FROZEN, write_run
from scipy import stats

from mmel.study import lab
from mmel.study.records import Store
from mmel.study.report import answers, contrasts, tables
from mmel.study.report import lab as report
from mmel.study.report.claims import verdict
from mmel.study.report.figures import forest
from mmel.study.report.statistics import shared_error

SEEDS = 6
# What an arm adds to the accuracy of its seed, in points.
GAINS = {lab.H: 0.6, lab.LONG: -3.0, lab.LAMBDAS[0.1]: -1.0, lab.VIEWS[lab.H, 20]: 0.2, lab.SAMPLED: 0.4}


def score(cell, arm, seed):
    noise = np.random.default_rng([seed, [*lab.CELLS].index(cell), [*lab.ARMS].index(arm)]).normal(0, 0.05)
    return 90 + seed + GAINS.get(arm, 0.0) + noise


def marks(arm, seed):
    """Which of five images a run of an arm gets right."""
    return f"{seed + len(arm):05b}"[-5:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Six seeds of every arm; of the seventh one arm of each cell is missing."""
    store = Store(tmp_path_factory.mktemp("results"))
    for cell, spec in lab.CELLS.items():
        for arm in spec.arms:
            for run in lab.runs_of_arm(cell, arm)[: SEEDS + (arm != lab.UNI)]:
                fit = {"train_accuracy_pct": 95.0, "wrong_followed_pct": 30.0} if cell == "wrong300" else {}
                history = [80.0, score(cell, arm, run.seed)]
                fit["correct"] = {"holdout" if run.holdout else "test": marks(arm, run.seed)}
                # One drawn view takes 6, 6.5, 7 ... seconds, all views 10.
                seconds = 6 + run.seed / 2 if arm == lab.SAMPLED else 10.0
                each = {"effective_views": [2.5, 4.0]}
                write_run(store, run, history=history, each=each, result=fit, train_seconds=seconds)
    return report.load(store, "reduced")


def test_a_contrast_is_paired_by_seed_on_the_seeds_that_all_arms_have(runs):
    found = report.contrasts(runs)
    assert len(found) == len(lab.CONTRASTS)
    assert set(found["n"]) == {SEEDS}
    for contrast, row in zip(lab.CONTRASTS, found.to_dict("records"), strict=True):
        sides = [[score(contrast.cell, arm, seed) for seed in range(SEEDS)] for arm in (contrast.a, contrast.b)]
        test = stats.ttest_rel(*sides)
        low, high = test.confidence_interval()
        assert (row["place"], row["label"]) == (contrast.cell, f"{contrast.a} − {contrast.b}")
        assert row["difference"] == pytest.approx(np.subtract(*sides).mean())
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        # Seeds differ by whole points: unpaired, the interval is many times as wide.
        assert row["welch_high"] - row["welch_low"] > 10 * (high - low)
        assert row["correlation"] > 0.99
        assert np.isnan(row["p"]) == (not contrast.primary)


def test_verdicts_follow_the_direction_and_the_margin(runs):
    found = report.contrasts(runs).set_index(["place", "label"])["verdict"]
    assert found["digits100", f"{lab.H} − {lab.UNI}"] == "supported"
    assert found["digits100", f"{lab.S} − {lab.UNI}"] == "negligible"
    # The plan states the risk that the worst case follows wrong labels.
    assert found["wrong300", f"{lab.H} − {lab.UNI}"] == "opposed"
    assert found["wrong300", f"{lab.LAMBDAS[0.1]} − {lab.UNI}"] == "supported"
    assert found["digits300", f"{lab.LAMBDAS[0.1]} − {lab.H}"] == "opposed"


def test_p_values_of_primary_contrasts_are_corrected_by_holm(runs):
    found = report.contrasts(runs)
    # CIFAR-100's, which joined the plan later, by themselves.
    for of_cifar in (False, True):
        primary = found[found["primary"] & ((found["place"] == "cifar100") == of_cifar)].reset_index(drop=True)
        plain = []
        for contrast in lab.CONTRASTS:
            if contrast.primary and (contrast.cell == "cifar100") == of_cifar:
                sides = [[score(contrast.cell, arm, seed) for seed in range(SEEDS)] for arm in (contrast.a, contrast.b)]
                plain.append(stats.ttest_rel(*sides).pvalue)
        assert len(plain) == len(primary) == (2 if of_cifar else 8)
        smallest = int(np.argmin(plain))
        assert primary["p"][smallest] == pytest.approx(min(1, len(plain) * plain[smallest]))
        assert (primary["p"] >= plain).all()


def test_what_is_undecided_says_at_how_many_seeds_it_would_not_be(runs):
    noisy = runs["arm"].isin([lab.CHI_SQUARE, lab.SAMPLED])
    noise = np.random.default_rng(0).normal(0, 0.3, len(runs))
    found = report.contrasts(runs.assign(score=runs["score"] + noise * noisy))
    undecided = found[found["verdict"] == "undecided"].to_dict("records")
    assert {row["direction"] for row in undecided} == {">", "=", ">="}
    assert found.loc[found["verdict"] != "undecided", "seeds"].isna().all()
    for row in undecided:

        def said(seeds, row=row):
            quantiles = (stats.t.ppf(0.975, 2 * n - 2) / np.sqrt(n) for n in (seeds, SEEDS))
            half = row["half_width"] * next(quantiles) / next(quantiles)
            return verdict(row["difference"] - half, row["difference"] + half, row["direction"], lab.MARGIN)

        # Nothing beyond 10,000 is counted.
        assert said(row["seeds"] + 1) != "undecided" or row["seeds"] == 10_000
        assert said(row["seeds"] - 1) == "undecided"


def test_the_error_of_a_test_set_is_told_where_all_seeds_share_it(runs):
    found = report.contrasts(runs)
    shared = found["place"].isin(["digits1437", "cifar100"])
    assert found.loc[~shared, "set_error"].isna().all()
    # Of every run that is there, also of seeds that do not count.
    sides = [[marks(arm, seed) for seed in range(SEEDS + (arm != lab.UNI))] for arm in (lab.H, lab.UNI)]
    error = found.set_index(["place", "label"])["set_error"]["digits1437", f"{lab.H} − {lab.UNI}"]
    assert error == pytest.approx(shared_error(*sides))


def test_the_first_page_tells_what_is_decided(runs):
    found = report.contrasts(runs)
    first, *_, on_cifar, _ = report.by_question(found)
    assert on_cifar.endswith(f"With {SEEDS} of 8 seeds so far.")
    assert f"*supported*: {lab.H} above {lab.UNI} (100 digits, 300 digits, 1,437 digits)" in first
    assert f"{lab.UNI} not below {lab.LONG}" in first
    shown = report.primary(found).set_index("Training set")[f"{lab.H} − {lab.UNI}"]
    difference, low, high = found.loc[found["label"] == shown.name, ["difference", "low", "high"]].iloc[0]
    assert shown.iloc[0] == f"{difference:+.2f} [{low:+.2f}, {high:+.2f}] supported"
    assert shown[report.CELL_LABELS["wrong300"]].endswith("above, against the risk")
    assert set(report.primary(found)["Seeds"]) == {f"{SEEDS} of {planned}" for planned in (8, 40, 100)}
    paper = contrasts.answers(Store(FROZEN), "mini")
    assert "in 4 of 4 training sets of the lab" in answers.headline(paper, found, "mini")
    assert "in 0 of 0 training sets of the lab" in answers.headline(paper, found.iloc[:0], "mini")
    spoiled = found[(found["place"] == "wrong300") & found["primary"]].set_index("method")["difference"]
    told = f"wrong: MMEL-H {spoiled['mmel_h']:+.2f}, MMEL-S {spoiled['mmel_s']:+.2f} points"
    assert told in answers.headline(paper, found, "mini")
    assert "weights alone**: yes in 0 of 3 of these" in answers.headline(paper, found, "mini")
    assert not any(
        label in " ".join(answers.table_by_table(paper, "mini")) for label in paper.query("primary")["label"]
    )
    assert answers.slips().count("\n- ") > 10


def test_every_run_that_counts_leads_to_its_record(runs):
    html = tables.show(report.records(runs)).data
    assert html.count("href=") == runs["counts"].sum()
    assert all(f'href="../results/{record}"' in html for record in runs.loc[runs["counts"], "record"])


def test_figures_say_the_numbers(runs):
    # Levels and contrasts as text stand in the committed report, see test_golden.
    assert set(report.fit(runs)["Wrong labels that it predicts (%)"]) == {"30.0"}
    h = report.contrasts(runs).set_index(["place", "label"])["difference"]["digits100", f"{lab.H} − {lab.UNI}"]
    assert f"100 digits, {lab.H}: {h:+.2f}" in report.lambda_figure(runs).alt
    assert f"{lab.VIEWS[lab.H, 20]}: " in report.views_figure(runs).alt
    assert f"300 digits, {lab.CVAR}: from 2.50 to 4.00" in report.effective_figure(runs).alt
    # Five views forward without gradient, one of them forward and backward: (K + 3) / 3.
    assert "100 digits 0.72 (0.66 to 0.79); 300 digits 0.72" in report.sampled_time(runs)
    sampled = np.mean([score("digits100", lab.SAMPLED, seed) for seed in range(SEEDS)])
    assert f"100 digits, {lab.SAMPLED}: {sampled:.2f} at 2.67" in report.cost_figure(runs).alt


def test_without_runs_nothing_is_claimed(store):
    runs = report.load(store, "reduced")
    found = report.contrasts(runs)
    assert found.empty
    assert report.primary(found).empty
    assert forest(found[found["primary"]], report.CELL_LABELS).alt == "No runs yet."
    for draw in (report.lambda_figure, report.views_figure, report.effective_figure, report.cost_figure):
        assert draw(runs).alt == "No runs yet."
    assert report.levels(runs).empty
    assert "no runs yet" in report.sampled_time(runs)
