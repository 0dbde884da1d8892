"""Text classification and regression as the training loop sees it."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import PolynomialLR

from mmel.augment.text import encode
from mmel.augment.text_cache import weights_digest
from mmel.losses import LossTerms
from mmel.study.config import MAX_LENGTH, TextRun
from mmel.study.data.glue import Examples, subset
from mmel.study.models.encoder import load_classifier, load_tokenizer
from mmel.study.records import Store, marks
from mmel.study.train import machine, processes
from mmel.study.train.backward import loss_terms
from mmel.study.train.encoder import build_augmenter, check_encoder, find_model
from mmel.study.train.sequences import Sequences, forward, predict
from mmel.study.train.smart import Smart
from mmel.study.train.teacher import teacher_outputs

# A look at the weights goes through so many texts, from the first.
LOOKED_AT = 100


class TextTask:
    """Data, network and loss of one run on text: a `mmel.study.train.task.Task`.

    If it has a `teacher`, the network of that run labels the augmented texts. `store` has their cache and its weights.
    """

    unit = "sequences"
    why_eager = "texts differ in length"

    def __init__(
        self,
        config: TextRun,
        teacher: TextRun | None,
        store: Store,
        data_root: str | Path | None,
        device: torch.device,
    ):
        self.config, self.device = config, device
        with processes.main_first():
            self._splits: dict[str, Examples] = config.data.load(data_root)
            source = find_model(config.model, store, data_root)
            self.tokenizer = load_tokenizer(source)
        full = self._splits["train"]
        self._train = subset(full, config.train_size)
        lengths = {name: len(part) for name, part in self._splits.items()}
        self.sizes = {
            "train": len(self._train),
            "train_available": len(full),
            "eval": lengths["dev"],
            "eval_split": "dev",
            **{name: lengths[name] for name in ("dev_mm", "test", "test_mm") if name in lengths},
            "sampled": config.data.sampled(lengths),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = load_classifier(
                source, config.data.num_outputs, config.hidden_dropout, config.attention_dropout
            ).to(device)
        self.parts = {"model": self.model}
        self.smart = Smart(self.model, config.is_regression) if config.plan.smooth else None
        if self.smart:
            self.parts["average"] = self.smart.average
        # The word embeddings tell encoders apart; the head, and BERT's pooler, are drawn anew for each seed.
        embeddings = weights_digest(self.model.get_input_embeddings())
        self.provenance: dict[str, Any] = {"text_model": {"name": config.model, "embeddings": embeddings}}
        if teacher is not None and (record := store.read(teacher)):
            check_encoder(self.provenance, record.header)
        self.criterion = config.plan.loss(config)
        self.targets = torch.tensor(self._train.targets, device=device)
        self.teacher: Tensor | None = None
        if config.plan.augments:
            self._augment(source, teacher, store)
        else:
            self.sequences = self._single(self._train)
        self.steps = len(self.sequences) // config.batch_size
        if not self.steps:
            raise ValueError(f"batch_size must be at most the {len(self.sequences)} texts, got {config.batch_size}")
        self._evaluated = {name: self._single(self._splits[name]) for name in ("dev", "dev_mm") if name in self._splits}
        # By the last evaluation.
        self._predicted: dict[str, list] = {}

    def _augment(self, source: str | Path, teacher: TextRun | None, store: Store) -> None:
        """Make sequences, targets and the teacher's outputs of the augmented training split."""
        config, train = self.config, self._train
        augmenter = build_augmenter(config, source, store, self.device)
        self.provenance["augmentation_precision"] = "bf16" if augmenter.bf16 else "fp32"
        # Several processes share this work, through the cache.
        ids = augmenter.ids(train.sentences, train.pairs)
        looked_at = train.take(range(min(LOOKED_AT, len(train))))
        self._masked = augmenter.positions(looked_at.sentences, looked_at.pairs)
        types = [entry.type_ids for entry in self._encode(train)]
        self.sequences = Sequences(ids, types, self.device)
        self.provenance["augmented_texts"] = self.sequences.digest()
        if teacher is not None:
            outputs, told = teacher_outputs(teacher, store, self.model, self.sequences, config.precision)
            self.provenance |= told
            self.teacher = outputs.to(self.device)
            if not config.plan.soft_targets:
                self.targets = _mixed_targets(self.targets, self.teacher[:, 1:])
        if config.plan.stretches:
            # Every sample is an example of its own, its K - 1 siblings somewhere else in the epoch.
            k = config.num_augmented
            flat = [[variant] for variants in ids for variant in variants]
            self.sequences = Sequences(flat, [kinds for kinds in types for _ in range(k)], self.device)
            if self.teacher is None:
                self.targets = self.targets.repeat_interleave(k)
            else:
                self.targets, self.teacher = (each.flatten(0, 1)[:, None] for each in (self.targets, self.teacher))

    def build_optimizer(self) -> torch.optim.Optimizer:
        """AdamW (Table 7)."""
        # Half of an encoder's weights are word embeddings: one fused pass over them, on a CPU too.
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )
        if self.smart:
            optimizer.register_step_post_hook(self.smart.update)
        return optimizer

    def build_scheduler(self, optimizer: torch.optim.Optimizer, total_steps: int) -> PolynomialLR:
        """Linear decay to 0 without warm-up (Table 7)."""
        return PolynomialLR(optimizer, total_iters=total_steps, power=1.0)

    def order(self, epoch: int) -> Tensor:
        """Indices of the training texts, on the CPU, in the order of an epoch."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.sequences), generator=generator)

    def terms(self, index: Tensor, epoch: int) -> LossTerms:
        """One joint forward over all samples of some texts, and the loss of it; the same in every epoch."""

        def logits(drawn: Tensor | None) -> Tensor:
            if drawn is None:
                return forward(self.model, self.sequences, index)
            return forward(self.model, self.sequences.drawn(index, drawn), torch.arange(len(index)))

        goals = self._goals(machine.to_device(index, self.device))
        if self.smart:
            outputs = logits(None)
            terms = self.criterion.terms(outputs, *goals)
            return terms._replace(loss=terms.loss + self.smart.terms(self.sequences, index, outputs))
        return loss_terms(self.config, self.model, self.criterion, logits, *goals)

    def _goals(self, index: Tensor) -> tuple[Tensor, ...]:
        """The arguments of the loss beside the logits: targets, and for MMEL-S the teacher's outputs, if it has any."""
        targets = self.targets[index]
        return (
            (targets, self.teacher[index]) if self.config.plan.soft_targets and self.teacher is not None else (targets,)
        )

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Dev scores in percent: the task's metric, and for MNLI `accuracy_mm_pct` on the mismatched split."""
        metric = self.config.data.metric
        self._predicted = {name: self._predict(sequences) for name, sequences in self._evaluated.items()}
        return {
            _suffixed(metric, name): score(metric, predicted, self._splits[name].targets)
            for name, predicted in self._predicted.items()
        }

    def test(self) -> tuple[dict[str, Any], dict[str, list]]:
        """Scores `test_...` on labelled test splits, and predictions on the others, unless trained on a subset.

        Of classes also which texts of a labelled split are classified right, on the dev splits by the last `evaluate`.
        """
        scores: dict[str, Any] = {}
        predictions: dict[str, list] = {}
        labelled = dict(self._predicted)
        for name in ("test", "test_mm"):
            if self.config.train_size or name not in self._splits:
                continue
            part = self._splits[name]
            predicted = self._predict(self._single(part))
            if part.targets is None:
                predictions[name] = predicted
            else:
                metric = self.config.data.test_metric
                scores[f"test_{_suffixed(metric, name)}"] = score(metric, predicted, part.targets)
                labelled[name] = predicted
        if not self.config.is_regression:
            pairs = {name: zip(found, self._splits[name].targets, strict=True) for name, found in labelled.items()}
            scores["correct"] = {name: marks(said == true for said, true in each) for name, each in pairs.items()}
        return scores, predictions

    @torch.no_grad()
    def example(self, index: Tensor, place: int) -> dict[str, Any]:
        """The samples of one of some training texts, the original first.

        Returns:
            Lists: `text`, its masked pieces in brackets; `teacher`, its output on the sample, if the run has one;
            `target` of the training. Classes are probabilities, except if all samples have the label as their target.
        """
        one = index[place : place + 1]
        targets, *teacher = self._goals(one.to(self.device))
        if self.config.plan.soft_targets:
            soft = self.criterion.soft_targets(forward(self.model, self.sequences, one), *teacher)
            targets = _mixed_targets(targets, soft)
        rows = self.sequences.batch(one)["input_ids"].tolist()
        masked = self._masked[one.item() // self.config.stretch] if self.config.plan.augments else []
        columns = {"text": [self._marked(ids, masked) for ids in rows]}
        if self.teacher is not None:
            columns["teacher"] = self.teacher[one.item()].tolist()
        return columns | {"target": (targets[0].expand(len(rows)) if targets.dim() == 1 else targets[0]).tolist()}

    def _marked(self, ids: list[int], masked: list[int]) -> str:
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        return " ".join([f"[{piece}]" if n in masked else piece for n, piece in enumerate(pieces)][1:-1])

    def _predict(self, sequences: Sequences) -> list:
        outputs = predict(self.model, sequences)[:, 0]
        return (outputs[:, 0] if self.config.is_regression else outputs.argmax(dim=-1)).tolist()

    def _encode(self, part: Examples) -> list[Any]:
        return encode(self.tokenizer, part.sentences, part.pairs, MAX_LENGTH)

    def _single(self, part: Examples) -> Sequences:
        """A split as it is, one sequence per example."""
        encoded = self._encode(part)
        return Sequences([[entry.ids] for entry in encoded], [entry.type_ids for entry in encoded], self.device)


def _mixed_targets(labels: Tensor, variants: Tensor) -> Tensor:
    """(N, K, C) or (N, K): the original keeps its label, the variants have targets of their own (section 3.3)."""
    own = F.one_hot(labels, variants.shape[-1]).float() if variants.dim() == 3 else labels
    return torch.cat([own[:, None], variants], dim=1)


def _suffixed(metric: str, split: str) -> str:
    """`accuracy_pct` on a mismatched split is `accuracy_mm_pct`."""
    return metric.replace("_pct", "_mm_pct") if split.endswith("_mm") else metric


def score(metric: str, predictions: list, targets: list) -> float:
    """A score of GLUE in percent; 0 if it is undefined, as a correlation with constant predictions is.

    Args:
        metric: `accuracy_pct`, `f1_pct` (of class 1), `matthews_pct` (of two classes) or `spearman_pct`.
        predictions: N classes, or N real scores for `spearman_pct`.
        targets: likewise.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    if metric == "accuracy_pct":
        return 100 * float(accuracy_score(targets, predictions))
    if metric == "f1_pct":
        return 100 * float(f1_score(targets, predictions, zero_division=0))
    if metric == "matthews_pct":
        return 100 * float(matthews_corrcoef(targets, predictions))
    constant = 1 in (len(set(predictions)), len(set(targets)))
    return 0.0 if constant else 100 * float(spearmanr(predictions, targets).statistic)
