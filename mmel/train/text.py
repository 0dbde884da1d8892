"""Text classification and regression as the training loop sees it."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR

from mmel.augment.text import Encoded, MaskedLMAugmenter, encode
from mmel.augment.text_cache import weights_digest
from mmel.config import RunConfig
from mmel.data.glue import Examples, load_text, subset
from mmel.data.grammar import corpus
from mmel.grids import TINY_BERT
from mmel.losses import LossTerms, MMELHardLoss
from mmel.methods import build_criterion
from mmel.models.text import load_classifier, load_masked_lm, load_tokenizer, tiny_bert
from mmel.records import Store
from mmel.train import machine, processes
from mmel.train.metrics import confusion, score
from mmel.train.sequences import Sequences, forward, predict
from mmel.train.teacher import teacher_outputs

DEFAULT_ROOT = "data"


class TextTask:
    """Data, network and loss of one run on text; the token ids live on the training device.

    Args:
        config: the run, with nothing left to be chosen.
        teacher: the run whose network labels the augmented texts, see `mmel.grids.teacher_of`; None where none does.
        store: where the augmented texts are cached and the teacher's weights lie.
        data_root: folder of the data sets, see `mmel.data.glue.load_text`.
        device: where to train.

    Attributes:
        model: the classifier.
        steps: steps of an epoch.
        sizes: data set sizes, for the record.
        metric: the dev score that the run is judged by.
        unit: what a step processes.
        why_eager: why a step cannot be a CUDA graph.
        provenance: what the configuration does not say: the encoder's weights, the teacher.
    """

    unit = "sequences"
    why_eager = "texts differ in length"

    def __init__(
        self,
        config: RunConfig,
        teacher: RunConfig | None,
        store: Store,
        data_root: str | Path | None,
        device: torch.device,
    ):
        with processes.main_first():
            data = load_text(config.dataset, data_root)
        full = data.splits["train"]
        train = subset(full, config.train_size)
        self.config, self.device, self.data = config, device, data
        self.metric = data.task.metric
        self._evaluated = {name: data.splits[name] for name in ("dev", "dev_mm") if name in data.splits}
        self.sizes = {
            "train": len(train),
            "train_available": len(full),
            "eval": len(data.splits["dev"]),
            "eval_split": "dev",
            **{name: len(data.splits[name]) for name in ("dev_mm", "test", "test_mm") if name in data.splits},
            "sampled": list(data.sampled),
        }
        with processes.main_first():
            source = find_model(config.model, store, data_root)
            self.tokenizer = load_tokenizer(source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = load_classifier(
                source, data.task.num_outputs, config.hidden_dropout, config.attention_dropout
            ).to(device)
        # The word embeddings tell encoders apart; the head, and BERT's pooler, are drawn anew for each seed.
        embeddings = weights_digest(self.model.get_input_embeddings())
        self.provenance: dict[str, Any] = {"text_model": {"name": config.model, "embeddings": embeddings}}
        self.criterion = build_criterion(config, "mse" if data.task.is_regression else "cross_entropy")
        self._load_training(source, teacher, store, train)
        if len(self.sequences) < config.batch_size:
            raise ValueError(
                f"batch_size must be at most the {len(self.sequences)} training texts, got {config.batch_size}"
            )
        whole, rest = divmod(len(self.sequences), config.batch_size)
        self.steps = whole if config.drop_last else whole + bool(rest)
        self._eval_sequences = {name: self._single(part) for name, part in self._evaluated.items()}

    def _load_training(self, source: str | Path, teacher: RunConfig | None, store: Store, train: Examples) -> None:
        """Sequences, targets and the teacher's outputs of the training split."""
        config = self.config
        labels = torch.tensor(train.targets, device=self.device)
        if config.method == "baseline":
            self.sequences, self.targets, self.teacher = self._single(train), labels, None
            return
        augmenter = _augmenter(config, source, self.tokenizer, store, self.device)
        with processes.main_first():
            ids = augmenter.ids(train.sentences, train.pairs)
        types = [entry.token_type_ids for entry in self._encode(train)]
        self.sequences = Sequences(ids, types, self.device)
        self.targets, self.teacher = labels, None
        if teacher is not None:
            outputs = teacher_outputs(teacher, store, self.model, self.sequences)
            self.provenance |= {"teacher": teacher.run_id, "teacher_disagreement_pct": _disagreement(outputs)}
            self.teacher = outputs.to(self.device)
            if config.method != "mmel_s":
                self.targets = _mixed_targets(labels, self.teacher)
        if config.method == "baseline_da_long":
            # Every sample is an example of its own, its K - 1 siblings somewhere else in the epoch.
            k = config.num_augmented
            flat = [[variant] for variants in ids for variant in variants]
            self.sequences = Sequences(flat, [kinds for kinds in types for _ in range(k)], self.device)
            self.targets = labels.repeat_interleave(k) if teacher is None else self.targets.flatten(0, 1)[:, None]

    def build_optimizer(self) -> torch.optim.Optimizer:
        """AdamW (Table 7)."""
        # Half of an encoder's weights are word embeddings: one fused pass over them, on a CPU too.
        return torch.optim.AdamW(
            self.model.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def build_scheduler(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
        """Linear decay to 0 without warm-up (Table 7); to be stepped after each of `total_steps` steps."""
        return PolynomialLR(optimizer, total_iters=total_steps, power=1.0)

    def largest_batch(self) -> Tensor:
        """The longest texts, as many as a batch holds."""
        return self.sequences.lengths.argsort(descending=True, stable=True)[: self.config.batch_size]

    def order(self, epoch: int) -> Tensor:
        """Places of the training texts, on the CPU, in the order in which this epoch visits them."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.sequences), generator=generator)

    def terms(self, index: Tensor, epoch: int) -> LossTerms:
        """One joint forward over all samples of some texts, and the loss of it; the same in every epoch."""
        logits = forward(self.model, self.sequences, index)
        places = index.to(self.device)
        if self.config.method == "mmel_s":
            teacher = None if self.teacher is None else self.teacher[places]
            return self.criterion.terms(logits, self.targets[places], teacher)
        return self.criterion.terms(logits, self.targets[places])

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Dev scores in percent: the task's metric, and for MNLI `accuracy_mm_pct` on the mismatched split."""
        return {
            _suffixed(self.metric, name): score(
                self.metric, self._predictions(self._eval_sequences[name]), part.targets
            )
            for name, part in self._evaluated.items()
        }

    def test(self) -> tuple[dict[str, Any], dict[str, list]]:
        """What the network says of the test splits, unless it was trained on a subset.

        Returns:
            Scores `test_...` where labels are there, and for each other split its N classes or scores. Among the scores
            of a task judged by Matthews' correlation, `dev_confusion`, whatever it was trained on.
        """
        scores: dict[str, Any] = {}
        if self.metric == "matthews_pct":
            dev = self._predictions(self._eval_sequences["dev"])
            scores["dev_confusion"] = confusion(dev, self.data.splits["dev"].targets)
        predictions: dict[str, list] = {}
        splits = {} if self.config.train_size else self.data.splits
        for name in ("test", "test_mm"):
            if name not in splits:
                continue
            predicted = self._predictions(self._single(splits[name]))
            if splits[name].targets is None:
                predictions[name] = predicted
            else:
                metric = self.data.task.test_metric
                scores[f"test_{_suffixed(metric, name)}"] = score(metric, predicted, splits[name].targets)
        return scores, predictions

    @torch.no_grad()
    def most_uneven(self, num_texts: int = 100) -> list[dict[str, Any]]:
        """B(x) of the text on which the present network's weights (Eq. 6, hard loss) are furthest from equal.

        Args:
            num_texts: how many training texts to look through, from the first.

        Returns:
            For each sample, the original first: `text`, with replaced pieces in brackets, `target` (what it is trained
            towards) and `weight`.
        """
        index = torch.arange(min(num_texts, len(self.sequences)))
        training = self.model.training
        logits = forward(self.model.eval(), self.sequences, index)
        self.model.train(training)
        targets = self.targets
        if self.config.method == "mmel_s" and self.teacher is not None:
            targets = _mixed_targets(targets, self.teacher)
        criterion = MMELHardLoss(self.config.lambda_p, "mse" if self.data.task.is_regression else "cross_entropy")
        targets = targets[index.to(self.device)]
        weights = criterion.terms(logits, targets).weights
        place = int(weights.amax(dim=1).argmax())
        tokens = self.sequences.batch(index[place : place + 1])["input_ids"].tolist()
        shown = targets[place].expand(len(tokens)) if targets.dim() == 1 else targets[place]
        return [
            {"text": self._marked(ids, tokens[0]), "target": target, "weight": weight}
            for ids, target, weight in zip(tokens, shown.tolist(), weights[place].tolist(), strict=True)
        ]

    def _marked(self, ids: list[int], original: list[int]) -> str:
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        changed = [f"[{piece}]" if a != b else piece for piece, a, b in zip(pieces, ids, original, strict=True)]
        return " ".join(changed[1:-1])

    def _predictions(self, sequences: Sequences) -> list:
        outputs = predict(self.model, sequences)[:, 0]
        return (outputs[:, 0] if self.data.task.is_regression else outputs.argmax(dim=-1)).tolist()

    def _encode(self, part: Examples) -> list[Encoded]:
        return encode(self.tokenizer, part.sentences, part.pairs, self.config.max_length)

    def _single(self, part: Examples) -> Sequences:
        """A split as it is, one sequence an example."""
        encoded = self._encode(part)
        return Sequences([[entry.ids] for entry in encoded], [entry.token_type_ids for entry in encoded], self.device)


def build_augmenter(
    config: RunConfig, store: Store, *, data_root: str | Path | None = None, device: str | None = None
) -> MaskedLMAugmenter:
    """The augmenter that a run on text uses, with its cache."""
    source = find_model(config.model, store, data_root)
    return _augmenter(config, source, load_tokenizer(source), store, machine.pick_device(device))


def _augmenter(
    config: RunConfig, source: str | Path, tokenizer: Any, store: Store, device: torch.device
) -> MaskedLMAugmenter:
    return MaskedLMAugmenter(
        load_masked_lm(source).to(device),
        tokenizer,
        num_augmented=config.num_augmented,
        mask_ratio=config.mask_ratio,
        fill=config.fill,
        pair_mode=config.pair_mode,
        seed=config.augment_seed,
        max_length=config.max_length,
        cache=store.augmentation_dir(),
    )


def find_model(name: str, store: Store, data_root: str | Path | None) -> str | Path:
    """Where a text encoder is: a folder of that name, or the hub.

    `tiny-bert` is made here, once for each results folder. Any other name is looked for at MMEL_TEXT_MODEL (where that
    is a folder of this name), then in the data root, and else left to the hub.
    """
    if name == TINY_BERT:
        return tiny_bert(corpus(), store.model_dir(TINY_BERT))
    named = os.environ.get("MMEL_TEXT_MODEL")
    root = Path(data_root or os.environ.get("MMEL_DATA") or DEFAULT_ROOT)
    # Resolved, as `grids` does it: a link, or a path that ends in "..", has another name than its folder.
    folders = [*([Path(named).resolve()] if named else []), root / name]
    return next((folder for folder in folders if folder.name == name and folder.is_dir()), name)


def _mixed_targets(labels: Tensor, teacher: Tensor) -> Tensor:
    """(N, K, C) or (N, K): the original keeps its label, each variant takes what the teacher says (section 3.3)."""
    own = F.one_hot(labels, teacher.shape[-1]).float() if teacher.dim() == 3 else labels
    return torch.cat([own[:, None], teacher[:, 1:]], dim=1)


def _suffixed(metric: str, split: str) -> str:
    """`accuracy_pct` on a mismatched split is `accuracy_mm_pct`."""
    return metric.replace("_pct", "_mm_pct") if split.endswith("_mm") else metric


def _disagreement(outputs: Tensor) -> float:
    """Percent of the variants that the teacher puts into another class than the original (or 0.5 away from it)."""
    if outputs.dim() == 2:
        apart = (outputs[:, 1:] - outputs[:, :1]).abs() > 0.5
    else:
        classes = outputs.argmax(dim=-1)
        apart = classes[:, 1:] != classes[:, :1]
    return 100 * apart.float().mean().item()
