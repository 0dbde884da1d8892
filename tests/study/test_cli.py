import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmel import __version__
from mmel.study.cli import main
from mmel.study.config import ImageRun
from mmel.study.needs import SELECTION_SEED
from mmel.study.records import Store
from mmel.study.tables import TABLES, runs_of

ROOT = Path(__file__).resolve().parents[2]
FROZEN = ROOT / "tests" / "records"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Nothing that the caller's environment names; options set variables, which must not outlive the test."""
    for name in ("MMEL_RESULTS", "MMEL_DATA", "MMEL_DEVICE", "MMEL_TEXT_MODEL", "MMEL_STOP_AT"):
        monkeypatch.setenv(name, "")


def refused(capsys, *argv):
    """The message of a command that must fail with status 2, on stderr alone."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mmel: ")
    assert err.count("\n") == 1
    return err


def python(*arguments, stdout=subprocess.PIPE):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


# What is refused: status 2, and one line that names the field, what it got and what it may be.


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "--method", "mixup"], "method .*'mixup'"),
        (["run", "--dataset", "mnist"], "dataset .*'mnist'"),
        (["run", "--epochs", "1.5"], "epochs .*'1.5'"),
        (["run", "--num-augmented", "1"], "num_augmented .*1"),
        (["run", "--hidden-dropout", "0.1"], "hidden_dropout; a run on images has .*weight_decay"),
        (["run", "--results", ""], "results must not be empty"),
        (["sweep", "--plan", "--text-model", ""], "text_model must not be empty"),
        (["augment", "in.csv", "out.csv", "--column", ""], "column must not be empty"),
        (["sweep", "--plan", "--results", "nowhere"], "no results folder at nowhere.*MMEL_RESULTS"),
        (["sweep", "--only", "speed=1"], "unknown field speed; .* has profile, dataset, "),
        (["sweep", "--budget-minutes=nan"], "budget_minutes .* nan"),
        (["sweep", "--budget-minutes=-1"], "budget_minutes .* -1.0"),
        (["sweep", "--budget-minutes=inf"], "budget_minutes .* inf"),
        (["sweep", "--pack", "0"], "pack must be at least 1, got 0"),
        (["sweep", "--pack", "2", "--executor", "ray"], "pack .* 'ray', got 2"),
        (["sweep", "--address", "auto"], "address .* 'local', got 'auto'"),
        (["report"], "notebooks/.*checkout"),
        (["report", "--glue-submission", "mmel_h"], "profile mini: seed 0 has no finished mmel_h run .* cola, "),
        (["report", "--glue-scores", "nowhere.csv"], ".*nowhere.csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_argument_is_named(capsys, tmp_path, monkeypatch, command, message):
    monkeypatch.setenv("MMEL_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert re.match(f"mmel: .*{message}", refused(capsys, *command))


def test_a_stop_time_that_is_no_time_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MMEL_STOP_AT", "soon")
    message = refused(capsys, "sweep", "--results", str(tmp_path), "--device", "cpu")
    assert re.fullmatch(r"mmel: .*MMEL_STOP_AT\b.*'soon'\n", message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sweep", "--table", "table99"], "table99.*choose from .*table1.*table2"),
        (["report", "--profile", "huge"], "huge.*choose from .*mini.*reduced.*paper"),
        (["run", "--speed", "1"], "unrecognized arguments: --speed 1"),
        ([], "COMMAND"),
        (["fly"], "fly.*choose from .*run.*sweep.*report.*data"),
        (["data", "mnist"], "mnist.*choose from .*cifar10.*digits"),
    ],
    ids=" ".join,
)
def test_bad_options(capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)


# Files and streams that cannot be written.


def test_a_sweep_into_a_folder_that_cannot_be_written_ends_at_once(capsys, tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    message = refused(capsys, "sweep", "--results", str(tmp_path), "--device", "cpu")
    assert str(tmp_path) in message


PLAN = ("sweep", "--plan", "--results", str(FROZEN), "--executor", "ray")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_on_a_full_disk():
    with Path("/dev/full").open("w") as full:
        done = python("-m", "mmel.study", *PLAN, stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith("mmel: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_error(monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as pipe:
        done = python("-m", "mmel.study", *PLAN, stdout=pipe)
    assert (done.returncode, done.stderr) == (141, "")


# What is not installed is named, with the command that installs it.


@pytest.mark.parametrize(
    ("package", "command"),
    [("nbformat", ["report"]), ("pandas", ["report"]), ("papermill", ["sweep"]), ("torch", ["data", "digits"])],
)
def test_missing_packages(tmp_path, monkeypatch, package, command):
    # In a process of its own, since modules that an earlier test loaded would be there all the same. None in
    # sys.modules makes the import raise ModuleNotFoundError.
    code = f"import sys; sys.modules[{package!r}] = None; from mmel.study.cli import main; sys.exit(main())"
    monkeypatch.setenv("MMEL_RESULTS", str(tmp_path))
    done = python("-c", code, *command)
    assert done.returncode == 2
    assert done.stderr.startswith(f"mmel: {package} is missing: pip install '.[study]' in the checkout")
    assert done.stderr.count("\n") == 1


# The plan.


@pytest.mark.parametrize(("options", "time"), [((), "100 s"), (("--executor", "ray"), "unknown")])
def test_a_plan_knows_the_times_of_this_device_from_the_records_and_none_of_a_cluster(
    capsys, monkeypatch, options, time
):
    # The device on which the frozen runs say they were trained, ResNet-8 in 10 s for each view.
    here = {"type": "cuda", "name": "test device"}
    monkeypatch.setattr("mmel.study.train.machine.describe_device", lambda device: here)
    assert main(["sweep", "--plan", "--results", str(FROZEN), "--table", "table1", "table2", *options]) == 0
    run = next(run for run in runs_of(["table2"], "mini") if (run.num_augmented, run.seed) == (10, 1))
    assert re.search(rf"^missing +{time}  table2  digits  {run.run_id}$", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_costs_in_the_documentation_are_what_the_plan_prints(capsys, monkeypatch, tmp_path):
    # Of a fresh clone on a device that none of its records is from, as on a GPU.
    here = {"type": "cuda", "name": "your device"}
    monkeypatch.setattr("mmel.study.train.machine.describe_device", lambda device: here)
    assert main(["sweep", "--profile", "paper", "--plan", "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = runs_of(list(TABLES), "paper")
    costs = "\n".join(lines[len(runs) :])
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert f"```text\n{costs}\n```" in text
    chosen = sum(run.seed == SELECTION_SEED for run in runs)
    assert f"{chosen} of these runs choose" in text
    # A plan writes nothing.
    assert list(tmp_path.iterdir()) == []


# Training.

TINY = {
    "dataset": "digits",
    "model": "resnet8",
    "method": "baseline_da",
    "num_augmented": 1,
    "augment": "crop",
    "epochs": 1,
    "decay_epochs": (),
    "train_size": 100,
    "batch_size": 50,
    "precision": "fp32",
}


def run(tmp_path, **changes):
    values = {name: "" if value == () else str(value) for name, value in (TINY | changes).items()}
    options = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", value)]
    return main(["run", *options, "--results", str(tmp_path), "--device", "cpu"])


def test_run_trains_and_says_where_the_record_is(capsys, tmp_path):
    assert run(tmp_path) == 0
    *epochs, last = capsys.readouterr().out.splitlines()
    assert len(epochs) == 1
    assert re.fullmatch(r"epoch +1  loss \d\.\d{4}  accuracy [\d.]+ %  \d+ images/s", epochs[0])
    path = Store(tmp_path).run_path(ImageRun(**TINY))
    assert last == f"recorded at {path}"
    record = path.read_bytes()
    # Asked again, it reads the record.
    assert run(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [*epochs, last]
    assert path.read_bytes() == record


def test_run_that_fails_has_status_1(capsys, tmp_path):
    assert run(tmp_path, lr=1e30) == 1
    assert re.search(r"^mmel: loss is (nan|inf) at step \d", capsys.readouterr().err, flags=re.MULTILINE)
    assert not Store(tmp_path).read(ImageRun(**TINY | {"lr": 1e30})).finished


# The rest.


def test_data_prints_sizes(capsys):
    assert main(["data", "digits"]) == 0
    assert capsys.readouterr().out == "digits: train 1437, test 360\n"


def test_run_offers_every_field_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, value in ImageRun().to_dict().items():
        default = ",".join(map(str, value)) if isinstance(value, list) else value
        assert f"--{name.replace('_', '-')} VALUE default: {default}" in text


def test_a_process_ends_with_the_status_of_main():
    assert python("-m", "mmel.study", "--version").stdout == f"mmel {__version__}\n"
    done = python("-m", "mmel.study", "run", "--seed", "-1")
    assert done.returncode == 2
    assert re.fullmatch(r"mmel: seed .*-1\n", done.stderr)
