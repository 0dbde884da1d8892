"""Each recipe of docs/recipes.md trains as it is written, if its library is installed."""

import ast
import re
from pathlib import Path

import pytest
import torch
from random_bert import make_masked_lm, make_tokenizer
from test_huggingface import LABELS, SENTENCES, make_model
from torch import nn

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
START, *_ = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
RECIPES = dict(re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The objects that a reader has at hand, by their names in the recipes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    return {
        # As many as leave a smaller last part.
        "dataset": [(torch.randint(256, (3, 32, 32), dtype=torch.uint8), number % 3) for number in range(10)],
        "normalize": lambda views: views.float() / 255 - 0.5,
        "num_classes": 3,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
    }


@pytest.fixture
def text_names(names):
    datasets = pytest.importorskip("datasets")
    from mmel.augment.text import MaskedLMAugmenter

    names["tokenizer"] = make_tokenizer()
    names["augment_text"] = MaskedLMAugmenter(make_masked_lm(), names["tokenizer"])
    names["train"] = datasets.Dataset.from_dict({"sentence": SENTENCES, "label": LABELS})
    names["classifier"] = make_model()
    return names


@pytest.fixture
def image_names(names, tmp_path):
    timm_data = pytest.importorskip("timm.data")
    from PIL import Image

    for number, (image, label) in enumerate(names["dataset"]):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    names["image_dataset"] = timm_data.ImageDataset(tmp_path / "images")
    return names


@pytest.fixture
def process_names(names, tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    yield names
    torch.distributed.destroy_process_group()


FIXTURES = {
    "Hugging Face's Trainer": "text_names",
    "timm": "image_names",
    "Several processes (DDP)": "process_names",
}


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_trains(title, request):
    names = request.getfixturevalue(FIXTURES.get(title, "names"))
    for node in ast.walk(ast.parse(RECIPES[title])):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            pytest.importorskip(getattr(node, "module", None) or node.names[0].name)
    trained = names.get("classifier", names["model"])
    before = [weight.detach().clone() for weight in trained.parameters()]
    exec(START, names)
    exec(RECIPES[title], names)
    if "network" in names:
        # Keras makes its weights when it sees the first batch.
        (trained, before) = names["network"], []
        assert len(trained.weights) == 2
        weights = [torch.as_tensor(weight.value) for weight in trained.weights]
    else:
        weights = list(trained.parameters())
        assert any(not torch.equal(new, old) for new, old in zip(weights, before, strict=True))
    assert all(weight.isfinite().all() for weight in weights)


def test_every_recipe_is_found():
    assert len(RECIPES) == TEXT.count("\n## ") == TEXT.count("```python") - 1 >= 10
