import subprocess
import sys
import tomllib
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

from mmel.requirements import LEAST, PYTHON, VersionError, check_versions

ROOT = Path(__file__).resolve().parents[1]
Interpreter = namedtuple("Interpreter", "major minor micro")


@pytest.fixture
def installed(monkeypatch):
    """Versions of packages; what is not in it is not installed."""
    versions = {}

    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, "version", version)
    return versions


def test_the_bounds_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["study"]]
    assert {f"{package}>={version}" for package, version in LEAST.items()} <= set(wanted)
    least, below = (f"{major}.{minor}" for major, minor in PYTHON)
    assert project["requires-python"] == f">={least},<{below}"


@pytest.mark.parametrize("package", LEAST)
@pytest.mark.parametrize("suffix", ["", ".0+cpu", ".1a0+git", ".3"])
def test_what_is_new_enough_or_missing_passes(package, suffix, installed):
    check_versions()
    installed[package] = LEAST[package] + suffix
    check_versions()
    installed[package] = "99.0"
    check_versions()


@pytest.mark.parametrize(
    ("package", "old"), [("torch", "2.9.1+cu126"), ("torchvision", "0.25"), ("transformers", "4.57")]
)
def test_what_is_too_old_is_named(package, old, installed):
    # 2.9 is below 2.11, though not as text.
    installed[package] = old
    with pytest.raises(VersionError, match=rf"^{package} must be {LEAST[package]} or newer, got {old.split('+')[0]}"):
        check_versions()


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 14, 0), (4, 0, 0)])
def test_another_python_is_named(version, installed, monkeypatch):
    monkeypatch.setattr(sys, "version_info", Interpreter(*version))
    with pytest.raises(
        VersionError, match=f"^Python must be from 3.11 to below 3.14, got {'.'.join(map(str, version))}$"
    ):
        check_versions()


@pytest.mark.parametrize(
    ("code", "status"),
    [("import mmel.losses, mmel.sweep.plan, mmel.report.statistics", 0), ("import mmel.train", 1)],
    ids=["losses, plans and reports", "training"],
)
def test_training_alone_is_checked(code, status):
    code = f"from importlib import metadata; metadata.version = lambda package: '0.1'; {code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert ("VersionError: torch must be 2.11 or newer, got 0.1" in done.stderr) == bool(status)


def test_the_command_says_so_in_a_line(tmp_path):
    code = (
        "from importlib import metadata; metadata.version = lambda package: '0.1'; import sys; "
        "from mmel.cli import main; sys.exit(main(['run', '--dataset', 'digits', '--augment', 'crop']))"
    )
    environment = {"MMEL_RESULTS": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("mmel: torch must be 2.11 or newer, got 0.1")
