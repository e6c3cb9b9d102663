import os
import threading
from collections.abc import Iterator

import pytest

# The networks here are so small that torch's threads cost ten times what they save where other processes are busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """See that a test leaves no thread behind."""
    before = threading.enumerate()
    yield
    assert set(threading.enumerate()) <= set(before)
