import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pretend import record_run

from mmel.study.config import ImageRun, TextRun
from mmel.study.fields import PROFILES
from mmel.study.files import write_atomically
from mmel.study.records import LockedError, ResultsError, RunWriter, Store, read_record

ROOT = Path(__file__).parents[2]
CONFIG = ImageRun(dataset="digits", model="resnet8", augment="crop", seed=7)
TEXT = TextRun(model="google/electra")


@pytest.fixture
def lines(tmp_path):
    """The lines of a record of CONFIG with two evaluations."""
    elsewhere = Store(tmp_path)
    record_run(elsewhere, CONFIG, header={"note": "déjà vu"})
    header, epoch, result = map(json.loads, elsewhere.run_path(CONFIG).read_text().splitlines())
    return [header, epoch, epoch | {"epoch": 2}, result]


def write_lines(store, lines, config=CONFIG):
    path = store.run_path(config)
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path


def left_out(line, *names):
    return {name: value for name, value in line.items() if name not in names}


# Writing and reading.


@pytest.mark.parametrize("folder", ["results", "tests/records"])
def test_committed_records_are_whole_and_in_their_place(folder):
    store = Store(ROOT / folder)
    paths = list((store.root / "runs").rglob("*.jsonl"))
    found = [record for profile in PROFILES for record in store.records(profile)]
    assert {store.run_path(record.config) for record in found} == set(paths)
    assert all(record.config.run_id == record.header["run_id"] for record in found)
    assert len(found) == len(paths) > 0


def test_a_run_under_way_is_partial_and_one_that_ended_a_record(store, lines, monkeypatch):
    sizes, fsync = [], os.fsync
    header, *epochs, result = lines
    writer, partial = RunWriter(store, CONFIG, [header]), store.partial_path(CONFIG)
    monkeypatch.setattr(os, "fsync", lambda handle: (sizes.append(os.fstat(handle).st_size), fsync(handle))[1])
    for number, line in enumerate(epochs, start=2):
        writer.append(line)
        # On disk when append returns: all of it had left Python's buffer when the kernel was told to write.
        assert [json.loads(text) for text in partial.read_text().splitlines()] == lines[:number]
        assert sizes[-1] == partial.stat().st_size
        assert store.read(CONFIG) is None
        assert list(store.records("mini")) == []
    writer.finish(left_out(result, "kind"))
    path = store.root / "runs" / "mini" / "digits" / f"{CONFIG.run_id}.jsonl"
    assert list(path.parent.iterdir()) == [path]
    record = store.read(CONFIG)
    assert (record.header, record.epochs, record.result, record.config) == (header, epochs, result, CONFIG)
    assert record.finished
    RunWriter(store, CONFIG, lines[:1]).finish({"status": "failed", "error": "loss is nan"})
    assert (store.read(CONFIG).finished, store.read(CONFIG).epochs) == (False, [])


def test_a_writer_starts_from_its_lines_and_replaces_a_record_at_the_end(store, lines):
    record_run(store, CONFIG, 1.0)
    # A killed process left a torn line; the lines of its checkpoint replace it.
    store.partial_path(CONFIG).write_text('{"kind": "run"}\n{"kind": "epo')
    writer = RunWriter(store, CONFIG, lines[:2])
    writer.append(lines[2])
    # NaN is not JSON. The record is as if nothing had been asked.
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            writer.append({"kind": "epoch", "train_loss": number})
    assert store.read(CONFIG).score == 1.0
    writer.finish(lines[-1])
    assert (store.read(CONFIG).score, store.read(CONFIG).epochs) == (50.0, lines[1:3])


def test_a_run_is_judged_by_the_metric_of_its_header(store, lines):
    # Records of images, written before there was text, name none.
    write_lines(store, [left_out(lines[0], "metric"), *lines[1:]])
    assert (store.read(CONFIG).metric, store.read(CONFIG).score) == ("accuracy_pct", 50.0)
    record_run(store, TEXT, 55.0, header={"metric": "matthews_pct"}, accuracy_pct=80.0)
    assert (store.read(TEXT).metric, store.read(TEXT).score) == ("matthews_pct", 55.0)


def test_records_of_a_profile_come_in_the_order_of_their_paths(store):
    # The slash of a hub name makes no folder.
    mini = [ImageRun(seed=5), TEXT, *(CONFIG.replace(seed=seed) for seed in (3, 1, 2))]
    for config in [*mini, ImageRun(profile="reduced")]:
        record_run(store, config)
    assert [record.config for record in store.records("mini")] == sorted(mini, key=store.run_path)
    assert [len(list(store.records(profile))) for profile in ("reduced", "paper")] == [1, 0]


# Records of before: fields that are retired, other defaults.


@pytest.mark.parametrize(
    ("config", "header", "more"),
    [
        (CONFIG, {}, {"precision": "bf16", "image_size": 0, "momentum": 0.9, "sync_batch_norm": False}),
        (CONFIG, {"device": {"name": "a device", "precision": "fp32"}}, {"image_size": 0, "fill": "greedy"}),
        (TEXT, {}, {"precision": "bf16", "decay_epochs": [60, 120, 160], "threshold": 0.5}),
        (CONFIG.replace(precision="fp32"), {}, {}),
        # bf16 is a run of its own since the device says what it trained in.
        (CONFIG.replace(precision="bf16"), {"device": {"name": "a device", "precision": "bf16"}}, {}),
    ],
)
def test_an_old_record_is_that_of_the_run_it_names(store, config, header, more):
    record_run(store, config, header=header | {"config": config.to_dict() | more})
    record = store.read(config)
    assert record.config == config
    assert record.precision == header.get("device", {}).get("precision")


def test_a_retired_field_of_another_value_named_another_run(store):
    record_run(store, CONFIG, header={"config": CONFIG.to_dict() | {"momentum": 0.5}})
    name = store.run_path(CONFIG).with_name(f"{CONFIG.run_id[:-8]}01234567.jsonl")
    store.run_path(CONFIG).rename(name)
    with pytest.raises(ResultsError, match=str(name)):
        list(store.records("mini"))


# Records that are damaged, or somebody else's.


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"kind": "run"}\n{"kind": "epoch"}\n{"kind": "res', 3),
        (b'{"kind": "run"}\n\n{"kind": "result"}\n', 2),
        (b"this is no record\n", 1),
        # No JSON number is infinite, however it is written.
        (b'{"kind": "run"}\n{"kind": "epoch", "train_loss": 1e999}\n{"kind": "result"}\n', 2),
        (b"[" * 100_000, 1),
        (b"\xff\xfe\x00\x01\n", 1),
        (b"", None),
        (b"1\n2\n", None),
        (b'["run"]\n["result"]\n', None),
        *(
            ("".join(f'{{"kind": "{kind}"}}\n' for kind in kinds.split()).encode(), None)
            for kinds in ("run", "run epoch", "epoch result", "run run result", "run result result", "run x result")
        ),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_a_damaged_record_is_named_with_its_line(store, content, line):
    path = store.run_path(CONFIG)
    write_atomically(path, content)
    with pytest.raises(ResultsError, match=f"{path}:{line} " if line else f"{path} "):
        list(store.records("mini"))


NO_NUMBER = (None, "1", True, 1e999, -1e999, float("nan"))


@pytest.mark.parametrize(
    ("config", "number", "field", "values"),
    [
        (CONFIG, 1, "run_id", (None, 3)),
        *((CONFIG, 1, "config", (None, 3, {}, CONFIG.to_dict() | change)) for change in (
            {"seed": "seven"}, {"dataset": "nope"}, {"dataset": ["digits"]}, {"precision": ["bf16"]}, {"epochs": None},
        )),
        (CONFIG, 1, "device", (None, "a device", {}, {"name": 3})),
        (CONFIG, 1, "sizes", (None, {"train": 500}, {"train": "500", "train_available": 500, "eval": 360})),
        (CONFIG, 1, "started", (None, 1000)),
        (CONFIG, 1, "num_parameters", (None, "1000")),
        (CONFIG, 1, "metric", (["accuracy_pct"],)),
        # All scores, needed or not.
        (CONFIG, 3, "test_accuracy_pct", NO_NUMBER),
        (TEXT, 1, "hidden_dropout", NO_NUMBER),
        (TEXT, 1, "attention_dropout", NO_NUMBER),
        *((CONFIG, 2, name, NO_NUMBER) for name in ("epoch", "accuracy_pct", "eval_seconds")),
        (CONFIG, 3, "status", (None, 1)),
        *((CONFIG, 3, name, NO_NUMBER) for name in (
            "accuracy_pct", "best_accuracy_pct", "train_seconds", "wall_seconds",
        )),
    ],
)  # fmt: skip
def test_a_field_that_is_missing_or_holds_something_else_is_named(store, config, number, field, values):
    record_run(store, config)
    path = store.run_path(config)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    original = lines[number - 1]
    absent = [left_out(original, field)] * (field not in ("metric", "test_accuracy_pct"))
    for line in (*absent, *(original | {field: value} for value in values)):
        lines[number - 1] = line
        write_lines(store, lines, config)
        with pytest.raises(ResultsError, match=rf"^{path}:{number}\b.*({field}|NaN|1e999|Infinity)") as caught:
            store.read(config)
        assert len(str(caught.value).splitlines()) == 1


def test_a_finished_run_has_an_evaluation_and_a_failed_one_an_error(store, lines):
    with pytest.raises(ResultsError, match=str(write_lines(store, [lines[0], lines[-1]]))):
        store.read(CONFIG)
    with pytest.raises(ResultsError, match="error"):
        read_record(write_lines(store, [lines[0], {"kind": "result", "status": "failed"}]))


@pytest.mark.parametrize("other", [CONFIG.replace(seed=8), CONFIG.replace(profile="reduced"), ImageRun(seed=7), TEXT])
def test_a_record_of_another_run_is_refused(store, other):
    # Copied over another seed's, it would count twice.
    record_run(store, CONFIG)
    write_atomically(store.run_path(other), store.run_path(CONFIG).read_bytes())
    with pytest.raises(ResultsError, match=CONFIG.run_id) as caught:
        list(store.records(other.profile))
    assert str(store.run_path(other)) in str(caught.value)
    # Nor may the name and the configuration in it differ.
    record_run(store, other, header={"run_id": CONFIG.run_id})
    with pytest.raises(ResultsError, match=CONFIG.run_id):
        store.read(other)


# Writing a file so that it is whole or not there.


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
@pytest.mark.parametrize("content", ["text, déjà", b"\x00\xff"])
def test_a_file_is_written_through_and_then_named(tmp_path, monkeypatch, content, umask, mode):
    # A rename that reaches the disk before the data would leave an empty file after a power cut.
    steps, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda *args: (steps.append("replace"), replace(*args))[1])
    path, before = tmp_path / "new" / "folder" / "file", os.umask(umask)
    try:
        write_atomically(path, content)
    finally:
        assert os.umask(before) == umask
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(path.parent.iterdir()) == [path]
    assert steps == ["fsync", "replace"]
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("target", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError("disk is full"), KeyboardInterrupt()], ids=type)
def test_a_write_that_fails_midway_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, target, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        with pytest.raises(type(error)):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# Folders.


def test_the_results_folder_is_named_or_found(tmp_path, monkeypatch):
    monkeypatch.delenv("MMEL_RESULTS", raising=False)
    for name in ("named", "variable", "study/results", "study/notebooks", "study/elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    found = tmp_path / "study" / "results"
    # A notebook's kernel starts in notebooks/; the ../results of any other folder is somebody else's.
    for folder in ("study", "study/notebooks"):
        monkeypatch.chdir(tmp_path / folder)
        assert Store.find().root.resolve() == found
    monkeypatch.chdir(tmp_path / "study" / "elsewhere")
    with pytest.raises(ResultsError, match="no results folder at results"):
        Store.find()
    # One that is named and not there is never replaced by another.
    monkeypatch.chdir(tmp_path / "study")
    (tmp_path / "file").touch()
    for name in ("nowhere", str(tmp_path / "file")):
        monkeypatch.setenv("MMEL_RESULTS", name)
        for given in (None, name):
            with pytest.raises(ResultsError, match=name):
                Store.find(given)
    monkeypatch.setenv("MMEL_RESULTS", str(tmp_path / "variable"))
    assert Store.find().root == tmp_path / "variable"
    assert Store.find(str(tmp_path / "named")).root == tmp_path / "named"


def test_every_path_lies_below_the_root_and_apart(store):
    working = {getattr(store, f"{name}_path")(CONFIG) for name in ("checkpoint", "weights", "notebook", "predictions")}
    working |= {
        store.teacher_path(CONFIG, "0123"),
        store.augmentation_dir(),
        store.model_dir("x"),
        store.report_dir("x"),
    }
    paths = {store.run_path(CONFIG), store.partial_path(CONFIG), *working}
    assert len(paths) == 10
    assert all(path.is_relative_to(store.root) for path in paths)
    # Neither working files nor reports lie where records are looked for.
    assert not any(path.is_relative_to(store.root / "runs") for path in working)


def test_a_scratch_store_shares_the_caches_and_leaves_nothing_unless_an_error_ends_it(store):
    def caches(of):
        return of.augmentation_dir(), of.model_dir("tiny-bert"), of.teacher_path(CONFIG, "0123")

    def train_and_stop():
        with store.scratch(CONFIG) as scratch, scratch.scratch(TEXT) as inner:
            assert caches(inner) == caches(scratch) == caches(store)
            record_run(scratch, TEXT)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train_and_stop()
    # The next one resumes from it; that of another run does not.
    with store.scratch(CONFIG) as again, store.scratch(TEXT) as other:
        assert again.read(TEXT)
        assert not other.read(TEXT)
    assert not again.root.exists()
    assert list(store.records("mini")) == []


# Holding a run.

HOLD = """
import json, sys
from mmel.study.config import ImageRun
from mmel.study.records import Store
with Store(sys.argv[1]).lock(ImageRun(**json.loads(sys.argv[2]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_held_by_one_process_until_it_lets_go_or_dies(store):
    command = [sys.executable, "-c", HOLD, str(store.root), json.dumps(CONFIG.to_dict())]
    assert store.holder(CONFIG) == ""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout.readline() == "held\n"
            for _ in range(2):
                with pytest.raises(LockedError, match=CONFIG.run_id), store.lock(CONFIG):
                    pass
                assert str(process.pid) in store.holder(CONFIG)
            # Other runs are free.
            with store.lock(CONFIG.replace(seed=8)):
                pass
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert store.holder(CONFIG) == ""
    with pytest.raises(RuntimeError, match="training failed"), store.lock(CONFIG, wait=True):
        raise RuntimeError("training failed")
    with store.lock(CONFIG):
        pass


def test_what_a_killed_process_half_wrote_of_a_run_is_deleted_and_nothing_else(store):
    torn, kept = [], []
    for config, left in ((CONFIG, torn), (CONFIG.replace(seed=8), kept)):
        for path in (store.partial_path, store.checkpoint_path, store.weights_path, store.predictions_path):
            left.append(path(config).with_name(f".{path(config).name}.a1b2c3d4"))
            kept.append(path(config))
    for path in (*torn, *kept):
        write_atomically(path, "half")
    with store.lock(CONFIG):
        assert not any(path.exists() for path in torn)
    assert all(path.exists() for path in kept)
