"""Fixtures of the whole test suite, and the check of every call's types and shapes."""

import pytest
import torch
import type_checks

type_checks.install()


@pytest.fixture
def one_thread():
    """Run on one thread: on tensors this small, a second one costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
