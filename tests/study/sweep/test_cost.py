import pytest

from mmel.study.config import ImageRun, TextRun
from mmel.study.needs import candidates
from mmel.study.sweep.cost import Speed, paper_hours, plan_lines, work
from mmel.study.tables import TABLES

FAST, SLOW = ({"type": "cpu", "name": name} for name in ("fast", "slow"))
# Of the mini Table 1: the digits, ResNet-8, K = 5.
RUN = next(run for run in TABLES["table1"].runs("mini") if run.method == "mmel_h")
PAPERS = next(
    run
    for run in TABLES["table1"].reported("paper")
    if (run.dataset, run.model, run.method, run.seed) == ("cifar10", "resnet20", "mmel_s", 0)
)


def test_work_counts_every_augmented_example():
    images = ImageRun(method="baseline_da", num_augmented=1)
    text = TextRun(dataset="rte", model="minilm-l6-mlm", method="baseline", num_augmented=1)
    for base in (images, text):
        assert work(base.replace(method="mmel_h", num_augmented=10)) == 10 * work(base)
        # The same number of examples as MMEL's, one view at a time.
        assert work(base.replace(method="baseline_da_long", num_augmented=10)) == 10 * work(base)
        assert work(base.replace(epochs=2 * base.epochs)) == 2 * work(base)
    assert work(images.replace(train_size=5000)) * 10 == work(images)


def test_a_run_is_predicted_by_the_mean_time_per_example_of_runs_like_it(write):
    records = [write(RUN.replace(seed=seed), seconds=seconds, device=FAST) for seed, seconds in enumerate((10.0, 14.0))]
    speed = Speed(FAST, records)
    # Evaluations, of a tenth here, take time too.
    assert speed.seconds(RUN.replace(seed=7)) == pytest.approx(1.1 * 12)
    assert speed.seconds(RUN.replace(method="mmel_s", epochs=2 * RUN.epochs)) == pytest.approx(2 * 1.1 * 12)
    for other in ({"model": "resnet14"}, {"num_augmented": 2}, {"precision": "fp32"}):
        assert speed.seconds(RUN.replace(**other)) is None
    speed.learn(write(RUN.replace(seed=7), seconds=36.0, device=FAST))
    assert speed.seconds(RUN) == pytest.approx(1.1 * 20)


def test_only_runs_that_one_process_trained_on_the_same_device_count(write):
    records = [
        write(RUN, device=SLOW | {"precision": "bf16"}),
        write(RUN.replace(seed=7), device=FAST, processes=2),
        write(RUN.replace(seed=8), device=FAST, resumed_from=[{"device": SLOW}]),
        write(RUN.replace(seed=9), device=FAST | {"threads": 2}),
    ]
    assert Speed(FAST, records).seconds(RUN) is None
    assert Speed(None, records).seconds(RUN) is None
    assert Speed(SLOW, records).seconds(RUN) == pytest.approx(11.0)


def test_a_plan_tells_states_and_costs_measured_time_then_the_papers_then_an_unknown_one(store, write):
    done, unknown = RUN.replace(seed=7), TABLES["table5"].runs("paper")[0]
    speed = Speed(FAST, [write(done, seconds=6600.0, device=FAST)])
    bad = RUN.replace(seed=8)
    write(bad, status="failed", device=FAST)
    runs = {RUN: "table1", PAPERS: "table1", unknown: "table5", done: "table1", bad: "table1"}
    *lines, table1, table5, total, note = plan_lines(runs, store, speed, "fast")
    assert [line.split() for line in lines] == [
        ["missing", "2.0", "h", "table1", "digits", RUN.run_id],
        ["missing", "2.9", "h", "(V100)", "table1", "cifar10", PAPERS.run_id],
        ["missing", "unknown", "table5", "imagenet", unknown.run_id],
        ["recorded", "2.0", "h", "table1", "digits", done.run_id],
        ["failed", "2.0", "h", "table1", "digits", bad.run_id],
    ]
    assert table1 == "table1: 2 runs, 2.0 h and 2.9 h (V100)"
    assert table5 == "table5: 1 runs, unknown"
    assert total.startswith("3 runs to train")
    assert total.endswith(": 2.0 h and 2.9 h (V100) and 1 runs whose time is unknown")
    assert "fast" in note


# The paper's own times.


def test_the_papers_hours_for_images():
    assert paper_hours(PAPERS) == 2.9
    assert paper_hours(PAPERS.replace(num_augmented=5)) == pytest.approx(1.45)
    # On 45,000 of the 50,000 images.
    assert paper_hours(candidates(PAPERS)[0]) == pytest.approx(2.9 * 0.9)
    assert paper_hours(PAPERS.with_method("baseline_da", 0)) == 0.7
    assert paper_hours(PAPERS.with_method("baseline_da_long", 0)) == 6.7


def test_the_papers_hours_for_text_are_those_of_all_tasks_with_one_seed():
    runs = [run for run in TABLES["table3"].reported("paper") if run.seed == 0]
    for method, hours in (("baseline", 21.5), ("baseline_da_long", 107.5), ("mmel_h", 31.8)):
        mine = [paper_hours(run) for run in runs if run.method == method]
        assert len(mine) == 8
        assert sum(mine) == pytest.approx(hours)
        assert max(mine) > 10 * min(mine)
