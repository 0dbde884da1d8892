"""The plan of the lab, in words and for the machine: one and the same."""

import re
from collections import Counter
from pathlib import Path

import pytest

from mmel.study import lab
from mmel.study.config import LR_DECAY, MOMENTUM
from mmel.study.tables import LAB

PLAN = Path(__file__).parents[2] / "results" / "lab" / "PLAN.md"


def rows(heading):
    """The cells of the table that follows a heading of the plan."""
    (part,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PLAN.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def fields(text):
    return dict(pair.split("=") for pair in text.split(", "))


def test_the_cells_are_those_of_the_plan():
    found = {row[0].split("`")[0]: row[1:] for row in rows("Data and recipe")}
    assert found.keys() == lab.CELLS.keys()
    for name, (images, evaluated, epochs, batch, number) in found.items():
        runs = [run for arm in lab.CELLS[name].arms for run in lab.runs_of_arm(name, arm)]
        assert len(runs) == int(number)
        for run in runs:
            assert (run.train_size or 1437, run.epochs, run.batch_size) == (
                int(images.replace(",", "")),
                int(epochs),
                int(batch),
            )
            assert run.holdout == (1000 if evaluated == "1,000 held out" else 0)
            assert run.subset_seed == (run.seed if run.train_size else 0)
            assert run.wrong_labels == (0.2 if name == "wrong300" else 0.0)
            assert run.decay_epochs == tuple(round(share * run.epochs) for share in (0.3, 0.6, 0.8))


def test_the_arms_are_those_of_the_plan():
    found = {row[0]: row[1:] for row in rows("Arms")}
    assert found.keys() == lab.ARMS.keys()
    for arm, (given, where) in found.items():
        seeds = {name: int(number) for name, number in re.findall(r"(\w+) \((\d+)\)", where)}
        assert seeds.keys() == {name for name, cell in lab.CELLS.items() if arm in cell.arms}
        for name, number in seeds.items():
            runs = lab.runs_of_arm(name, arm)
            # Seeds from 100 on are the pilot's.
            assert [run.seed for run in runs] == list(range(number)) <= list(range(100))
            for run in runs:
                assert fields(given).items() <= {key: str(value) for key, value in run.to_dict().items()}.items()


def test_the_contrasts_are_those_of_the_plan():
    planned = Counter(tuple(row) for row in rows("Contrasts"))
    assert planned == Counter(
        (str(c.question), c.cell, f"{c.a} − {c.b}", c.direction, "yes" if c.primary else "") for c in lab.CONTRASTS
    )
    assert max(planned.values()) == 1
    for contrast in lab.CONTRASTS:
        assert {contrast.a, contrast.b} <= set(lab.CELLS[contrast.cell].arms)
    margin, primary, number = (
        re.search(pattern, PLAN.read_text(encoding="utf-8")).group(1)
        for pattern in (r"margin is ([\d.]+) points", r"(\d+) primary contrasts", r"All (\d+) intervals")
    )
    assert float(margin) == lab.MARGIN
    assert int(primary) == sum(contrast.primary for contrast in lab.CONTRASTS)
    assert int(number) == len(lab.CONTRASTS)


@pytest.mark.parametrize("contrast", lab.CONTRASTS, ids=lambda c: f"{c.cell}-{c.a}-{c.b}")
def test_only_what_a_contrast_is_about_differs_between_its_arms(contrast):
    first, second = (lab.runs_of_arm(contrast.cell, arm) for arm in (contrast.a, contrast.b))
    about = {*lab.ARMS[contrast.a], *lab.ARMS[contrast.b]} | {"method"}
    # Runs on one view have K = 1, and longer runs are evaluated as often in time.
    about |= {"num_augmented"} if lab.DA in (contrast.a, contrast.b) else set()
    about |= {"epochs_per_eval"} if lab.LONG in (contrast.a, contrast.b) else set()
    for one, other in zip(first, second, strict=False):
        assert {name for name in one.field_names() if getattr(one, name) != getattr(other, name)} <= about


def test_the_miniature_has_every_arm_of_one_cell_and_paper_has_none():
    mini = LAB.runs("mini")
    assert len(mini) == 2 * len(lab.CELLS["digits100"].arms) == len(set(mini))
    assert {(run.profile, run.seed, run.epochs) for run in mini} == {("mini", 0, 5), ("mini", 1, 5)}
    assert LAB.runs("paper") == []


def test_the_loss_is_doubled_by_twice_the_rate_and_half_the_decay():
    torch = pytest.importorskip("torch")
    usual, doubled = (lab.runs_of_arm("digits100", arm)[0] for arm in (lab.UNI, lab.UNI_DOUBLED))
    found = []
    for run, factor in ((usual, 2.0), (doubled, 1.0)):
        weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
        sgd = torch.optim.SGD([weight], run.lr, MOMENTUM, weight_decay=run.weight_decay)
        schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [5, 9], LR_DECAY)
        for step in range(12):
            sgd.zero_grad()
            (factor * (weight * torch.tensor([1.0, 0.3, step])).cos().sum()).backward()
            sgd.step()
            schedule.step()
        found.append(weight.detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)
