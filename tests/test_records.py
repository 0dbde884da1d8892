import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pretend import record_run

from mmel.config import PROFILES, RunConfig
from mmel.records import ResultsError, RunWriter, Store, read_record, write_atomically

ROOT = Path(__file__).resolve().parents[1]
CONFIG = RunConfig(dataset="digits", model="resnet8", augment="crop", seed=7)
TEXT = RunConfig(dataset="cola", model="google/electra", method="mmel_h", num_augmented=5)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "results").mkdir()
    return Store(tmp_path / "results")


@pytest.fixture
def lines(tmp_path):
    """The lines of a record of CONFIG with two evaluations."""
    elsewhere = Store(tmp_path)
    record_run(elsewhere, CONFIG, header={"note": "déjà vu"})
    header, epoch, result = map(json.loads, elsewhere.run_path(CONFIG).read_text().splitlines())
    return [header, epoch, epoch | {"epoch": 2}, result]


def write_lines(store, lines):
    path = store.run_path(CONFIG)
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path


# Writing and reading.


def test_round_trip(store, lines):
    header, *epochs, result = lines
    writer = RunWriter(store, CONFIG, [header])
    for line in epochs:
        writer.append(line)
    writer.finish({name: value for name, value in result.items() if name != "kind"})
    record = store.read(CONFIG)
    assert (record.header, record.epochs, record.result) == (header, epochs, result)
    assert record.config == CONFIG
    assert record.finished


def test_a_run_is_judged_by_the_metric_of_its_header(store, lines):
    # Records of images, written before there was text, name none.
    del lines[0]["metric"]
    write_lines(store, lines)
    assert (store.read(CONFIG).metric, store.read(CONFIG).score) == ("accuracy_pct", 50.0)
    record_run(store, TEXT, 55.0, header={"metric": "matthews_pct"}, accuracy_pct=80.0)
    assert (store.read(TEXT).metric, store.read(TEXT).score) == ("matthews_pct", 55.0)


def test_a_hub_name_makes_no_folder(store):
    record_run(store, TEXT)
    assert store.run_path(TEXT).parent == store.root / "runs" / "mini" / "cola"
    assert [record.config for record in store.records("mini")] == [TEXT]


def test_place_and_name_of_a_record(store):
    record_run(store, CONFIG)
    path = store.run_path(CONFIG)
    assert path.relative_to(store.root) == Path("runs", "mini", "digits", f"{CONFIG.run_id}.jsonl")
    # One JSON object a line, and no other file beside it.
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["run", "epoch", "result"]
    assert list(path.parent.iterdir()) == [path]


def test_failed_runs_are_records_that_did_not_finish(store, lines):
    RunWriter(store, CONFIG, lines[:1]).finish({"status": "failed", "error": "loss is nan"})
    record = store.read(CONFIG)
    assert not record.finished
    assert record.epochs == []
    assert record.result["error"] == "loss is nan"


def test_a_run_under_way_is_partial_and_never_a_record(store, lines):
    writer = RunWriter(store, CONFIG, lines[:1])
    writer.append(lines[1])
    partial = store.partial_path(CONFIG)
    assert partial.name == f"{CONFIG.run_id}.jsonl.partial"
    # Every line is there as soon as append returns.
    assert [json.loads(line) for line in partial.read_text().splitlines()] == lines[:2]
    assert store.read(CONFIG) is None
    assert list(store.records("mini")) == []
    writer.finish(lines[-1])
    assert not partial.exists()
    assert store.read(CONFIG).epochs == lines[1:2]


def test_a_line_is_on_disk_when_append_returns(store, lines, monkeypatch):
    # All of it must have left Python's buffer when the kernel is told to write.
    writer, sizes, fsync = RunWriter(store, CONFIG, lines[:1]), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (sizes.append(os.fstat(handle).st_size), fsync(handle))[1])
    writer.append(lines[1])
    assert sizes == [store.partial_path(CONFIG).stat().st_size]


def test_a_writer_goes_on_from_what_it_is_given(store, lines):
    # What a killed process left behind, torn line and all, is replaced by the lines of its checkpoint.
    store.partial_path(CONFIG).parent.mkdir(parents=True)
    store.partial_path(CONFIG).write_text('{"kind": "run"}\n{"kind": "epo')
    writer = RunWriter(store, CONFIG, lines[:2])
    writer.append(lines[2])
    writer.finish(lines[-1])
    assert store.read(CONFIG).epochs == lines[1:3]


def test_a_run_trained_again_replaces_its_record_only_when_it_ends(store, lines):
    record_run(store, CONFIG, 1.0)
    writer = RunWriter(store, CONFIG, lines[:2])
    assert store.read(CONFIG).score == 1.0
    writer.finish(lines[-1])
    assert store.read(CONFIG).score == 50.0


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_json_is_refused(store, lines, number):
    writer = RunWriter(store, CONFIG, lines[:1])
    with pytest.raises(ValueError, match="JSON"):
        writer.append({"kind": "epoch", "train_loss": number})
    # The record goes on as if nothing had been asked.
    writer.finish({"status": "failed", "error": "diverged"})
    assert store.read(CONFIG).epochs == []


def test_records_of_a_profile_in_order_of_their_paths(store):
    others = [CONFIG.replace(seed=seed) for seed in (3, 1, 2)]
    for config in [*others, CONFIG.replace(profile="reduced", dataset="cifar10"), RunConfig(seed=5)]:
        record_run(store, config)
    found = [record.config for record in store.records("mini")]
    # cifar10 comes before digits.
    assert found == [RunConfig(seed=5), *sorted(others, key=lambda config: config.run_id)]
    assert len(list(store.records("reduced"))) == 1
    assert list(store.records("paper")) == []


@pytest.mark.parametrize("folder", ["results", "tests/records"])
def test_committed_records_are_whole_and_in_their_place(folder):
    store = Store(ROOT / folder)
    found = [record.header["run_id"] for profile in PROFILES for record in store.records(profile)]
    assert len(found) == len(list((store.root / "runs").rglob("*.jsonl"))) > 0


# Reading what is damaged, or somebody else's.


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"kind": "run"}\n{"kind": "epoch"}\n{"kind": "res', 3),
        (b'{"kind": "run"}\n\n{"kind": "result"}\n', 2),
        (b"this is no record\n", 1),
        (b"\xff\xfe\x00\x01\n", None),
        (b"", None),
        (b'{"kind": "run"}\n', None),
        (b'{"kind": "run"}\n{"kind": "epoch"}\n', None),
        (b'{"kind": "epoch"}\n{"kind": "result"}\n', None),
        (b'{"kind": "run"}\n{"kind": "run"}\n{"kind": "result"}\n', None),
        (b'{"kind": "run"}\n{"kind": "result"}\n{"kind": "result"}\n', None),
        (b'{"epoch": 1}\n{"epoch": 2}\n', None),
        (b"1\n2\n", None),
        (b'["run"]\n["result"]\n', None),
    ],
    ids=[
        "torn",
        "blank line",
        "words",
        "not text",
        "empty",
        "header alone",
        "no result",
        "no header",
        "two headers",
        "two results",
        "no kind",
        "numbers",
        "lists",
    ],
)
def test_damaged_records_are_named(store, content, line):
    path = store.run_path(CONFIG)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    for read in (lambda: read_record(path), lambda: store.read(CONFIG), lambda: list(store.records("mini"))):
        with pytest.raises(ResultsError) as caught:
            read()
        assert str(path) in str(caught.value)
        if line:
            assert f"{path}:{line} " in str(caught.value)


@pytest.mark.parametrize(
    ("number", "field", "value"),
    [
        (1, "run_id", CONFIG.replace(seed=8).run_id),
        (1, "config", CONFIG.replace(seed=8).to_dict()),
        (1, "config", CONFIG.to_dict() | {"seed": "seven"}),
        (1, "config", CONFIG.to_dict() | {"colour": "red"}),
        (1, "metric", ["accuracy_pct"]),
        (1, "sizes", {"train": 500}),
        (1, "device", {}),
        (3, "accuracy_pct", float("nan")),
        (3, "eval_seconds", float("inf")),
        (4, "accuracy_pct", "50.0"),
        (4, "test_accuracy_pct", "50.0"),
        (4, "wall_seconds", True),
    ],
)
def test_a_field_that_holds_something_else_is_named(store, lines, number, field, value):
    lines[number - 1][field] = value
    path = write_lines(store, lines)
    with pytest.raises(ResultsError) as caught:
        store.read(CONFIG)
    (said,) = str(caught.value).splitlines()
    assert field in said or "NaN" in said or "Infinity" in said
    # Whose record it is is said of the file, all else of the line.
    assert f"{path}:{number}" in said or f"{path} is the record of another run" in said


@pytest.mark.parametrize(
    ("number", "field"),
    [
        *((1, name) for name in ("run_id", "config", "device", "sizes", "num_parameters", "started", "commit")),
        *((2, name) for name in ("epoch", "accuracy_pct", "eval_seconds")),
        *((4, name) for name in ("status", "accuracy_pct", "best_accuracy_pct", "train_seconds", "micro_batch")),
    ],
)
def test_a_field_that_is_missing_is_named(store, lines, number, field):
    del lines[number - 1][field]
    path = write_lines(store, lines)
    with pytest.raises(ResultsError, match=field) as caught:
        store.read(CONFIG)
    assert f"{path}:{number} " in str(caught.value)


@pytest.mark.parametrize("other", [CONFIG.replace(seed=8), CONFIG.replace(profile="reduced"), RunConfig(seed=7)])
def test_a_record_under_another_runs_name_is_refused(store, other):
    # Copied over another seed's, it would count twice.
    record_run(store, CONFIG)
    copy = store.run_path(other)
    write_atomically(copy, store.run_path(CONFIG).read_bytes())
    with pytest.raises(ResultsError, match=CONFIG.run_id) as caught:
        list(store.records(other.profile))
    assert str(copy) in str(caught.value)


def test_a_number_beyond_all_floats_is_none(store, lines):
    path = write_lines(store, lines)
    path.write_text(path.read_text().replace("50.0", "1e999"))
    with pytest.raises(ResultsError, match=f"{path}:2: accuracy_pct"):
        store.read(CONFIG)


def test_a_finished_run_has_an_evaluation(store, lines):
    with pytest.raises(ResultsError, match=str(write_lines(store, [lines[0], lines[-1]]))):
        store.read(CONFIG)


# Writing a file so that it is whole or not there.


@pytest.mark.parametrize("content", ["text, déjà", b"\x00\xff"])
def test_write_atomically(tmp_path, content):
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("target", ["os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace"])
@pytest.mark.parametrize(
    "error", [OSError("no space left on device"), KeyboardInterrupt()], ids=["full", "interrupted"]
)
def test_a_write_that_fails_midway_leaves_the_old_content(tmp_path, monkeypatch, target, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        with pytest.raises(type(error)):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    # Nor does it litter.
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_content_is_on_disk_before_it_gets_the_name(tmp_path, monkeypatch):
    # A rename that reaches the disk before the data would leave an empty file after a power cut.
    path, steps = tmp_path / "file", []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda *args: (steps.append("replace"), replace(*args))[1])
    write_atomically(path, "new")
    assert steps == ["fsync", "replace"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_files_get_the_mode_that_open_would_give(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", "")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


# Finding the results folder.


def test_find_order(tmp_path, monkeypatch):
    named, variable, here = tmp_path / "named", tmp_path / "variable", tmp_path / "study"
    for folder in (named, variable, here / "results", here / "notebooks", here / "nested" / "results"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("MMEL_RESULTS", str(variable))
    assert Store.find(named).root == named
    assert Store.find(str(named)).root == named
    assert Store.find().root == variable
    monkeypatch.delenv("MMEL_RESULTS")
    assert Store.find().root.resolve() == here / "results"
    # A notebook's kernel starts in notebooks/.
    monkeypatch.chdir(here / "notebooks")
    assert Store.find().root.resolve() == here / "results"
    # ./results goes before ../results.
    monkeypatch.chdir(here / "nested")
    assert Store.find().root.resolve() == here / "nested" / "results"
    (here / "notebooks" / "results").mkdir()
    monkeypatch.chdir(here / "notebooks")
    assert Store.find().root.resolve() == here / "notebooks" / "results"
    # ../results of any other folder is somebody else's.
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    with pytest.raises(ResultsError, match="no results folder at results"):
        Store.find()


def test_find_without_a_folder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("MMEL_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResultsError, match=r"no results folder at results: make one.*--results or MMEL_RESULTS"):
        Store.find()


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_named_folder_that_is_not_there_is_never_replaced_by_another(tmp_path, monkeypatch, by):
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMEL_RESULTS", "elsewhere" if by == "variable" else "")
    with pytest.raises(ResultsError, match="no results folder at elsewhere"):
        Store.find("elsewhere" if by == "argument" else None)


def test_a_file_is_no_results_folder(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(ResultsError, match="no results folder"):
        Store(tmp_path / "results")


def test_every_path_lies_below_the_root_and_apart(store):
    paths = [
        store.run_path(CONFIG),
        store.partial_path(CONFIG),
        store.checkpoint_path(CONFIG),
        store.weights_path(CONFIG),
        store.notebook_path(CONFIG),
        store.predictions_path(CONFIG),
        store.teacher_path(CONFIG, "0123"),
        store.augmentation_dir(),
        store.model_dir("tiny-bert"),
        store.report_dir("mini"),
    ]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(store.root) for path in paths)
    # Neither working files nor reports lie where records are looked for.
    assert not any(path.is_relative_to(store.root / "runs") for path in paths[2:])


# A store that leaves nothing behind.


def test_a_scratch_store_has_its_own_runs_and_shares_the_caches(store):
    record_run(store, CONFIG)
    with store.scratch(CONFIG) as scratch:
        assert scratch.root != store.root
        assert scratch.root.parent == store.checkpoint_path(CONFIG).parent
        assert scratch.read(CONFIG) is None
        record_run(scratch, TEXT)
        assert store.read(TEXT) is None
        for own in ("run_path", "checkpoint_path", "weights_path", "predictions_path"):
            assert getattr(scratch, own)(CONFIG).is_relative_to(scratch.root)
        assert scratch.augmentation_dir() == store.augmentation_dir()
        assert scratch.model_dir("tiny-bert") == store.model_dir("tiny-bert")
        assert scratch.teacher_path(CONFIG, "0123") == store.teacher_path(CONFIG, "0123")
        with scratch.scratch(TEXT) as inner:
            assert inner.augmentation_dir() == store.augmentation_dir()
    assert not scratch.root.exists()
    assert list(store.records("mini")) == [store.read(CONFIG)]


def _begin_and_stop(store):
    store.checkpoint_path(CONFIG).parent.mkdir(parents=True)
    store.checkpoint_path(CONFIG).touch()
    raise RuntimeError("stopped")


def test_a_scratch_store_that_an_error_left_is_gone_on_with(store):
    with pytest.raises(RuntimeError, match="stopped"), store.scratch(CONFIG) as scratch:
        _begin_and_stop(scratch)
    with store.scratch(TEXT) as other:
        assert not other.checkpoint_path(CONFIG).exists()
    with store.scratch(CONFIG) as again:
        assert again.checkpoint_path(CONFIG).exists()
    assert not again.root.exists()
    assert list(store.records("mini")) == []


# Holding a run.

HOLD = """
import json, sys, time
from mmel.config import RunConfig
from mmel.records import Store
config = RunConfig.from_dict(json.loads(sys.argv[2]))
with Store(sys.argv[1]).claim(config):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(store):
    """Another process that holds CONFIG."""
    command = [sys.executable, "-c", HOLD, str(store.root), json.dumps(CONFIG.to_dict())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_run_that_another_process_holds_is_refused(store, holder):
    refused = pytest.raises(ResultsError, match=f"run {CONFIG.run_id} is being trained by another process")
    with refused, store.claim(CONFIG):
        pytest.fail("two processes hold the same run")
    # Other runs are free.
    with store.claim(CONFIG.replace(seed=8)):
        pass


def test_a_killed_process_lets_go(store, holder):
    with pytest.raises(ResultsError), store.claim(CONFIG):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with store.claim(CONFIG):
        pass


def test_what_a_killed_process_half_wrote_of_a_run_is_deleted_and_nothing_else(store):
    torn, kept = [], []
    for config, left in ((CONFIG, torn), (CONFIG.replace(seed=8), kept)):
        for path in (store.partial_path, store.checkpoint_path, store.weights_path, store.predictions_path):
            left.append(path(config).with_name(f".{path(config).name}.a1b2c3d4"))
            kept.append(path(config))
    for path in (*torn, *kept):
        write_atomically(path, "half")
    with store.claim(CONFIG):
        assert not any(path.exists() for path in torn)
    assert all(path.exists() for path in kept)


def test_a_claim_ends_with_its_block(store):
    for _ in range(2):
        with store.claim(CONFIG):
            pass
    with pytest.raises(RuntimeError, match="training failed"), store.claim(CONFIG):
        raise RuntimeError("training failed")
    with store.claim(CONFIG):
        pass
    assert list(store.records("mini")) == []
