"""Records with invented numbers, for tests alone; nothing here was measured.

`python tests/report/invented.py` writes tests/records anew: the frozen runs, and the tables they make (golden/). Do
that only when a change of the record's form or of a table is meant, and read the difference before committing it.
"""

import shutil
from pathlib import Path

from mmel.config import CHOSEN_DROPOUT, SCHEMA, RunConfig
from mmel.data.glue_tasks import OFFICIAL_SIZES, TASKS
from mmel.grids import TABLES, runs_of, teacher_of
from mmel.records import RunWriter, Store, write_atomically
from mmel.report import frames, tables
from mmel.report.hyperparameters import table7

FROZEN = Path(__file__).resolve().parents[1] / "records"
GOLDEN = FROZEN / "golden"
DEVICE = "test device"
# As of the embedded digits, so that an accuracy is a whole number of test images.
NUM_EVAL = 360

# (model, method, K, seed) -> test images right, seconds of training; and what became of the run where it is not whole.
RUNS = {
    ("resnet8", "baseline_da", 1, 0): (340, 9.5),
    ("resnet8", "baseline_da", 1, 1): (342, 10.5),
    ("resnet8", "baseline_da_long", 5, 0): (345, 50.0),
    ("resnet8", "baseline_da_long", 5, 1): (344, 50.0),
    ("resnet8", "baseline_da_uni", 5, 0): (343, 50.0),
    ("resnet8", "baseline_da_uni", 5, 1): (347, 52.0),
    ("resnet8", "mmel_h", 5, 0): (349, 50.0),
    ("resnet8", "mmel_h", 5, 1): (350, 50.0),
    ("resnet8", "mmel_s", 5, 0): (346, 50.0),
    ("resnet8", "mmel_s", 5, 1): (0, 3.0, {"error": "loss is nan at step 9 (epoch 2); config: {}"}),
    ("resnet14", "baseline_da", 1, 0): (343, 20.0),
    ("resnet14", "baseline_da", 1, 1): (345, 20.0),
    ("resnet14", "baseline_da_uni", 5, 0): (351, 100.0),
    ("resnet14", "baseline_da_uni", 5, 1): (352, 100.0),
    ("resnet14", "mmel_h", 5, 0): (346, 100.0),
    ("resnet14", "mmel_h", 5, 1): (347, 100.0),
    ("resnet14", "mmel_s", 5, 0): (350, 100.0),
    ("resnet8", "mmel_h", 2, 0): (341, 20.0),
    ("resnet8", "mmel_h", 2, 1): (344, 20.0),
    ("resnet8", "mmel_h", 10, 0): (351, 100.0),
    ("resnet8", "mmel_s", 20, 0): (0, 5.0, {"error": "one original with its 20 views does not fit"}),
}


# Table 5: method -> test images right, seconds of training; MMEL-S has no run.
IMAGENET_RUNS = {
    "baseline_da": (200, 8.0),
    "mmel_h": (207, 24.0),
}

# Scores of the nine columns of Table 3 (CoLA ... RTE, MNLI's two beside each other), dev and test, and the seconds that
# each task trained; None where there is no run. Whole percents of 300 examples, or correlations.
TEXT_RUNS = {
    "baseline": ((40, 80, 70, 60, 72, 65, 64, 75, 62), (38, 81, 82, 58, 77, 66, 62, 74, 60), 10.0),
    "baseline_da_long": ((44, *(None,) * 8), (41, *(None,) * 8), 60.0),
    "baseline_da_uni": ((43, 81, 71, 61, 74, 66, 64, 76, None), (40, 81, 83, 60, 78, 66, 63, 75, None), 45.0),
    "mmel_h": ((46, 82, 72, 64, 75, 68, 67, 77, 65), (44, 83, 84, 61, 79, 68, 66, 76, 63), 46.0),
    "mmel_s": ((45, *(None,) * 4, 67, 67, None, None), (42, *(None,) * 4, 66, 65, None, None), 47.0),
}
# Tables 4 and 6: (task, method, fields that differ from Table 3's run) -> dev score.
VARIED_RUNS = [
    ("cola", "mmel_h", {"label_source": "original"}, 33.0),
    ("cola", "mmel_s", {"label_source": "original"}, 38.0),
    ("rte", "mmel_h", {"label_source": "original"}, 58.0),
    ("cola", "mmel_h", {"mask_ratio": 0.2}, 45.0),
    ("cola", "mmel_h", {"fill": "beam"}, 47.0),
    ("cola", "mmel_h", {"fill": "beam", "mask_ratio": 0.2}, 43.0),
    ("cola", "mmel_s", {"mask_ratio": 0.2}, 44.0),
    ("rte", "mmel_h", {"pair_mode": "joint"}, 64.0),
    ("rte", "mmel_h", {"fill": "beam"}, 65.0),
]
FAILED_TEXT = ("stsb", "mmel_s")
COLUMN_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli_mm", "qnli", "rte")
ENCODER_PARAMETERS = {"tiny-bert": 700_000, "minilm-l6-mlm": 22_700_000, "bert-base-uncased": 109_500_000}


def write_run(
    store,
    config,
    score=0.0,
    *,
    mm=None,
    test=None,
    test_mm=None,
    history=None,
    train_seconds=10.0,
    device=DEVICE,
    threads=None,
    processes=None,
    resumed_from=None,
    dirty=False,
    sampled=(),
    teacher_weights=None,
    error=None,
):
    """Record a run as training would have; with `error` it failed.

    Args:
        score: after the last evaluation, in percent.
        mm: of MNLI's mismatched dev set, one for all evaluations or one for each.
        test: of the test set, of a text.
        test_mm: of MNLI's mismatched test set.
        history: the score at every evaluation, by default two whatever the configuration says.
        threads: of a CPU; by default the device is a GPU.
        processes: how many trained it together; records of one process need not say.
        resumed_from: the device that it began on.
        sampled: splits that are not GLUE's own.
        teacher_weights: digest of the teacher's weights; old records lack it.
    """
    header = {
        "kind": "run",
        "schema": SCHEMA,
        "run_id": config.run_id,
        "config": config.to_dict(),
        "lambda_t": config.lambda_t,
        **(_text_header(config, sampled) if config.is_text else _image_header(config)),
        **({} if teacher_weights is None else {"teacher_weights": teacher_weights}),
        "device": {"type": "cuda", "name": device} if threads is None else _cpu(device, threads),
        **({} if processes is None else {"processes": processes}),
        **({} if resumed_from is None else {"resumed_from": [{"device": {"type": "cuda", "name": resumed_from}}]}),
        "versions": {"python": "3.11.0"},
        "commit": "0" * 40,
        "dirty": dirty,
        "started": "2026-01-01T00:00:00+00:00",
    }
    metric = header.get("metric", "accuracy_pct")
    writer = RunWriter(store, config, [header])
    history = [float(value) for value in ([score - 5, score] if history is None else history)]
    mismatched = mm if isinstance(mm, list) else [mm] * len(history)
    for number, (value, other) in enumerate(zip(history, mismatched, strict=True), start=1):
        writer.append(
            {
                "kind": "epoch",
                "epoch": number if config.evals_per_epoch == 1 else number / config.evals_per_epoch,
                "train_loss": 2.5 - number,
                metric: value,
                **({} if other is None else {"accuracy_mm_pct": other}),
                "learning_rate": config.lr,
                "train_seconds": train_seconds / len(history),
                "eval_seconds": 0.1,
                "sequences_per_second" if config.is_text else "images_per_second": 1000.0,
                "weight_entropy": 0.0,
                "weight_max": 1.0,
            }
        )
    costs = {
        "train_seconds": train_seconds,
        "wall_seconds": train_seconds + 1,
        "peak_memory_bytes": 2**20,
        "micro_batch": None,
    }
    if error:
        writer.finish({"status": "failed", "error": error, **costs})
        return
    outcome = {metric: history[-1], f"best_{metric}": max(history), "best_epoch": 1 + history.index(max(history))}
    if mm is not None:
        outcome["accuracy_mm_pct"] = mismatched[-1]
    if test is not None:
        outcome[f"test_{TASKS[config.dataset.removeprefix('grammar_')].test_metric}"] = test
    if test_mm is not None:
        outcome["test_accuracy_mm_pct"] = test_mm
    writer.finish({"status": "finished", **outcome, **costs})


def _cpu(name, threads):
    return {"type": "cpu", "name": name, "threads": threads}


def _image_header(config):
    # Images that are decoded step by step have a validation set, and may be a sample.
    encoded = {"eval_split": "val", "sampled": ["train", "val"]} if config.is_encoded else {"eval_split": "test"}
    return {
        "sizes": {"train": config.train_size or 1437, "train_available": 1437, "eval": NUM_EVAL, **encoded},
        "num_parameters": 1000,
    }


def _text_header(config, sampled):
    task = config.dataset.removeprefix("grammar_")
    sizes = {"train": 400, "dev": 300} if config.dataset != task else OFFICIAL_SIZES[task]
    teacher = teacher_of(config)
    taught = {} if teacher is None else {"teacher": teacher.run_id, "teacher_disagreement_pct": 12.5}
    return {
        **{
            name: 0.1 if getattr(config, name) == CHOSEN_DROPOUT else getattr(config, name)
            for name in ("hidden_dropout", "attention_dropout")
        },
        "metric": TASKS[task].metric,
        "sizes": {
            "train": config.train_size or sizes["train"],
            "train_available": sizes["train"],
            "eval": sizes["dev"],
            "eval_split": "dev",
            "sampled": list(sampled),
        },
        "text_model": {"name": config.model, "embeddings": "0" * 64},
        **taught,
        "num_parameters": ENCODER_PARAMETERS[config.model],
    }


def mini_run(model, method, k, seed) -> RunConfig:
    """The run of the mini grids with these fields."""
    wanted = (model, method, k, seed)
    runs = runs_of(["table1", "table2"], "mini")
    return next(run for run in runs if (run.model, run.method, run.num_augmented, run.seed) == wanted)


def imagenet_run(method) -> RunConfig:
    """The run of the mini grid of Table 5 with this method."""
    return next(run for run in runs_of(["table5"], "mini") if run.method == method)


def text_run(task, method, **fields) -> RunConfig:
    """The run of the mini text grids on a miniature with these fields; others are as in Table 3."""
    usual = {"label_source": "predicted", "fill": "greedy", "pair_mode": "separate", "mask_ratio": 0.4}
    wanted = {"dataset": f"grammar_{task}", "method": method, **usual, **fields}
    runs = runs_of(["table3", "table4", "table6"], "mini")
    return next(run for run in runs if all(getattr(run, name) == value for name, value in wanted.items()))


def golden_frames(store) -> dict[str, str]:
    """File name -> CSV of every table that the frozen runs make."""
    found = {"table7.csv": table7("mini")}
    for name in TABLES:
        table = frames.load(name, store, "mini")
        if name == "figure2":
            found["figure2_levels.csv"] = tables.curves(table)
            continue
        found[f"{name}_levels.csv"], _ = tables.levels(table)
        found[f"{name}_contrasts.csv"] = tables.contrasts(table)
        found[f"{name}_time.csv"] = tables.times(table)
        if name not in ("table5", "table6"):
            found[f"{name}_claim_tests.csv"] = tables.claim_tests(table)
    return {name: frame.to_csv(index=False) for name, frame in found.items()}


def write_text_runs(store):
    """Record TEXT_RUNS, VARIED_RUNS and FAILED_TEXT."""
    for method, (dev, test, seconds) in TEXT_RUNS.items():
        dev, test = dict(zip(COLUMN_TASKS, dev, strict=True)), dict(zip(COLUMN_TASKS, test, strict=True))
        for task in TASKS:
            if dev[task] is not None:
                mismatched = {"mm": dev["mnli_mm"], "test_mm": test["mnli_mm"]} if task == "mnli" else {}
                scores = {"test": test[task], **mismatched}
                write_run(store, text_run(task, method), dev[task], **scores, train_seconds=seconds)
    for task, method, fields, score in VARIED_RUNS:
        write_run(store, text_run(task, method, **fields), score, test=score - 1, train_seconds=46.0)
    write_run(store, text_run(*FAILED_TEXT), train_seconds=3.0, error="loss is nan at step 9 (epoch 1); config: {}")


def main():
    for folder in ("runs", "golden"):
        shutil.rmtree(FROZEN / folder, ignore_errors=True)
    store = Store(FROZEN)
    for cell, (right, seconds, *rest) in RUNS.items():
        write_run(store, mini_run(*cell), 100 * right / NUM_EVAL, train_seconds=seconds, **(rest[0] if rest else {}))
    for method, (right, seconds) in IMAGENET_RUNS.items():
        write_run(store, imagenet_run(method), 100 * right / NUM_EVAL, train_seconds=seconds)
    write_text_runs(store)
    for name, text in golden_frames(store).items():
        write_atomically(GOLDEN / name, text)


if __name__ == "__main__":
    main()
