"""What a teacher says of augmented texts: its own weights' word, asked for once, the student left as it was."""

import pytest
import torch

from mmel.grids import teacher_of
from mmel.models.text import load_classifier
from mmel.train import checkpoint
from mmel.train import teacher as module
from mmel.train.sequences import Sequences, predict
from mmel.train.teacher import teacher_outputs

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [[[2, 9, 8, 3], [2, 7, 8, 3]], [[2, 5, 3], [2, 6, 3]], [[2, 9, 10, 11, 3], [2, 9, 12, 11, 3]]]


@pytest.fixture
def sequences():
    return Sequences(IDS, [[0] * len(variants[0]) for variants in IDS], torch.device("cpu"))


@pytest.fixture
def network(small_bert):
    """A new network a call; regression with one output."""

    def build(seed, num_outputs=2, dropout=0.1):
        torch.manual_seed(seed)
        return load_classifier(small_bert, num_outputs, dropout, dropout)

    return build


def save(store, config, teacher):
    checkpoint.save(store.weights_path(teacher_of(config)), {"model": teacher.state_dict(), "score": 62.5})


def ask(*arguments):
    return teacher_outputs(*arguments)[0]


@pytest.fixture
def asked(monkeypatch):
    """Counts how often a network is asked."""
    calls = []
    monkeypatch.setattr(module, "predict", lambda *args: (calls.append(args), predict(*args))[1])
    return calls


def test_classes_get_the_teachers_probabilities(store, text_config, network, sequences):
    teacher = network(1)
    save(store, text_config, teacher)
    outputs = ask(teacher_of(text_config), store, network(0), sequences, "fp32")
    assert outputs.shape == (3, 2, 2)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, predict(teacher, sequences).softmax(dim=-1))
    torch.testing.assert_close(outputs.sum(dim=-1), torch.ones(3, 2))


def test_regression_gets_the_teachers_scores(store, text_config, network, sequences):
    config = text_config.replace(dataset="grammar_stsb")
    teacher = network(1, num_outputs=1)
    save(store, config, teacher)
    outputs = ask(teacher_of(config), store, network(0, num_outputs=1), sequences, "fp32")
    torch.testing.assert_close(outputs, predict(teacher, sequences)[:, :, 0])
    # No probabilities, which for one class would all be 1.
    assert len(outputs.unique()) > 3


@pytest.mark.parametrize("training", [True, False])
def test_the_student_gets_its_weights_back_bit_for_bit(training, store, text_config, network, sequences):
    save(store, text_config, network(1))
    student = network(0).train(training)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    parameters = list(student.parameters())
    ask(teacher_of(text_config), store, student, sequences, "fp32")
    assert student.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert student.training is training
    # The very tensors that an optimizer may hold, with nothing left on them.
    assert all(one is other for one, other in zip(parameters, student.parameters(), strict=True))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in parameters)


def test_a_teacher_is_asked_once(store, text_config, network, sequences, asked):
    save(store, text_config, network(1))
    first = ask(teacher_of(text_config), store, network(0), sequences, "fp32")
    # By whichever run: another seed, another method, another teacher with these weights.
    for other in (text_config.replace(seed=4), text_config.replace(method="mmel_s"), text_config.replace(lr=1.0)):
        save(store, other, network(1))
        assert torch.equal(ask(teacher_of(other), store, network(2), sequences, "fp32"), first)
    assert len(asked) == 1


def test_another_teacher_other_texts_or_another_precision_are_asked_anew(store, text_config, network, sequences, asked):
    save(store, text_config, network(1))
    first = ask(teacher_of(text_config), store, network(0), sequences, "fp32")

    other = Sequences([IDS[1], IDS[0], IDS[2]], [[0] * 3, [0] * 4, [0] * 5], torch.device("cpu"))
    torch.testing.assert_close(ask(teacher_of(text_config), store, network(0), other, "fp32"), first[[1, 0, 2]])

    rough = text_config.replace(precision="bf16")
    save(store, rough, network(1))
    found = ask(teacher_of(rough), store, network(0), sequences, "bf16")
    assert not torch.equal(found, first)
    torch.testing.assert_close(found, first, rtol=0.1, atol=0.02)

    save(store, text_config, network(2))
    assert (ask(teacher_of(text_config), store, network(0), sequences, "fp32") - first).abs().max() > 0.01
    assert len(asked) == 4


def test_what_is_kept_is_whole_or_not_there(store, text_config, network, sequences, monkeypatch, asked):
    save(store, text_config, network(1))

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask(teacher_of(text_config), store, network(0), sequences, "fp32")
    first = ask(teacher_of(text_config), store, network(0), sequences, "fp32")
    assert len(asked) == 2
    assert torch.equal(ask(teacher_of(text_config), store, network(0), sequences, "fp32"), first)
    assert len(asked) == 2
    assert len(list((store.root / "teacher" / "mini" / "grammar_cola").iterdir())) == 1


def test_a_record_can_tell_which_teacher_it_was(store, text_config, network, sequences):
    def told(network):
        save(store, text_config, network)
        return teacher_outputs(teacher_of(text_config), store, network, sequences, "fp32")[1]

    one, other = told(network(1)), told(network(2))
    # One name: that of the run, whatever it came to on this machine.
    assert one["teacher"] == other["teacher"] == teacher_of(text_config).run_id
    assert one["teacher_score"] == 62.5
    assert one["teacher_weights"] != other["teacher_weights"]
    assert told(network(1)) == one


def test_a_teacher_that_is_not_trained_is_named(store, text_config, network, sequences):
    with pytest.raises(FileNotFoundError, match=teacher_of(text_config).run_id):
        ask(teacher_of(text_config), store, network(0), sequences, "fp32")
