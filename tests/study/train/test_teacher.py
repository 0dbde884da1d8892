"""The teacher of augmented texts: trained once, asked once, and told apart in the records of its students."""

import time

import pytest
import torch
from tiny import CPU, TAUGHT, scored, trained, weights

from mmel.study.models.encoder import load_classifier
from mmel.study.needs import candidates, teacher_of
from mmel.study.records import ResultsError
from mmel.study.train import BudgetError, TrainingError, checkpoint, look
from mmel.study.train import teacher as module
from mmel.study.train.sequences import Sequences, predict
from mmel.study.train.teacher import teacher_outputs

pytestmark = pytest.mark.usefixtures("one_thread", "text_model")

TEACHER = teacher_of(TAUGHT)
IDS = [[[2, 9, 8, 3], [2, 7, 8, 3]], [[2, 5, 3], [2, 6, 3]], [[2, 9, 10, 11, 3], [2, 9, 12, 11, 3]]]
TYPES = [[0] * len(samples[0]) for samples in IDS]
SEQUENCES = Sequences(IDS, TYPES, CPU)


@pytest.fixture
def network(small_bert):
    """A new network at each call; regression with one output."""

    def build(seed, num_outputs=2):
        torch.manual_seed(seed)
        return load_classifier(small_bert, num_outputs, 0.1, 0.1)

    return build


@pytest.fixture
def ask(store, network):
    """Asks a teacher of some weights and score through a student of others."""

    def ask(weights, sequences=SEQUENCES, precision="fp32", teacher=TEACHER, score=62.5):
        checkpoint.save(store.weights_path(teacher), {"model": weights.state_dict(), "score": score})
        student = network(0, weights.config.num_labels)
        before = {name: value.clone() for name, value in student.state_dict().items()}
        found = teacher_outputs(teacher, store, student, sequences, precision)
        assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
        return found

    return ask


@pytest.mark.parametrize("num_outputs", [2, 1], ids=["probabilities", "scores"])
def test_a_teacher_says_what_its_network_says(num_outputs, network, ask):
    teacher = network(1, num_outputs)
    outputs, _ = ask(teacher)
    expected = predict(teacher, SEQUENCES)
    torch.testing.assert_close(outputs, expected[..., 0] if num_outputs == 1 else expected.softmax(dim=-1))


def test_a_teacher_is_asked_once_by_all_that_ask_the_same(network, ask, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "predict", lambda *args: (asked.append(args), predict(*args))[1])
    first, told = ask(network(1))
    # Another run with these very weights too.
    assert torch.equal(ask(network(1), teacher=TEACHER.replace(lr=1.0))[0], first)
    assert len(asked) == 1
    turned = Sequences([IDS[1], IDS[0], IDS[2]], [TYPES[1], TYPES[0], TYPES[2]], CPU)
    torch.testing.assert_close(ask(network(1), turned)[0], first[[1, 0, 2]])
    rough, _ = ask(network(1), precision="bf16")
    assert not torch.equal(rough, first)
    torch.testing.assert_close(rough, first, rtol=0.1, atol=0.02)
    other, told_of_other = ask(network(2), score=70.0)
    assert (other - first).abs().max() > 0.01
    assert len(asked) == 4
    # One name: that of the run, whatever it came to on this machine.
    assert told["teacher"] == told_of_other["teacher"] == TEACHER.run_id
    assert (told["teacher_score"], told_of_other["teacher_score"]) == (62.5, 70.0)
    assert told["teacher_weights"] != told_of_other["teacher_weights"]


# Training it.


def test_a_teacher_that_is_missing_is_trained_first_and_once(store, steps):
    students = [TAUGHT, TAUGHT.replace(method="mmel_s"), TAUGHT.replace(seed=1), TAUGHT.replace(fill="beam")]
    for student in students:
        trained(student, store)
    assert [config for config, *_ in steps] == [each for each in (TEACHER, *students) for _ in range(6)]
    header, record = store.read(TAUGHT).header, store.read(TEACHER)
    assert (header["teacher"], header["teacher_score"]) == (TEACHER.run_id, record.score)
    # It is the run that the sweep would train, and serves as such; with original labels there is none.
    assert trained(TEACHER, store) == record.epochs
    assert len(steps) == 30
    trained(original := TAUGHT.replace(label_source="original"), store)
    assert "teacher" not in store.read(original).header


def test_a_teacher_whose_record_came_without_weights_is_trained_aside(store, steps):
    trained(TEACHER, store)
    record, before = store.run_path(TEACHER).read_bytes(), weights(TEACHER, store)
    store.weights_path(TEACHER).unlink()
    # It is stopped after its first epoch, and resumes.
    with pytest.raises(BudgetError, match=TEACHER.run_id):
        trained(TAUGHT, store, stop_at=time.time())
    assert not store.weights_path(TEACHER).exists()
    trained(TAUGHT, store)
    assert [config for config, *_ in steps] == [TEACHER] * 12 + [TAUGHT] * 6
    again = weights(TEACHER, store)
    assert all(torch.equal(again[name], before[name]) for name in before)
    # Its record, which may be another machine's, stays as it is, and of the second training nothing is left.
    assert store.run_path(TEACHER).read_bytes() == record
    assert {record.config for record in store.records("mini")} == {TEACHER, TAUGHT}
    left = [path for path in (store.root / "checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} <= {".lock"}


def test_a_teacher_that_failed_fails_its_student(store):
    config = TAUGHT.replace(lr=1e30)
    with pytest.raises(TrainingError, match=r"step \d"):
        trained(config, store)
    assert store.read(teacher_of(config)).result["status"] == "failed"
    assert store.read(config) is None


def test_a_teacher_has_chosen_for_itself(store):
    # Its rates are the best of the baselines', whatever is best for those whom it teaches.
    taught = TAUGHT.replace(hidden_dropout=None, attention_dropout=None)
    teacher = teacher_of(taught)
    for candidate in candidates(taught):
        scored(store, candidate, candidate.hidden_dropout)
    with pytest.raises(ResultsError, match=candidates(teacher)[0].run_id):
        trained(taught, store)
    for candidate in candidates(teacher):
        scored(store, candidate, candidate.attention_dropout)
    trained(taught, store)
    headers = [store.read(config).header for config in (taught, teacher)]
    rates = [(header["hidden_dropout"], header["attention_dropout"]) for header in headers]
    assert rates == [(0.1, 0.0), (0.0, 0.1)]
    assert len(look(taught, store, dict, device="cpu")["text"]) == 3
    # Without its weights it is trained again, with the same rates.
    before = weights(teacher, store)
    store.weights_path(teacher).unlink()
    trained(taught.replace(seed=1), store)
    again = weights(teacher, store)
    assert all(torch.equal(again[name], before[name]) for name in before)
