"""MMEL in the Trainer of Hugging Face's transformers."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, Trainer
from transformers.trainer_utils import get_last_checkpoint

from mmel.losses import MMELHardLoss, MMELSoftLoss, UniformLoss
from mmel.views import group_views

Criterion = MMELHardLoss | MMELSoftLoss | UniformLoss
CRITERION_FILE = "criterion.txt"
LABELS = ("labels", "label", "label_ids")
# What the tokenizer says of the original, piece by piece, holds for its samples as well.
SHARED = ("token_type_ids", "attention_mask")


class AugmentedCollator:
    """Batches of K samples per example, padded to the longest of the batch: (N, K, L).

    Of each feature, a row of a data set, it takes these and leaves out all others:
        `input_ids`: K lists of equally many pieces, the original first, as `MaskedLMAugmenter.ids` gives them; or a
            single list, an example that is not augmented, as for evaluation: K = 1.
        `token_type_ids`, `attention_mask` (optional): one list, of the original; its samples share it.
        `labels`, `label` or `label_ids` (optional): a class or score, one for each sample, or probabilities for each.
        `teacher_outputs` (optional): K lists of probabilities, or K scores.

    Args:
        tokenizer: which pads.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        # Trainer saves it with the model.
        self.tokenizer = tokenizer
        self._pad = DataCollatorWithPadding(tokenizer)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """One batch: the model's inputs (N, K, L), `labels` and `teacher_outputs` with N in front.

        Raises:
            ValueError: if examples differ in K, an example's samples in length, or labels stand under two names.
        """
        # Data sets may be formatted as arrays or tensors.
        features = [{name: _as_list(value) for name, value in feature.items()} for feature in features]
        rows = [_samples(feature) for feature in features]
        if len(counts := sorted({len(row) for row in rows})) > 1:
            raise ValueError(f"input_ids must have the same number of samples in each example, got {counts}")
        padded = self._pad([sample for row in rows for sample in row])
        batch = {name: tensor.unflatten(0, (len(rows), -1)) for name, tensor in padded.items()}
        named = [name for name in LABELS if name in features[0]]
        if len(named) > 1:
            raise ValueError(f"labels must stand under one name, got {' and '.join(named)}")
        for name, source in [*(("labels", name) for name in named), ("teacher_outputs", "teacher_outputs")]:
            if source in features[0]:
                batch[name] = torch.tensor([feature[source] for feature in features])
        return batch


class MMELTrainer(Trainer):
    """A Trainer that minimizes the maximal expected loss over K samples of each example.

    All inputs of the model have shape (N, K, ...), the original at index 0. In training they go through it in one
    forward, and `labels` and `teacher_outputs` are the criterion's. Evaluation and prediction are of the original
    alone, with the criterion's base loss against its label. `AugmentedCollator`, the default where `processing_class`
    is a tokenizer, makes such batches of texts; any other collator, of images say, may make them. To group texts by
    length the training set needs a column of their lengths, named by `length_column_name`.

    A step minimizes the mean over all examples of its accumulated batches, even if the last one is smaller. Checkpoints
    hold the criterion, in `criterion.txt`, and resume with no other.

    Args:
        criterion: one of `mmel`'s losses; `MMELHardLoss()` if None.
        arguments: Trainer's own, by name.

    Raises:
        ValueError: if the criterion does not give the mean of a batch, another loss is asked for too, by
            `compute_loss_func` or label smoothing, or a setting of Trainer needs inputs of another shape.
    """

    def __init__(self, *, criterion: Criterion | None = None, **arguments: Any):
        tokenizer = arguments.get("processing_class")
        if arguments.get("data_collator") is None and isinstance(tokenizer, PreTrainedTokenizerBase):
            arguments["data_collator"] = AugmentedCollator(tokenizer)
        super().__init__(**arguments)
        self.criterion = MMELHardLoss() if criterion is None else criterion
        _check_reduction(self.criterion)
        if self.compute_loss_func is not None:
            raise ValueError("compute_loss_func must be None: criterion is the loss")
        if self.args.label_smoothing_factor:
            smoothing = self.args.label_smoothing_factor
            raise ValueError(f"label_smoothing_factor must be 0, got {smoothing}: smooth the labels, as probabilities")
        if "inputs" in self.args.include_for_metrics:
            raise ValueError("include_for_metrics must not have 'inputs', which Trainer joins as (N, L), not (N, K, L)")
        if hasattr(self.args, "train_sampling_strategy"):
            by_length = self.args.train_sampling_strategy not in ("random", "sequential")
        else:  # transformers 4
            by_length = self.args.group_by_length
        column = self.args.length_column_name
        if by_length and column not in getattr(self.train_dataset, "column_names", ()):
            # Trainer would take K for the length.
            raise ValueError(f"train_dataset must have a column {column!r} to be grouped by length")
        # Says that a loss is a share of its step's, so that Trainer does not divide it by the number of batches.
        self.model_accepts_loss_kwargs = True

    def train(self, resume_from_checkpoint: str | bool | None = None, *arguments: Any, **named: Any) -> Any:
        """Train; arguments as Trainer's. A checkpoint of another criterion is a ValueError that names both."""
        folder = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if folder and (path := Path(folder, CRITERION_FILE)).exists():
            saved, own = path.read_text(encoding="utf-8").strip(), _described(self.criterion)
            if saved != own:
                raise ValueError(f"criterion must be that of {folder}, {saved}, got {own}; to change it delete {path}")
        return super().train(resume_from_checkpoint, *arguments, **named)

    def save_model(self, output_dir: str | None = None, *arguments: Any, **named: Any) -> None:
        """Save the model and, beside it, the criterion; arguments as Trainer's."""
        super().save_model(output_dir, *arguments, **named)
        if self.args.should_save:
            path = Path(output_dir or self.args.output_dir, CRITERION_FILE)
            path.write_text(_described(self.criterion) + "\n", encoding="utf-8")

    def get_batch_samples(self, *arguments: Any, **named: Any) -> tuple[list[dict[str, Tensor]], int]:
        """The batches of a step, and how many examples they have (not label elements); arguments as Trainer's."""
        batches, _ = super().get_batch_samples(*arguments, **named)
        return batches, sum(len(next(iter(batch.values()))) for batch in batches)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The criterion of a training batch (N, K, ...); the base loss of an evaluation batch (N, ...).

        Arguments as Trainer's; `num_items_in_batch` are the examples of all batches of the step, and the loss is this
        batch's share of their mean.
        """
        inputs = dict(inputs)
        labels, teacher = inputs.pop("labels", None), inputs.pop("teacher_outputs", None)
        if labels is None:
            raise ValueError(f"inputs must have labels, got {', '.join(inputs)}")
        if not model.training:
            outputs = model(**inputs)
            loss = _base_loss(self.criterion, _logits(outputs), labels)
            if return_outputs and not isinstance(outputs, dict):
                # As of a model that has computed a loss: Trainer takes what comes after it for the predictions.
                return loss, (loss, *outputs)
        else:
            if teacher is not None and not isinstance(self.criterion, MMELSoftLoss):
                name = type(self.criterion).__name__
                raise ValueError(f"teacher_outputs must go with MMELSoftLoss, got {name}: there they are the labels")
            n, k = _examples_and_samples(inputs)
            outputs = model(**{name: tensor.flatten(0, 1) for name, tensor in inputs.items()})
            extra = () if teacher is None else (teacher,)
            loss = self.criterion(group_views(_logits(outputs), k), labels, *extra)
            if num_items_in_batch is not None:
                loss = loss * n / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor | None, Any, Any]:
        """Loss, predictions and labels of a batch's originals; arguments as Trainer's, the inputs (N, K, ...)."""
        labels = inputs.get("labels")
        originals = {name: value for name, value in inputs.items() if name not in ("labels", "teacher_outputs")}
        _examples_and_samples(originals)
        originals = {name: tensor[:, 0] for name, tensor in originals.items()}
        if labels is not None:
            originals["labels"] = labels if labels.dim() == 1 else labels[:, 0]
        return super().prediction_step(model, originals, prediction_loss_only, ignore_keys)

    def _set_signature_columns_if_needed(self) -> None:
        # A column that the model does not take would be dropped from the data sets without a word.
        super()._set_signature_columns_if_needed()
        own = ("teacher_outputs", self.args.length_column_name)
        self._signature_columns += [name for name in own if name not in self._signature_columns]


def compute_loss_func(criterion: Criterion) -> Callable[..., Tensor]:
    """A criterion, with `reduction="mean"`, as Trainer's own `compute_loss_func`, in the scale that Trainer expects.

    Trainer adds up such losses: the mean of each batch would make a step of 4 batches 4 times as long. Do not
    accumulate batches with it before transformers 4.49, which does not count the labels of a step.

    Returns:
        A function of outputs with logits (N * K, C), labels (N, ...) and the number of label elements of the step. If
        K = 1, as in evaluation, it takes the criterion's base loss.
    """
    _check_reduction(criterion)

    def loss_of(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = _logits(outputs).unflatten(0, (len(labels), -1))
        loss = criterion(logits, labels) if logits.shape[1] > 1 else _base_loss(criterion, logits[:, 0], labels)
        return loss if num_items_in_batch is None else loss * labels.numel() / num_items_in_batch

    return loss_of


def _check_reduction(criterion: Criterion) -> None:
    if criterion.reduction != "mean":
        raise ValueError(f"criterion must have reduction 'mean', got {criterion.reduction!r}")


def _base_loss(criterion: Criterion, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of originals (N, C) against classes or scores (N,), or probabilities (N, C)."""
    base = criterion.base_loss
    if base == "kl" and not labels.is_floating_point():
        base = "cross_entropy"
    return UniformLoss(base)(logits[:, None], labels)


def _described(criterion: Criterion) -> str:
    """A criterion's class and settings on one line, without a callable's address, which changes with the process."""
    return re.sub(r" at 0x[0-9a-f]+|\s*\n\s*", "", repr(criterion))


def _as_list(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_list(entry) for entry in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _samples(feature: dict[str, Any]) -> list[dict[str, list[int]]]:
    """An example's samples, each with what it shares with the original."""
    ids = feature["input_ids"]
    row = ids if ids and isinstance(ids[0], list) else [ids]
    if len(lengths := sorted({len(sample) for sample in row})) > 1:
        raise ValueError(f"input_ids of one example must be equally long, got {lengths} pieces")
    shared = {name: feature[name] for name in SHARED if name in feature}
    for name, values in shared.items():
        if len(values) != lengths[0] or any(isinstance(value, list) for value in values):
            raise ValueError(f"{name} must be one list of {lengths[0]} values, as many as pieces, got {values}")
    return [{"input_ids": sample, **shared} for sample in row]


def _examples_and_samples(inputs: dict[str, Tensor]) -> tuple[int, int]:
    """N and K of inputs (N, K, ...)."""
    shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
    if len({shape[:2] for shape in shapes.values()}) != 1 or min(map(len, shapes.values())) < 3:
        raise ValueError(f"inputs must be tensors (N, K, ...), got shapes {shapes}; see AugmentedCollator")
    n, k, *_ = next(iter(shapes.values()))
    return n, k


def _logits(outputs: Any) -> Tensor:
    return outputs["logits"] if isinstance(outputs, dict) else outputs[0]
