import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mmel
from mmel.study.config import ImageRun
from mmel.study.fields import PROFILES
from mmel.study.records import Store
from mmel.study.tables import TINY_BERT

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIG["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = sorted({*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)})
# The machines of the study: every Python in its range, on Linux and macOS.
MACHINES = [
    {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system],
        "platform_machine": machine,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for python in ("3.11", "3.12", "3.13")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]


ENTRIES = [line.split(" --hash=") for line in LOCK.replace("\\\n", " ").splitlines() if re.match(r"\w", line)]
ENTRIES = [(Requirement(requirement.strip()), [text.strip() for text in hashes]) for requirement, *hashes in ENTRIES]


# The lock.


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: " ".join(machine.values()))
def test_every_requirement_is_locked_at_a_version_that_it_allows(machine):
    entries = [entry for entry, _ in ENTRIES if entry.marker is None or entry.marker.evaluate(machine)]
    locked = {canonicalize_name(entry.name): str(entry.specifier).removeprefix("==") for entry in entries}
    assert len(locked) == len(entries)
    for requirement in map(Requirement, REQUIREMENTS):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement
        # A user without the lock gets a version that is known to work.
        assert ">=" in str(requirement.specifier), requirement


def test_every_entry_of_the_lock_is_exact_and_hashed():
    assert len(ENTRIES) > 100
    for entry, hashes in ENTRIES:
        assert re.fullmatch(r"==[\w.+!]+", str(entry.specifier)), entry
        assert (entry.url, entry.extras) == (None, set()), entry
        assert hashes, entry
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes), entry
    # No address of an index and no option of pip; a package called httpx may be there.
    assert re.search(r"://|^\s*-(?!-hash=)", LOCK, flags=re.MULTILINE) is None


# The same facts in several files.


def test_conda_installs_exactly_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, *rest = environment["dependencies"]
    assert rest == ["pip", {"pip": ["-r requirements.lock"]}]
    assert python.startswith("python ")
    assert SpecifierSet(python.removeprefix("python ")) == pythons_of("mmel/study/__init__.py")


def pythons_of(path):
    """The range of Pythons that a file of the checkout checks for."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(r"\((\d+), (\d+)\) <= sys\.version_info\S* < \((\d+), (\d+)\)", text)
    low, high = ".".join(found.groups()[:2]), ".".join(found.groups()[2:])
    return SpecifierSet(f">={low},<{high}")


def test_one_range_of_pythons():
    promised = pythons_of("mmel/study/__init__.py")
    tried = {machine["python_version"] for machine in MACHINES}
    assert tried == {f"3.{minor}" for minor in range(8, 20) if f"3.{minor}.9" in promised}
    assert pythons_of("Makefile") == promised
    # The library runs on these and on an older one.
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={CONFIG['tool']['mypy']['python_version']}")


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert mmel.__version__ == PROJECT["version"] == str(citation["version"])


# Make.


def test_make_lists_every_target():
    if shutil.which("make") is None:
        pytest.skip("needs make")
    # A file called `test` must not stop `make test`.
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    for command in (["make"], ["make", "help"]):
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"^([a-z-]+) {2,}\S", listed, flags=re.MULTILINE)) == set(phony.split())


@pytest.fixture
def fake_study(tmp_path):
    """A function that runs make where `mmel` only notes its arguments; a sweep ends with the status of FAKE_STATUS."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    mmel = tmp_path / ".venv" / "bin" / "mmel"
    mmel.parent.mkdir(parents=True)
    mmel.write_text('#!/bin/sh\necho "$@" >> calls\ntest "$1" = report || exit $FAKE_STATUS\n')
    mmel.chmod(0o755)
    (tmp_path / ".venv" / "ready").touch()

    def run(*arguments, status=0):
        environment = {"PATH": os.environ["PATH"], "FAKE_STATUS": str(status)}
        done = subprocess.run(["make", *arguments], cwd=tmp_path, env=environment, capture_output=True, check=False)
        calls = tmp_path / "calls"
        return done.returncode, calls.read_text().splitlines() if calls.exists() else []

    return run


@pytest.mark.parametrize(
    ("given", "status", "options"),
    [
        ([], 0, ""),
        ([], 1, ""),
        (["BUDGET=5"], 0, "--budget-minutes 5"),
        (["BUDGET=1.5", "RETRY=1"], 0, "--budget-minutes 1.5 --retry-failed"),
        (["RETRY=0"], 0, ""),
    ],
)
def test_make_study_reports_whether_or_not_a_run_failed(fake_study, given, status, options):
    code, calls = fake_study("study", "TABLES=table1", "PROFILE=reduced", *given, status=status)
    # Make itself fails with 2.
    assert code == (2 if status else 0)
    sweep = f"sweep --table table1 --profile reduced --pack 1 {options}".strip()
    assert calls == [sweep, "report --table table1 --profile reduced"]
    assert fake_study("sweep", "TABLES=table1", "PROFILE=reduced", *given)[1][2:] == [sweep]


def test_make_clean_removes_what_mini_left_and_nothing_else(fake_study, tmp_path):
    (tmp_path / "results").mkdir()
    store = Store(tmp_path / "results")
    paths = {
        getattr(store, f"{name}_path")(ImageRun(profile=profile))
        for name in ("run", "partial", "checkpoint", "weights", "notebook", "predictions")
        for profile in PROFILES
    }
    paths |= {store.teacher_path(ImageRun(profile=profile), "digest") for profile in PROFILES}
    paths |= {store.report_dir(profile) / "book" / "index.html" for profile in PROFILES}
    gone = {path for path in paths if "mini" in path.parts} | {store.model_dir(TINY_BERT) / "model.safetensors"}
    kept = paths - gone | {store.augmentation_dir() / "texts"}
    for path in kept | gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    code, _ = fake_study("clean")
    assert code == 0
    assert {path for path in kept | gone if path.exists()} == kept
    assert not (tmp_path / ".venv").exists()
