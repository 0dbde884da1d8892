"""The import rules of the two houses, and what stays unloaded."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import nbformat
import pytest

import mmel

ROOT = Path(__file__).resolve().parents[1]
MODULES = {path.relative_to(ROOT).with_suffix("").as_posix(): path for path in sorted((ROOT / "mmel").rglob("*.py"))}
LIBRARY = [name for name in MODULES if not name.startswith("mmel/study/")]
FACTS = ("datasets", "methods", "tables", "config", "fields", "files", "lab", "needs", "records")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEAVY = {"torch", "torchvision", "transformers", "datasets", "papermill", "ray", "pandas", "matplotlib", "numpy"}


def imports_of(tree):
    """Full names of what a module or cell imports, but for what only type checkers see."""
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(module):
    return imports_of(ast.parse(MODULES[module].read_text(encoding="utf-8")))


def of(names, *packages):
    return {name for name in names if any(f"{name}.".startswith(f"{package}.") for package in packages)}


def top_levels(names):
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", LIBRARY)
def test_nothing_outside_the_study_imports_it(module):
    assert of(imports(module), "mmel.study") == set()


@pytest.mark.parametrize("module", ["mmel/losses", "mmel/base_losses", "mmel/worst_cases"])
def test_losses_need_torch_alone(module):
    assert top_levels(imports(module)) <= {"torch", "mmel"}


@pytest.mark.parametrize("name", FACTS)
def test_facts_need_the_standard_library_alone(name):
    found = imports(f"mmel/study/{name}")
    assert top_levels(found - of(found, *(f"mmel.study.{each}" for each in FACTS))) == set()


def test_data_goes_one_way():
    for module in MODULES:
        found = of(imports(module), "mmel.study.sweep", "mmel.study.report", "mmel.study.cli")
        if module.startswith(("mmel/study/train", "mmel/study/data", "mmel/study/models")):
            assert found == set(), module
        if module.startswith("mmel/study/sweep"):
            assert of(found, "mmel.study.report", "mmel.study.cli") == set(), module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_mmel_and_define_nothing(path):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    cells = [ast.parse(cell.source) for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [node for cell in cells for node in ast.walk(cell) if isinstance(node, definitions)] == []
    assert of(set().union(*map(imports_of, cells)), "mmel")


# Tried in a fresh interpreter, where the imports of imports count.


@pytest.mark.parametrize(
    ("statements", "unloaded"),
    [
        ("import mmel", HEAVY),
        ("import mmel.study.cli, mmel.study.sweep.plan, mmel.study.sweep.driver", HEAVY),
        ("import mmel.study.train", {"transformers", "datasets", "pandas", "sklearn", "scipy"}),
        ("from mmel.study.datasets import dataset; dataset('grammar_cola').load()", HEAVY),
        (
            "import " + ", ".join(m.replace("/", ".") for m in MODULES if m.startswith("mmel/study/report/")),
            {"torch", "torchvision", "transformers"},
        ),
    ],
    ids=["library", "planning", "training", "sentences", "report"],
)
def test_what_stays_unloaded(statements, unloaded):
    code = f"{statements}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "mmel" in loaded
    assert loaded & unloaded == set()


@pytest.mark.parametrize("name", sorted(set(mmel.__all__) - {"__version__"}))
def test_public_names(name):
    found = getattr(mmel, name)
    assert found is getattr(import_module(found.__module__), name)
    assert found.__module__.startswith("mmel.")
    with pytest.raises(AttributeError, match="lose"):
        _ = mmel.lose
