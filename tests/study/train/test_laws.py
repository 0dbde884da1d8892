"""The laws of training, on each kind of data."""

import math
import threading

import pytest
import torch
from tiny import (
    IMAGES,
    KINDS,
    STILL,
    TAUGHT,
    TEXT,
    assert_same_run,
    numbers,
    reloaded,
    scored,
    step_of,
    task_of,
    trained,
    weights,
)

from mmel.study.data.images import split_train, with_wrong_labels
from mmel.study.needs import candidates, teacher_of
from mmel.study.records import LockedError, ResultsError
from mmel.study.train import DivergedError, TrainingError, loop, train
from mmel.study.train.images import ImageTask
from mmel.study.train.task import Task
from mmel.study.train.texts import TextTask

pytestmark = pytest.mark.usefixtures("one_thread")


SIZES = {
    "digits": {"train": 60, "train_available": 1437, "eval": 360, "eval_split": "test", "sampled": []},
    "drawings": {"train": 24, "train_available": 480, "eval": 240, "eval_split": "val", "sampled": []},
    "grammar_cola": {"train": 24, "train_available": 400, "eval": 300, "eval_split": "dev", "test": 300, "sampled": []},
}


def losses(lines):
    return [line["train_loss"] for line in lines]


# Records.


@pytest.mark.parametrize("config", KINDS, indirect=True)
def test_a_record_has_the_promised_fields(config, store):
    lines = trained(config, store)
    assert isinstance(task_of(config, store), Task)
    assert [line["epoch"] for line in lines] == [1, 2]
    record = store.read(config)
    metric, unit = record.metric, "sequences" if config.is_text else "images"
    shared = {"kind", "epoch", "train_loss", "learning_rate", "weight_entropy", "weight_max", "effective_views"}
    for line in lines:
        assert set(line) == shared | {metric, "train_seconds", "eval_seconds", f"{unit}_per_second"}
        assert 1 / 3 < line["weight_max"] < 1
        assert 0 < line["weight_entropy"] < math.log(3)
        assert line[f"{unit}_per_second"] * line["train_seconds"] == pytest.approx(3 * config.train_size)
    assert record.config == config
    header, result = record.header, record.result
    assert header["sizes"] == SIZES[config.dataset]
    assert metric == config.data.metric
    assert header["lambda_t"] == 1.0
    assert (header.get("hidden_dropout"), header.get("attention_dropout")) == (
        (0.1, 0.1) if config.is_text else (None,) * 2
    )
    assert header["device"].items() >= {"type": "cpu", "precision": "fp32", "threads": 1}.items()
    assert header["versions"]["torch"] == torch.__version__
    assert header.keys() >= {"commit", "dirty", "started", "num_parameters"}
    assert header["processes"] == 1
    scores = [line[metric] for line in lines]
    assert record.score == result[metric] == scores[-1]
    assert result[f"best_{metric}"] == max(scores)
    assert result["best_epoch"] == scores.index(max(scores)) + 1
    assert result["peak_memory_bytes"] > 1e6
    assert result["wall_seconds"] >= result["train_seconds"] > 0
    assert (result["engine"], result["why_eager"]) == ("eager", "no CUDA device")
    # Trained on a subset, it leaves the test split of texts alone.
    assert not [name for name in result if name.startswith("test_")]
    assert not store.predictions_path(config).exists()
    assert not store.checkpoint_path(config).exists()


def test_a_run_is_trained_once_and_by_one_process(config, store, monkeypatch):
    running = train(config, store, device="cpu")
    first = next(running)
    with pytest.raises(LockedError, match=config.run_id):
        trained(config, store)
    running.close()
    lines = trained(config, store)
    assert numbers(lines[:1]) == numbers([first])
    assert reloaded(config, store).evaluate()[config.data.metric] == store.read(config).score
    monkeypatch.setattr(loop, "build_task", None)
    assert trained(config, store) == lines


@pytest.mark.parametrize(
    ("asked", "other"), [(IMAGES, IMAGES), (TAUGHT, teacher_of(TAUGHT))], ids=["itself", "teacher"]
)
def test_a_run_in_progress_elsewhere_is_waited_for_and_trained_once(
    asked, other, store, text_model, monkeypatch, steps
):
    waits, lines, lock = threading.Event(), [], type(store).lock

    def noted(self, config, wait=False):
        if config == other and wait:
            waits.set()
        return lock(self, config, wait)

    elsewhere = train(other, store, device="cpu")
    next(elsewhere)
    monkeypatch.setattr(type(store), "lock", noted)
    waiting = threading.Thread(target=lambda: lines.extend(trained(asked, store, wait=True)))
    waiting.start()
    assert waits.wait(60)
    assert len(list(elsewhere)) == 1
    waiting.join(60)
    assert len(lines) == 2
    assert [each for each, *_ in steps].count(other) == 6


# Seeds, order and schedule.


@pytest.mark.parametrize("config", KINDS, indirect=True)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(config, store, new_store):
    trained(config, store)
    # Whatever was drawn before, which stays as it was.
    torch.rand(7)
    state = torch.get_rng_state()
    trained(config, again := new_store())
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_run(config, store, again)
    assert losses(trained(config.replace(seed=1), store)) != losses(store.read(config).epochs)


def test_each_epoch_takes_whole_batches_in_an_order_of_its_own(config, store, steps):
    config = config.replace(train_size=config.batch_size * 2 + 3)
    trained(config, store)
    trained(config.replace(seed=1), store)
    assert [len(index) for _, index, _ in steps] == [config.batch_size] * 8
    assert [epoch for *_, epoch in steps] == [1, 1, 2, 2] * 2
    epochs = [[*first, *second] for (_, first, _), (_, second, _) in zip(steps[::2], steps[1::2], strict=True)]
    assert all(len(set(epoch)) == config.batch_size * 2 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_evaluations_leave_the_steps_alone(config, store):
    config = config.replace(epochs=4, **(STILL if config.is_text else {}))
    # Each epoch has three steps in two parts: one, then two.
    parts, every, few = (
        trained(config.replace(**changes), store) for changes in ({"evals_per_epoch": 2}, {}, {"epochs_per_eval": 2})
    )
    assert [line["epoch"] for line in parts] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert [type(line["epoch"]) for line in parts] == [float, int] * 4
    assert [line["epoch"] for line in few] == [2, 4]
    merged = [(parts[2 * n : 2 * n + 2], (1 / 3, 2 / 3), line) for n, line in enumerate(every)]
    merged += [(every[2 * n : 2 * n + 2], (1 / 2, 1 / 2), line) for n, line in enumerate(few)]
    for (first, second), (share, rest), line in merged:
        for mean in ("train_loss", "effective_views"):
            assert share * first[mean] + rest * second[mean] == pytest.approx(line[mean], rel=1e-6)
        # The rate at the beginning of each part.
        assert first["learning_rate"] == line["learning_rate"]
        assert all(second[name] == line[name] for name in line if name.endswith("_pct"))
    result, metric = store.read(config.replace(evals_per_epoch=2)).result, config.data.metric
    assert result["best_epoch"] == max(parts, key=lambda line: line[metric])["epoch"]


@pytest.mark.parametrize(("field", "value"), [("evals_per_epoch", 4), ("batch_size", 61)])
def test_an_epoch_has_a_step_for_each_evaluation(field, value, config, store):
    with pytest.raises(ValueError, match=field):
        trained(config.replace(**{field: value}), store)
    assert store.read(config.replace(**{field: value})) is None


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        ("images", {"method": "baseline_da", "num_augmented": 1}, [0.1, 0.02, 0.004]),
        ("images", {"method": "baseline_da_long", "num_augmented": 2}, [0.1, 0.1, 0.02, 0.02, 0.004, 0.004]),
        # Linearly to 0, without warm-up, at each of the steps: nine, and three times as many.
        ("text", {}, [9e-3, 6e-3, 3e-3]),
        ("text", {"method": "baseline_da_long", "evals_per_epoch": 3}, [9e-3 - n * 1e-3 for n in range(9)]),
    ],
    indirect=["config"],
)
def test_the_learning_rate_falls_as_the_paper_says(config, changes, expected, store):
    text = config.is_text
    config = config.replace(epochs=3, **({"lr": 9e-3} if text else {"decay_epochs": (1, 2)}), **changes)
    assert [line["learning_rate"] for line in trained(config, store)] == pytest.approx(expected)


@pytest.mark.parametrize("method", ["baseline_da_uni", "mmel_h", "mmel_s"])
def test_a_run_is_a_plain_loop(config, method, store):
    """Shuffled batches, the library's loss, and the paper's optimizer, written out."""
    config = config.replace(method=method, weight_decay=0.01, **(STILL if config.is_text else {}))
    lines = trained(config, store)
    task, means = task_of(config, store), []
    parameters = list(task.model.parameters())
    if config.is_text:
        optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.01)
        rates = [config.lr * (6 - step) / 6 for step in range(6)]
    else:
        optimizer = torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, weight_decay=0.01)
        rates = [config.lr] * 3 + [config.lr * 0.2] * 3
    for step, rate in enumerate(rates):
        epoch = step // 3 + 1
        index = task.order(epoch).split(config.batch_size)[step % 3]
        loss = task.terms(index, epoch).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        means.append(loss.item())
    assert losses(lines) == pytest.approx([sum(means[:3]) / 3, sum(means[3:]) / 3], rel=1e-3)
    for name, value in weights(config, store).items():
        # Keys' biases change no output: their gradients are noise, which AdamW blows up.
        if "key.bias" not in name:
            torch.testing.assert_close(task.model.state_dict()[name], value, rtol=1e-2, atol=1e-4)


def test_dropout_is_drawn_anew_at_each_interval_and_off_in_evaluation(store, text_model, monkeypatch):
    # Nothing is learned and the order stays, so that but for the masks every epoch has the same loss.
    fixed = TEXT.replace(lr=1e-30, batch_size=24)
    monkeypatch.setattr("mmel.study.train.texts.TextTask.order", lambda self, epoch: torch.arange(24))
    found = [
        losses(trained(fixed.replace(**rates), store)) for rates in ({}, STILL, STILL | {"attention_dropout": 0.1})
    ]
    assert found[1][0] == pytest.approx(found[1][1], rel=1e-5)
    assert len({loss for pair in (found[0], found[2]) for loss in pair} | {found[1][0]}) == 5


# Memory.


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_that_does_not_fit_says_which_micro_batch_may(config, error, store, monkeypatch):
    tried, task = [], TextTask if config.is_text else ImageTask
    terms = task.terms

    def limited(self, index, epoch):
        tried.append(len(index))
        # No more than three originals fit.
        if len(index) > 3:
            raise error
        return terms(self, index, epoch)

    monkeypatch.setattr(task, "terms", limited)
    with pytest.raises(TrainingError, match=rf"{config.run_id}: .*micro_batch to {config.batch_size // 2} "):
        trained(config, store)
    assert store.read(config) is None
    with pytest.raises(TrainingError, match="micro_batch to 2 "):
        trained(config.replace(micro_batch=4), store)
    tried.clear()
    trained(config.replace(micro_batch=3), store)
    rest = config.batch_size % 3
    assert tried == ([3] * (config.batch_size // 3) + [rest]) * 6


def test_micro_batches_add_up_to_the_whole_batch(config, store):
    config = config.replace(**(STILL if config.is_text else {}))
    one, other = (
        step_of(task_of(config.replace(micro_batch=size), store), torch.arange(config.batch_size)) for size in (0, 6)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# Failures.


@pytest.mark.parametrize("backward", ["exact", "sampled"])
def test_a_loss_that_is_not_finite_stops_the_run_and_the_record_says_so(backward, config, store):
    config = config.replace(lr=1e30, backward=backward)
    # Asking again trains again, here to the same end.
    for _ in range(2):
        with pytest.raises(DivergedError, match=r"step \d+ \(epoch 1\).*lr"):
            trained(config, store)
        result = store.read(config).result
        assert result["status"] == "failed"
        assert "step" in result["error"]
        assert not store.checkpoint_path(config).exists()
        assert not store.weights_path(config).exists()


# Which images are classified right, and the fit of the training images.


@pytest.mark.parametrize("changes", [{"method": "mmel_s"}, {"wrong_labels": 0.25, "subset_seed": 3}])
def test_a_record_says_which_images_are_right_and_how_the_training_images_are_fitted(changes, store):
    config = IMAGES.replace(epochs=12, decay_epochs=(8,), lr=0.05, epochs_per_eval=12, **changes)
    trained(config, store)
    task, result = reloaded(config, store), store.read(config).result
    task.model.eval()
    full, test = config.data.load()
    clean, _ = split_train(full, 60, seed=config.subset_seed)
    given = with_wrong_labels(clean, config.wrong_labels, config.subset_seed).labels
    with torch.no_grad():
        predicted, tested = (task.model(task.normalize(images.pixels)).argmax(dim=1) for images in (clean, test))
    assert result["correct"] == {"test": "".join("01"[hit] for hit in tested == test.labels)}
    assert result["accuracy_pct"] == pytest.approx(100 * (tested == test.labels).float().mean().item())
    wrong = given != clean.labels
    assert result["train_accuracy_pct"] == pytest.approx(100 * (predicted == given).float().mean().item())
    assert wrong.sum() == 60 * config.wrong_labels
    if config.wrong_labels:
        # The step saw the wrong labels, and a small network that is trained long takes some over.
        assert torch.equal(task.views(torch.arange(60), 1)[1], given)
        followed = 100 * (predicted == given)[wrong].float().mean().item()
        assert result["wrong_followed_pct"] == pytest.approx(followed)
        assert 0 < followed < 100
    else:
        assert "wrong_followed_pct" not in result


# Runs that choose for others.


def test_held_out_images_are_not_trained_on():
    task = task_of(IMAGES.replace(holdout=100))
    assert task.sizes == {"train": 60, "train_available": 1437, "eval": 100, "eval_split": "holdout", "sampled": []}
    trained_on = {tuple(views[0].flatten().tolist()) for views in task.views(torch.arange(60), 1)[0]}
    held = {tuple(image.flatten().tolist()) for pixels, *_ in task.batches(task._evaluated) for image in pixels}
    assert len(held) > 90
    assert not trained_on & held


@pytest.mark.parametrize(
    ("config", "scores", "chosen"),
    [
        ("images", (70, 80, 80), {"lambda_t": 1.0}),
        ("text", (1, 2, 4, 3), {"hidden_dropout": 0.1, "attention_dropout": 0.0}),
        # Ties go to the smaller rates.
        ("text", (5, 5, 5, 5), {"hidden_dropout": 0.0, "attention_dropout": 0.0}),
        ("text", (-9, -3, -4, -5), {"hidden_dropout": 0.0, "attention_dropout": 0.1}),
    ],
    indirect=["config"],
)
def test_a_run_takes_what_does_best_under_its_own_name(config, scores, chosen, store):
    open_run = config.replace(
        method="mmel_s", epochs=1, **dict.fromkeys(chosen), **({} if config.is_text else {"decay_epochs": ()})
    )
    first, second, *others = candidates(open_run)
    scored(store, first, score=scores[0])
    scored(store, second, status="failed", error="none")
    with pytest.raises(ResultsError, match=rf"train {second.run_id}, {others[0].run_id}"):
        trained(open_run, store)
    assert store.read(open_run) is None
    for candidate, score in zip((second, *others), scores[1:], strict=True):
        scored(store, candidate, score=score)
    lines = trained(open_run, store)
    record = store.read(open_run)
    assert record.config == open_run
    assert record.header.items() >= chosen.items()
    # The very run that is configured so.
    configured = open_run.replace(**chosen)
    assert numbers(trained(configured, store)) == numbers(lines)
    assert task_of(open_run, store).config == configured
