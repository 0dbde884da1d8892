"""The teacher (section 3.3, "Mismatching Label"): its training, and its outputs on augmented texts, which are kept."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from mmel.config import RunConfig
from mmel.grids import teacher_of
from mmel.records import Store, write_atomically
from mmel.train import processes
from mmel.train.encoder import check_encoder
from mmel.train.precision import autocast
from mmel.train.selection import with_choices
from mmel.train.sequences import Sequences, predict


def ensure_teacher(config: RunConfig, store: Store, train: Callable[..., Iterable]) -> None:
    """Train the teacher of a run unless its record and its weights are here: records travel without weights.

    Where another process trains it, this one waits. One that is stopped goes on another time.

    Args:
        config: the run.
        store: where the teacher's record and weights go.
        train: `mmel.train.train`, given a run, a store and `wait`.
    """
    teacher = teacher_of(config)
    if teacher is None:
        return
    for _ in train(teacher, store, wait=True):
        pass
    with contextlib.ExitStack() as stack:
        processes.on_main(lambda: stack.enter_context(store.claim(teacher, wait=True)))
        weights = store.weights_path(teacher)
        if processes.on_main(weights.exists):
            return
        # The record stays as it is: the run that this trains again is not the one that it tells of.
        scratch = processes.on_main(lambda: stack.enter_context(store.scratch(teacher)))
        resolved = with_choices(teacher, store)
        for _ in train(resolved, scratch, wait=False):
            pass
        check_encoder(scratch.read(resolved).header, store.read(teacher).header)
        processes.on_main(lambda: write_atomically(weights, scratch.weights_path(resolved).read_bytes()))


def teacher_outputs(teacher: RunConfig, store: Store, model: nn.Module, sequences: Sequences, precision: str) -> Tensor:
    """What a teacher says of every augmented text.

    Args:
        teacher: the run that trained it.
        store: where its weights are.
        model: a network of the teacher's architecture; its weights are lent to the teacher and given back.
        sequences: N examples with their K samples, the original first.
        precision: of its forwards, `bf16` or `fp32`.

    Returns:
        (N, K, C) probabilities, or (N, K) scores for regression, float32 on the CPU.

    Raises:
        FileNotFoundError: if the teacher is not trained.
    """
    weights = store.weights_path(teacher).read_bytes()
    # By content: the same teacher on the same samples, whatever run asks.
    digest = hashlib.sha256(weights)
    digest.update(sequences.content())
    digest.update(precision.encode())
    path = store.teacher_path(teacher, digest.hexdigest()[:16])
    if processes.on_main(path.exists):
        return torch.load(path, weights_only=True)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(torch.load(io.BytesIO(weights), map_location=sequences.device, weights_only=True))
    with autocast(precision, sequences.device, cache=True):
        outputs = predict(model, sequences)
    model.load_state_dict(own)
    outputs = outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs.softmax(dim=-1)
    if processes.is_main():
        buffer = io.BytesIO()
        torch.save(outputs, buffer)
        write_atomically(path, buffer.getvalue())
    return outputs
