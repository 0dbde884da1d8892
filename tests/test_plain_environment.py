"""Training with torch and little else, as on a borrowed GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pretend import write_bert

from mmel.study.records import Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
# What the notebooks, tables and tests need beside torch, torchvision, transformers and what these bring along. The
# embedded digits and GLUE's scores are scikit-learn's.
DIGITS = ("sklearn", "scipy")
ABSENT = (
    *("datasets", "pandas", "pyarrow", *DIGITS, "matplotlib", "tabulate"),
    *("papermill", "jupyter_client", "jupyter_core", "nbclient", "nbformat", "IPython", "ipykernel"),
    *("ray", "accelerate"),
)
SWEEP = ("--table", "table1", "--only", "model=resnet8", "--only", "seed=0", "--only", "method=baseline_da")


@pytest.fixture
def plain(tmp_path):
    """A function that runs `python -m mmel.study` without the packages of `ABSENT`, in new processes too."""
    # Python imports it in every process that it starts. None in sys.modules makes the import raise ModuleNotFoundError.
    site = tmp_path / "site"
    site.mkdir()
    results = tmp_path / "results"
    results.mkdir()

    def run(*arguments, there=()):
        absent = sorted(set(ABSENT) - set(there))
        (site / "sitecustomize.py").write_text(f"import sys\nfor name in {absent!r}:\n    sys.modules[name] = None\n")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            "MMEL_RESULTS": str(results),
        }
        command = [sys.executable, "-m", "mmel.study", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False), results

    return run


def write_cola(root):
    """Two dozen sentences in the layout of GLUE's files, and a BERT with random weights that knows their words."""
    words = ("the", "a", "man", "dog", "old", "young", "sees", "hears")
    lines = [
        f"id\t{number % 2}\t\tthe {words[2 + number % 2]} {words[6 + number % 2]} {words[number % 8]} man"
        for number in range(24)
    ]
    folder = root / "glue" / "CoLA"
    folder.mkdir(parents=True)
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return write_bert(root / "small-bert", words, max_position_embeddings=128)


def test_a_run_on_text_trains(plain, tmp_path):
    model = write_cola(tmp_path / "data")
    done, results = plain(
        *("run", "--no-notebook", "--dataset", "cola", "--text-model", str(model), "--batch-size", "8"),
        *("--epochs", "1", "--num-augmented", "2", "--data-root", str(tmp_path / "data"), "--device", "cpu"),
        # scikit-learn looks for pandas in sys.modules, where None is no absence.
        there=(*DIGITS, "pandas", "pyarrow"),
    )
    assert done.returncode == 0, done.stderr
    # The run, and the teacher that it trained first.
    records = list(Store(results).records("mini"))
    assert {record.config.method for record in records} == {"baseline", "mmel_h"}
    assert all(record.finished and record.metric == "matthews_pct" for record in records)


def test_a_sweep_without_notebooks_trains(plain):
    done, results = plain("sweep", "--no-notebook", *SWEEP, there=DIGITS)
    assert done.returncode == 0, done.stderr
    assert [record.finished for record in Store(results).records("mini")] == [True]


def test_a_sweep_with_notebooks_names_what_is_missing(plain):
    done, results = plain("sweep", *SWEEP)
    assert done.returncode == 2
    assert "is missing: pip install '.[study]' in the checkout" in done.stderr
    assert list(Store(results).records("mini")) == []
