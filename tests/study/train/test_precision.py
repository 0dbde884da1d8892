"""Precision and machine: the precision that a probe finds faster, fp32 that is fp32, the device, the commit."""

import os
import subprocess

import pytest
import torch
from tiny import CPU, IMAGES, TEXT, numbers, task_of, trained

from mmel import study
from mmel.study.train import BudgetError, machine, precision, task
from mmel.study.train.images import ImageTask

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def faster(monkeypatch):
    """Makes the probe find a precision faster."""

    def choose(name):
        seconds = {"bf16": 1.0, "fp32": 1.0, name: 0.5}
        for module in (precision, task):
            monkeypatch.setattr(module, "probe", lambda device: seconds)

    return choose


def test_a_probe_times_both_precisions():
    seconds = precision.probe(CPU)
    assert seconds.keys() == {"bf16", "fp32"}
    assert all(0 < value < 10 for value in seconds.values())


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_auto_is_the_faster_precision_and_the_record_says_so(config, store, faster, name):
    faster(name)
    asked, auto = config.replace(precision=name), config.replace(precision="auto")
    assert numbers(trained(auto, store)) == numbers(trained(asked, store))
    record, other = store.read(auto), store.read(asked)
    assert record.precision == other.precision == name
    assert record.config == auto
    assert record.header["precision_probe"][name] == 0.5
    assert "precision_probe" not in other.header


def test_smart_is_float32_whatever_is_faster_unless_bf16_is_asked_for(faster):
    faster("bf16")
    run = TEXT.with_method("smart", 0).replace(precision="auto")
    asked = (run, run.with_method("baseline", 0), run.replace(precision="bf16"))
    assert [precision.resolve(each, CPU) for each in asked] == ["fp32", "bf16", "bf16"]


@pytest.mark.parametrize("same_device", [True, False])
def test_a_resumed_run_keeps_its_precision_on_the_same_device_alone(store, faster, monkeypatch, same_device):
    config = IMAGES.replace(precision="auto")
    faster("bf16")
    with pytest.raises(BudgetError):
        trained(config, store, stop_at=0.0)
    faster("fp32")
    if not same_device:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "another")
    trained(config, store)
    record = store.read(config)
    assert record.precision == ("bf16" if same_device else "fp32")
    assert [before["device"]["precision"] for before in record.header["resumed_from"]] == ["bf16"]


def test_bf16_losses_stay_within_the_spread_of_fp32_runs():
    """ "Within bf16 noise" (docs/decisions.md), at the size of a unit test: 30 steps of 8x8 images."""

    def mean_loss(enabled, order_seed):
        task = task_of(IMAGES.replace(train_size=600))
        optimizer, losses = task.build_optimizer(), []
        order = torch.randperm(600, generator=torch.Generator().manual_seed(order_seed))
        for index in order.split(20):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = task.terms(index, 1).loss.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    exact = [mean_loss(False, seed) for seed in range(3)]
    assert abs(mean_loss(True, 0) - exact[0]) < max(exact) - min(exact)


def test_fp32_is_fp32_in_convolutions_and_products_of_a_gpu_and_only_there(store, monkeypatch):
    settings, seen, terms = (torch.backends.cudnn.conv, torch.backends.cuda.matmul), [], ImageTask.terms

    def note(self, index, epoch):
        seen.append((self.config.precision, *(setting.fp32_precision for setting in settings)))
        return terms(self, index, epoch)

    monkeypatch.setattr(ImageTask, "terms", note)
    before = [setting.fp32_precision for setting in settings]
    trained(IMAGES, store)
    trained(IMAGES.replace(precision="bf16"), store)
    assert set(seen) == {("fp32", "ieee", "ieee"), ("bf16", *before)}
    assert [setting.fp32_precision for setting in settings] == before
    # The older interface can be read as ever.
    assert torch.backends.cudnn.allow_tf32 is (before[0] == "tf32")


def test_the_device_is_named_or_refused(monkeypatch):
    monkeypatch.setenv("MMEL_DEVICE", "cpu")
    assert machine.pick_device() == machine.pick_device("cpu") == CPU
    with pytest.raises(ValueError, match=r"device .*'cuda:99'"):
        machine.pick_device("cuda:99")


def test_the_commit_is_passed_in_or_that_of_a_repository_that_tracks_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("MMEL_COMMIT", "abc123")
    assert study.code_version() == {"commit": "abc123", "dirty": None}
    monkeypatch.delenv("MMEL_COMMIT")
    package = tmp_path / "site-packages" / "mmel"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(study, "__file__", str(package / "study" / "__init__.py"))

    def git(*arguments):
        names = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | names).stdout

    assert study.code_version() == {"commit": None, "dirty": None}
    git("init")
    git("commit", "--allow-empty", "--message", "another project")
    assert study.code_version() == {"commit": None, "dirty": None}
    git("add", "site-packages/mmel/__init__.py")
    git("commit", "--message", "now it is ours")
    assert study.code_version() == {"commit": git("rev-parse", "HEAD").strip(), "dirty": False}
    (package / "__init__.py").write_text("changed")
    assert study.code_version()["dirty"]
