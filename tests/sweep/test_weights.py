import pytest
from pretend import record_run

import mmel.train
from mmel import RunConfig
from mmel.grids import is_teacher
from mmel.records import Store, write_atomically
from mmel.sweep.driver import KEPT_BYTES, sweep
from mmel.sweep.plan import PlannedRun

TEXT = RunConfig(dataset="grammar_cola", model="tiny-bert", method="mmel_h", epochs=1)
BASELINE = TEXT.replace(method="baseline", num_augmented=1)
IMAGES = RunConfig(dataset="digits", augment="crop", epochs=1, decay_epochs=())


LARGE = KEPT_BYTES + 1


@pytest.mark.parametrize("large", [True, False], ids=["large", "small"])
@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (IMAGES, True),
        (BASELINE, True),
        (BASELINE.replace(seed=1), False),
        (TEXT, False),
        (TEXT.replace(method="mmel_s", seed=1), False),
    ],
    ids=["images", "teacher", "baseline of another seed", "taught", "taught, another seed"],
)
def test_a_sweep_keeps_small_networks_and_those_of_images_and_teachers(config, kept, large, tmp_path, monkeypatch):
    def train(config, store, **_):
        write_atomically(store.weights_path(config), bytes(LARGE if large else 7))
        record_run(store, config)
        yield {}

    monkeypatch.setattr(mmel.train, "train", train)
    store = Store(tmp_path)
    outcome = sweep(lambda: [PlannedRun(config, "table3", "missing", None)], store, notebook=False)
    assert len(outcome.trained) == 1
    assert store.read(config).finished
    assert store.weights_path(config).exists() is (kept or not large)
    assert is_teacher(config) is (kept and config.is_text)
