"""Records with invented numbers, for tests alone; nothing here was measured.

`python tests/report/invented.py` writes tests/records anew: the frozen runs, and the tables they make (golden/). Do
that only when a change of the record's form or of a table is meant, and read the difference before committing it.
"""

import shutil
from pathlib import Path

from mmel.config import SCHEMA, RunConfig
from mmel.grids import runs_of
from mmel.records import RunWriter, Store, write_atomically
from mmel.report import tables

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
    ("resnet14", "mmel_s", 5, 1): (348, 120.0, {"micro_batch": 32}),
    ("resnet8", "mmel_h", 2, 0): (341, 20.0),
    ("resnet8", "mmel_h", 2, 1): (344, 20.0),
    ("resnet8", "mmel_h", 10, 0): (351, 100.0),
    ("resnet8", "mmel_s", 20, 0): (0, 5.0, {"error": "one original with its 20 views does not fit"}),
}


def write_run(
    store, config, accuracy_pct=0.0, *, train_seconds=10.0, device=DEVICE, dirty=False, micro_batch=None, error=None
):
    """Record a run as training would have, with two epoch lines whatever it says; with `error` it failed."""
    header = {
        "kind": "run",
        "schema": SCHEMA,
        "run_id": config.run_id,
        "config": config.to_dict(),
        "lambda_t": config.lambda_t,
        "sizes": {"train": config.train_size or 1437, "train_available": 1437, "eval": NUM_EVAL, "eval_split": "test"},
        "num_parameters": 1000,
        "device": {"type": "cuda", "name": device},
        "versions": {"python": "3.11.0"},
        "commit": "0" * 40,
        "dirty": dirty,
        "started": "2026-01-01T00:00:00+00:00",
    }
    writer = RunWriter(store, config, [header])
    for epoch, (loss, accuracy) in enumerate(((1.5, accuracy_pct - 5), (0.5, accuracy_pct)), start=1):
        writer.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "train_loss": loss,
                "accuracy_pct": accuracy,
                "learning_rate": config.lr,
                "train_seconds": train_seconds / 2,
                "eval_seconds": 0.1,
                "images_per_second": 1000.0,
                "weight_entropy": 0.0,
                "weight_max": 1.0,
            }
        )
    costs = {
        "train_seconds": train_seconds,
        "wall_seconds": train_seconds + 1,
        "peak_memory_bytes": 2**20,
        "micro_batch": micro_batch,
    }
    if error:
        writer.finish({"status": "failed", "error": error, **costs})
    else:
        outcome = {"accuracy_pct": accuracy_pct, "best_accuracy_pct": accuracy_pct, "best_epoch": 2}
        writer.finish({"status": "finished", **outcome, **costs})


def mini_run(model, method, k, seed) -> RunConfig:
    """The run of the mini grids with these fields."""
    wanted = (model, method, k, seed)
    runs = runs_of(["table1", "table2"], "mini")
    return next(run for run in runs if (run.model, run.method, run.num_augmented, run.seed) == wanted)


def golden_frames(store) -> dict[str, str]:
    """File name -> CSV of every table that the frozen runs make."""
    frames = {"claim_tests.csv": tables.claim_tests(store, "mini")}
    for name in ("table1", "table2"):
        table = tables.build(name, store, "mini")
        frames |= {
            f"{name}_levels.csv": table.levels,
            f"{name}_contrasts.csv": table.contrasts,
            f"{name}_time.csv": tables.training_time(store, name, "mini"),
        }
    return {name: frame.to_csv(index=False) for name, frame in frames.items()}


def main():
    for folder in ("runs", "golden"):
        shutil.rmtree(FROZEN / folder, ignore_errors=True)
    store = Store(FROZEN)
    for cell, (right, seconds, *rest) in RUNS.items():
        write_run(store, mini_run(*cell), 100 * right / NUM_EVAL, train_seconds=seconds, **(rest[0] if rest else {}))
    for name, text in golden_frames(store).items():
        write_atomically(GOLDEN / name, text)


if __name__ == "__main__":
    main()
