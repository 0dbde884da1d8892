import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from mmel.study.records import Store
from mmel.study.sweep import NotebookError, Outcome
from mmel.study.sweep.local import LocalExecutor
from mmel.study.sweep.notebook import WarmKernel
from mmel.study.tables import TABLES

ROOT = Path(__file__).resolve().parents[3]


def write_notebook(folder, name, *cells):
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    for number, source in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]} if number == 0 else {})
        notebook.cells.append(cell)
    path = folder / name
    nbformat.write(notebook, path)
    return path


def printed(path):
    cells = json.loads(path.read_text())["cells"]
    return "".join("".join(o.get("text", [])) for c in cells for o in c.get("outputs", [])).split()


@pytest.fixture
def kernel(store):
    with WarmKernel(store, threads=1) as kernel:
        yield kernel


def test_notebooks_share_a_process_but_no_names_and_one_that_fails_has_no_output(kernel, store, tmp_path):
    first = write_notebook(tmp_path, "a.ipynb", "x = 1", "import os; left_over = x; print(os.getpid(), x)")
    failing = write_notebook(tmp_path, "f.ipynb", "x = 1", "raise ValueError('lambda_p must be positive')")
    second = write_notebook(tmp_path, "b.ipynb", "x = 1", "print(os.getpid() if 'os' in dir() else 'clean', x)")
    third = write_notebook(tmp_path, "c.ipynb", "x = 1", "import os; print(os.getpid(), os.environ['MMEL_RESULTS'])")
    kernel.execute(first, tmp_path / "out" / "a.ipynb", {"x": 5})
    with pytest.raises(NotebookError, match="ValueError: lambda_p must be positive"):
        kernel.execute(failing, tmp_path / "out" / "f.ipynb", {})
    for notebook, value in ((second, 6), (third, 7)):
        kernel.execute(notebook, tmp_path / "out" / notebook.name, {"x": value})
    outputs = [printed(tmp_path / "out" / f"{name}.ipynb") for name in "abc"]
    assert outputs[0][1] == "5"
    assert outputs[1] == ["clean", "6"]
    assert outputs[2] == [outputs[0][0], str(store.root)]
    assert not (tmp_path / "out" / "f.ipynb").exists()


def test_a_parameter_that_no_run_has_is_refused_before_anything_is_trained(kernel, store, tmp_path):
    with pytest.raises(NotebookError, match="lambda_q"):
        kernel.execute(ROOT / "notebooks" / "run_table1.ipynb", tmp_path / "out.ipynb", {"lambda_q": 2})
    assert not list(store.root.rglob("*.jsonl*"))


def test_a_notebook_that_is_missing_is_named(kernel, tmp_path):
    with pytest.raises(NotebookError, match="no notebook at"):
        kernel.execute(tmp_path / "absent.ipynb", tmp_path / "out.ipynb", {})


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "its process killed"])
def test_nothing_of_a_kernel_outlives_it(tmp_path, killed):
    child = "[sys.executable, '-c', 'input()'], stdin=subprocess.PIPE"
    write_notebook(tmp_path, "n.ipynb", "x = 1", f"import subprocess, sys; child = subprocess.Popen({child})")
    script = """
from pathlib import Path
from mmel.study.records import Store
from mmel.study.sweep.notebook import WarmKernel
with WarmKernel(Store(".")) as kernel:
    kernel.execute(Path("n.ipynb"), Path("out.ipynb"), {})
    print("executed", flush=True)
    input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == "executed"
    if killed:
        process.kill()
    # Ends once every process has closed the pipe: the sweep's, the kernel's, and the one that the notebook started.
    process.communicate("\n" if not killed else None, timeout=60)


@pytest.fixture(scope="module")
def executor(small_bert, tmp_path_factory):
    """One kernel for the notebooks of all tables, and its store."""
    store = Store(tmp_path_factory.mktemp("results"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMEL_TEXT_MODEL", str(small_bert))
        patch.setenv("MMEL_DEVICE", "cpu")
        with LocalExecutor(store) as executor:
            yield executor, store


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_a_run_through_its_notebook_writes_the_record_and_the_executed_notebook(table, executor, small_bert):
    executor, store = executor
    run = next(run for run in TABLES[table].runs("mini") if run.method in ("mmel_h", "mmel_s"))
    # Shorter, of a smaller encoder, and with a seed of its own: tables share runs.
    changes = {"model": small_bert.name} if run.is_text else {"decay_epochs": ()}
    run = run.replace(epochs=1, train_size=64, seed=[*TABLES].index(table), **changes)
    ended = executor.submit(run, table).result()
    assert ended.outcome is Outcome.TRAINED, ended
    assert store.read(run).config == run
    outputs = [o for c in nbformat.read(store.notebook_path(run), as_version=4).cells for o in c.get("outputs", [])]
    # An image's or a text's views and weights before training, the training curve, the views after it.
    kinds = ["text/html" if run.is_text else "image/svg+xml", "image/svg+xml"]
    shown = [next((kind for kind in kinds if kind in output.get("data", {})), None) for output in outputs]
    assert [kind for kind in shown if kind] == [kinds[0], kinds[1], kinds[0]]
