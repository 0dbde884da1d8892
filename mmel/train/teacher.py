"""The teacher (section 3.3, "Mismatching Label"): its training, and its outputs on augmented texts, which are kept."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from mmel.augment.text_cache import weights_digest
from mmel.config import RunConfig
from mmel.grids import teacher_of
from mmel.records import Line, Store, delete_torn
from mmel.train import checkpoint, processes
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
        processes.on_main(lambda: checkpoint.save(weights, checkpoint.load(scratch.weights_path(resolved))))


def teacher_outputs(
    teacher: RunConfig, store: Store, model: nn.Module, sequences: Sequences, precision: str
) -> tuple[Tensor, Line]:
    """What a teacher says of every augmented text, and which teacher it is.

    Args:
        teacher: the run that trained it.
        store: where its weights are.
        model: a network of the teacher's architecture; its weights are lent to the teacher and given back.
        sequences: N examples with their K samples, the original first.
        precision: of its forwards, `bf16` or `fp32`.

    Returns:
        (N, K, C) probabilities, or (N, K) scores for regression, float32 on the CPU; and for the record the teacher's
        name, which another training may bear too, a digest of its weights, and the score that these weights have.

    Raises:
        FileNotFoundError: if the teacher is not trained.
        ResultsError: if its weights, or the outputs that are kept, cannot be used.
    """
    own = {name: value.clone() for name, value in model.state_dict().items()}
    source = store.weights_path(teacher)
    state = checkpoint.load(source)
    checkpoint.fill(model, state, source)
    weights = weights_digest(model)
    # By content: the same teacher on the same samples, whatever run asks.
    content = f"{weights} {sequences.digest()} {precision}"
    path = store.teacher_path(teacher, hashlib.sha256(content.encode()).hexdigest()[:16])
    with contextlib.ExitStack() as stack:
        # Whoever else wants the same outputs waits for them.
        processes.on_main(lambda: stack.enter_context(store.claim(teacher, wait=True)))
        if processes.on_main(path.exists):
            outputs = checkpoint.load(path)["outputs"]
        else:
            processes.on_main(lambda: delete_torn(path))
            with autocast(precision, sequences.device, cache=True):
                outputs = predict(model, sequences)
            outputs = outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs.softmax(dim=-1)
            processes.on_main(lambda: checkpoint.save(path, {"outputs": outputs}))
    model.load_state_dict(own)
    return outputs, {"teacher": teacher.run_id, "teacher_weights": weights, "teacher_score": state["score"]}
