"""Tiny runs of each kind. Every test here can import this: pytest puts the folder of `conftest.py` on the path."""

import os
import signal
from pkgutil import resolve_name

import torch
from pretend import record_run

from mmel.study.config import ImageRun, TextRun
from mmel.study.train import checkpoint, train
from mmel.study.train.step import Step
from mmel.study.train.task import build_task

CPU = torch.device("cpu")
IMAGES = ImageRun(
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
# Images that are decoded step by step.
FILES = IMAGES.replace(
    dataset="drawings",
    model="resnet18_narrow",
    augment="resized_crop_flip",
    image_size=32,
    train_size=24,
    batch_size=8,
)
# Without a teacher.
TEXT = TextRun(
    dataset="grammar_cola",
    model="small-bert",
    num_augmented=3,
    train_size=24,
    batch_size=8,
    epochs=2,
    lr=1e-3,
    precision="fp32",
    label_source="original",
)
TAUGHT = TEXT.replace(label_source="predicted")
# Dropout off: the masks depend on how an epoch is cut.
STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
KINDS = {"images": IMAGES, "files": FILES, "text": TEXT}
# What differs from run to run without meaning anything.
CLOCKS = {"train_seconds", "eval_seconds", "images_per_second", "sequences_per_second"}


def trained(config, store, on="cpu", **options):
    """The lines of a run."""
    return list(train(config, store, device=on, **options))


def numbers(lines):
    """Lines without clocks."""
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


def weights(config, store):
    return torch.load(store.weights_path(config), weights_only=True)["model"]


def assert_same_run(config, store, other):
    """Two stores hold the same lines, scores and weights of a run, bit for bit."""
    one, two = store.read(config), other.read(config)
    assert numbers(one.epochs) == numbers(two.epochs)
    names = {name for name in two.result if name.endswith("_pct")} | {"status", "best_epoch"}
    assert all(one.result[name] == two.result[name] for name in names)
    provenance = ("sizes", "text_model", "teacher", "teacher_weights", "teacher_score", "augmented_texts")
    assert all(one.header.get(name) == two.header.get(name) for name in provenance)
    ours, theirs = weights(config, store), weights(config, other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@torch.no_grad()
def one_by_one(network, ids, types):
    """(N, V, C): what a network says of N lists of V sequences, each by itself, with nothing to pad."""
    segments = network.config.model_type == "bert"
    outputs = []
    for variants, kinds in zip(ids, types, strict=True):
        extra = {"token_type_ids": torch.tensor([kinds])} if segments else {}
        outputs.append([network.eval()(input_ids=torch.tensor([one]), **extra).logits[0] for one in variants])
    return torch.stack([torch.stack(rows) for rows in outputs])


def task_of(config, store=None):
    """The task of a run on the CPU in fp32."""
    return build_task(config, store, None, CPU, "fp32")


def step_of(task, index):
    """Loss, statistics and gradients of a step of a task whose BatchNorm does not see how the batch is split."""
    task.model.eval()
    return [*Step(task, CPU)(index, 1), *(parameter.grad for parameter in task.model.parameters())]


def reloaded(config, store):
    """The task of a finished run with its trained network."""
    task = task_of(config, store)
    checkpoint.load(store.weights_path(config), model=task.model)
    return task


def scored(store, config, score=0.0, **result):
    """Write the record of a run that was never trained, whose best score is another than its last."""
    record_run(store, config, score, **{f"best_{config.data.metric}": 100 - score}, **result)


def call_and_die(target, arguments, kill, environment):
    """Call a function in a process of its own; see the fixture `start`. Here, since every folder has a `conftest`."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    if kill is not None:
        _die_at(*kill)
    target(*arguments)


def _die_at(owner, name, count, when):
    owner = resolve_name(owner)
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(None)
        if len(calls) == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)
