"""Runs that were never trained. Every test can import this: pytest puts the folder of `conftest.py` on the path."""

from mmel.study.records import RunWriter


def record_run(store, config, score=50.0, *, header=(), epoch=(), epochs=((),), **result):
    """Write the record of a run that was never trained, in the form that training gives it.

    Args:
        header: fields of the first line.
        epoch: fields of every evaluation.
        epochs: fields of each evaluation, by default of one.
        result: fields of the last line.
    """
    sizes = config.data.sizes
    _, evaluated, *_ = sizes.values()
    header = {
        "kind": "run",
        "run_id": config.run_id,
        "config": config.to_dict(),
        **({"hidden_dropout": 0.1, "attention_dropout": 0.1} if config.is_text else {}),
        "metric": config.data.metric,
        "sizes": {"train": config.train_size or sizes["train"], "train_available": sizes["train"], "eval": evaluated},
        "num_parameters": 1000,
        "device": {"type": "cpu", "name": "a device", "threads": 1},
        "commit": None,
        "dirty": None,
        "started": "2026-01-01T00:00:00+00:00",
        **dict(header),
    }
    metric = header["metric"]
    line = {"kind": "epoch", "epoch": 1, metric: score, "train_seconds": 0.0, "eval_seconds": 0.0, **dict(epoch)}
    outcome = {"status": "finished", metric: score, f"best_{metric}": score, "train_seconds": 0.0, "wall_seconds": 0.0}
    RunWriter(store, config, [header, *(line | dict(each) for each in epochs)]).finish(outcome | result)


def write_bert(folder, words, **changes):
    """Write a tiny BERT with random weights that knows some words, and its tokenizer."""
    # Not above: the tests of what never loads them share this file.
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    vocabulary = {piece: place for place, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(BertConfig(vocab_size=len(vocabulary), **shape | changes))
    model.save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=128).save_pretrained(folder)
    return folder
