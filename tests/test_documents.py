"""The Python in the documents runs as it is written, on small stand-ins; what they name and link to exists."""

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from datasets import Dataset
from pretend import write_bert
from torch import nn
from transformers import BertForSequenceClassification, BertTokenizer

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
BLOCKS = [
    pytest.param(path, place, id=f"{path.name}-{place}")
    for path in DOCUMENTS
    if path.name != "recipes.md"  # whose blocks have a test of their own, in tests/library/test_recipes.py
    for place in range(len(re.findall("```python\n", path.read_text(encoding="utf-8"))))
]
SENTENCES = ["She is my daughter.", "He is my son.", "She is not here.", "He is here."]
ENCODER = "bert-base-uncased"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Folder of a tiny BERT with random weights that knows the words of `SENTENCES`."""
    words = sorted({word for sentence in SENTENCES for word in re.findall(r"\w+", sentence.lower())})
    return write_bert(tmp_path_factory.mktemp("models") / ENCODER, [".", *words])


@pytest.fixture
def names(encoder, tmp_path, monkeypatch):
    """The objects that a reader has at hand, by their names in the documents."""
    monkeypatch.chdir(tmp_path)
    images, labels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 1, 0])
    rows = Dataset.from_dict({"sentence": SENTENCES, "label": labels.tolist()})
    return {
        "images": images,
        "labels": labels,
        "loader": [(images, labels)],
        "normalize": lambda views: views.float() / 255 - 0.5,
        "model": nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)),
        "tokenizer": BertTokenizer.from_pretrained(encoder),
        "classifier": BertForSequenceClassification.from_pretrained(encoder),
        "train": rows,
        "dev": rows,
    }


@pytest.mark.parametrize(("path", "place"), BLOCKS)
def test_the_python_of_the_documents_runs(path, place, encoder, names, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    if "augment.ids" in blocks[place] and "augment =" not in blocks[place]:
        # It continues the block before.
        exec(blocks[place - 1].replace(f'"{ENCODER}"', repr(str(encoder))), names)
    if "results/runs" in blocks[place]:
        # It prints a cell of the committed table.
        monkeypatch.chdir(ROOT)
        exec(blocks[place], names)
        printed = capsys.readouterr().out.strip()
        assert printed in (ROOT / "results/report/reduced/table1.csv").read_text(encoding="utf-8")
        assert f"# {printed}\n" in blocks[place]
        return
    exec(blocks[place].replace(f'"{ENCODER}"', repr(str(encoder))), names)
    if "loss" in names:
        assert names["model"][1].weight.grad.isfinite().all()
        assert names["loss"] > 0
    elif "trainer" in names:
        assert names["trainer"].state.global_step > 0
        assert names["trainer"].evaluate()["eval_loss"] > 0
    elif "variants" in names:
        assert [len(ids) for ids in names["variants"]] == [5]
        assert names["texts"][0][0] == SENTENCES[0]
    else:
        assert names["augment"](SENTENCES)[1][0] == SENTENCES[1]


def test_every_interval_of_the_readme_stands_in_a_report():
    reports = [path.read_text(encoding="utf-8") for path in (ROOT / "results/report/reduced").glob("*.csv")]
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    found = re.findall(r"[+-]\d+\.\d+ \[[^\]]+\]", text)
    assert len(found) > 8
    assert [one for one in found if not any(one in report for report in reports)] == []


PAGES = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md", ROOT / "benchmarks" / "README.md"]


def anchors(path):
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_names_exists(page):
    text = page.read_text(encoding="utf-8")
    for path, _, anchor in (link.partition("#") for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"
    for path in re.findall(r"`((?:mmel|tests|docs|notebooks|benchmarks)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(mmel(?:\.\w+)+)", text):
        resolve_name(name)
