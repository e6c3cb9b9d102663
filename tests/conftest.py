import os
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# The networks here are so small that torch's threads cost ten times what they save where other processes are busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes, and how long it is drawn, says more of what else the machine does than of us.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell that starts a command in the background has it ignore Ctrl-C, which many tests send; so would all they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """See that a test leaves no thread behind."""
    before = threading.enumerate()
    yield
    assert set(threading.enumerate()) <= set(before)


@pytest.fixture
def decoder(monkeypatch) -> type:
    """A class of decoders that answer at once, to be changed."""
    # Not above: what needs no image is not to pay for torch.
    from extract import loader
    from tests.instant import Instant

    class Changed(Instant):
        pass

    monkeypatch.setattr(loader, "Decoder", Changed)
    return Changed
