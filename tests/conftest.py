import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cifar_root():
    """The folder that MMEL_DATA names, where it holds CIFAR-10; never downloaded by a test."""
    folder = "cifar-10-batches-py"
    root = os.environ.get("MMEL_DATA")
    if not root or not (Path(root) / folder).is_dir():
        pytest.skip(f"needs {folder} in the folder that MMEL_DATA names (MMEL_DATA={root!r})")
    return Path(root)


@pytest.fixture(scope="module")
def one_thread():
    """Threads cost tiny tensors more than they save, up to fifty times on a busy machine."""
    import torch  # not above: the tests of what never loads torch share this file

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
