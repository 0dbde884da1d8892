import pytest

from mmel.study.records import Store


@pytest.fixture
def store(tmp_path):
    """An empty results folder."""
    return Store(tmp_path)
