import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Threads cost tiny tensors more than they save, up to fifty times on a busy machine."""
    import torch  # not above: the tests of what never loads torch share this file

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
