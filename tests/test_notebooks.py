import ast
import re
from pathlib import Path

import nbformat
import pytest
from pretend import record_run

from mmel.study.config import ImageRun, TextRun
from mmel.study.records import Store
from mmel.study.tables import GRIDS

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
RUN = [name for name in NOTEBOOKS if name.startswith("run_")]
PLOT = [name for name in NOTEBOOKS if name.startswith("plot_")]
# They show views and weights to readers on the web; no test compares what training prints.
EXECUTED = ("run_table1", "run_table3")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|work|tmp|Users|mnt|opt)/|\b[A-Z]:\\")


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(name):
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def parameters(name):
    """The parameters cell as names and values, in order; it may hold nothing but plain assignments."""
    (cell,) = (cell for cell in code_cells(name) if "parameters" in cell.metadata.get("tags", []))
    values = {}
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    return values


def run_of(name):
    """The run that the parameters of a run notebook spell out."""
    kind = TextRun if GRIDS[name.removeprefix("run_")].kind == "text" else ImageRun
    assert tuple(parameters(name)) == kind.field_names()
    return kind(**parameters(name))


def texts(node):
    """Every string of a notebook but the bytes of its pictures, which may spell anything."""
    if isinstance(node, dict):
        node = [value for key, value in node.items() if key not in ("image/png", "image/jpeg")]
    if isinstance(node, list):
        return [text for part in node for text in texts(part)]
    return [node] if isinstance(node, str) else []


def test_every_table_has_its_two_notebooks():
    assert set(RUN) == {f"run_{table}" for table in GRIDS}
    assert set(PLOT) == {"plot_claims", *(f"plot_{table}" for table in GRIDS)}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_valid_for_any_python3_kernel_and_without_a_path_of_a_machine(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(MACHINE_PATH.search(f"see /{folder}/a") for folder in ("home", "root", "Users"))
    assert [text for text in texts(notebook) if MACHINE_PATH.search(text)] == []


# Notebooks that train: ready to run as they are.


@pytest.mark.parametrize("name", RUN)
def test_run_notebooks_are_committed_without_outputs_but_for_two(name):
    has = {bool(cell.outputs) for cell in code_cells(name)[1:]}
    assert has == {name in EXECUTED}


@pytest.mark.parametrize("name", RUN)
def test_run_parameters_are_the_cheapest_mmel_run_of_the_mini_grid(name):
    # A reader who executes one as it is waits for its training. Side by side, so each has its own run.
    assert [other for other in RUN if run_of(other) == run_of(name)] == [name]
    method = run_of(name).method
    assert method in ("mmel_h", "mmel_s")
    runs = [run for run in GRIDS[name.removeprefix("run_")].runs("mini") if run.method == method]
    assert run_of(name) in runs
    assert run_of(name).num_views * run_of(name).epochs == min(run.num_views * run.epochs for run in runs)


@pytest.mark.parametrize("name", RUN)
def test_run_notebooks_refuse_parameters_that_they_do_not_know(name):
    pytest.importorskip("torch")
    cells = [cell.source for cell in code_cells(name)]
    names = {}
    # papermill adds its cell after that of the parameters.
    exec("\n".join([cells[0], "lamda_p = 3"]), names)
    with pytest.raises(ValueError, match="lamda_p"):
        exec(cells[1], names)


@pytest.mark.parametrize("name", RUN)
def test_run_notebooks_read_a_recorded_run_whose_weights_are_not_here(name, tmp_path, monkeypatch):
    # As in a clone, or where a sweep has deleted them. In an empty folder they train, see test_notebook.py.
    pytest.importorskip("torch")
    monkeypatch.setenv("MMEL_RESULTS", str(tmp_path))
    config = run_of(name)
    epoch = {"train_loss": 1.0, "accuracy_pct": 50.0, "matthews_pct": 1.0, "weight_max": 1.0}
    record_run(Store(tmp_path), config, epoch=epoch)
    names, shown = {}, []
    for cell in code_cells(name):
        *statements, last = ast.parse(cell.source).body
        exec(compile(ast.Module(statements, []), name, "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), name, "eval"), names))
        else:
            exec(compile(ast.Module([last], []), name, "exec"), names)
    assert (store := names["store"]).root == tmp_path
    assert len(store.read(config).epochs) == 1
    # Each method is told how its weights are to be read, a text run also which labels it trains on.
    legend = next(one.data for one in shown if "unequal weights" in getattr(one, "data", ""))
    assert ("pulls the other views" in legend) == (config.method == "mmel_s")
    assert ("teacher" in legend) == (config.is_text and config.label_source == "predicted")
    said = [one.data for one in shown if getattr(one, "data", "").startswith("No weights")]
    assert len(said) == 2
    assert all(config.run_id in text for text in said)


# Notebooks that show: committed with what they show.


@pytest.mark.parametrize("name", PLOT)
def test_plot_notebooks_show_a_profile_of_real_data_without_errors(name):
    assert set(parameters(name)) == {"profile"}
    assert parameters(name)["profile"] in ("reduced", "paper")
    # Every cell that ends in an expression shows its value.
    ends = [(ast.parse(cell.source).body[-1], cell.outputs) for cell in code_cells(name)]
    assert all(outputs for last, outputs in ends if isinstance(last, ast.Expr))
    outputs = [output for cell in code_cells(name) for output in cell.outputs]
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    # A warning goes to stderr and would stand in the report.
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
