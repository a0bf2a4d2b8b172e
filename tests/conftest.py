"""Fixtures of the whole test suite."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Run on one thread: on tensors this small, a second one costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
