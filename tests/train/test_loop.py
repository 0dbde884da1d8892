import math
import os
import subprocess
import time

import pytest
import torch
from pretend import record_run

from mmel import RunConfig
from mmel.grids import candidates
from mmel.records import ResultsError, Store
from mmel.train import BudgetError, TrainingError, checkpoint, load_trained, loop, machine, train
from mmel.train.selection import with_choices
from mmel.train.step import Step
from mmel.train.vision import VisionTask

SMALL = RunConfig(
    dataset="digits",
    model="resnet8",
    augment="crop",
    train_size=60,
    batch_size=20,
    num_augmented=3,
    epochs=2,
    decay_epochs=(1,),
    precision="fp32",
)
CPU = torch.device("cpu")


def run(config, store, **options):
    return list(train(config, store, device="cpu", **options))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def task():
    return VisionTask(SMALL, None, CPU)


def test_an_epoch_has_the_promised_fields_and_the_record_its_provenance(store):
    lines = run(SMALL, store)
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert set(line) == {
            "kind",
            "epoch",
            "train_loss",
            "accuracy_pct",
            "learning_rate",
            "train_seconds",
            "eval_seconds",
            "images_per_second",
            "weight_entropy",
            "weight_max",
        }
        assert 1 / 3 < line["weight_max"] < 1
        assert 0 < line["weight_entropy"] < math.log(3)
    record = store.read(SMALL)
    assert record.config == SMALL
    assert record.header["sizes"] == {"train": 60, "train_available": 1437, "eval": 360, "eval_split": "test"}
    assert record.header["metric"] == record.metric == "accuracy_pct"
    # What a run may leave to be chosen: here as the configuration has it.
    chosen = {name: record.header[name] for name in ("lambda_t", "hidden_dropout", "attention_dropout")}
    assert chosen == {"lambda_t": 1.0, "hidden_dropout": 0.1, "attention_dropout": 0.1}
    assert record.header["device"]["type"] == "cpu"
    assert record.header["versions"]["torch"] == torch.__version__
    assert {"commit", "dirty"} <= set(record.header)
    assert record.result["accuracy_pct"] == lines[-1]["accuracy_pct"]
    assert record.result["peak_memory_bytes"] > 1e6
    assert record.result["wall_seconds"] >= record.result["train_seconds"] > 0


def test_a_recorded_run_is_read_and_not_trained_again(store, monkeypatch):
    first = run(SMALL, store)
    monkeypatch.setattr(loop, "VisionTask", None)
    assert run(SMALL, store) == first


def test_the_same_seed_gives_the_same_run_and_another_seed_another(store, tmp_path_factory):
    losses = [line["train_loss"] for line in run(SMALL, store)]
    again = [line["train_loss"] for line in run(SMALL, Store(tmp_path_factory.mktemp("again")))]
    other = [line["train_loss"] for line in run(SMALL.replace(seed=1), store)]
    assert losses == again
    assert losses != other


def test_evaluations_within_an_epoch_take_its_steps_one_by_one(store):
    # Three steps in two parts: one, then two; the steps are those of a run that is evaluated once an epoch.
    config = SMALL.replace(evals_per_epoch=2, epochs=3)
    lines = run(config, store)
    assert [line["epoch"] for line in lines] == [0.5, 1, 1.5, 2, 2.5, 3]
    assert all(type(line["epoch"]) is int for line in lines[1::2])
    whole = run(SMALL.replace(epochs=3), store)
    for epoch, line in enumerate(whole):
        first, second = lines[2 * epoch : 2 * epoch + 2]
        assert (first["train_loss"] + 2 * second["train_loss"]) / 3 == pytest.approx(line["train_loss"], rel=1e-6)
        # The rate at the beginning of each part; it falls between epochs.
        assert first["learning_rate"] == second["learning_rate"] == line["learning_rate"]
        assert second["accuracy_pct"] == line["accuracy_pct"]
    result = store.read(config).result
    assert result["accuracy_pct"] == lines[-1]["accuracy_pct"]
    assert result["best_epoch"] == max(lines, key=lambda line: line["accuracy_pct"])["epoch"]


def test_more_evaluations_than_steps_are_refused(store):
    with pytest.raises(ValueError, match="evals_per_epoch must be at most the 3 steps of an epoch, got 4"):
        run(SMALL.replace(evals_per_epoch=4), store)
    assert len(run(SMALL.replace(evals_per_epoch=3), store)) == 6


@pytest.mark.parametrize(
    ("method", "k", "expected"),
    [
        ("baseline_da", 1, [0.1, 0.02, 0.004]),
        ("baseline_da_long", 2, [0.1, 0.1, 0.02, 0.02, 0.004, 0.004]),
    ],
)
def test_the_learning_rate_falls_after_the_given_epochs(method, k, expected, store):
    config = SMALL.replace(method=method, num_augmented=k, epochs=3, decay_epochs=(1, 2))
    rates = [line["learning_rate"] for line in run(config, store)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("method", ["baseline_da", "baseline_da_long", "baseline_da_uni", "mmel_h", "mmel_s"])
def test_every_method_sees_its_views(method):
    k = 1 if method == "baseline_da" else 3
    config = SMALL.replace(method=method, num_augmented=k)
    task = VisionTask(config, None, CPU)
    index = torch.arange(5)
    views = task.views(index, epoch=1)
    assert views.shape == (5, config.num_views, 1, 8, 8)
    is_original = (views[:, 0] == task.train_images.pixels[index]).flatten(1).all(dim=1)
    if method.startswith("baseline_da") and method != "baseline_da_uni":
        # One view of nine is the centre crop; all five of them never are.
        assert not is_original.all()
    else:
        assert is_original.all()


def test_original_augmented_makes_index_0_a_random_view():
    task = VisionTask(SMALL.replace(original="augmented"), None, CPU)
    index = torch.arange(20)
    assert task.views(index, 1).shape[1] == 3
    assert not torch.equal(task.views(index, 1)[:, 0], task.train_images.pixels[index])


def test_views_are_drawn_anew_each_epoch_unless_redraw_is_off():
    index = torch.arange(20)
    for redraw in (True, False):
        task = VisionTask(SMALL.replace(redraw=redraw), None, CPU)
        assert torch.equal(task.views(index, 1), task.views(index, 2)) is not redraw


def test_the_uniform_method_with_its_loss_is_the_mean_over_views(task):
    index = torch.arange(10)
    config = SMALL.replace(method="baseline_da_uni")
    uniform = VisionTask(config, None, CPU)
    terms = uniform.terms(index, 1)
    torch.testing.assert_close(terms.loss, terms.sample_losses.mean(dim=1))
    # Same seed, same network, same views: only the weighting differs.
    hard = task.terms(index, 1)
    torch.testing.assert_close(hard.sample_losses, terms.sample_losses)
    assert (hard.loss > terms.loss).all()


def test_the_network_input_is_standardised():
    full = VisionTask(SMALL.replace(train_size=0), None, CPU)
    values = full.normalize(full.train_images.pixels)
    assert values.mean().item() == pytest.approx(0, abs=1e-4)
    assert values.std().item() == pytest.approx(1, abs=1e-3)


class OutOfMemoryAbove:
    """Stands in for a machine that cannot hold more than `limit` rows of activations."""

    def __init__(self, model, limit, message="CUDA out of memory. Tried"):
        self.model, self.limit, self.message, self.seen = model, limit, message, []
        self.forward = model.forward

    def __call__(self, images):
        self.seen.append(len(images))
        if len(images) > self.limit:
            # A first block has run by then, and BatchNorm has already counted this batch.
            self.model.bn(self.model.conv(images))
            raise torch.OutOfMemoryError(self.message)
        return self.forward(images)


def _limited(monkeypatch, limit):
    machines = []

    class Limited(VisionTask):
        def __init__(self, *args):
            super().__init__(*args)
            machines.append(OutOfMemoryAbove(self.model, limit))
            self.model.forward = machines[-1]

        def evaluate(self):
            self.model.forward = machines[-1].forward
            result = super().evaluate()
            self.model.forward = machines[-1]
            return result

    monkeypatch.setattr(loop, "VisionTask", Limited)
    return machines


def test_a_step_that_does_not_fit_halves_its_micro_batch_along_n(store, monkeypatch, capsys):
    machines = _limited(monkeypatch, limit=16)
    run(SMALL, store)
    # 20 originals of 3 views do not fit, nor 10, but 5 do: K is never split. Each is tried twice.
    assert machines[0].seen[:5] == [60, 60, 30, 30, 15]
    assert set(machines[0].seen[4:]) == {15}
    assert store.read(SMALL).result["micro_batch"] == 5
    told = capsys.readouterr().err
    assert "out of memory; going on with 5 originals" in told
    assert "If other processes have the device's memory" in told


def test_memory_that_is_free_again_a_moment_later_splits_nothing(store, monkeypatch, tmp_path_factory):
    expected = run(SMALL, Store(tmp_path_factory.mktemp("whole")))
    terms, failed = VisionTask.terms, []

    def once(self, index, epoch):
        found = terms(self, index, epoch)
        if not failed:
            failed.append(epoch)
            raise torch.OutOfMemoryError("another run had it")
        return found

    monkeypatch.setattr(VisionTask, "terms", once)
    lines = run(SMALL, store)
    assert failed
    assert store.read(SMALL).result["micro_batch"] is None
    # BatchNorm did not see the failed batch.
    for name in ("train_loss", "accuracy_pct"):
        assert [line[name] for line in lines] == [line[name] for line in expected]


def test_the_trial_of_memory_has_the_optimizers_state_and_leaves_no_trace(task, monkeypatch):
    taken = Step(task, SMALL, CPU)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    counts, gradients = [], Step.gradients

    def counted(self, index, epoch):
        counts.append(len(self.optimizer.state))
        return gradients(self, index, epoch)

    monkeypatch.setattr(Step, "gradients", counted)
    taken.try_out(torch.arange(20))
    assert counts == [len(list(task.model.parameters()))]
    assert not taken.optimizer.state
    assert all(parameter.grad is None for parameter in task.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    # What a resumed run has brought along stays.
    taken(torch.arange(20), 1)
    momenta = [state["momentum_buffer"].clone() for state in taken.optimizer.state.values()]
    taken.try_out(torch.arange(20, 40))
    after = [state["momentum_buffer"] for state in taken.optimizer.state.values()]
    assert all(torch.equal(one, other) for one, other in zip(momenta, after, strict=True))


# Stopping.


class Clock:
    """Stands in for `time` in the loop: `seconds` go by in each epoch's training."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def time(self):
        return self.now

    monotonic = time

    def started(self, monkeypatch):
        train_and_evaluate = loop._Training._train_and_evaluate

        def timed(training, number, bar):
            self.now += self.seconds
            return train_and_evaluate(training, number, bar) | {"train_seconds": self.seconds, "eval_seconds": 0.0}

        monkeypatch.setattr(loop, "time", self)
        monkeypatch.setattr(loop._Training, "_train_and_evaluate", timed)
        return self


def checkpointed(config, store):
    return [line["epoch"] for line in checkpoint.load(store.checkpoint_path(config))["lines"][1:]]


def test_a_budget_stops_a_run_at_an_evaluation_within_an_epoch_and_nothing_is_lost(
    store, monkeypatch, tmp_path_factory
):
    config = SMALL.replace(evals_per_epoch=3)
    whole = run(config, Store(tmp_path_factory.mktemp("whole")))
    Clock(10).started(monkeypatch)
    stopped = train(config, store, device="cpu", stop_at=25)
    epochs = [next(stopped)["epoch"], next(stopped)["epoch"]]
    with pytest.raises(BudgetError, match=r"goes on from epoch 0\.6667 another time"):
        next(stopped)
    assert checkpointed(config, store) == epochs == [0.3333, 0.6667]
    lines = run(config, store)
    assert [line["train_loss"] for line in lines] == [line["train_loss"] for line in whole]
    assert lines[-1]["accuracy_pct"] == whole[-1]["accuracy_pct"]


def test_a_resumed_run_begins_nothing_that_its_checkpoint_says_is_too_long(store, monkeypatch):
    clock = Clock(10).started(monkeypatch)
    first = train(SMALL, store, device="cpu", stop_at=15)
    assert next(first)["epoch"] == 1
    with pytest.raises(BudgetError, match="goes on from epoch 1 another time"):
        next(first)
    taken = []
    monkeypatch.setattr(Step, "__call__", lambda *_: taken.append(1))
    again = train(SMALL, store, device="cpu", stop_at=clock.now + 5)
    assert next(again)["epoch"] == 1
    with pytest.raises(BudgetError, match="goes on from epoch 1 another time"):
        next(again)
    assert not taken


@pytest.mark.parametrize(("seconds", "expected"), [(10, [1]), (40, [2 / 3, 1]), (70, [1 / 3, 2 / 3, 1])])
def test_within_an_epoch_a_checkpoint_waits_for_a_minute_of_work(seconds, expected, store, monkeypatch):
    config = SMALL.replace(evals_per_epoch=3)
    Clock(seconds).started(monkeypatch)
    saved, original = [], loop._Training._checkpoint

    def save(training):
        saved.append(training.lines[-1]["epoch"])
        original(training)

    monkeypatch.setattr(loop._Training, "_checkpoint", save)
    run(config, store)
    assert [epoch for epoch in saved if epoch <= 1] == pytest.approx(expected, abs=1e-4)


# Precision.


def test_fp32_is_fp32_in_convolutions_and_products_of_a_gpu_and_only_there(store, monkeypatch):
    settings, seen = (torch.backends.cudnn.conv, torch.backends.cuda.matmul), []
    terms = VisionTask.terms

    def note(self, index, epoch):
        seen.append((self.config.precision, *(setting.fp32_precision for setting in settings)))
        return terms(self, index, epoch)

    monkeypatch.setattr(VisionTask, "terms", note)
    before = [setting.fp32_precision for setting in settings]
    run(SMALL, store)
    run(SMALL.replace(precision="bf16"), store)
    assert set(seen) == {("fp32", "ieee", "ieee"), ("bf16", *before)}
    assert [setting.fp32_precision for setting in settings] == before
    # The older interface can be read as ever.
    assert torch.backends.cudnn.allow_tf32 is (before[0] == "tf32")


def test_a_run_that_was_split_equals_one_configured_so(store, monkeypatch):
    configured = SMALL.replace(micro_batch=5)
    expected = [line["train_loss"] for line in run(configured, store)]
    assert store.read(configured).result["micro_batch"] is None
    _limited(monkeypatch, limit=16)
    assert [line["train_loss"] for line in run(SMALL, store)] == expected


def test_micro_batches_add_up_to_the_whole_batch_gradient(store):
    # In evaluation mode BatchNorm does not see the batch, so the split must not matter.
    whole, split = (loop._Training(SMALL.replace(micro_batch=m), store, None, CPU) for m in (0, 6))
    gradients = []
    for training in (whole, split):
        training.model.eval()
        loss, statistics = training.step.gradients(torch.arange(20), epoch=1)
        gradients.append([loss, statistics, *(p.grad for p in training.model.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_one_original_that_does_not_fit_fails_the_run(store, monkeypatch):
    _limited(monkeypatch, limit=2)
    with pytest.raises(TrainingError, match="one original with its 3 views does not fit"):
        run(SMALL, store)
    assert store.read(SMALL).result["status"] == "failed"


def test_other_errors_are_not_taken_for_lack_of_memory(store, monkeypatch):
    monkeypatch.setattr(VisionTask, "terms", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        run(SMALL, store)
    assert store.read(SMALL) is None


def test_a_loss_that_is_not_finite_stops_the_run_and_the_record_says_so(store):
    config = SMALL.replace(lr=1e30)
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+ \(epoch 1\); config: .*'lr': 1e\+30"):
        run(config, store)
    record = store.read(config)
    assert record.result["status"] == "failed"
    assert "step" in record.result["error"]
    assert not store.checkpoint_path(config).exists()
    # Asking again trains again, here to the same end.
    with pytest.raises(TrainingError):
        run(config, store)


def test_a_run_in_progress_elsewhere_is_refused(store):
    first = train(SMALL, store, device="cpu")
    next(first)
    with pytest.raises(ResultsError, match="trained by another process"):
        next(train(SMALL, store, device="cpu"))
    first.close()
    assert len(run(SMALL, store)) == 2


def test_trained_weights_come_back(store):
    with pytest.raises(FileNotFoundError, match=SMALL.run_id):
        load_trained(SMALL, store, device="cpu")
    accuracy = run(SMALL, store)[-1]["accuracy_pct"]
    task = load_trained(SMALL, store, device="cpu")
    assert task.evaluate()["accuracy_pct"] == accuracy
    views, weights = task.most_uneven(num_augmented=4)
    assert views.shape == (4, 8, 8, 1)
    assert weights.sum().item() == pytest.approx(1)
    # The run's own K; MMEL-S weighs the other views alone (Eq. 9).
    assert len(task.most_uneven()[1]) == SMALL.num_augmented
    soft = SMALL.replace(method="mmel_s", epochs=1, decay_epochs=())
    run(soft, store)
    views, weights = load_trained(soft, store, device="cpu").most_uneven(num_images=20)
    assert torch.isnan(weights[0])
    task = load_trained(soft, store, device="cpu")
    with torch.no_grad():
        expected = task.terms(torch.arange(20), soft.total_epochs).weights
    assert torch.equal(weights[1:], expected[expected.amax(dim=1).argmax()])


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at most the 60 training images, got 64"):
        VisionTask(SMALL.replace(batch_size=64), None, CPU)


def test_the_partial_batch_is_dropped_or_kept():
    assert VisionTask(SMALL.replace(train_size=70), None, CPU).steps == 3
    assert VisionTask(SMALL.replace(train_size=70, drop_last=False), None, CPU).steps == 4


def test_held_out_runs_are_evaluated_on_training_images_they_do_not_see(store):
    config = SMALL.replace(method="mmel_s", holdout=100)
    task = VisionTask(config, None, CPU)
    assert task.sizes == {"train": 60, "train_available": 1437, "eval": 100, "eval_split": "holdout"}
    seen = {tuple(image.flatten().tolist()) for image in task.train_images.pixels}
    assert not seen & {tuple(image.flatten().tolist()) for image in task.eval_images.pixels}


def test_lambda_t_is_chosen_on_held_out_images(store):
    config = SMALL.replace(method="mmel_s", lambda_t=0.0)
    with pytest.raises(ResultsError, match=candidates(config)[1].run_id):
        with_choices(config, store)
    for candidate, accuracy in zip(candidates(config), (70.0, 80.0, 80.0), strict=True):
        record_run(store, candidate, accuracy)
    assert with_choices(config, store) == config.replace(lambda_t=1.0)
    run(config, store)
    assert store.read(config).header["lambda_t"] == 1.0
    # The record is that of the run that was asked for.
    assert store.read(config).config == config


def test_bf16_losses_stay_within_the_spread_of_fp32_runs():
    """ "Within bf16 noise" (docs/decisions.md), at the size of a unit test: 30 steps of 8x8 images."""

    def mean_loss(precision, order_seed):
        config = SMALL.replace(precision=precision, train_size=600, epochs=1, decay_epochs=())
        task = VisionTask(config, None, CPU)
        optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1, momentum=0.9)
        order = torch.randperm(600, generator=torch.Generator().manual_seed(order_seed))
        losses = []
        for index in order.split(20):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = task.terms(index, 1).loss.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    exact = [mean_loss("fp32", seed) for seed in range(3)]
    assert abs(mean_loss("bf16", 0) - exact[0]) < max(exact) - min(exact)


def test_the_device_is_named_or_refused(monkeypatch):
    assert machine.pick_device("cpu") == CPU
    monkeypatch.setenv("MMEL_DEVICE", "cpu")
    assert machine.pick_device() == CPU
    for name in ("cuda:99", "meta", "mps", "gpu"):
        with pytest.raises(ValueError, match=rf"^device .*cpu.*'{name}'$"):
            machine.pick_device(name)


def test_the_commit_can_be_passed_in(monkeypatch):
    monkeypatch.setenv("MMEL_COMMIT", "abc123")
    assert machine.code_version() == {"commit": "abc123", "dirty": None}


def test_the_commit_is_that_of_a_repository_that_tracks_the_package(monkeypatch, tmp_path):
    monkeypatch.delenv("MMEL_COMMIT", raising=False)
    module = tmp_path / "project" / "site-packages" / "mmel" / "train" / "machine.py"
    module.parent.mkdir(parents=True)
    (module.parents[1] / "__init__.py").touch()
    monkeypatch.setattr(machine, "__file__", str(module))

    def git(*arguments):
        names = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        command = ["git", "-C", str(tmp_path / "project"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | names).stdout

    assert machine.code_version() == {"commit": None, "dirty": None}
    git("init")
    git("commit", "--allow-empty", "--message", "another project")
    assert machine.code_version() == {"commit": None, "dirty": None}
    git("add", "site-packages/mmel/__init__.py")
    git("commit", "--message", "now it is ours")
    assert machine.code_version() == {"commit": git("rev-parse", "HEAD").strip(), "dirty": False}
    (module.parents[1] / "__init__.py").write_text("changed")
    assert machine.code_version()["dirty"]
