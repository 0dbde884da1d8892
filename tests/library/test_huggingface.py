import itertools

import pytest
import torch
import transformers
from datasets import Dataset
from random_bert import SHAPE, make_masked_lm, make_tokenizer
from torch.nn.functional import cross_entropy, mse_loss
from transformers import BertConfig, BertForSequenceClassification, Trainer
from transformers import TrainingArguments as Arguments

from mmel import MMELHardLoss, MMELSoftLoss, UniformLoss
from mmel.augment.text import MaskedLMAugmenter
from mmel.huggingface import AugmentedCollator, MMELTrainer, compute_loss_func

K, C = 3, 2

pytestmark = pytest.mark.usefixtures("one_thread")


def make_model(num_labels=C):
    torch.manual_seed(0)
    # Without dropout, and with weights large enough to tell inputs apart.
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
    return BertForSequenceClassification(BertConfig(**SHAPE, **still, num_labels=num_labels))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def make_trainer(tokenizer, tmp_path):
    def make(criterion=None, num_labels=C, settings=None, kind=MMELTrainer, **arguments):
        settings = {"per_device_train_batch_size": 4, "report_to": [], "use_cpu": True, **(settings or {})}
        settings = {"save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, **settings}
        args = Arguments(str(tmp_path), **settings)
        if kind is MMELTrainer:
            # Which brings AugmentedCollator.
            arguments |= {"criterion": criterion, "processing_class": tokenizer}
        else:
            collator = flat(AugmentedCollator(tokenizer))
            arguments |= {"compute_loss_func": compute_loss_func(criterion), "data_collator": collator}
        return kind(model=make_model(num_labels), args=args, **arguments)

    return make


def flat(collator):
    """Batches (N * K, L), as plain `Trainer` gives them to the model, and labels (N, ...)."""

    def collate(features):
        return {name: part if name == "labels" else part.flatten(0, 1) for name, part in collator(features).items()}

    return collate


SENTENCES = ["the dog is old", "a red book", "the book was not old", "very red dog", "old", "the dog was very red"]
LABELS = [1, 0, 0, 0, 1, 0]


@pytest.fixture(scope="module")
def augmented(tokenizer):
    """Six sentences with K samples each, as `datasets` would hold them."""
    augment = MaskedLMAugmenter(make_masked_lm(), tokenizer, num_augmented=K)
    table = Dataset.from_dict({"sentence": SENTENCES, "label": LABELS})
    return table.map(lambda rows: {"input_ids": augment.ids(rows["sentence"])}, batched=True)


@pytest.fixture(scope="module")
def plain(tokenizer):
    table = Dataset.from_dict({"sentence": SENTENCES, "label": LABELS})
    return table.map(lambda rows: {"input_ids": tokenizer(rows["sentence"])["input_ids"]}, batched=True)


def logits_one_by_one(model, rows):
    """(N, K, C), each sample in a forward of its own."""
    with torch.no_grad():
        return torch.stack(
            [torch.stack([model(torch.tensor([ids])).logits[0] for ids in row["input_ids"]]) for row in rows]
        )


TEACHER = torch.rand(len(SENTENCES), K, C, generator=torch.Generator().manual_seed(2)).softmax(-1)
SCORES = [0.5, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("criterion", "labels", "teacher"),
    [
        (None, LABELS, None),
        (MMELHardLoss(0.3), LABELS, None),
        (UniformLoss(), LABELS, None),
        (MMELSoftLoss(0.5, 2.0), LABELS, None),
        (MMELSoftLoss(0.5, 2.0), LABELS, TEACHER),
        (MMELHardLoss(), TEACHER.tolist(), None),
        (MMELHardLoss(base_loss="mse"), SCORES, None),
    ],
)
def test_the_loss_is_the_criterions(make_trainer, tokenizer, augmented, criterion, labels, teacher):
    trainer = make_trainer(criterion, 1 if labels is SCORES else C)
    trainer.model.train()
    rows = augmented.remove_columns("label").add_column("labels", labels)
    if teacher is not None:
        rows = rows.add_column("teacher_outputs", teacher.tolist())
    loss, outputs = trainer.compute_loss(trainer.model, AugmentedCollator(tokenizer)(list(rows)), return_outputs=True)
    logits = logits_one_by_one(trainer.model, rows)
    extra = () if teacher is None else (teacher,)
    torch.testing.assert_close(loss, (criterion or MMELHardLoss(1.0))(logits, torch.tensor(labels), *extra))
    torch.testing.assert_close(outputs.logits, logits.flatten(0, 1))
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in trainer.model.parameters() if weight.grad is not None)


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_evaluation_is_of_the_original(make_trainer, augmented, plain, tokenizer, form):
    def accuracy(prediction):
        assert prediction.predictions.shape == (len(SENTENCES), C)
        return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    trainer = make_trainer(MMELSoftLoss(), compute_metrics=accuracy)
    logits, labels = logits_one_by_one(trainer.model, augmented)[:, 0], torch.tensor(LABELS)
    padded = plain.map(lambda row: dict(tokenizer(row["sentence"], padding="max_length", max_length=12)))
    for rows in (augmented, plain, padded):
        found = trainer.evaluate(rows.remove_columns("sentence").with_format(form))
        assert found["eval_loss"] == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-5)
        assert found["eval_accuracy"] == pytest.approx(float((logits.argmax(-1) == labels).float().mean()))
    found = trainer.predict(augmented.remove_columns("label"))
    assert found.label_ids is None
    torch.testing.assert_close(torch.tensor(found.predictions), logits)


@pytest.mark.parametrize(
    ("criterion", "labels", "first"),
    [
        (MMELHardLoss(), [[label] * K for label in LABELS], LABELS),
        (MMELHardLoss(), TEACHER.tolist(), TEACHER[:, 0].tolist()),
        (UniformLoss("kl"), LABELS, LABELS),
        (MMELHardLoss(base_loss="mse"), [[1.0, 9.0, 9.0], [2.0, 9.0, 9.0]] * 3, [1.0, 2.0] * 3),
    ],
)
def test_evaluation_takes_the_originals_label(make_trainer, augmented, criterion, labels, first):
    regression = criterion.base_loss == "mse"
    # As many examples a batch as samples, where a regression would go through with shapes (N,) and (N, K).
    settings = {"per_device_eval_batch_size": K}
    seen = []

    def metrics(prediction):
        seen.append(torch.tensor(prediction.label_ids))
        return {}

    trainer = make_trainer(criterion, 1 if regression else C, settings, compute_metrics=metrics)
    rows = augmented.remove_columns("label").add_column("labels", labels)
    rows = rows.add_column("teacher_outputs", TEACHER.tolist())
    logits, target = logits_one_by_one(trainer.model, augmented)[:, 0], torch.tensor(first)
    loss = mse_loss if regression else cross_entropy
    expected = loss(logits[:, 0] if regression else logits, target)
    assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(float(expected), rel=1e-4)
    torch.testing.assert_close(seen[0], target)


def test_grouping_by_length_knows_the_length(make_trainer, augmented):
    settings = {"train_sampling_strategy": "group_by_length"}
    if not hasattr(Arguments, "train_sampling_strategy"):
        settings = {"group_by_length": True}
    settings["max_steps"] = 1
    lengths = [len(ids[0]) for ids in augmented["input_ids"]]
    trainer = make_trainer(settings=settings, train_dataset=augmented.add_column("length", lengths))
    assert list(trainer.get_train_dataloader().batch_sampler.sampler.lengths) == lengths
    trainer.train()
    # Trainer would take K for the length of each.
    with pytest.raises(ValueError, match="train_dataset must have a column 'length' to be grouped by length"):
        make_trainer(settings=settings, train_dataset=augmented)


@pytest.mark.parametrize(
    ("kind", "criterion", "labels"),
    [
        *itertools.product((MMELTrainer, Trainer), (MMELHardLoss(0.3),), (LABELS, TEACHER.tolist())),
        (MMELTrainer, MMELSoftLoss(0.3), LABELS),
    ],
)
def test_a_step_descends_the_mean_over_all_its_examples(make_trainer, augmented, kind, criterion, labels):
    rows, model = augmented.remove_columns("label").add_column("labels", labels), make_model()
    logits = torch.stack([model(torch.tensor(row["input_ids"])).logits for row in rows])
    taught = isinstance(criterion, MMELSoftLoss)
    if taught:
        # Trainer drops the columns that the model does not take.
        rows = rows.add_column("teacher_outputs", TEACHER.tolist())
    criterion(logits, torch.tensor(labels), *[TEACHER] * taught).backward()
    descended = {name: weight - weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    # One batch; three equal ones; a smaller last one; fewer batches than are accumulated, and a smaller last one.
    splits = [(6, 1), (2, 3), (4, 2), (4, 4)]
    # Before, Trainer did not count labels for `compute_loss_func`.
    for batch, accumulated in splits[: None if kind is MMELTrainer or transformers.__version__ >= "4.49" else 1]:
        settings = {"max_steps": 1, "per_device_train_batch_size": batch, "max_grad_norm": 0.0, "optim": "sgd"}
        settings |= {"gradient_accumulation_steps": accumulated, "learning_rate": 1.0, "lr_scheduler_type": "constant"}
        trainer = make_trainer(criterion, settings=settings, kind=kind, train_dataset=rows)
        trainer.train()
        found = dict(trainer.model.named_parameters())
        torch.testing.assert_close({name: found[name] for name in descended}, descended, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("criterion", [MMELHardLoss(0.3), MMELSoftLoss(), UniformLoss("kl")])
def test_plain_trainer_evaluates_like_ours(make_trainer, plain, criterion):
    ours, theirs = (make_trainer(criterion, kind=kind).evaluate(plain)["eval_loss"] for kind in (MMELTrainer, Trainer))
    assert theirs == pytest.approx(ours, rel=1e-6)


def test_a_checkpoint_is_of_its_criterion(make_trainer, augmented, tmp_path):
    def build(criterion, epochs):
        settings = {"save_strategy": "epoch", "num_train_epochs": epochs, "lr_scheduler_type": "constant"}
        return make_trainer(criterion, settings=settings, train_dataset=augmented)

    def own_loss():
        return MMELHardLoss(base_loss=lambda logits, labels: cross_entropy(logits, labels, reduction="none"))

    build(own_loss(), 1).train()
    resumed, whole = build(own_loss(), 2), build(own_loss(), 2)
    # Equal, not the same: as another process has it.
    resumed.train(resume_from_checkpoint=True)
    whole.train()
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    message = r"of .*checkpoint-\d, MMELHardLoss\(.*lambda_p=1.0\), got MMELSoftLoss\(.*lambda_p=0.5.*criterion"
    for resume in (True, str(tmp_path / "checkpoint-2")):
        with pytest.raises(ValueError, match=message) as raised:
            build(MMELSoftLoss(0.5), 2).train(resume_from_checkpoint=resume)
        assert "\n" not in str(raised.value)


def test_pairs_share_the_originals_token_types(tokenizer):
    rows = [{"input_ids": [[2, 5, 3, 6, 3]] * K, "token_type_ids": [0, 0, 0, 1, 1], "label": 1}]
    rows.append({"input_ids": [[2, 5, 3, 6, 7, 8, 3]] * K, "token_type_ids": [0, 0, 0, 1, 1, 1, 1], "label": 0})
    batch = AugmentedCollator(tokenizer)(rows)
    shapes = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (2, K, 7))
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {**shapes, "labels": (2,)}
    assert batch["token_type_ids"][0].tolist() == [[0, 0, 0, 1, 1, 0, 0]] * K
    assert batch["attention_mask"][0].tolist() == [[1, 1, 1, 1, 1, 0, 0]] * K


def test_images_of_another_collator(make_trainer):
    class Network(torch.nn.Linear):
        def forward(self, pixel_values):
            return (super().forward(pixel_values.flatten(1)),)

    network = Network(12, C)
    views, labels = torch.rand(5, K, 3, 2, 2), torch.tensor([0, 1, 1, 0, 1])
    loss = make_trainer().compute_loss(network, {"pixel_values": views, "labels": labels})
    logits = torch.nn.functional.linear(views.flatten(2), network.weight, network.bias)
    torch.testing.assert_close(loss, MMELHardLoss()(logits, labels))


# What is refused.


def test_bad_batches(make_trainer, tokenizer, augmented):
    collate, rows = AugmentedCollator(tokenizer), list(augmented)
    for change, message in [
        ({"input_ids": rows[0]["input_ids"][:2]}, r"input_ids must have the same number of samples.*got \[2, 3\]"),
        ({"input_ids": [[2, 3], [2, 5, 3]]}, "input_ids of one example must be equally long"),
        ({"labels": 1}, "labels must stand under one name, got labels and label"),
        ({"token_type_ids": [0, 0]}, r"token_type_ids must be one list of \d+ values, as many as pieces, got"),
        ({"token_type_ids": [[0] * len(rows[0]["input_ids"][0])] * K}, r"token_type_ids must be one list of \d+"),
    ]:
        with pytest.raises(ValueError, match=message):
            collate([{**rows[0], **change}, rows[1]])
    trainer = make_trainer()
    trainer.model.train()
    batch = collate(rows)
    with pytest.raises(ValueError, match="inputs must have labels, got input_ids, attention_mask"):
        trainer.compute_loss(trainer.model, {name: batch[name] for name in ("input_ids", "attention_mask")})
    with pytest.raises(ValueError, match=r"inputs must be tensors \(N, K, ...\).*\(6, 7\)"):
        trainer.compute_loss(trainer.model, {**batch, "input_ids": batch["input_ids"][:, 0]})
    with pytest.raises(ValueError, match="teacher_outputs must go with MMELSoftLoss, got MMELHardLoss"):
        trainer.compute_loss(trainer.model, {**batch, "teacher_outputs": TEACHER})


def test_settings_that_do_not_go_with_it(make_trainer):
    with pytest.raises(ValueError, match="include_for_metrics must not have 'inputs'"):
        make_trainer(settings={"include_for_metrics": ["inputs"]})
    with pytest.raises(ValueError, match="criterion must have reduction 'mean', got 'sum'"):
        make_trainer(MMELHardLoss(reduction="sum"))
    with pytest.raises(ValueError, match="compute_loss_func must be None"):
        make_trainer(compute_loss_func=lambda outputs, labels, num_items_in_batch: 0.0)
    with pytest.raises(ValueError, match=r"label_smoothing_factor must be 0, got 0\.1"):
        make_trainer(settings={"label_smoothing_factor": 0.1})
