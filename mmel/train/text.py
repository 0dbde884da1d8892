"""Text classification and regression as the training loop sees it."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR

from mmel.augment.text import Encoded, encode
from mmel.augment.text_cache import weights_digest
from mmel.config import RunConfig
from mmel.data.glue import Examples, load_text, subset
from mmel.losses import LossTerms, MMELHardLoss
from mmel.methods import build_criterion
from mmel.models.text import load_classifier, load_tokenizer
from mmel.records import Store
from mmel.train import machine, processes
from mmel.train.encoder import augmenter_of, check_encoder, find_model
from mmel.train.metrics import confusion, score
from mmel.train.sequences import Sequences, forward, predict
from mmel.train.teacher import teacher_outputs


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
        eval_failure: None: no evaluation is captured.
        provenance: what the configuration does not say: the encoder's weights, the precision of the masked LM that
            augmented the texts, digests of these texts and of the teacher's weights, the teacher's score.
    """

    unit = "sequences"
    why_eager = "texts differ in length"
    eval_failure = None

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
        self._train = train
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
        # Made anew for a later look: its network need not stay on the device.
        self._augmenter = partial(augmenter_of, config, source, self.tokenizer, store, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = load_classifier(
                source, data.task.num_outputs, config.hidden_dropout, config.attention_dropout
            ).to(device)
        # The word embeddings tell encoders apart; the head, and BERT's pooler, are drawn anew for each seed.
        embeddings = weights_digest(self.model.get_input_embeddings())
        self.provenance: dict[str, Any] = {"text_model": {"name": config.model, "embeddings": embeddings}}
        if teacher is not None and (record := store.read(teacher)):
            check_encoder(self.provenance, record.header)
        self.criterion = build_criterion(config)
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
        augmenter = augmenter_of(config, source, self.tokenizer, store, self.device)
        self.provenance["augmentation_precision"] = "bf16" if augmenter.bf16 else "fp32"
        # Several processes share this work, through the cache.
        ids = augmenter.ids(train.sentences, train.pairs)
        types = [entry.token_type_ids for entry in self._encode(train)]
        self.sequences = Sequences(ids, types, self.device)
        self.provenance["augmented_texts"] = self.sequences.digest()
        self.targets, self.teacher = labels, None
        if teacher is not None:
            outputs, told = teacher_outputs(teacher, store, self.model, self.sequences, config.precision)
            self.provenance |= told | {"teacher_disagreement_pct": _disagreement(outputs, config.threshold)}
            self.teacher = outputs.to(self.device)
            if config.method != "mmel_s":
                self.targets = _mixed_targets(labels, self.teacher[:, 1:])
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
        places = machine.to_device(index, self.device)
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
        """B(x) of the text on which the present network's weights P* are furthest from equal.

        Weights and targets are those of the run: Eq. 9 for `mmel_s`, which weighs the variants alone; Eq. 6 for
        `mmel_h` and, as what it would have made of them, for the other methods.

        Args:
            num_texts: how many training texts to look through, from the first.

        Returns:
            For each sample, the original first: `text`, its masked pieces in brackets; `teacher` (where there is one,
            what it says of the sample); `target` (what the sample is trained towards) and `weight` (NaN for x in
            `mmel_s`). Classes are probabilities, except where all samples have the label as their target.
        """
        index = torch.arange(min(num_texts, len(self.sequences)))
        training = self.model.training
        logits = forward(self.model.eval(), self.sequences, index)
        self.model.train(training)
        weights, targets = self._weights_and_targets(logits, index.to(self.device))
        place = int(weights.nan_to_num().amax(dim=1).argmax())
        tokens = self.sequences.batch(index[place : place + 1])["input_ids"].tolist()
        shown = targets[place].expand(len(tokens)) if targets.dim() == 1 else targets[place]
        columns = {"target": shown.tolist(), "weight": weights[place].tolist()}
        if self.teacher is not None:
            # Of the long baseline each sample is an example.
            says = self.teacher.flatten(0, 1).unflatten(0, (len(self.sequences), -1))[place]
            columns = {"teacher": says.tolist(), **columns}
        masked = self._masked(place)
        return [
            {"text": self._marked(ids, masked), **dict(zip(columns, values, strict=True))}
            for ids, *values in zip(tokens, *columns.values(), strict=True)
        ]

    def _weights_and_targets(self, logits: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """P* (n, V) of some examples, NaN for what has none, and their targets: (n,), (n, V) or (n, V, C)."""
        targets = self.targets[places]
        if self.config.method == "mmel_s":
            teacher = None if self.teacher is None else self.teacher[places]
            weights = self.criterion.terms(logits, targets, teacher).weights
            none = torch.full_like(weights[:, :1], torch.nan)
            soft = self.criterion.soft_targets(logits, teacher)
            return torch.cat([none, weights], dim=1), _mixed_targets(targets, soft)
        hard = MMELHardLoss(self.config.lambda_p, self.criterion.base_loss)
        return hard.terms(logits, targets).weights, targets

    def _masked(self, place: int) -> list[int]:
        """The places in the tokens of a training example that Algorithm 2 masked."""
        if self.config.method == "baseline":
            return []
        text = place // self.config.stretch
        example = self._train.take([text])
        return self._augmenter().positions(example.sentences, example.pairs)[0]

    def _marked(self, ids: list[int], masked: list[int]) -> str:
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        return " ".join([f"[{piece}]" if n in masked else piece for n, piece in enumerate(pieces)][1:-1])

    def _predictions(self, sequences: Sequences) -> list:
        outputs = predict(self.model, sequences)[:, 0]
        return (outputs[:, 0] if self.data.task.is_regression else outputs.argmax(dim=-1)).tolist()

    def _encode(self, part: Examples) -> list[Encoded]:
        return encode(self.tokenizer, part.sentences, part.pairs, self.config.max_length)

    def _single(self, part: Examples) -> Sequences:
        """A split as it is, one sequence an example."""
        encoded = self._encode(part)
        return Sequences([[entry.ids] for entry in encoded], [entry.token_type_ids for entry in encoded], self.device)


def _mixed_targets(labels: Tensor, variants: Tensor) -> Tensor:
    """(N, K, C) or (N, K): the original keeps its label, the variants have targets of their own (section 3.3)."""
    own = F.one_hot(labels, variants.shape[-1]).float() if variants.dim() == 3 else labels
    return torch.cat([own[:, None], variants], dim=1)


def _suffixed(metric: str, split: str) -> str:
    """`accuracy_pct` on a mismatched split is `accuracy_mm_pct`."""
    return metric.replace("_pct", "_mm_pct") if split.endswith("_mm") else metric


def _disagreement(outputs: Tensor, threshold: float) -> float:
    """Percent of the variants that the teacher puts into another class, or further than a threshold, from x."""
    if outputs.dim() == 2:
        apart = (outputs[:, 1:] - outputs[:, :1]).abs() > threshold
    else:
        classes = outputs.argmax(dim=-1)
        apart = classes[:, 1:] != classes[:, :1]
    return 100 * apart.float().mean().item()
