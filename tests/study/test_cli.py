import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmel import __version__
from mmel.study.cli import main
from mmel.study.config import ImageRun
from mmel.study.datasets import DATASETS
from mmel.study.needs import SELECTION_SEED
from mmel.study.records import Store
from mmel.study.tables import TABLES, runs_of
from mmel.study.train.machine import describe_device

IMAGE_TABLES = ("--table", "table1", "table2")
ROOT = Path(__file__).resolve().parents[2]
FROZEN = ROOT / "tests" / "records"
PLAN_LINE = re.compile(r"(recorded|failed|missing) +(\S.*?)  (table\d)  (\S+)  (\S+)")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """No folder that the caller's environment names; --data-root sets MMEL_DATA, which must not outlive the test."""
    for name in ("MMEL_RESULTS", "MMEL_DATA", "MMEL_DEVICE", "MMEL_TEXT_MODEL"):
        monkeypatch.setenv(name, "")


def refused(capsys, *argv):
    """The message of a command that must fail with status 2, on stderr alone."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mmel: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture
def on_test_device(monkeypatch):
    """The device on which the frozen runs say they were trained."""
    monkeypatch.setattr(
        "mmel.study.train.machine.describe_device", lambda device: {"type": "cuda", "name": "test device"}
    )
    monkeypatch.setattr("mmel.study.train.precision.resolve", lambda precision, device: "bf16")


def planned(capsys, *argv):
    """run_id -> (state, predicted time, table), in order, and the last line; before it each table has one."""
    assert main(["sweep", "--plan", "--results", str(FROZEN), *argv]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    found = [match.groups() for line in lines if (match := PLAN_LINE.fullmatch(line))]
    counts = [re.fullmatch(r"(table\d): (\d+) runs, .+", line).groups() for line in lines[len(found) :]]
    tables = [table for state, _, table, *_ in found if state == "missing"]
    assert counts == [(table, str(tables.count(table))) for table in dict(counts)]
    assert len({run_id for *_, run_id in found}) == len(found)
    return {run_id: (state, time, table) for state, time, table, _, run_id in found}, last


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


# What is refused: status 2, and one line that names the field, what it got and what it may be.


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "mixup"],
        ["--dataset", "mnist"],
        ["--lambda-p", "-1"],
        ["--lambda-p", "big"],
        ["--epochs", "1.5"],
        ["--redraw", "maybe"],
        ["--decay-epochs", "60,20"],
        ["--num-augmented", "1"],
        ["--seed", str(2**70)],
        ["--hidden-dropout", "0.1"],
    ],
    ids=" ".join,
)
def test_bad_values_of_a_field(capsys, options):
    name, value = options
    message = refused(capsys, "run", *options)
    assert name.removeprefix("--").replace("-", "_") in message
    # Images have no dropout; the message lists the fields that they have.
    assert value.split(",")[0] in message or "weight_decay" in message


@pytest.mark.parametrize(
    "options",
    [
        ["run", "--results", ""],
        ["sweep", "--plan", "--text-model", ""],
        ["data", "digits", "--data-root", ""],
        ["augment", "in.csv", "out.csv", "--column", ""],
    ],
    ids=" ".join,
)
def test_an_empty_option_is_not_an_absent_one(capsys, options):
    option = options[options.index("") - 1]
    assert option.removeprefix("--").replace("-", "_") in refused(capsys, *options)


@pytest.mark.parametrize("command", [["run"], ["sweep"], ["sweep", "--plan"], ["report"]], ids=" ".join)
def test_unknown_results_folder(capsys, command):
    message = refused(capsys, *command, "--results", "nowhere")
    assert "no results folder at nowhere" in message
    assert "--results or MMEL_RESULTS" in message


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("speed=1", r"unknown field speed; .* has profile, dataset, .*"),
        ("method", r"only must be given as field=value, got 'method'"),
        ("seed=first", r"seed must be an integer .*got 'first'"),
        ("model=resnet21", r"only: model .*resnet14, .*resnet8, .*; got resnet21"),
    ],
)
def test_bad_filters(capsys, only, message):
    assert re.fullmatch(
        f"mmel: {message}\n", refused(capsys, "sweep", "--plan", "--results", str(FROZEN), "--only", only)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sweep", "--table", "table99"], "table99.*choose from .*table1.*table2"),
        (["report", "--profile", "huge"], "huge.*choose from .*mini.*reduced.*paper"),
        (["run", "--speed", "1"], "unrecognized arguments: --speed 1"),
        ([], "COMMAND"),
        (["fly"], "fly.*choose from .*run.*sweep.*report.*data"),
    ],
    ids=" ".join,
)
def test_bad_options(capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_unknown_data_set(capsys):
    assert refused(capsys, "data", "mnist") == f"mmel: dataset must be one of {', '.join(DATASETS)}, got 'mnist'\n"


def test_a_damaged_record_is_named(capsys, tmp_path):
    shutil.copytree(FROZEN / "runs", tmp_path / "runs")
    path = next((tmp_path / "runs").rglob("*.jsonl"))
    path.write_text("torn")
    assert f"{path}:1 " in refused(capsys, "sweep", "--plan", "--results", str(tmp_path))


def test_a_report_away_from_the_notebooks_says_what_it_misses(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, "report", "--results", str(tmp_path))
    assert str(Path("notebooks", "plot_table1.ipynb")) in message
    assert "checkout" in message


def test_a_submission_is_written_and_its_placeholders_told(capsys, monkeypatch, tmp_path):
    asked = []

    def submit(store, profile, method, text_model):
        asked.append((store.root, profile, method, text_model))
        return tmp_path / "glue.zip", ["WNLI.tsv is a placeholder"]

    monkeypatch.setattr("mmel.study.report.glue_submission.submit", submit)
    options = ["report", "--glue-submission", "mmel_s", "--profile", "paper", "--results", str(tmp_path)]
    assert main([*options, "--text-model", "some/bert"]) == 0
    assert asked == [(tmp_path, "paper", "mmel_s", "some/bert")]
    assert capsys.readouterr().out == f"submission: {tmp_path / 'glue.zip'}\nWNLI.tsv is a placeholder\n"


def test_a_submission_without_predictions_is_refused(capsys):
    message = refused(capsys, "report", "--glue-submission", "mmel_h", "--results", str(FROZEN))
    assert "profile mini has no finished mmel_h run with test predictions for cola, " in message


# Files and streams that cannot be written.


def test_a_file_in_the_way_is_named(capsys, tmp_path):
    (tmp_path / "checkpoints").touch()
    assert run(tmp_path) == 2
    _, err = capsys.readouterr()
    assert err.startswith("mmel: ")
    assert err.count("\n") == 1
    assert str(tmp_path / "checkpoints") in err


def test_a_sweep_into_a_folder_that_cannot_be_written_ends_at_once(capsys, tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    message = refused(capsys, "sweep", "--results", str(tmp_path), "--device", "cpu")
    assert str(tmp_path) in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_on_a_full_disk(monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mmel.study", "sweep", "--plan", "--results", str(FROZEN), "--executor", "ray"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("mmel: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["--help"], ["sweep", "--plan", "--results", str(FROZEN), "--executor", "ray"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_error(monkeypatch, command, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mmel.study", *command],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode in (0, 141)
    assert done.stderr == ""


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


def test_plan_lists_every_run_with_its_state(capsys):
    runs, _ = planned(capsys, *IMAGE_TABLES)
    expected = runs_of(["table1", "table2"], "mini")
    assert list(runs) == [run.run_id for run in expected]
    store = Store(FROZEN)
    for run in expected:
        record = store.read(run)
        state = "missing" if record is None else "recorded" if record.finished else "failed"
        assert runs[run.run_id][0] == state
    assert {state for state, *_ in runs.values()} == {"recorded", "failed", "missing"}


def test_plan_predicts_times_from_what_is_recorded(capsys, on_test_device):
    runs, _ = planned(capsys, *IMAGE_TABLES)
    mini = runs_of(["table1", "table2"], "mini")
    times = {
        (run.model, run.method, run.num_augmented, run.seed): runs[run.run_id][1]
        for run in mini
        if runs[run.run_id][0] == "missing"
    }
    # The frozen runs train 10 s for ResNet-8 with one view, 20 s for ResNet-14, and K times that with K views or
    # epochs; evaluations take 0.2 s.
    assert times[("resnet14", "baseline_da_long", 5, 0)] == "101 s"
    assert times[("resnet8", "mmel_s", 2, 0)] == "20 s"
    assert times[("resnet8", "mmel_h", 10, 1)] == "100 s"
    # No run with as many views is recorded.
    assert times[("resnet8", "mmel_h", 20, 0)] == "unknown"


def test_plan_names_the_table_whose_notebook_trains_the_run(capsys):
    runs, _ = planned(capsys, *IMAGE_TABLES)
    first = {run.run_id for run in runs_of(["table1"], "mini")}
    assert all(table == ("table1" if run_id in first else "table2") for run_id, (_, _, table) in runs.items())


def test_plan_of_some_runs_sums_them_up(capsys, on_test_device):
    runs, last = planned(capsys, *IMAGE_TABLES, "--only", "method=baseline_da_long")
    assert [state for state, *_ in runs.values()].count("recorded") == 2
    assert (
        last
        == "2 runs to train, each counted with the first of its tables: 3 min, at the speed recorded on test device"
    )
    runs, last = planned(capsys, "--only", "method=mmel_h", "--only", "seed=1", "--table", "table1")
    assert [state for state, *_ in runs.values()] == ["recorded", "recorded"]
    assert last.startswith("0 runs to train")


def test_plan_of_one_table(capsys):
    runs, _ = planned(capsys, "--table", "table2")
    assert list(runs) == [run.run_id for run in runs_of(["table2"], "mini")]
    assert {table for *_, table in runs.values()} == {"table2"}


def test_plan_on_a_device_without_records_knows_no_times(capsys):
    # Of the frozen runs none was trained on this one.
    assert main(["sweep", "--plan", "--results", str(FROZEN), "--device", "cpu", *IMAGE_TABLES]) == 0
    *lines, first, second, last = capsys.readouterr().out.splitlines()
    assert {PLAN_LINE.fullmatch(line)[2] for line in lines} == {"unknown"}
    assert (first.split()[-1], second.split()[-1]) == ("unknown", "unknown")
    name = describe_device(torch.device("cpu"))["name"]
    assert last.endswith(f": unknown (no run like these is recorded on {name})")


def test_plan_for_a_cluster_counts_no_record_of_another_machine(capsys, on_test_device):
    assert main(["sweep", "--plan", "--executor", "ray", "--results", str(FROZEN), *IMAGE_TABLES]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert "unknown (a cluster's devices" in last


def test_plan_writes_nothing(capsys, tmp_path):
    assert main(["sweep", "--plan", "--results", str(tmp_path), "--device", "cpu"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_costs_in_the_documentation_are_what_the_plan_prints(capsys, monkeypatch, tmp_path):
    # Of a fresh clone on a device that none of its records is from, as on a GPU.
    monkeypatch.setattr(
        "mmel.study.train.machine.describe_device", lambda device: {"type": "cuda", "name": "your device"}
    )
    assert main(["sweep", "--profile", "paper", "--plan", "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = runs_of(list(TABLES), "paper")
    assert len(lines) == len(runs) + len(TABLES) + 1
    costs = "\n".join(lines[len(runs) :])
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert f"```text\n{costs}\n```" in text
    chosen = sum(run.seed == SELECTION_SEED for run in runs)
    assert f"{chosen} of these runs choose" in text


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


def test_run_takes_the_option_of_the_sweep(capsys, tmp_path):
    assert main(["run", "--no-notebook", "--epochs", "0", "--results", str(tmp_path)]) == 2
    assert "epochs must be" in capsys.readouterr().err


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


def test_python_m_mmel():
    assert python("-m", "mmel.study", "--version").stdout == f"mmel {__version__}\n"


def test_status_of_the_process_is_that_of_main():
    done = python("-m", "mmel.study", "run", "--seed", "-1")
    assert done.returncode == 2
    assert re.fullmatch(r"mmel: seed .*-1\n", done.stderr)
