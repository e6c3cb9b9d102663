import pytest

from extract import loader
from tests.instant import Instant


@pytest.fixture
def decoder(monkeypatch) -> type[Instant]:
    """A class of decoders to be changed."""

    class Changed(Instant):
        pass

    monkeypatch.setattr(loader, "Decoder", Changed)
    return Changed
