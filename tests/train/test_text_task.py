"""Text as the training loop sees it: samples, targets, losses, scores."""

import math
import shutil
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from mmel.augment.text import MaskedLMAugmenter, encode
from mmel.config import TEXT_METHODS
from mmel.data.glue import load_text, subset
from mmel.grids import teacher_of
from mmel.models.text import load_classifier, load_masked_lm, load_tokenizer
from mmel.train import checkpoint
from mmel.train import text as module
from mmel.train.encoder import build_augmenter, find_model
from mmel.train.sequences import Sequences, predict
from mmel.train.text import TextTask

CPU = torch.device("cpu")
K = 3
AUGMENTED = TEXT_METHODS[1:]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def build(store, text_config, small_bert):
    """A task, given what its configuration changes; its teacher, where it needs one, has random weights."""

    def build(**changes):
        if changes.get("method") == "baseline":
            changes["num_augmented"] = 1
        config = text_config.replace(**changes)
        teacher = teacher_of(config)
        if teacher is not None:
            network = random_teacher(config.dataset, small_bert)
            checkpoint.save(store.weights_path(teacher), {"model": network.state_dict(), "score": 0.0})
        return TextTask(config, teacher, store, None, CPU)

    return build


@cache
def random_teacher(dataset, small_bert):
    """A network that is of many minds about the training texts."""
    data = load_text(dataset)
    train, tokenizer = subset(data.splits["train"], 24), load_tokenizer(small_bert)
    torch.manual_seed(7)
    network = load_classifier(small_bert, data.task.num_outputs, 0.1, 0.1)
    ids = MaskedLMAugmenter(load_masked_lm(small_bert), tokenizer, K).ids(train.sentences, train.pairs)
    types = [entry.token_type_ids for entry in encode(tokenizer, train.sentences, train.pairs)]
    with torch.no_grad():
        # Each output has mean 0 and a deviation at which both sides of every threshold are met.
        outputs, head = predict(network, Sequences(ids, types, CPU)).flatten(0, 1), network.classifier
        scale = 0.4 / outputs.std(dim=0)
        head.bias.sub_(outputs.mean(dim=0)).mul_(scale)
        head.weight.mul_(scale[:, None])
    return network


def labels_of(config):
    return torch.tensor(subset(load_text(config.dataset).splits["train"], config.train_size).targets)


def samples(task):
    """(N, K) token lists as they go into the network."""
    rows = []
    for place, length in enumerate(task.sequences.lengths.tolist()):
        rows.append(task.sequences.batch(torch.tensor([place]))["input_ids"][:, :length].tolist())
    return rows


# The samples.


@pytest.mark.parametrize("dataset", ["grammar_cola", "grammar_rte"])
def test_the_samples_are_algorithm_2s_with_the_original_first(dataset, build, small_bert):
    task = build(dataset=dataset)
    train = subset(load_text(dataset).splits["train"], 24)
    tokenizer = load_tokenizer(small_bert)
    augmenter = MaskedLMAugmenter(load_masked_lm(small_bert), tokenizer, num_augmented=K)
    assert samples(task) == augmenter.ids(train.sentences, train.pairs)
    encoded = encode(tokenizer, train.sentences, train.pairs)
    assert [row[0] for row in samples(task)] == [entry.ids for entry in encoded]
    types = [task.sequences.batch(torch.tensor([place]))["token_type_ids"][-1].tolist() for place in range(24)]
    assert types == [entry.token_type_ids for entry in encoded]


def test_the_augmenter_of_a_run_is_to_be_had_by_itself(build, store):
    task = build(mask_ratio=0.2, max_length=12)
    train = subset(load_text("grammar_cola").splits["train"], 24)
    augmenter = build_augmenter(task.config, store, device="cpu")
    cached = list(store.augmentation_dir().iterdir())
    assert augmenter.ids(train.sentences) == samples(task)
    # It read what the run had filled.
    assert len(cached) == 1
    assert list(store.augmentation_dir().iterdir()) == cached
    assert augmenter.mask_ratio == 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_ratio": 0.2},
        {"fill": "beam"},
        {"augment_seed": 1},
        {"pair_mode": "joint"},
        {"max_length": 9},
    ],
    ids=str,
)
def test_every_setting_of_the_augmentation_reaches_it(changes, build):
    assert samples(build(dataset="grammar_rte", **changes)) != samples(build(dataset="grammar_rte"))


def test_all_runs_share_the_samples_but_not_the_network(build):
    # "Generated once, offline" (section 3.3).
    tasks = [build(), build(seed=5), build(method="mmel_s"), build(label_source="original", lr=1.0)]
    assert all(samples(task) == samples(tasks[0]) for task in tasks)
    heads = [task.model.state_dict()["classifier.weight"] for task in tasks]
    assert not torch.equal(heads[0], heads[1])
    assert torch.equal(heads[0], heads[2])


def test_the_long_baseline_makes_an_example_of_each_sample(build):
    whole, flat = build(), build(method="baseline_da_long")
    assert flat.sequences.num_variants == 1
    # Sample-major: row n * K + k is sample k of example n.
    assert [row for (row,) in samples(flat)] == [row for rows in samples(whole) for row in rows]
    # The same batch size, so K times the steps.
    assert (whole.steps, flat.steps) == (3, 9)


def test_the_baseline_sees_the_text_alone(build, monkeypatch):
    whole = build()
    monkeypatch.setattr("mmel.train.encoder.load_masked_lm", None)
    task = build(method="baseline")
    assert samples(task) == [[rows[0]] for rows in samples(whole)]
    assert torch.equal(task.targets, labels_of(task.config))
    assert task.teacher is None


# The targets.


@pytest.mark.parametrize("dataset", ["grammar_cola", "grammar_stsb"])
@pytest.mark.parametrize("method", AUGMENTED)
def test_original_labels(dataset, method, build):
    # y everywhere, and no replacement in MMEL-S.
    task = build(dataset=dataset, method=method, label_source="original")
    labels = labels_of(task.config)
    assert task.teacher is None
    assert torch.equal(task.targets, labels.repeat_interleave(K) if method == "baseline_da_long" else labels)


@pytest.mark.parametrize(
    ("dataset", "method"),
    [
        *((dataset, method) for dataset in ("grammar_cola", "grammar_stsb") for method in AUGMENTED),
        ("grammar_mnli", "mmel_h"),
    ],
)
def test_predicted_labels(dataset, method, build, small_bert):
    task = build(dataset=dataset, method=method)
    labels = labels_of(task.config)
    said = predict(random_teacher(dataset, small_bert), build(dataset=dataset).sequences)
    said = said[:, :, 0] if dataset == "grammar_stsb" else said.softmax(dim=-1)
    torch.testing.assert_close(task.teacher, said)
    if method == "mmel_s":
        assert torch.equal(task.targets, labels)
        return
    mixed = task.targets
    if method == "baseline_da_long":
        assert mixed.shape == (24 * K, 1, *said.shape[2:])
        mixed = mixed.view(said.shape)
    # x keeps its y; each variant takes what the teacher says.
    own = labels if dataset == "grammar_stsb" else F.one_hot(labels, said.shape[-1]).float()
    assert torch.equal(mixed[:, 0], own)
    torch.testing.assert_close(mixed[:, 1:], said[:, 1:])


def test_a_teacher_that_is_not_trained_is_named(text_config, store):
    teacher = teacher_of(text_config)
    with pytest.raises(FileNotFoundError, match=teacher.run_id):
        TextTask(text_config, teacher, store, None, CPU)


# The losses, written out.


def sample_losses(task, index, targets):
    """(n, V) losses of one joint forward, each text by itself."""
    task.model.eval()
    logits = predict(task.model, task.sequences)[index]
    if task.data.task.is_regression:
        return (logits[:, :, 0] - targets) ** 2, logits[:, :, 0]
    return -(targets * logits.log_softmax(dim=-1)).sum(dim=-1), logits


def mixed_targets(task, index, teacher):
    labels = labels_of(task.config)[index]
    if task.data.task.is_regression:
        return torch.cat([labels[:, None], teacher[index, 1:]], dim=1)
    own = F.one_hot(labels, teacher.shape[-1]).float()
    return torch.cat([own[:, None], teacher[index, 1:]], dim=1)


def compare(terms, loss):
    torch.testing.assert_close(terms.loss, loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dataset", ["grammar_cola", "grammar_stsb"])
@pytest.mark.parametrize("method", ["baseline_da_uni", "mmel_h"])
def test_hard_losses(dataset, method, build):
    task = build(dataset=dataset, method=method, **({"lambda_p": 0.5} if method == "mmel_h" else {}))
    index = torch.tensor([3, 20, 1, 8])
    losses, _ = sample_losses(task, index, mixed_targets(task, index, task.teacher))
    with torch.no_grad():
        terms = task.terms(index, epoch=1)
    torch.testing.assert_close(terms.sample_losses, losses, rtol=1e-4, atol=1e-5)
    if method == "baseline_da_uni":
        compare(terms, losses.mean(dim=1))
    else:
        compare(terms, 0.5 * (torch.logsumexp(losses / 0.5, dim=1) - math.log(K)))


@pytest.mark.parametrize("source", ["predicted", "original"])
def test_the_soft_loss_takes_the_teacher_where_it_sees_another_class(source, build):
    task = build(method="mmel_s", lambda_t=2.0, lambda_p=0.5, label_source=source)
    index = torch.arange(24)
    first, logits = sample_losses(task, index, F.one_hot(labels_of(task.config), 2)[:, None].expand(-1, K, -1))
    own = logits[:, :1].softmax(dim=-1).expand(-1, K - 1, -1)
    if source == "predicted":
        classes = task.teacher.argmax(dim=-1)
        disagrees = classes[:, 1:] != classes[:, :1]
        assert 0 < disagrees.sum() < disagrees.numel()
        own = torch.where(disagrees[:, :, None], task.teacher[:, 1:], own)
    losses = -(own * logits[:, 1:].log_softmax(dim=-1)).sum(dim=-1)
    with torch.no_grad():
        terms = task.terms(index, epoch=1)
    compare(terms, first[:, 0] + 2.0 * 0.5 * (torch.logsumexp(losses / 0.5, dim=1) - math.log(K - 1)))


def test_the_soft_loss_of_regression_takes_the_teacher_where_it_is_half_a_point_away(build):
    task = build(dataset="grammar_stsb", method="mmel_s")
    index = torch.arange(24)
    first, scores = sample_losses(task, index, labels_of(task.config)[:, None])
    own = scores[:, :1].expand(-1, K - 1)
    away = (own - task.teacher[:, 1:]).abs() > 0.5
    assert 0 < away.sum() < away.numel()
    losses = (torch.where(away, task.teacher[:, 1:], own) - scores[:, 1:]) ** 2
    with torch.no_grad():
        terms = task.terms(index, epoch=1)
    compare(terms, first[:, 0] + torch.logsumexp(losses, dim=1) - math.log(K - 1))


@pytest.mark.parametrize("method", ["baseline", "baseline_da_long"])
@pytest.mark.parametrize("dataset", ["grammar_cola", "grammar_stsb"])
def test_methods_that_see_one_sample_at_a_time(dataset, method, build):
    task = build(dataset=dataset, method=method)
    index = torch.tensor([7, 0, 23])
    labels = labels_of(task.config)
    own = labels if task.data.task.is_regression else F.one_hot(labels, 2).float()
    if method == "baseline":
        targets = own[index, None]
    else:
        # Samples 1 of examples 2 and 7, which the teacher labels, and the original of example 0.
        targets = torch.stack([task.teacher[2, 1], own[0], task.teacher[7, 2]])[:, None]
    losses, _ = sample_losses(task, index, targets)
    with torch.no_grad():
        terms = task.terms(index, epoch=1)
    # One sample of each example: it has all the weight.
    assert terms.weights.tolist() == [[1.0]] * 3
    compare(terms, losses[:, 0])


def test_the_teachers_output_is_no_way_to_the_gradient(build):
    task = build(method="mmel_s")
    assert not task.teacher.requires_grad
    assert not build().targets.requires_grad


# What the loop asks for.


def test_sizes_metric_and_provenance(build, small_bert):
    task = build()
    sizes = {"train": 24, "train_available": 400, "eval": 300, "eval_split": "dev", "test": 300, "sampled": []}
    assert task.sizes == sizes
    mnli = build(dataset="grammar_mnli", method="baseline")
    assert mnli.sizes == sizes | {name: len(mnli.data.splits[name]) for name in ("dev_mm", "test_mm")}
    assert task.metric == "matthews_pct"
    assert task.unit == "sequences"
    assert task.provenance["text_model"]["name"] == "small-bert"
    assert task.provenance["teacher"] == teacher_of(task.config).run_id
    classes = task.teacher.argmax(dim=-1)
    expected = 100 * (classes[:, 1:] != classes[:, :1]).float().mean().item()
    assert task.provenance["teacher_disagreement_pct"] == pytest.approx(expected)
    assert 0 < expected < 100
    assert set(build(method="baseline").provenance) == {"text_model"}
    original = build(label_source="original").provenance
    assert set(original) == {"text_model", "augmentation_precision", "augmented_texts"}
    # The same texts, whoever labels them; others where more of each is replaced.
    assert original["augmented_texts"] == task.provenance["augmented_texts"]
    assert original["augmented_texts"] != build(mask_ratio=0.8).provenance["augmented_texts"]
    assert original["augmentation_precision"] == "fp32"


def test_disagreement_on_scores_is_half_a_point(build):
    task = build(dataset="grammar_stsb")
    apart = (task.teacher[:, 1:] - task.teacher[:, :1]).abs() > 0.5
    assert 0 < apart.sum() < apart.numel()
    assert task.provenance["teacher_disagreement_pct"] == pytest.approx(100 * apart.float().mean().item())


def test_the_threshold_of_a_run_is_that_of_its_disagreement(build):
    task = build(dataset="grammar_stsb", method="mmel_s", threshold=0.1)
    apart = (task.teacher[:, 1:] - task.teacher[:, :1]).abs() > 0.1
    assert task.provenance["teacher_disagreement_pct"] == pytest.approx(100 * apart.float().mean().item())
    assert task.criterion.threshold == 0.1


def test_the_record_tells_encoders_apart_and_not_the_heads_on_them(build, small_bert, monkeypatch, tmp_path):
    def recorded(**changes):
        return build(**changes).provenance["text_model"]["embeddings"]

    # Whatever head is drawn for a seed or a task.
    varied = ({}, {"seed": 1}, {"method": "baseline"}, {"dataset": "grammar_mnli"}, {"hidden_dropout": 0.0})
    assert len({recorded(**changes) for changes in varied}) == 1
    other = tmp_path / "small-bert"
    shutil.copytree(small_bert, other)
    network = load_masked_lm(other)
    with torch.no_grad():
        network.get_input_embeddings().weight[7, 3] += 1e-6
    network.save_pretrained(other)
    before = recorded()
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(other))
    assert recorded() != before


def test_the_optimizer_is_table_7s(build):
    task = build(weight_decay=0.0, lr=3e-5)
    optimizer = task.build_optimizer()
    assert type(optimizer) is torch.optim.AdamW
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(3e-5, 0.0)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(task.model.parameters()))
    # Linear decay to 0, no warm-up.
    scheduler, rates = task.build_scheduler(optimizer, 4), []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([3e-5, 2.25e-5, 1.5e-5, 0.75e-5, 0.0])


def test_dropout_is_that_of_the_configuration(build):
    model = build(hidden_dropout=0.25, attention_dropout=0.5).model
    assert {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)} <= {0.25, 0.5}
    assert (model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob) == (0.25, 0.5)
    assert model.dropout.p == 0.25


def test_the_order_depends_on_seed_and_epoch(build):
    one, other = build(), build(seed=1)
    assert sorted(one.order(1).tolist()) == list(range(24))
    assert torch.equal(one.order(1), build(method="mmel_s").order(1))
    assert not torch.equal(one.order(1), one.order(2))
    assert not torch.equal(one.order(1), other.order(1))


def test_the_largest_batch_is_the_longest_texts(build):
    task = build()
    index = task.largest_batch()
    lengths = task.sequences.lengths
    assert len(set(index.tolist())) == task.config.batch_size
    assert sorted(lengths[index].tolist()) == sorted(lengths.tolist())[-8:]


def test_a_batch_larger_than_the_data_is_refused(build):
    with pytest.raises(ValueError, match="batch_size must be at most the 24 training texts, got 25"):
        build(batch_size=25)
    # The long baseline has more of them.
    assert build(method="baseline_da_long", batch_size=72).steps == 1


def test_the_partial_batch_is_dropped_or_kept(build):
    assert build(batch_size=10).steps == 2
    assert build(batch_size=10, drop_last=False).steps == 3


# Scores and predictions.


@pytest.mark.parametrize(
    ("dataset", "names", "test_names"),
    [
        ("grammar_cola", {"matthews_pct"}, {"test_matthews_pct", "dev_confusion"}),
        ("grammar_stsb", {"spearman_pct"}, {"test_spearman_pct"}),
        ("grammar_mrpc", {"accuracy_pct"}, {"test_f1_pct"}),
        (
            "grammar_mnli",
            {"accuracy_pct", "accuracy_mm_pct"},
            {"test_accuracy_pct", "test_accuracy_mm_pct"},
        ),
    ],
)
def test_a_task_is_scored_as_glue_scores_it(dataset, names, test_names, build, few_texts):
    task = build(dataset=dataset, method="baseline", train_size=0)
    assert task.metric in names
    scores = task.evaluate()
    assert set(scores) == names
    tested, predictions = task.test()
    assert set(tested) == test_names
    assert predictions == {}
    # By hand, one text at a time.
    said = {}
    for split, part in task.data.splits.items():
        outputs = []
        for n in range(24):
            entry = encode(task.tokenizer, part.sentences[n : n + 1], part.pairs and part.pairs[n : n + 1])[0]
            inputs = {"input_ids": torch.tensor([entry.ids]), "token_type_ids": torch.tensor([entry.token_type_ids])}
            outputs.append(task.model.eval()(**inputs).logits[0].detach())
        outputs = torch.stack(outputs)
        said[split] = outputs[:, 0].tolist() if dataset == "grammar_stsb" else outputs.argmax(dim=1).tolist()
    metric = task.metric
    assert scores[metric] == pytest.approx(module.score(metric, said["dev"], task.data.splits["dev"].targets), abs=1e-6)
    test_metric = "f1_pct" if dataset == "grammar_mrpc" else metric
    expected = module.score(test_metric, said["test"], task.data.splits["test"].targets)
    assert tested[f"test_{test_metric}"] == pytest.approx(expected, abs=1e-6)
    if dataset == "grammar_cola":
        pairs = list(zip(task.data.splits["dev"].targets, said["dev"], strict=True))
        assert tested["dev_confusion"] == [[pairs.count((true, guess)) for guess in (0, 1)] for true in (0, 1)]
    if dataset == "grammar_mnli":
        for found, split in ((scores["accuracy_mm_pct"], "dev_mm"), (tested["test_accuracy_mm_pct"], "test_mm")):
            assert found == pytest.approx(module.score(metric, said[split], task.data.splits[split].targets))


@pytest.mark.parametrize("dataset", ["grammar_stsb", "grammar_mnli"])
def test_test_splits_without_labels_are_predicted(dataset, build, few_texts):
    labelled = build(dataset=dataset, method="baseline", train_size=0)
    few_texts |= {"test", "test_mm"}
    task = build(dataset=dataset, method="baseline", train_size=0)
    scores, predictions = task.test()
    assert scores == {}
    assert set(predictions) == ({"test", "test_mm"} if dataset == "grammar_mnli" else {"test"})
    for split, said in predictions.items():
        assert len(said) == 24
        assert {type(one) for one in said} == {float if dataset == "grammar_stsb" else int}
        metric = module._suffixed(task.data.task.test_metric, split)
        # What would be scored were the labels there.
        expected = module.score(task.metric, said, labelled.data.splits[split].targets)
        assert labelled.test()[0][f"test_{metric}"] == pytest.approx(expected)


def test_a_run_on_a_subset_leaves_the_test_split_alone(build):
    scores, predictions = build().test()
    assert set(scores) == {"dev_confusion"}
    assert predictions == {}


def test_evaluation_leaves_the_network_in_training_mode(build):
    task = build(method="baseline")
    task.model.train()
    assert task.evaluate() == task.evaluate()
    assert task.model.training


# A look at what was learned.


def masked(task, place):
    """The places that Algorithm 2 masked in a training text."""
    train = subset(load_text(task.config.dataset).splits["train"], 24).take([place])
    augmenter = MaskedLMAugmenter(load_masked_lm(find_model(task.config.model, None, None)), task.tokenizer, K)
    return augmenter.positions(train.sentences, train.pairs)[0]


def bracketed(task, row, places):
    pieces = task.tokenizer.convert_ids_to_tokens(row)
    return " ".join([f"[{piece}]" if n in places else piece for n, piece in enumerate(pieces)][1:-1])


@pytest.mark.parametrize("dataset", ["grammar_cola", "grammar_stsb"])
@pytest.mark.parametrize("method", ["baseline_da_uni", "mmel_h", "mmel_s"])
def test_most_uneven(dataset, method, build):
    task = build(dataset=dataset, method=method)
    task.model.train()
    shown = task.most_uneven(num_texts=10)
    assert task.model.training
    assert [set(sample) for sample in shown] == [{"text", "teacher", "target", "weight"}] * K
    # By hand: among the first ten texts, the one whose largest weight is largest.
    index, regression = torch.arange(10), dataset == "grammar_stsb"
    targets = mixed_targets(task, index, task.teacher)
    if method == "mmel_s":
        # The label for x; for the others f(x), unless the teacher sees another class or is half a point away.
        _, outputs = sample_losses(task, index, targets)
        own = (outputs if regression else outputs.softmax(dim=-1))[:, :1].expand_as(targets[:, 1:])
        teacher = task.teacher[index]
        if regression:
            differs = (own - teacher[:, 1:]).abs() > 0.5
        else:
            differs = (teacher[:, 1:].argmax(dim=-1) != teacher[:, :1].argmax(dim=-1))[:, :, None]
        assert 0 < differs.sum() < differs.numel()
        targets = torch.cat([targets[:, :1], torch.where(differs, teacher[:, 1:], own)], dim=1)
    losses, _ = sample_losses(task, index, targets)
    # MMEL-S weighs the variants alone (Eq. 9).
    first = 1 if method == "mmel_s" else 0
    weights = losses[:, first:].softmax(dim=1)
    place = int(weights.amax(dim=1).argmax())
    assert [sample["weight"] for sample in shown[first:]] == pytest.approx(weights[place].tolist(), abs=1e-4)
    assert math.isnan(shown[0]["weight"]) == (method == "mmel_s")
    for sample, target, said in zip(shown, targets[place].tolist(), task.teacher[place].tolist(), strict=True):
        assert sample["target"] == pytest.approx(target, abs=1e-4)
        assert sample["teacher"] == pytest.approx(said)
    places = masked(task, place)
    assert [sample["text"] for sample in shown] == [bracketed(task, row, places) for row in samples(task)[place]]
    # All that was masked is marked, also where the masked LM put the same piece back.
    assert {sample["text"].replace("[SEP]", "").count("[") for sample in shown} == {len(places)} != {0}


def test_the_long_baseline_shows_one_sample(build):
    task = build(method="baseline_da_long")
    (shown,) = task.most_uneven()
    assert shown["weight"] == 1
    assert shown["text"] == bracketed(task, samples(task)[0][0], masked(task, 0))
    assert shown["teacher"] == pytest.approx(task.teacher[0, 0].tolist())


def test_the_baseline_shows_a_text_without_masks(build):
    (shown,) = build(method="baseline").most_uneven()
    assert set(shown) == {"text", "target", "weight"}
    assert "[" not in shown["text"]


def test_most_uneven_with_original_labels(build):
    shown = build(label_source="original").most_uneven()
    assert len({sample["target"] for sample in shown}) == 1
    assert shown[0]["target"] in (0, 1)


def test_most_uneven_looks_at_the_hard_loss_with_lambda_p(build):
    # A small coefficient puts all on one sample, a large one the same on each.
    sharp, flat = (build(lambda_p=value).most_uneven() for value in (0.01, 100.0))
    assert max(sample["weight"] for sample in sharp) > 0.8
    assert max(sample["weight"] for sample in flat) < 0.35
