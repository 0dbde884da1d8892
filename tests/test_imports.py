import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mmel

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mmel"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def imports_of(tree):
    """Dotted names of all that is imported, inside functions and under TYPE_CHECKING too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not read here"
            # `from mmel import grids` may import a module or a name.
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(*rooms):
    """What the modules of some rooms import: `records`, `report` or `data.vision`."""
    found = set()
    for room in rooms:
        path = PACKAGE / room.replace(".", "/")
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        assert files, room
        for file in files:
            found |= imports_of(ast.parse(file.read_text(encoding="utf-8")))
    return found


def of(names, *packages):
    """Those of some names that are one of some packages or lie in it."""
    return {name for name in names for package in packages if name == package or name.startswith(f"{package}.")}


def top_levels(names):
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


def code_cells(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]


def loaded_by(statements):
    """Top-level names of the modules that a fresh interpreter has loaded after some statements."""
    code = f"{statements}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


# Read from the source.


def test_losses_import_torch_only():
    assert top_levels(imports("losses", "base_losses")) == {"torch", "mmel"}
    assert of(imports("base_losses"), "mmel") == set()
    found = of(imports("losses"), "mmel")
    assert found == of(found, "mmel.base_losses")


PLANNING = ("names", "checks", "config", "prerequisites", "grids", "records")


@pytest.mark.parametrize("room", PLANNING)
def test_planning_imports_the_standard_library_and_mmel_only(room):
    assert top_levels(imports(room)) <= {"mmel"}


def test_planning_stays_among_itself():
    found = imports(*PLANNING)
    assert of(found, "mmel") == of(found, *(f"mmel.{room}" for room in PLANNING))


def test_names_stand_below_all_else():
    assert imports("names") == set()
    assert of(imports("checks"), "mmel") == of(imports("checks"), "mmel.names", "mmel.config")


def test_report_never_names_torch():
    assert (
        of(
            imports("report", "paper"),
            "torch",
            "torchvision",
            "transformers",
            "mmel.train",
            "mmel.losses",
            "mmel.base_losses",
        )
        == set()
    )


@pytest.mark.parametrize("room", ["augment", "data", "models"])
def test_augment_data_and_models_stand_apart(room):
    others = [f"mmel.{other}" for other in ("augment", "data", "models") if other != room]
    assert of(imports(room), *others) == set()


@pytest.mark.parametrize("module", MODULES)
def test_only_train_puts_augment_data_and_models_together(module):
    names = imports_of(ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8")))
    used = [room for room in ("augment", "data", "models") if of(names, f"mmel.{room}")]
    # The command line has a command for each of them, and puts nothing together.
    assert len(used) <= 1 or module.startswith("mmel/train/") or module == "mmel/cli"


def test_integrations_know_the_losses_alone():
    assert of(imports("integrations"), "mmel") == of(imports("integrations"), "mmel.losses")


def test_data_goes_one_way():
    upstream = imports("base_losses", "losses", "methods", "augment", "data", "models", "train")
    assert of(upstream, "mmel.sweep", "mmel.report", "mmel.cli", "mmel.paper") == set()
    assert of(imports("sweep"), "mmel.report", "mmel.cli", "mmel.paper") == set()


def test_nothing_imports_a_notebook():
    for module in MODULES:
        names = imports_of(ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8")))
        assert of(names, "notebooks", "import_ipynb", "nbimporter", "importnb") == set(), module


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {"run_table1", "run_table2", "plot_table1", "plot_table2"}


@each_notebook
def test_notebooks_import_mmel_and_define_nothing(notebook):
    cells = code_cells(notebook)
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert [type(node).__name__ for cell in cells for node in ast.walk(cell) if isinstance(node, definitions)] == []
    names = set().union(*map(imports_of, cells))
    assert of(names, "mmel")
    assert of(names, *(path.stem for path in NOTEBOOKS), "notebooks") == set()


@pytest.mark.parametrize("notebook", [n for n in NOTEBOOKS if n.stem.startswith("plot_")], ids=lambda path: path.stem)
def test_plotting_notebooks_run_without_torch(notebook):
    names = set().union(*map(imports_of, code_cells(notebook)))
    assert of(names, "torch", "torchvision", "transformers", "mmel.train", "mmel.augment", "mmel.models") == set()


# Tried in a fresh interpreter, where it is the imports of imports that count.


def test_import_mmel_is_light():
    heavy = {"torch", "torchvision", "transformers", "datasets", "papermill", "ray", "pandas", "matplotlib", "numpy"}
    assert loaded_by("import mmel") & heavy == set()


def test_planning_a_sweep_is_light():
    loaded = loaded_by("import mmel.cli, mmel.grids, mmel.records, mmel.methods, mmel.sweep.plan, mmel.sweep.driver")
    assert loaded & {"torch", "transformers", "datasets", "papermill", "pandas", "matplotlib"} == set()


def test_training_imports_the_text_libraries_where_they_are_used():
    # Together they take as long to import as a small run to train, and a run on images needs none of them.
    loaded = loaded_by("import mmel.train")
    assert loaded & {"transformers", "datasets", "pandas", "sklearn", "scipy"} == set()
    # The check sees what is loaded.
    assert {"torch", "mmel"} <= loaded


def test_sentences_are_read_without_torch():
    loaded = loaded_by("from mmel.data.glue import load_text; load_text('grammar_cola')")
    assert loaded & {"torch", "transformers", "datasets", "pandas", "numpy"} == set()


def test_report_never_loads_torch():
    modules = [module.replace("/", ".") for module in MODULES if module.startswith("mmel/report/")]
    assert {"mmel.report.statistics", "mmel.report.frames", "mmel.report.figures", "mmel.report.render"} <= set(modules)
    loaded = loaded_by(f"import mmel.sweep.plan, {', '.join(name.removesuffix('.__init__') for name in modules)}")
    assert loaded & {"torch", "torchvision", "transformers"} == set()
    # The check sees what is loaded.
    assert {"pandas", "matplotlib", "mmel"} <= loaded


# The names that `mmel` itself offers.


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("maximal_expected_loss", "losses"),
        ("augmentation_weights", "losses"),
        ("MMELHardLoss", "losses"),
        ("MMELSoftLoss", "losses"),
        ("UniformLoss", "losses"),
        ("RunConfig", "config"),
    ],
)
def test_public_names(name, home):
    assert getattr(mmel, name) is getattr(import_module(f"mmel.{home}"), name)
    assert name in mmel.__all__


def test_from_import():
    from mmel import MMELHardLoss

    assert MMELHardLoss.__module__ == "mmel.losses"


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="module 'mmel' has no attribute 'MMELSofterLoss'"):
        _ = mmel.MMELSofterLoss
    assert not hasattr(mmel, "nope")
