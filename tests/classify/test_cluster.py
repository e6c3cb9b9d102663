from contextlib import nullcontext

import numpy as np
import pytest

from classify import cluster
from classify.cluster import connected
from classify.heads import HEADS
from classify.solvers import Pipelines
from classify.solvers.fits import run_jobs
from classify.spec import FitSpec
from extract.engines import session as sessions
from extract.errors import EngineError, FitError, OptionError
from extract.progress import Silent
from extract.spec import EngineSpec
from tests.classify.tiny_task import candidate, tiny_task

pytestmark = pytest.mark.timeout(600)

RAY = EngineSpec("ray")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"head": "logistic", "strategy": "linear"}, "the head logistic is searched by a solver of our own"),
        ({"head": "ridge"}, "the head ridge is searched by a solver of our own"),
        ({"protocol": "kornblith"}, "protocols and fits of several labels run on one machine"),
        ({"multi_label": True}, "protocols and fits of several labels run on one machine"),
    ],
)
def test_what_runs_on_one_machine_alone_is_refused_before_ray_is_started(asked, said):
    with (
        pytest.raises(OptionError, match=rf"^--engine ray: {said}.*Leave --engine out"),
        connected(FitSpec("tiny", engine=RAY, **asked)),
    ):
        pass


@pytest.mark.parametrize("strategy", ["full", "auto"])
def test_without_ray_train_no_long_work_is_begun(monkeypatch, strategy):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(sessions, "session", lambda _: nullcontext())
    monkeypatch.setattr(cluster.importlib, "import_module", missing)
    with (
        pytest.raises(EngineError, match=r"Ray Train is not installed.*offshelf\[ray-train\]"),
        connected(FitSpec("tiny", strategy=strategy, engine=RAY)),
    ):
        pass
    with connected(FitSpec("tiny", head="lda", engine=RAY)):
        pass


def test_of_ray_alone_there_is_an_address():
    with pytest.raises(OptionError, match="--engine ray"):
        FitSpec("tiny", engine=EngineSpec("local", address="auto"))


@pytest.fixture(scope="module")
def ray():
    """Ray on two CPUs of this machine."""
    pytest.importorskip("ray")
    with connected(FitSpec("tiny", head="lda", engine=RAY, jobs=2)):
        yield


def test_fits_on_ray_are_those_on_this_machine_to_the_last_bit(ray):
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=60)
    X = rng.standard_normal((60, 5)) + y[:, None]
    solver = Pipelines(HEADS["lda"])
    found = [solver.refine(tiny_task(y, {"tap": X}, ray=on), candidate(X), Silent()) for on in (False, True)]
    assert len(found[0]) == len(found[1]) > 0
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one.predicted, other.predicted)
        assert (one.params, one.metrics, one.converged) == (other.params, other.metrics, other.converged)


def refused(X: np.ndarray, at: int) -> None:
    raise FitError(f"{len(X)} rows at {at}", where="there", remedy="Take others")


def test_an_error_of_ours_comes_back_as_it_is(ray):
    with pytest.raises(FitError) as caught:
        list(run_jobs(refused, (np.zeros(3),), [(1,)], 2, ray=True))
    assert (caught.value.what, caught.value.where, caught.value.remedy) == ("3 rows at 1", "there", "Take others")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Data's own settings, which Ray Train reads
def test_a_network_is_trained_by_ray_train_as_by_one_process(ray, tmp_path):
    pytest.importorskip("ray.train")
    from tests.classify.finetune.tiny_story import extract_photos, tune, write_photos

    extract_photos(write_photos(tmp_path / "photos"), tmp_path / "cache")
    one = {"folds": 0, "rates": (0.001,)}
    expected, got = (
        tune(tmp_path, "tail", out=out, **one, **more)
        for out, more in (("one", {}), ("two", {"processes": 2, "engine": RAY}))
    )
    for row, other in zip(got["finetune"]["history"], expected["finetune"]["history"], strict=True):
        assert row["step"] == other["step"]
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4), "sums of float32 in another order"
    assert got["test"]["accuracy"] == expected["test"]["accuracy"]
