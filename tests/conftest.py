import pytest


def pytest_collection_modifyitems(items):
    """Begin with the files of slow tests: the last of them, by itself, would leave the other cores idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module")
def one_thread():
    """Threads cost tiny tensors more than they save, up to fifty times on a busy machine."""
    import torch  # not above: the tests of what never loads torch share this file

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
