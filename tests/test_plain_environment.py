"""Training where there is torch and little else, as on a borrowed GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmel.records import Store

ROOT = Path(__file__).resolve().parents[1]
ABSENT = (
    "datasets",
    "papermill",
    "jupyter_client",
    "nbclient",
    "nbformat",
    "IPython",
    "ipykernel",
    "ray",
    "accelerate",
)
TINY = ("--profile", "mini", "--dataset", "digits", "--model", "resnet8", "--augment", "crop", "--train-size", "64")
SWEEP = ("--table", "table1", "--only", "model=resnet8", "--only", "seed=0", "--only", "method=baseline_da")


@pytest.fixture
def plain(tmp_path):
    """A function that runs `python -m mmel` where the packages of `ABSENT` cannot be imported, in new processes too."""
    # Python imports it in every process that it starts. None in sys.modules makes the import raise ModuleNotFoundError.
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"import sys\nfor name in {ABSENT!r}:\n    sys.modules[name] = None\n")
    results = tmp_path / "results"
    results.mkdir()

    def run(*arguments):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            "MMEL_RESULTS": str(results),
        }
        command = [sys.executable, "-m", "mmel", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False), results

    return run


def test_a_run_trains(plain):
    done, results = plain(
        "run", *TINY, "--batch-size", "32", "--epochs", "1", "--decay-epochs", "", "--num-augmented", "2"
    )
    assert done.returncode == 0, done.stderr
    assert len(list(Store(results).records("mini"))) == 1


@pytest.mark.parametrize("options", [(), ("--pack", "2", "--only", "lambda_p=1.0")], ids=["serial", "side by side"])
def test_a_sweep_without_notebooks_trains(plain, options):
    done, results = plain("sweep", "--no-notebook", *SWEEP, *options)
    assert done.returncode == 0, done.stderr
    assert [record.finished for record in Store(results).records("mini")] == [True]


def test_a_sweep_with_notebooks_names_what_is_missing(plain):
    done, results = plain("sweep", *SWEEP)
    assert done.returncode == 2
    assert "is missing: pip install 'mmel[study]'" in done.stderr
    assert list(Store(results).records("mini")) == []
