"""The default precision: what a probe finds faster, kept by a run that resumes, and told in its record."""

import pytest
import torch

from mmel import RunConfig
from mmel.records import Store
from mmel.train import BudgetError, precision, train

CPU = torch.device("cpu")
TINY = RunConfig(
    profile="mini", dataset="digits", model="resnet8", augment="crop", num_augmented=2, train_size=64, batch_size=32
).replace(epochs=3, decay_epochs=())


@pytest.fixture
def faster(monkeypatch):
    """Makes the probe find a precision faster."""

    def choose(name):
        seconds = {"bf16": 1.0, "fp32": 1.0, name: 0.5}
        for module in ("precision", "loop"):
            monkeypatch.setattr(f"mmel.train.{module}.probe", lambda device: seconds)

    return choose


def trained(config, store):
    lines = list(train(config, store, device="cpu"))
    return [(line["train_loss"], line["accuracy_pct"]) for line in lines], store.read(config)


def test_a_probe_times_both_precisions():
    seconds = precision.probe(CPU)
    assert seconds.keys() == {"bf16", "fp32"}
    assert all(0 < value < 10 for value in seconds.values())


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_auto_is_the_faster_precision_and_the_record_says_so(tmp_path, faster, name):
    faster(name)
    (tmp_path / "asked").mkdir()
    results, record = trained(TINY, Store(tmp_path))
    asked, other = trained(TINY.replace(precision=name), Store(tmp_path / "asked"))
    assert results == asked
    assert record.precision == other.precision == name
    assert record.config == TINY
    assert record.header["precision_probe"][name] == 0.5
    assert "precision_probe" not in other.header


@pytest.mark.parametrize("same_device", [True, False])
def test_a_resumed_run_keeps_its_precision_on_the_same_device_alone(tmp_path, faster, monkeypatch, same_device):
    store = Store(tmp_path)
    faster("bf16")
    with pytest.raises(BudgetError):
        list(train(TINY, store, device="cpu", stop_at=0.0))
    faster("fp32")
    if not same_device:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "another")
    _, record = trained(TINY, store)
    assert record.precision == ("bf16" if same_device else "fp32")
    assert [before["device"]["precision"] for before in record.header["resumed_from"]] == ["bf16"]


def test_records_from_before_auto_keep_their_names():
    for record in Store("results").records("reduced"):
        assert record.precision is None
        assert record.config.precision == "auto"
        assert record.config.run_id == record.header["run_id"]
