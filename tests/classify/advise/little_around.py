"""Less of what is around an advice, and is tested elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from classify.finetune import pace
from classify.linear import Probe, fit_probe
from classify.spec import FitSpec
from extract import loader
from tests.faults.storage import InProcess


@contextmanager
def little_around(story: str) -> Iterator[None]:
    """Decode without processes, measure a pace in few steps, fit each probe once: else most of the time goes there."""
    probes: dict[Any, Probe] = {}

    def once(spec: FitSpec, *given: Any) -> Probe:
        asked = spec.cache, spec.labels
        return probes[asked] if asked in probes else probes.setdefault(asked, fit_probe(spec, *given))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "Decoder", InProcess)
        patch.setattr(pace, "MORE", (3, 3))
        patch.setattr(f"{story}.fit_probe", once)
        yield
