from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import put_bundle, tiny_bundle, tiny_features

from classify.predict import PredictSpec
from classify.serve.model import Model


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Path:
    """A folder with `data`, and `run`, a run on them."""
    folder = tmp_path_factory.mktemp("served")
    features = tiny_features(folder)
    put_bundle(folder / "run", tiny_bundle(features), features)
    return folder


@pytest.fixture(scope="module")
def model(served) -> Iterator[Model]:
    with Model(PredictSpec(str(served / "run"), device="cpu", workers=1)) as opened:
        yield opened
