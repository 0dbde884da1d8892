import contextlib
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from mmel.study.sweep import NotebookError, Outcome
from mmel.study.sweep.local import local_executor
from mmel.study.sweep.notebook import WarmKernel, check_parameters
from mmel.study.sweep.plan import PlannedRun
from mmel.study.tables import TABLES


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


@pytest.fixture(scope="module")
def kernel():
    kernel = WarmKernel({"MMEL_TEST": "seen"})
    yield kernel
    kernel.close()


def test_notebooks_share_a_process_but_no_names(kernel, tmp_path):
    first = write_notebook(tmp_path, "a.ipynb", "x = 1", "import os; left_over = x; print(os.getpid(), x)")
    second = write_notebook(tmp_path, "b.ipynb", "x = 1", "print(os.getpid() if 'os' in dir() else 'clean', x)")
    third = write_notebook(tmp_path, "c.ipynb", "x = 1", "import os; print(os.getpid(), os.environ['MMEL_TEST'])")
    for notebook, value in ((first, 5), (second, 6), (third, 7)):
        kernel.execute(notebook, tmp_path / "out" / notebook.name, {"x": value})
    outputs = [printed(tmp_path / "out" / f"{name}.ipynb") for name in "abc"]
    assert outputs[0][1] == "5"
    assert outputs[1] == ["clean", "6"]
    assert outputs[2] == [outputs[0][0], "seen"]


def test_unknown_parameters_are_refused_before_anything_runs(kernel, tmp_path):
    marker = tmp_path / "ran"
    notebook = write_notebook(tmp_path, "n.ipynb", "x = 1", f"open({str(marker)!r}, 'w')")
    with pytest.raises(NotebookError, match="has no parameter lambda_q; it has x"):
        kernel.execute(notebook, tmp_path / "out.ipynb", {"x": 1, "lambda_q": 2})
    assert not marker.exists()
    with pytest.raises(NotebookError, match="no notebook at"):
        check_parameters(tmp_path / "absent.ipynb", {})


def test_a_failing_cell_is_reported_and_leaves_no_output_under_the_final_name(kernel, tmp_path):
    notebook = write_notebook(tmp_path, "n.ipynb", "x = 1", "raise ValueError('lambda_p must be positive')")
    with pytest.raises(NotebookError, match="ValueError: lambda_p must be positive"):
        kernel.execute(notebook, tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()
    # The kernel is still good for the next one.
    good = write_notebook(tmp_path, "good.ipynb", "x = 1", "print('fine')")
    kernel.execute(good, tmp_path / "good_out.ipynb", {})
    assert printed(tmp_path / "good_out.ipynb") == ["fine"]


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "its process killed"])
def test_nothing_of_a_kernel_outlives_it(tmp_path, killed):
    write_notebook(
        tmp_path,
        "n.ipynb",
        "x = 1",
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE).pid)",
    )
    script = """
from pathlib import Path
from mmel.study.sweep.notebook import WarmKernel
kernel = WarmKernel({})
kernel.execute(Path("n.ipynb"), Path("out.ipynb"), {})
print("executed", flush=True)
input()
kernel.close()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == "executed"
    (folder,) = Path("/tmp").glob(f"mmel-{process.pid}-*")
    if killed:
        process.kill()
    # Ends once every process has closed the pipe: the sweep's, the kernel's, and the one that the notebook started.
    process.communicate("\n" if not killed else None, timeout=60)
    if killed:
        with contextlib.closing(WarmKernel({})) as next_one:
            next_one.execute(tmp_path / "n.ipynb", tmp_path / "out.ipynb", {})
    assert not folder.exists()


def test_a_run_through_its_notebook_writes_the_record_and_the_executed_notebook(store):
    config = next(run for run in TABLES["table1"].runs("mini") if run.method == "mmel_h").replace(
        epochs=1, decay_epochs=()
    )
    with local_executor(store) as executor:
        ended = executor.submit(PlannedRun(config, "table1", "missing", None)).result()
    assert ended.outcome is Outcome.TRAINED, ended
    assert store.read(config).config == config
    executed = nbformat.read(store.notebook_path(config), as_version=4)
    pictures = [o for c in executed.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    # An image's views and weights before training, the training curve, the views after it.
    assert len(pictures) == 3
