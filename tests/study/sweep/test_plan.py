import pytest

from mmel.study.needs import SELECTION_SEED, candidates, needs, teacher_of
from mmel.study.sweep.plan import plan
from mmel.study.tables import TABLES, runs_of


def test_a_run_of_two_tables_is_planned_once_and_belongs_to_the_first():
    both = plan(["table1", "table2"], "mini")
    shared = set(TABLES["table1"].runs("mini")) & set(TABLES["table2"].runs("mini"))
    assert shared
    assert set(both) == set(TABLES["table1"].runs("mini")) | set(TABLES["table2"].runs("mini"))
    assert {both[run] for run in shared} == {"table1"}


def test_only_keeps_the_runs_that_match_one_value_of_each_field():
    kept = plan(["table1"], "mini", ["method=mmel_h", "seed=1", "method=baseline_da"])
    assert {(run.method, run.seed) for run in kept} == {("mmel_h", 1), ("baseline_da", 1)}
    grid = plan(["table1"], "mini")
    (decay,) = {run.decay_epochs for run in grid}
    assert plan(["table1"], "mini", [f"decay_epochs={','.join(map(str, decay))}", "redraw=true"]) == grid


@pytest.mark.parametrize(
    ("only", "named"),
    [
        (["method"], "only .*'method'"),
        (["methd=mmel_h"], "methd.*profile, dataset, "),
        (["seed=one"], "seed .*'one'"),
        (["model=resnet8", "model=resnet21"], "model .*resnet14, resnet8.*resnet21"),
        (["redraw=false"], "redraw .*True.*False"),
        (["num_augmented=1", "method=mmel_h"], "num_augmented, method"),
    ],
    ids=" ".join,
)
def test_only_is_refused_where_no_run_has_the_value(only, named):
    with pytest.raises(ValueError, match=named):
        plan(["table1"], "mini", only)


def test_only_brings_what_the_kept_runs_need():
    kept = list(plan(["table3"], "paper", ["seed=0"]))
    assert {run.seed for run in kept} == {0, SELECTION_SEED}
    for index, run in enumerate(kept):
        assert set(needs(run)) <= set(kept[:index]), run
    # A run that tries out dropout rates needs the teacher, which needs runs of its own: needs of needs.
    (one,) = TABLES["table3"].reported("paper")[-1:]
    alone = plan(["table3"], "paper", [f"seed={one.seed}", "method=mmel_s", "dataset=rte"])
    teacher = teacher_of(one)
    assert set(alone) == {one, teacher, *candidates(one), *candidates(teacher)}
    # What nothing needs stays out.
    grid = list(runs_of(["table3"], "paper"))
    assert kept == [run for run in grid if run in set(kept)]
    assert len(kept) < len(grid)
