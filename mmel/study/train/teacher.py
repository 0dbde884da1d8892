"""The teacher (section 3.3, "Mismatching Label"): its training, and its outputs on augmented texts, which are kept."""

import copy
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from mmel.augment.text_cache import weights_digest
from mmel.study.config import Run, TextRun
from mmel.study.files import delete_torn
from mmel.study.needs import teacher_of, with_choices
from mmel.study.records import Line, Store
from mmel.study.train import checkpoint, processes
from mmel.study.train.encoder import check_encoder
from mmel.study.train.precision import autocast
from mmel.study.train.sequences import Sequences, predict

# How far a score of the teacher must be from the original's to count as a disagreement: MMEL-S' own default.
THRESHOLD = 0.5


def ensure_teacher(config: Run, store: Store, train: Callable[..., Iterable], **options: Any) -> None:
    """Train the teacher of a run unless its record and weights are here; if another process trains it, wait.

    Records travel without weights. `train` is `mmel.study.train.train`, with its `options`.
    """
    teacher = teacher_of(config)
    if teacher is None:
        return
    for _ in train(teacher, store, wait=True, **options):
        pass
    weights = store.weights_path(teacher)
    with processes.held_by_main(store.lock(teacher, wait=True)):
        if processes.from_main(weights.exists()):
            return
        # The record stays as it is: it tells of another training of the same run.
        with store.scratch(teacher) as scratch:
            resolved = with_choices(teacher, store)
            for _ in train(resolved, scratch, **options):
                pass
            if processes.is_main():
                check_encoder(scratch.read(resolved).header, store.read(teacher).header)
                checkpoint.save(weights, checkpoint.load(scratch.weights_path(resolved)))
            # The others wait for the weights.
            processes.gathered(None)


def teacher_outputs(
    teacher: TextRun, store: Store, student: nn.Module, sequences: Sequences, precision: str
) -> tuple[Tensor, Line]:
    """The outputs of a teacher on every augmented text.

    They come from its weights in `store`, in a copy of the student, and are kept there for other runs.

    Returns:
        (N, K, C) probabilities, or (N, K) scores for regression, float32 on the CPU; and for the record the teacher's
        name, a digest and the score of its weights, and the percentage of the variants that it puts into another
        class, or further than `THRESHOLD`, than the original.

    Raises:
        FileNotFoundError: if the teacher is not trained.
        ResultsError: if its weights, or the outputs that are kept, cannot be used.
    """
    network = copy.deepcopy(student)
    state = checkpoint.load(store.weights_path(teacher), model=network)
    weights = weights_digest(network)
    # By content: the same teacher on the same samples, whatever run asks.
    content = f"{weights} {sequences.digest()} {precision}"
    path = store.teacher_path(teacher, hashlib.sha256(content.encode()).hexdigest()[:16])
    # Others that want the same outputs wait for them.
    with processes.held_by_main(store.lock(teacher, wait=True)):
        if processes.from_main(path.exists()):
            outputs = checkpoint.load(path)["outputs"]
        else:
            with autocast(precision, sequences.device, cache=True):
                outputs = predict(network, sequences)
            outputs = outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs.softmax(dim=-1)
            if processes.is_main():
                delete_torn(path)
                checkpoint.save(path, {"outputs": outputs})
    if outputs.dim() == 2:
        apart = (outputs[:, 1:] - outputs[:, :1]).abs() > THRESHOLD
    else:
        classes = outputs.argmax(dim=-1)
        apart = classes[:, 1:] != classes[:, :1]
    return outputs, {
        "teacher": teacher.run_id,
        "teacher_weights": weights,
        "teacher_score": state["score"],
        "teacher_disagreement_pct": 100 * apart.float().mean().item(),
    }
