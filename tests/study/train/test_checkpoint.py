"""A file reads back as it was written, or the error names it."""

import io
import pickle

import pytest
import torch
from tiny import TAUGHT, trained
from torch import nn

from mmel.study.needs import teacher_of
from mmel.study.records import ResultsError
from mmel.study.train import BudgetError, checkpoint, look

pytestmark = pytest.mark.usefixtures("one_thread")

STATE = {"model": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "score": 97.5}


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return self.folder.mkdir, ()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoints" / "mini" / "digits" / "run.pt"
    checkpoint.save(path, STATE)
    return path


def refused(path, **owners):
    with pytest.raises(ResultsError) as caught:
        checkpoint.load(path, **owners)
    (said,) = str(caught.value).splitlines()
    assert said.startswith(f"{path} ")
    return said


def test_round_trip(path):
    model = nn.Linear(3, 2)
    assert checkpoint.load(path, model=model)["score"] == 97.5
    assert all(torch.equal(model.state_dict()[name], value) for name, value in STATE["model"].items())
    # A results folder may be moved.
    moved = path.parents[3].rename(path.parents[4] / "moved")
    assert checkpoint.load(moved / path.relative_to(path.parents[3]))["score"] == 97.5


@pytest.mark.parametrize("keep", [0, 1, 100, -100])
@pytest.mark.parametrize("fill", [b"", b"garbage" * 100])
def test_a_damaged_file_is_refused(path, keep, fill):
    path.write_bytes(path.read_bytes()[:keep] + fill)
    assert "delete it" in refused(path)


@pytest.mark.parametrize("plain", [True, False], ids=["a bare pickle", "in an archive"])
def test_a_pickle_is_never_executed(path, tmp_path, plain):
    harmful = Harmful(tmp_path / "harm")
    buffer = io.BytesIO()
    torch.save({**STATE, "harm": harmful}, buffer)
    path.write_bytes(pickle.dumps(harmful, protocol=2) if plain else buffer.getvalue())
    refused(path)
    assert not harmful.folder.exists()


def test_a_file_of_something_else_is_refused(path, tmp_path):
    refused(path, model=nn.Linear(3, 4))
    for other in ("checkpoints/mini/digits/other.pt", "weights/mini/digits/run.pt"):
        checkpoint.save(tmp_path / other, STATE)
        path.write_bytes((tmp_path / other).read_bytes())
        assert other in refused(path)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(path.with_name("missing.pt"))


def test_a_run_names_the_file_that_it_cannot_use_and_begins_anew_without_it(config, store):
    with pytest.raises(BudgetError):
        trained(config, store, stop_at=0.0)
    store.checkpoint_path(config).write_bytes(b"garbage")
    with pytest.raises(ResultsError, match=store.checkpoint_path(config).name):
        trained(config, store)
    store.checkpoint_path(config).unlink()
    assert len(trained(config, store)) == 2
    store.weights_path(config).write_bytes(b"garbage")
    with pytest.raises(ResultsError, match=store.weights_path(config).name):
        look(config, store, dict, device="cpu")


@pytest.mark.parametrize("part", ["weights", "outputs"])
def test_a_student_names_the_file_of_its_teacher_that_it_cannot_use(part, store, text_model):
    trained(TAUGHT, store)
    (outputs,) = (store.root / "teacher").rglob("*.pt")
    path = store.weights_path(teacher_of(TAUGHT)) if part == "weights" else outputs
    path.write_bytes(b"garbage")
    other = TAUGHT.replace(seed=1)
    with pytest.raises(ResultsError, match=path.name):
        trained(other, store)
    path.unlink()
    assert len(trained(other, store)) == 2
