"""CUDA graphs: their control flow with a stand-in on the CPU, and the real ones on a GPU."""

import time
import traceback

import pytest
import torch
from tiny import CPU, IMAGES, assert_same_run, task_of, trained
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmel.augment.images import TransformEach
from mmel.study.train import BudgetError, graph, images
from mmel.study.train.graph import Captured
from mmel.study.train.images import ImageTask
from mmel.study.train.step import Step
from mmel.study.train.task import build_task

# Six batches.
CONFIG = IMAGES.replace(train_size=130)

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

    def capture(self, function):
        for _ in range(3):
            function()
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
    build = ImageTask.build_optimizer

    def build_fused(task):
        optimizer = build(task)
        for group in optimizer.param_groups:
            group["fused"] = True
        return optimizer

    monkeypatch.setattr(ImageTask, "build_optimizer", build_fused)


@pytest.fixture
def use(monkeypatch):
    """Puts a stand-in in the place of CUDA graphs, or, given None, makes steps eager."""

    def use(stand):
        monkeypatch.setattr(graph, "CudaGraph", stand)
        monkeypatch.setattr(graph, "reason_for_eager", lambda device: None if stand else "asked for")
        if stand:
            stand.made = ()

    return use


def engine(store):
    return [store.read(CONFIG).result[name] for name in ("engine", "why_eager")]


@pytest.mark.parametrize(("stand", "replays"), [(Stand, [12, 2]), (Uncapturable, [0, 0])])
def test_a_graphed_run_resumed_or_not_is_the_eager_run(stand, replays, store, new_store, use):
    trained(CONFIG, store)
    use(stand)
    trained(CONFIG, whole := new_store())
    # The steps', and the evaluation's.
    assert [made.replays for made in stand.made] == replays
    with pytest.raises(BudgetError):
        trained(CONFIG, stopped := new_store(), stop_at=time.time())
    trained(CONFIG, stopped)
    failed = ["eager", "capture failed: operation not permitted when stream is capturing"]
    for graphed in (whole, stopped):
        assert_same_run(CONFIG, graphed, store)
        assert engine(graphed) == (["cuda graph", None] if stand is Stand else failed)


def test_what_cannot_be_captured_says_why(monkeypatch):
    gpu = torch.device("cuda")
    assert Step(task_of(CONFIG), gpu).engine == {"engine": "cuda graph", "why_eager": None}
    assert Step(task_of(CONFIG.replace(micro_batch=5)), gpu).engine["why_eager"] == "micro-batches"
    monkeypatch.setattr(images, "build_augmentation", lambda *_: TransformEach(lambda image: image))
    assert "augment=crop" in Step(task_of(CONFIG), gpu).engine["why_eager"]


def test_other_shapes_are_eager(use):
    use(Stand)
    double = Captured(lambda values, factor: values * factor, CPU)
    for values, factor in ((torch.ones(3), 2.0), (torch.ones(2), 3.0), (torch.ones(3), 4.0)):
        assert torch.equal(double(values, factor), values * factor)
    assert [stand.replays for stand in Stand.made] == [2]


@on_gpu
def test_on_a_gpu_the_graph_gives_the_eager_losses(store, new_store, use):
    lines = trained(CONFIG, store, on="cuda")
    assert engine(store)[0] == "cuda graph"
    use(None)
    for one, other in zip(lines, trained(CONFIG, new_store(), on="cuda"), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)


@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_no_replay_waits(precision):
    device = torch.device("cuda")
    task = build_task(CONFIG, None, None, device, precision)
    taken = Step(task, device)
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
