import pytest
import torch


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    """Runs set the number of threads of their process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
