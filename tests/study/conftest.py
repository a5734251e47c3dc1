import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """One thread, so that results do not depend on the machine and tests side by side do not disturb each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
