"""Training on text, end to end: records, memory, teachers, choices."""

import json
import math
import threading
import time

import pytest
import torch
from pretend import record_run

from mmel.config import TEXT_METHODS
from mmel.grids import SELECTION_SEED, candidates, teacher_of
from mmel.records import ResultsError, Store
from mmel.train import BudgetError, TrainingError, checkpoint, load_trained, loop, train
from mmel.train.selection import with_choices
from mmel.train.step import Step
from mmel.train.text import TextTask

pytestmark = pytest.mark.usefixtures("one_thread")


def run(config, store, **options):
    return list(train(config, store, device="cpu", **options))


def losses(lines):
    return [line["train_loss"] for line in lines]


@pytest.fixture
def simple(text_config):
    """As `text_config`, without a teacher."""
    return text_config.replace(label_source="original")


# Records.


def test_an_evaluation_has_the_promised_fields_and_the_record_its_provenance(store, text_config):
    lines = run(text_config, store)
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert set(line) == {
            "kind",
            "epoch",
            "train_loss",
            "matthews_pct",
            "learning_rate",
            "train_seconds",
            "eval_seconds",
            "sequences_per_second",
            "weight_entropy",
            "weight_max",
        }
        assert 1 / 3 < line["weight_max"] < 1
        assert 0 < line["weight_entropy"] < math.log(3)
        # 24 texts of 3 samples.
        assert line["sequences_per_second"] * line["train_seconds"] == pytest.approx(72)
    record = store.read(text_config)
    assert record.config == text_config
    header = record.header
    assert header["metric"] == "matthews_pct"
    assert header["sizes"] == {
        "train": 24,
        "train_available": 400,
        "eval": 300,
        "eval_split": "dev",
        "test": 300,
        "sampled": [],
    }
    assert header["text_model"]["name"] == "small-bert"
    assert header["augmentation_precision"] == "fp32"
    assert header["teacher"] == teacher_of(text_config).run_id
    assert 0 <= header["teacher_disagreement_pct"] <= 100
    assert (header["hidden_dropout"], header["attention_dropout"], header["lambda_t"]) == (0.1, 0.1, 1.0)
    assert header["num_parameters"] > 1000
    assert "transformers" in header["versions"]
    result = record.result
    assert result["status"] == "finished"
    assert record.score == result["matthews_pct"] == lines[-1]["matthews_pct"]
    assert result["best_matthews_pct"] == max(line["matthews_pct"] for line in lines)
    assert not any(name.startswith("test_") for name in result)
    assert result["micro_batch"] is None


@pytest.mark.parametrize("method", TEXT_METHODS)
@pytest.mark.parametrize("dataset", ["grammar_cola", "grammar_stsb"])
def test_every_method_trains(method, dataset, store, text_config):
    k = 1 if method == "baseline" else 3
    config = text_config.replace(method=method, num_augmented=k, dataset=dataset, epochs=1)
    (line,) = run(config, store)
    assert math.isfinite(line["train_loss"])
    # As many samples as MMEL sees, one by one.
    samples = 24 if method == "baseline" else 72
    assert line["sequences_per_second"] * line["train_seconds"] == pytest.approx(samples)
    if method in ("baseline", "baseline_da_long"):
        assert (line["weight_max"], line["weight_entropy"]) == (1, 0)
    elif method == "baseline_da_uni":
        assert line["weight_max"] == pytest.approx(1 / 3)
    else:
        assert line["weight_max"] > 1 / k + 1e-6


def test_a_network_learns(store, simple):
    # The examples' own labels: what a weak teacher says cannot be learned to a loss of 0.
    config = simple.replace(method="baseline_da_uni", label_source="original", lr=3e-3, epochs=40, hidden_dropout=0.0)
    found = losses(run(config, store))
    assert found[-1] < 0.7 * found[0]


def test_evaluations_within_an_epoch(store, simple):
    # Six steps in four parts: after steps 1, 3, 4 and 6.
    config = simple.replace(batch_size=4, evals_per_epoch=4)
    lines = run(config, store)
    assert [line["epoch"] for line in lines] == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert [type(line["epoch"]) for line in lines] == [float, float, float, int] * 2
    # The rate falls at each of 12 steps, linearly; a line has the rate of its first one.
    expected = [1e-3 * (12 - n) / 12 for n in (0, 1, 3, 4, 6, 7, 9, 10)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(expected)
    seen = [round(line["sequences_per_second"] * line["train_seconds"]) for line in lines]
    assert seen == [12, 24, 12, 24] * 2
    assert store.read(config).result["best_epoch"] in [line["epoch"] for line in lines]


def test_thirds_of_an_epoch_are_rounded(store, simple):
    lines = run(simple.replace(evals_per_epoch=3), store)
    assert [line["epoch"] for line in lines] == [0.3333, 0.6667, 1, 1.3333, 1.6667, 2]


def test_the_long_baseline_evaluates_after_epochs_k_times_as_long(store, simple):
    config = simple.replace(method="baseline_da_long", evals_per_epoch=3)
    lines = run(config, store)
    assert [line["epoch"] for line in lines] == [0.3333, 0.6667, 1, 1.3333, 1.6667, 2]
    # Eighteen steps in all.
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-3 * (6 - n) / 6 for n in range(6)])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(store, simple, tmp_path_factory):
    first = losses(run(simple, store))
    # Whatever was drawn before.
    torch.rand(7)
    state = torch.get_rng_state()
    assert losses(run(simple, Store(tmp_path_factory.mktemp("again")))) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert losses(run(simple.replace(seed=1), store)) != first


def test_dropout_is_on_in_training_and_off_in_evaluation(store, simple):
    still = simple.replace(hidden_dropout=0.0, attention_dropout=0.0)
    found = {losses(run(config, store))[0] for config in (simple, still, still.replace(attention_dropout=0.1))}
    assert len(found) == 3
    for config in (simple, still):
        task = load_trained(config, store, device="cpu")
        assert task.evaluate()["matthews_pct"] == store.read(config).score


def test_dropout_masks_are_drawn_anew_at_each_interval(store, simple, monkeypatch):
    # Nothing is learned and the order stays, so that but for the masks every epoch has the same loss.
    monkeypatch.setattr(TextTask, "order", lambda self, epoch: torch.arange(24))
    still = simple.replace(lr=1e-30, epochs=2, batch_size=24)
    first, second = losses(run(still, store))
    assert first != second
    none = still.replace(hidden_dropout=0.0, attention_dropout=0.0)
    first, second = losses(run(none, store))
    assert first == pytest.approx(second, rel=1e-5)


# The test split.


def test_a_labelled_test_split_is_scored(store, simple, few_texts):
    config = simple.replace(dataset="grammar_mrpc", train_size=0)
    run(config, store)
    result = store.read(config).result
    assert {name for name in result if name.startswith("test_")} == {"test_f1_pct"}
    assert not store.predictions_path(config).exists()
    # The dev score is what a run is judged by.
    assert store.read(config).score == result["accuracy_pct"]
    assert load_trained(config, store, device="cpu").test()[0]["test_f1_pct"] == result["test_f1_pct"]


def test_an_unlabelled_test_split_is_predicted_for_glues_server(store, simple, few_texts):
    few_texts |= {"test", "test_mm"}
    config = simple.replace(dataset="grammar_mnli", train_size=0)
    lines = run(config, store)
    assert {"accuracy_pct", "accuracy_mm_pct"} <= set(lines[-1])
    result = store.read(config).result
    assert result["accuracy_mm_pct"] == lines[-1]["accuracy_mm_pct"]
    assert not any(name.startswith("test_") for name in result)
    predictions = json.loads(store.predictions_path(config).read_text())
    assert set(predictions) == {"test", "test_mm"}
    assert predictions == load_trained(config, store, device="cpu").test()[1]
    assert set(predictions["test"]) <= {0, 1, 2}
    assert len(predictions["test"]) == 24


def test_predictions_of_scores_keep_their_decimals(store, simple, few_texts):
    few_texts |= {"test"}
    config = simple.replace(dataset="grammar_stsb", train_size=0)
    run(config, store)
    (said,) = json.loads(store.predictions_path(config).read_text()).values()
    assert {type(one) for one in said} == {float}
    assert len(set(said)) > 5


# Memory.


@pytest.fixture
def watched(monkeypatch):
    """Notes the places that each forward pass takes; more than `limit` at once do not fit."""

    class Watched(TextTask):
        limit = 10**6
        seen = []  # noqa: RUF012  one list for all

        def terms(self, index, epoch):
            self.seen.append(index.tolist())
            if len(index) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried")
            return super().terms(index, epoch)

    monkeypatch.setattr(loop, "TextTask", Watched)
    return Watched


def test_the_longest_texts_are_tried_before_the_first_step(store, simple, watched):
    first = next(iter(train(simple, store, device="cpu")))
    task = TextTask(simple, None, store, None, torch.device("cpu"))
    assert watched.seen[0] == task.largest_batch().tolist()
    assert watched.seen[1:] == [batch.tolist() for batch in task.order(1).split(8)]
    assert first["epoch"] == 1


def test_trying_the_longest_texts_changes_nothing(store, simple, monkeypatch, tmp_path_factory):
    with_trial = losses(run(simple, store))
    monkeypatch.setattr(TextTask, "largest_batch", lambda self: None)
    assert losses(run(simple, Store(tmp_path_factory.mktemp("without")))) == with_trial


def test_texts_that_do_not_fit_are_halved_along_n_before_the_first_step(store, simple, watched, capsys):
    watched.limit = 3
    expected = losses(run(simple.replace(micro_batch=2), store))
    del watched.seen[:]
    found = losses(run(simple, store))
    assert [len(places) for places in watched.seen[:6]] == [8, 8, 4, 4, 2, 2]
    # No step is lost to it: all of them go two by two, as in a run configured so.
    assert {len(places) for places in watched.seen[6:]} == {2}
    assert found == expected
    assert store.read(simple).result["micro_batch"] == 2
    assert store.read(simple.replace(micro_batch=2)).result["micro_batch"] is None
    assert "out of memory; going on with 2 originals" in capsys.readouterr().err


def test_one_text_that_does_not_fit_fails_the_run_before_the_first_step(store, simple, watched):
    watched.limit = 0
    with pytest.raises(TrainingError, match="one original with its 3 views does not fit"):
        run(simple, store)
    record = store.read(simple)
    assert record.result["status"] == "failed"
    assert record.epochs == []
    assert [len(places) for places in watched.seen] == [8, 8, 4, 4, 2, 2, 1, 1]


def test_micro_batches_add_up_to_the_whole_batch_gradient(store, simple):
    still = simple.replace(hidden_dropout=0.0, attention_dropout=0.0)
    gradients = []
    for size in (0, 3):
        training = loop._Training(still.replace(micro_batch=size), store, None, torch.device("cpu"))
        loss, statistics = training.step.gradients(torch.arange(8), epoch=1)
        gradients.append([loss, statistics, *(p.grad for p in training.model.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# Failures.


def test_a_loss_that_is_not_finite_stops_the_run_and_the_record_says_so(store, simple):
    config = simple.replace(lr=1e30)
    with pytest.raises(TrainingError, match=r"loss is nan at step 2 \(epoch 1\); config: .*'lr': 1e\+30"):
        run(config, store)
    record = store.read(config)
    assert record.result["status"] == "failed"
    assert "step 2" in record.result["error"]
    assert not store.checkpoint_path(config).exists()
    assert not store.weights_path(config).exists()


def test_more_evaluations_than_steps_are_refused(store, simple):
    with pytest.raises(ValueError, match="evals_per_epoch must be at most the 3 steps of an epoch, got 4"):
        run(simple.replace(evals_per_epoch=4), store)
    assert store.read(simple.replace(evals_per_epoch=4)) is None


# Teachers.


def test_a_teacher_that_is_missing_is_trained_first(store, text_config):
    teacher = teacher_of(text_config)
    run(text_config, store)
    record = store.read(teacher)
    assert record.finished
    assert record.header["started"] <= store.read(text_config).header["started"]
    assert store.weights_path(teacher).exists()
    # It is the run that the sweep would train, and serves as such.
    alone = run(teacher, store)
    assert alone == record.epochs


def test_a_teacher_is_trained_once(store, text_config, monkeypatch):
    run(text_config, store)
    trained = []
    original = loop._Training

    def note(config, *args):
        trained.append(config)
        return original(config, *args)

    monkeypatch.setattr(loop, "_Training", note)
    others = [text_config.replace(method="mmel_s"), text_config.replace(seed=1), text_config.replace(fill="beam")]
    for other in others:
        run(other, store)
    assert trained == others


def test_a_run_with_original_labels_has_no_teacher(store, simple):
    run(simple, store)
    assert [record.config for record in store.records("mini")] == [simple]
    assert "teacher" not in store.read(simple).header


def test_a_teacher_whose_record_came_without_weights_is_trained_aside(store, text_config):
    teacher = teacher_of(text_config)
    run(teacher, store)
    before, weights = store.run_path(teacher).read_bytes(), checkpoint.load(store.weights_path(teacher))["model"]
    store.weights_path(teacher).unlink()
    run(text_config, store)
    # Its record, which may be another machine's, stays as it is.
    assert store.run_path(teacher).read_bytes() == before
    again = checkpoint.load(store.weights_path(teacher))["model"]
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert {record.config for record in store.records("mini")} == {teacher, text_config}
    assert not store.partial_path(teacher).exists()


def test_a_teacher_that_is_trained_aside_and_stopped_goes_on_another_time(store, text_config, monkeypatch):
    teacher = teacher_of(text_config)
    run(teacher, store)
    record, weights = store.run_path(teacher).read_bytes(), checkpoint.load(store.weights_path(teacher))["model"]
    store.weights_path(teacher).unlink()
    steps, call = [], Step.__call__
    monkeypatch.setattr(Step, "__call__", lambda self, *args: (steps.append(self.config), call(self, *args))[1])
    # It has two epochs of three steps.
    with pytest.raises(BudgetError, match=f"{teacher.run_id} goes on from epoch 1"):
        run(text_config, store, stop_at=time.time())
    assert steps == [teacher] * 3
    assert not store.weights_path(teacher).exists()
    run(text_config, store)
    assert steps == [teacher] * 6 + [text_config] * 6
    again = checkpoint.load(store.weights_path(teacher))["model"]
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert store.run_path(teacher).read_bytes() == record
    # Nothing of it is left but the files of the claims.
    left = [path for path in (store.root / "checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".lock"}


def test_a_teacher_that_failed_fails_what_it_would_teach(store, text_config):
    config = text_config.replace(lr=1e30)
    with pytest.raises(TrainingError, match="loss is nan"):
        run(config, store)
    assert store.read(teacher_of(config)).result["status"] == "failed"
    assert store.read(config) is None


def test_a_teacher_that_another_process_trains_is_waited_for(store, text_config, capfd):
    teacher, done = teacher_of(text_config), []
    student = threading.Thread(target=lambda: done.append(run(text_config, store)))
    with store.claim(teacher):
        student.start()
        while f"{teacher.run_id}: another process trains it; waiting" not in capfd.readouterr().err:
            time.sleep(0.05)
        assert not done
        assert store.read(teacher) is None
    student.join(120)
    assert len(done) == 1
    assert store.read(teacher).finished


@pytest.mark.parametrize("method", ["baseline_da_long", "baseline_da_uni", "mmel_h"])
def test_a_teacher_changes_what_its_students_learn(method, store, text_config):
    config = text_config.replace(method=method, epochs=1)
    assert losses(run(config, store)) != losses(run(config.replace(label_source="original"), store))


# Choices.


@pytest.fixture
def choosing(simple):
    return simple.replace(hidden_dropout=-1.0, attention_dropout=-1.0, epochs=1)


def pretend(store, config, metric="matthews_pct", score=0.0, status="finished"):
    best = {f"best_{metric}": 100 - score}
    record_run(store, config, score, header={"metric": metric}, status=status, error="", **best)


@pytest.mark.parametrize(
    ("scores", "rates"),
    [
        ((1, 2, 4, 3), (0.1, 0.0)),
        ((1, 2, 3, 4), (0.1, 0.1)),
        # Ties go to the smaller rates.
        ((3, 5, 5, 5), (0.0, 0.1)),
        ((5, 5, 5, 5), (0.0, 0.0)),
        ((-9, -3, -4, -5), (0.0, 0.1)),
    ],
)
def test_dropout_rates_are_chosen_by_the_dev_score(scores, rates, store, choosing):
    for candidate, score in zip(candidates(choosing), scores, strict=True):
        pretend(store, candidate, score=score)
    assert with_choices(choosing, store) == choosing.replace(hidden_dropout=rates[0], attention_dropout=rates[1])


@pytest.mark.parametrize("state", ["missing", "failed"])
def test_a_choice_that_cannot_be_made_names_what_is_missing(state, store, choosing):
    first, second, third, fourth = candidates(choosing)
    for candidate in (first, third):
        pretend(store, candidate)
    if state == "failed":
        pretend(store, second, status="failed")
    with pytest.raises(ResultsError, match=f"first train {second.run_id}, {fourth.run_id} ") as caught:
        with_choices(choosing, store)
    assert choosing.run_id in str(caught.value)
    assert first.run_id not in str(caught.value)
    with pytest.raises(ResultsError):
        run(choosing, store)
    assert store.read(choosing) is None


def test_what_leaves_nothing_to_be_chosen_asks_nothing(store, simple):
    assert with_choices(simple, store) == simple


def test_a_run_takes_the_chosen_rates_under_its_own_name(store, choosing):
    for candidate in candidates(choosing):
        pretend(store, candidate, score=candidate.hidden_dropout)
    lines = run(choosing, store)
    record = store.read(choosing)
    assert record.config == choosing
    assert (record.header["hidden_dropout"], record.header["attention_dropout"]) == (0.1, 0.0)
    # The very run that is configured so.
    configured = choosing.replace(hidden_dropout=0.1, attention_dropout=0.0)
    assert losses(run(configured, store)) == losses(lines)
    assert load_trained(choosing, store, device="cpu").model.config.attention_probs_dropout_prob == 0.0


def test_a_teacher_chooses_for_itself(store, choosing):
    # Its rates are the best of the baselines', whatever is best for those whom it teaches.
    taught = choosing.replace(label_source="predicted")
    teacher = teacher_of(taught)
    for candidate in candidates(taught):
        assert candidate.seed == SELECTION_SEED
        pretend(store, candidate, score=candidate.hidden_dropout)
    with pytest.raises(ResultsError, match=candidates(teacher)[0].run_id):
        run(taught, store)
    for candidate in candidates(teacher):
        pretend(store, candidate, score=candidate.attention_dropout)
    run(taught, store)
    rates = [
        (record.header["hidden_dropout"], record.header["attention_dropout"])
        for record in map(store.read, (taught, teacher))
    ]
    assert rates == [(0.1, 0.0), (0.0, 0.1)]
    assert store.read(taught).header["teacher"] == teacher.run_id
    assert len(load_trained(taught, store, device="cpu").most_uneven()) == 3
    # Without its weights it is trained again, with the same rates.
    weights = checkpoint.load(store.weights_path(teacher))["model"]
    store.weights_path(teacher).unlink()
    run(taught.replace(seed=1), store)
    again = checkpoint.load(store.weights_path(teacher))["model"]
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_trained_weights_come_back(store, simple):
    with pytest.raises(FileNotFoundError, match=simple.run_id):
        load_trained(simple, store, device="cpu")
    score = run(simple, store)[-1]["matthews_pct"]
    task = load_trained(simple, store, device="cpu")
    assert not task.model.training
    assert task.evaluate()["matthews_pct"] == score
    assert len(task.most_uneven()) == 3
