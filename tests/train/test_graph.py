"""CUDA graphs: their control flow with a stand-in on the CPU, and the thing itself where there is a GPU."""

import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmel import RunConfig
from mmel.augment.image import TransformEach
from mmel.records import Store
from mmel.train import checkpoint, graph, step, train, vision
from mmel.train.graph import Captured
from mmel.train.step import Step
from mmel.train.vision import VisionTask

CPU = torch.device("cpu")
# Seven batches, the last of them of ten.
CONFIG = RunConfig(
    dataset="digits",
    model="resnet8",
    augment="crop",
    train_size=130,
    batch_size=20,
    num_augmented=3,
    epochs=2,
    decay_epochs=(1,),
    precision="fp32",
    drop_last=False,
)
CLOCKS = {"train_seconds", "eval_seconds", "images_per_second"}

pytestmark = pytest.mark.usefixtures("one_thread")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Recorder(TorchDispatchMode):
    """Notes each call of an operator, the backward's too; like a capture, it lets no value be read back."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # Only on a CPU do the losses look at their targets.
        if function is torch.ops.aten._local_scalar_dense.default and not any(
            frame.filename.endswith("base_losses.py") for frame in traceback.extract_stack()
        ):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        outputs = function(*args, **(kwargs or {}))
        if function.namespace == "aten":
            self.calls.append((function, args, kwargs or {}, outputs))
        return outputs


class Stand:
    """Stands in for a CUDA graph: a replay repeats the captured operators on the captured tensors, in their memory.

    What the function read from Python, numbers and branches, is frozen, as in a graph.
    """

    made = ()

    def __init__(self, device):
        self.replays = 0
        type(self).made = [*self.made, self]

    def warm_up(self, function):
        for _ in range(3):
            function()

    def capture(self, function):
        with Recorder() as recorder:
            outputs = function()
        self.calls = recorder.calls
        return outputs

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for function, args, kwargs, outputs in self.calls:
                new = function(*args, **kwargs)
                # Views, and what an operator changed in place, are where they were.
                if any(returned.alias_info for returned in function._schema.returns):
                    continue
                for old, value in zip(tree_leaves(outputs), tree_leaves(new), strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(value)


class Uncapturable(Stand):
    def capture(self, function):
        super().capture(function)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.fixture(autouse=True)
def fused(monkeypatch):
    """SGD as on a GPU: only its fused kernel takes a learning rate that is a tensor without reading it."""
    build = VisionTask.build_optimizer

    def build_fused(task):
        optimizer = build(task)
        for group in optimizer.param_groups:
            group["fused"] = True
        return optimizer

    monkeypatch.setattr(VisionTask, "build_optimizer", build_fused)
    return build


def use(monkeypatch, stand):
    stand.made = ()
    monkeypatch.setattr(graph, "CudaGraph", stand)
    monkeypatch.setattr(step, "why_eager", lambda task, config, device: task.why_eager)


@pytest.fixture
def stores(tmp_path):
    def make(name):
        (tmp_path / name).mkdir()
        return Store(tmp_path / name)

    return make


def content(config, store, device="cpu"):
    lines = [{k: v for k, v in line.items() if k not in CLOCKS} for line in train(config, store, device=device)]
    return lines, checkpoint.load(store.weights_path(config))["model"]


def assert_same(one, other):
    assert one[0] == other[0]
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def test_a_graphed_run_is_the_eager_run(stores, monkeypatch):
    eager = content(CONFIG, store := stores("eager"))
    assert {k: store.read(CONFIG).result[k] for k in ("engine", "why_eager")} == {
        "engine": "eager",
        "why_eager": "no CUDA device",
    }
    use(monkeypatch, Stand)
    assert_same(content(CONFIG, store := stores("graph")), eager)
    # Six whole batches an epoch, and the 360 test images as one batch; the short batches went eagerly.
    assert [stand.replays for stand in Stand.made] == [12, 2]
    result = store.read(CONFIG).result
    assert (result["engine"], result["why_eager"]) == ("cuda graph", None)


def test_a_learning_rate_that_a_graph_froze_is_seen(stores, monkeypatch):
    use(monkeypatch, Stand)
    lines, _ = content(CONFIG, stores("graph"))
    step_optimizer = Step._step_optimizer
    monkeypatch.setattr(Step, "_step_optimizer", lambda self, lr: step_optimizer(self, 0.1))
    frozen, _ = content(CONFIG, stores("frozen"))
    # It falls after the first epoch.
    assert frozen[0] == lines[0]
    assert frozen[1]["train_loss"] != lines[1]["train_loss"]


@pytest.mark.parametrize(
    ("owner", "name", "change"),
    [
        (
            Step,
            "_forward_backward",
            lambda call: lambda self, index, epoch, total: call(self, index, int(epoch), total),
        ),
        (Step, "_step_optimizer", lambda call: lambda self, lr: call(self, float(lr))),
    ],
)
def test_a_step_that_reads_a_value_back_cannot_be_captured(owner, name, change, monkeypatch):
    use(monkeypatch, Stand)
    monkeypatch.setattr(owner, name, change(getattr(owner, name)))
    taken = Step(VisionTask(CONFIG, None, CPU), CONFIG, CPU)
    taken(torch.arange(20), 1)
    assert taken.engine["why_eager"] == "capture failed: operation not permitted when stream is capturing"


def test_a_replay_takes_the_epoch_and_the_rate_that_it_is_given(monkeypatch):
    use(monkeypatch, Stand)
    index, tasks = torch.arange(20), [VisionTask(CONFIG, None, CPU) for _ in range(2)]
    graphed = Step(tasks[0], CONFIG, CPU)
    monkeypatch.setattr(step, "why_eager", lambda *_: "asked for")
    eager = Step(tasks[1], CONFIG, CPU)
    for epoch, rate in ((1, 0.1), (2, 0.02), (2, 0.0), (7, 1.0)):
        for taken in (graphed, eager):
            taken.optimizer.param_groups[0]["lr"] = rate
        before = [parameter.clone() for parameter in tasks[0].model.parameters()]
        for one, other in zip(graphed(index, epoch), eager(index, epoch), strict=True):
            assert torch.equal(one, other)
        weights = [list(task.model.parameters()) for task in tasks]
        assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
        moved = [not torch.equal(one, other) for one, other in zip(weights[0], before, strict=True)]
        assert any(moved) == (rate > 0)
    assert [stand.replays for stand in Stand.made] == [4]


def test_fused_sgd_is_sgd_whatever_its_rate_is_read_from(fused):
    weights = []
    for build, rate in (
        (fused, 0.1),
        (VisionTask.build_optimizer, 0.1),
        (VisionTask.build_optimizer, torch.tensor(0.1)),
    ):
        task = VisionTask(CONFIG, None, CPU)
        task.build_optimizer = lambda build=build, task=task: build(task)
        taken = Step(task, CONFIG, CPU)
        for part in range(2):
            taken.gradients(torch.arange(20) + part, 1)
            taken._step_optimizer(rate)
        weights.append(list(task.model.parameters()))
    for plain, by_number, by_tensor in zip(*weights, strict=True):
        assert torch.equal(by_number, by_tensor)
        torch.testing.assert_close(by_number, plain, rtol=1e-5, atol=1e-6)


def test_a_record_names_the_engines_of_all_its_processes(stores, monkeypatch):
    store = stores("stopped")
    run = train(CONFIG, store, device="cpu")
    next(run)
    run.close()
    use(monkeypatch, Stand)
    content(CONFIG, store)
    result = store.read(CONFIG).result
    assert (result["engine"], result["why_eager"]) == ("eager; cuda graph", "no CUDA device")


def test_an_evaluation_that_could_not_be_captured_is_recorded(stores, monkeypatch):
    eager = content(CONFIG, stores("eager"))
    use(monkeypatch, Stand)
    count = VisionTask._count_correct
    monkeypatch.setattr(
        VisionTask, "_count_correct", lambda self, *args: (count(self, *args).item(), count(self, *args))[1]
    )
    assert_same(content(CONFIG, store := stores("failed")), eager)
    result = store.read(CONFIG).result
    assert result["engine"] == "cuda graph"
    assert result["why_eager"] == ("evaluation: capture failed: operation not permitted when stream is capturing")


def test_a_failed_capture_falls_back_and_the_record_says_so(stores, monkeypatch):
    eager = content(CONFIG, stores("eager"))
    use(monkeypatch, Uncapturable)
    assert_same(content(CONFIG, store := stores("failed")), eager)
    result = store.read(CONFIG).result
    assert result["engine"] == "eager"
    failed = "capture failed: operation not permitted when stream is capturing"
    assert result["why_eager"] == f"{failed}; evaluation: {failed}"
    assert sum(stand.replays for stand in Uncapturable.made) == 0


def test_a_resumed_graph_goes_on_as_if_never_stopped(stores, monkeypatch):
    use(monkeypatch, Stand)
    whole = content(CONFIG, stores("whole"))
    store = stores("stopped")
    run = train(CONFIG, store, device="cpu")
    next(run)
    run.close()
    assert store.checkpoint_path(CONFIG).exists()
    assert_same(content(CONFIG, store), whole)


def test_warming_up_changes_nothing(monkeypatch):
    use(monkeypatch, Stand)
    task = VisionTask(CONFIG, None, CPU)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    monkeypatch.setattr(Stand, "replay", lambda self: None)
    taken = Step(task, CONFIG, CPU)
    taken(torch.arange(20), 1)
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    momenta = [state["momentum_buffer"] for state in taken.optimizer.state.values()]
    assert momenta
    assert not any(momentum.any() for momentum in momenta)
    # The schedule never sees the graph's tensor.
    assert isinstance(taken.optimizer.param_groups[0]["lr"], float)


def test_what_cannot_be_captured_says_why(monkeypatch):
    gpu = torch.device("cuda")
    assert step.why_eager(VisionTask(CONFIG, None, CPU), CONFIG, gpu) is None
    config = CONFIG.replace(micro_batch=5)
    assert step.why_eager(VisionTask(config, None, CPU), config, gpu) == "micro-batches"
    monkeypatch.setattr(vision, "build_augmentation", lambda *_: TransformEach(lambda image: image))
    assert step.why_eager(VisionTask(CONFIG, None, CPU), CONFIG, gpu) == "augment=crop makes views one by one"


def test_codes_are_the_same_for_an_epoch_in_a_tensor():
    augmentation = VisionTask(CONFIG, None, CPU).augmentation
    index = torch.arange(50)
    assert torch.equal(augmentation.draw(index, 4, 3, 17), augmentation.draw(index, 4, 3, torch.tensor(17)))


def test_other_shapes_are_eager(monkeypatch):
    monkeypatch.setattr(graph, "CudaGraph", Stand)
    Stand.made = ()
    double = Captured(lambda values, factor: values * factor, CPU)
    for values, factor in ((torch.ones(3), 2.0), (torch.ones(2), 3.0), (torch.ones(3), 4.0)):
        assert torch.equal(double(values, factor), values * factor)
    assert [stand.replays for stand in Stand.made] == [2]


@on_gpu
def test_on_a_gpu_the_graph_gives_the_eager_losses(stores, monkeypatch):
    lines, weights = content(CONFIG, store := stores("graph"), "cuda")
    assert store.read(CONFIG).result["engine"] == "cuda graph"
    monkeypatch.setattr(step, "why_eager", lambda *_: "asked for")
    eager_lines, eager_weights = content(CONFIG, stores("eager"), "cuda")
    for one, other in zip(lines, eager_lines, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
    for name in weights:
        torch.testing.assert_close(weights[name], eager_weights[name], rtol=1e-2, atol=1e-3)


@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_no_replay_waits(precision):
    device = torch.device("cuda")
    config = CONFIG.replace(precision=precision)
    task = VisionTask(config, None, device)
    taken = Step(task, config, device)
    batches = task.order(1).split(20)[:6]
    losses = torch.zeros(6, device=device)
    taken(batches[0], 1)
    assert taken.engine["engine"] == "cuda graph"
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, index in enumerate(batches):
            losses[number] = taken(index, 1)[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert losses.isfinite().all()
    # A graph that cast its weights once and for all would see the same loss of the same batch again.
    again = taken(batches[0], 1)[0]
    assert again.item() != losses[0].item()
