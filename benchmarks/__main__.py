"""`python -m benchmarks [QUESTION ...]`: measure the questions of the CPU, or those named; a Markdown table of each."""

import os
import sys
import traceback
from importlib import import_module

QUESTIONS = (
    "image_training",
    "bf16_noise",
    "step_shares",
    "allocator",
    "imports",
    "study_overhead",
    "sweep_overhead",
    "text_augmentation",
    "text_training",
    "cost_of_augmentation",
)
# Asked by name alone, since it wants a GPU.
GPU_QUESTIONS = ("gpu",)


def main(names: list[str]) -> int:
    known = (*QUESTIONS, *GPU_QUESTIONS)
    if unknown := sorted(set(names) - set(known)):
        print(f"no question {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    # The processes that train inherit it: their progress bars would stand between the tables.
    os.environ["TQDM_DISABLE"] = "1"
    from benchmarks.common import describe, machine_line

    failed = []
    for name in names or QUESTIONS:
        # What was measured is never lost: each part is printed once it is known, and the other questions are asked too.
        try:
            module = import_module(f"benchmarks.{name}")
            print(f"## {name}\n\n{module.__doc__.strip()}\n\n{machine_line()}\n", flush=True)
            answer = module.measure()
            for part in [answer] if isinstance(answer, str) else answer:
                print(part, flush=True)
        except Exception as error:
            traceback.print_exc()
            print(f"\nfailed: {describe(error)}", flush=True)
            failed.append(name)
        print(flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
