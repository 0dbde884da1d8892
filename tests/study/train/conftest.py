import multiprocessing

import pytest
from tiny import KINDS, call_and_die

from mmel.study.data.drawings import load as load_drawings
from mmel.study.data.grammar import load as load_text
from mmel.study.data.images import EncodedImages
from mmel.study.records import Store
from mmel.study.train.step import Step


@pytest.fixture(params=["images", "text"])
def config(request, text_model):
    """A run of each kind."""
    return KINDS[request.param]


@pytest.fixture
def new_store(tmp_path):
    """Makes empty stores."""

    def make():
        folder = tmp_path / f"results{len(list(tmp_path.glob('results*')))}"
        folder.mkdir()
        return Store(folder)

    return make


@pytest.fixture
def store(new_store):
    return new_store()


@pytest.fixture
def steps(monkeypatch):
    """Notes (run, indices, epoch) of each step."""
    taken, call = [], Step.__call__

    def noted(self, index, epoch):
        taken.append((self.config, index.tolist(), epoch))
        return call(self, index, epoch)

    monkeypatch.setattr(Step, "__call__", noted)
    return taken


@pytest.fixture
def few_texts(monkeypatch):
    """Cuts every split to 24 texts, so that whole splits are cheap too; the test splits' labels can be taken away."""
    hidden = set()

    def load(data, data_root=None):
        splits = {name: part.take(range(24)) for name, part in load_text(data, data_root).items()}
        return {
            name: type(part)(part.sentences, part.pairs, None) if name in hidden else part
            for name, part in splits.items()
        }

    monkeypatch.setattr("mmel.study.data.grammar.load", load)
    return hidden


@pytest.fixture
def few_files(monkeypatch):
    """Cuts the drawings to 24 + 12; gives a set for the names of those that shall hold no image."""
    broken = set()

    def load(data, data_root=None):
        cut = []
        for part, size in zip(load_drawings(data, data_root), (24, 12), strict=True):
            files = [(name, b"" if name in broken else content) for name, content in map(part.read, range(size))]
            cut.append(EncodedImages(files.__getitem__, part.labels[:size], part.num_classes))
        return tuple(cut)

    monkeypatch.setattr("mmel.study.data.drawings.load", load)
    return broken


@pytest.fixture(scope="session")
def start(small_bert):
    """Starts a function in a process that has torch and transformers imported already.

    `kill` is (owner, function, at which call, before or after it): where the process dies.
    """
    context = multiprocessing.get_context("forkserver")
    # What a run imports, and what the modules of these tests do.
    context.set_forkserver_preload(
        ["mmel.study.train", "sklearn.datasets", "torch._dynamo", "transformers.models.bert.modeling_bert", "pytest"]
    )

    def begin(target, *arguments, kill=None, **environment):
        environment["MMEL_TEXT_MODEL"] = str(small_bert)
        process = context.Process(target=call_and_die, args=(target, arguments, kill, environment))
        process.start()
        return process

    return begin


@pytest.fixture(scope="session")
def call(start):
    """As `start`, but waits for the end and returns the exit code."""

    def call(*arguments, **options):
        process = start(*arguments, **options)
        process.join(300)
        assert process.exitcode is not None, "the run hangs"
        return process.exitcode

    return call
