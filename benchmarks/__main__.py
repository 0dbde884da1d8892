"""`python -m benchmarks [QUESTION ...]`: measure the questions of the CPU, or those named; a Markdown table of each."""

import os
import sys
from importlib import import_module

# A question is a function of that name in one of the modules. Its docstring stands above its table.
QUESTIONS = {
    "image_training": "images",
    "settings": "images",
    "bf16_noise": "checks",
    "step_shares": "images",
    "making_views": "images",
    "imports": "overhead",
    "study_overhead": "overhead",
    "sweep_overhead": "overhead",
    "text_augmentation": "texts",
    "text_training": "texts",
    "cost_of_augmentation": "cost",
}
# Asked by name alone, since it wants a GPU.
GPU_QUESTIONS = {"gpu": "gpu"}


def main(names: list[str]) -> int:
    """Ask some questions, or all of the CPU; the exit status is 1 if one failed, and 2 if one is unknown."""
    known = QUESTIONS | GPU_QUESTIONS
    if unknown := sorted(set(names) - set(known)):
        print(f"no question {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    # The processes that train inherit it: their progress bars would stand between the tables.
    os.environ["TQDM_DISABLE"] = "1"
    from benchmarks.common import machine_line, or_failure

    failed = []
    for name in names or QUESTIONS:
        ask = getattr(import_module(f"benchmarks.{known[name]}"), name)
        print(f"## {name}\n\n{ask.__doc__.strip()}\n\n{machine_line()}\n", flush=True)
        # Each part is printed once it is measured, and the other questions are asked if this one fails.
        for part in or_failure(ask, lambda why, name=name: failed.append(name) or why):
            print(part, flush=True)
        print(flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
