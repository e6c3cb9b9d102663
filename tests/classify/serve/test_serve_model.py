import threading
from pathlib import Path

import pytest

from classify.predict import PredictSpec, predict, records_of
from classify.serve.model import Model
from extract.errors import BundleError, EngineError
from extract.lanes import Stream
from extract.progress import Silent
from extract.sources import Held


def held(served: Path) -> tuple[list[Held], list[dict]]:
    """The images of a run as bytes, and what `predict` says of them."""
    spec = PredictSpec(str(served / "run"), device="cpu", workers=1)
    answers = list(predict(spec, records_of((str(served / "data"),)), Silent()))
    return [Held.of(answer["id"], Path(answer["id"]).read_bytes()) for answer in answers], answers


def same(given: list[dict], expected: list[dict]) -> None:
    for one, other in zip(given, expected, strict=True):
        assert {**one, "probability": 0, "top": 0} == {**other, "probability": 0, "top": 0}
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_bytes_are_answered_as_files_are(served, model):
    images, expected = held(served)
    same(model.ask(images, 5).result(60), expected)


def test_a_bad_image_is_a_row_among_good_ones(served, model):
    images, expected = held(served)
    answers = model.ask([images[0], Held.of("bad", b"no image"), Held.of("none", b""), images[1]], 2).result(60)
    assert [answer["status"] for answer in answers] == ["ok", "not an image", "empty", "ok"]
    assert [answer["id"] for answer in answers][1:3] == ["bad", "none"]
    assert [answer["label"] for answer in answers[::3]] == [answer["label"] for answer in expected[:2]]
    assert len(answers[0]["top"]) == 2


def test_many_who_ask_at_once_get_their_own_answers(served, model):
    images, expected = held(served)
    found: dict[int, list[dict]] = {}

    def ask(at: int) -> None:
        found[at] = model.ask(images[at : at + 2], 5).result(120)

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(images) - 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at, answers in found.items():
        same(answers, expected[at : at + 2])
    assert len(found) == len(threads)
    assert model.waiting == 0


def test_an_error_reaches_who_asked_and_the_next_one_is_answered(served, model, monkeypatch):
    images, expected = held(served)
    run = Stream.run
    failing = iter([True])

    def fail_once(self: Stream, records: object):
        if next(failing, False):
            raise EngineError("the device is gone")
        return run(self, records)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Stream, "run", fail_once)
    with pytest.raises(EngineError, match="the device is gone"):
        model.ask(images[:1], 5).result(60)
    same(model.ask(images[:1], 5).result(60), expected[:1])
    assert model.alive


@pytest.mark.usefixtures("no_thread_left")
def test_after_its_end_it_refuses(served):
    with Model(PredictSpec(str(served / "run"), device="cpu", workers=1)) as opened:
        assert opened.alive
    assert not opened.alive
    with pytest.raises(EngineError, match="the model has ended"):
        opened.ask([Held.of("a", b"x")], 5).result(60)
    assert opened.waiting == 0


def test_a_run_that_is_none_is_told_at_once(tmp_path):
    with pytest.raises(BundleError):
        Model(PredictSpec(str(tmp_path / "nothing")))
