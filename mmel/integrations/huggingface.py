"""MMEL in the Trainer of Hugging Face's transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, Trainer

from mmel.losses import MMELHardLoss, MMELSoftLoss, UniformLoss


class AugmentedCollator:
    """Batches of K samples an example, padded to the longest of the batch: (N, K, L).

    Of each feature, a row of a data set:
        `input_ids`: K lists of equally many pieces, the original first, as `MaskedLMAugmenter.ids` gives them. Or a
            single list, an example that is not augmented: K = 1, as for evaluation.
        `token_type_ids` (optional): of the original; the samples share them.
        `label` or `labels`: whatever the loss takes for an example: a class or score, one for each sample, or
            probabilities for each sample.
        `teacher_outputs` (optional): K lists of probabilities, or K scores.

    Other entries are left out.

    Args:
        tokenizer: which pads.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._pad = DataCollatorWithPadding(tokenizer)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """One batch.

        Returns:
            `input_ids`, `attention_mask` and, if given, `token_type_ids` (N, K, L); `labels` and, if given,
            `teacher_outputs`, with N in front.

        Raises:
            ValueError: if the examples have different K, or an example's samples different lengths.
        """
        rows = [[ids] if isinstance(ids[0], int) else ids for ids in (feature["input_ids"] for feature in features)]
        counts = sorted(set(map(len, rows)))
        if len(counts) > 1:
            raise ValueError(f"input_ids must have the same number of samples in each example, got {counts}")
        for row in rows:
            if lengths := sorted(set(map(len, row)))[1:]:
                raise ValueError(
                    f"input_ids of one example must be equally long, got {lengths} pieces and {len(row[0])}"
                )
        samples = [
            {"input_ids": ids, **({"token_type_ids": feature["token_type_ids"]} if "token_type_ids" in feature else {})}
            for feature, row in zip(features, rows, strict=True)
            for ids in row
        ]
        batch = {name: tensor.unflatten(0, (len(rows), -1)) for name, tensor in self._pad(samples).items()}
        for name, sources in (("labels", ("label", "labels")), ("teacher_outputs", ("teacher_outputs",))):
            if source := next((source for source in sources if source in features[0]), None):
                batch[name] = torch.tensor([feature[source] for feature in features])
        return batch


class MMELTrainer(Trainer):
    """A Trainer that minimizes the maximal expected loss over K samples of each example.

    In training all inputs of the model have shape (N, K, ...), the original at index 0, and go through it in one
    forward; `labels` and `teacher_outputs` are the criterion's. In evaluation the original alone counts, with the
    model's own loss. `AugmentedCollator` makes such batches of texts; any other collator, of images say, may make
    them.

    Args:
        criterion: `MMELHardLoss` (Eq. 7), which is the default, `MMELSoftLoss` (Eq. 9) or `UniformLoss` (Eq. 1).
        arguments: Trainer's own, by name.

    Raises:
        ValueError: if the criterion does not give the mean of a batch, or another loss is asked for too, by
            `compute_loss_func` or label smoothing.
    """

    def __init__(self, *, criterion: MMELHardLoss | MMELSoftLoss | UniformLoss | None = None, **arguments: Any):
        super().__init__(**arguments)
        self.criterion = MMELHardLoss() if criterion is None else criterion
        if self.criterion.reduction != "mean":
            raise ValueError(f"criterion must have reduction 'mean', got {self.criterion.reduction!r}")
        if self.compute_loss_func is not None:
            raise ValueError("compute_loss_func must be None: criterion is the loss")
        if self.args.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor must be 0, got {self.args.label_smoothing_factor}: smooth the labels "
                "themselves, as probabilities (K, C) of each example"
            )
        # Says that a loss is the mean of its batch, so that gradients of several batches are averaged.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The criterion of a training batch; the model's own loss of an evaluation batch's originals.

        Args:
            model: gives logits (N * K, C), or (N * K, 1) in regression.
            inputs: tensors (N, K, ...), `labels` and, where the criterion takes them, `teacher_outputs`.
            return_outputs: give the model's outputs as well.
            num_items_in_batch: not used, as the loss is a mean over examples.

        Raises:
            ValueError: if `labels` are missing, `teacher_outputs` are there for a criterion that takes none, or the
                inputs do not agree in N and K.
        """
        inputs = dict(inputs)
        extra = {name: inputs.pop(name) for name in ("labels", "teacher_outputs") if name in inputs}
        if "labels" not in extra:
            raise ValueError(f"inputs must have labels, got {', '.join(inputs)}")
        if len(extra) > 1 and not isinstance(self.criterion, MMELSoftLoss):
            raise ValueError(
                f"teacher_outputs must go with MMELSoftLoss, got {type(self.criterion).__name__}, which takes a "
                "teacher's probabilities as labels (K, C) of each example"
            )
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        if len({shape[:2] for shape in shapes.values()}) != 1 or min(map(len, shapes.values())) < 3:
            raise ValueError(f"inputs must be tensors (N, K, ...), got shapes {shapes}")
        if not model.training:
            originals = {name: tensor[:, 0] for name, tensor in inputs.items()}
            return super().compute_loss(model, {**originals, "labels": extra["labels"]}, return_outputs)
        n, k = next(iter(shapes.values()))[:2]
        outputs = model(**{name: tensor.flatten(0, 1) for name, tensor in inputs.items()})
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        loss = self.criterion(logits.unflatten(0, (n, k)), *extra.values())  # labels, then the teacher's outputs
        return (loss, outputs) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        # A column that the model does not take would be dropped from the data sets without a word.
        super()._set_signature_columns_if_needed()
        if "teacher_outputs" not in self._signature_columns:
            self._signature_columns.append("teacher_outputs")
