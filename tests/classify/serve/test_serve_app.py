import asyncio
import base64
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classify.predict import PredictSpec, predict, records_of
from extract.errors import EngineError
from extract.progress import Silent
from tests.page_tags import Tags
from tests.tiny import png

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")

from classify.serve import requests  # noqa: E402 what it needs may be absent
from classify.serve.app import make_app  # noqa: E402
from classify.serve.page import POLICY, page  # noqa: E402
from classify.serve.requests import Limits  # noqa: E402
from classify.serve.server import HERE  # noqa: E402

LIMITS = Limits(images=3, request_bytes=200_000, waiting=10, held_bytes=300_000)
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def connected(model) -> Callable[[], Any]:
    """Make a client of the application, without a network between."""
    app = make_app(model, "photos", LIMITS, HERE)
    return lambda: httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def ask(connected) -> Ask:
    """Send one request to the application."""

    def send(method: str, path: str, **known: Any) -> Any:
        async def sent() -> Any:
            async with connected() as client:
                return await client.request(method, path, **known)

        return asyncio.run(sent())

    return send


def form(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{at}.png", image)) for at, image in enumerate(images)]


def listed(*images: bytes | str) -> dict[str, Any]:
    texts = [image if isinstance(image, str) else base64.b64encode(image).decode() for image in images]
    return {"images": [{"id": f"{at}.png", "data": text} for at, text in enumerate(texts)]}


def what(response: Any) -> str:
    error = response.json()["error"]
    assert set(error) == {"type", "what", "where", "remedy"}
    return error["what"]


def test_uploads_are_answered_as_predict_answers_files(served, ask, tmp_path):
    (tmp_path / "0.png").write_bytes(png(3))
    spec = PredictSpec(str(served / "run"), device="cpu", workers=1)
    [expected] = predict(spec, records_of((str(tmp_path / "0.png"),)), Silent())
    response = ask("POST", "/predict", files=form(png(3)))
    assert response.status_code == 200
    [answer] = response.json()["answers"]
    assert answer["probability"] == pytest.approx(expected["probability"], abs=1e-5)
    assert {**answer, "id": 0, "probability": 0, "top": 0} == {**expected, "id": 0, "probability": 0, "top": 0}
    assert answer["id"] == "0.png"


def test_json_is_answered_as_uploads_are(ask):
    uploaded = ask("POST", "/predict?top=2", files=form(png(1), png(2))).json()
    given = ask("POST", "/predict/batch?top=2", json=listed(png(1), png(2)))
    assert given.status_code == 200
    assert given.json() == uploaded
    assert [len(answer["top"]) for answer in uploaded["answers"]] == [2, 2]


def test_a_bad_image_is_a_row_and_one_alone_is_unprocessable(ask):
    both = ask("POST", "/predict", files=form(png(), b"no image"))
    assert both.status_code == 200
    assert [answer["status"] for answer in both.json()["answers"]] == ["ok", "not an image"]
    alone = ask("POST", "/predict", files=form(b"no image"))
    assert alone.status_code == 422
    [answer] = alone.json()["answers"]
    assert (answer["id"], answer["label"], answer["status"]) == ("0.png", None, "not an image")


def test_an_image_without_a_name_is_called_by_its_place_and_a_long_name_is_cut(ask):
    answers = ask("POST", "/predict/batch", json={"images": [{"data": ""}, {"id": "x" * 999, "data": ""}]}).json()
    assert [answer["id"] for answer in answers["answers"]] == ["0", "x" * requests.MAX_NAME]
    assert [answer["status"] for answer in answers["answers"]] == ["empty", "empty"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_too_many_images_are_refused(ask, path):
    known = {"files": form(*[png()] * 4)} if path == "/predict" else {"json": listed(*[png()] * 4)}
    response = ask("POST", path, **known)
    assert response.status_code == 413
    assert "3" in what(response)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_too_many_bytes_are_refused_whatever_the_header_says(ask, path):
    async def endless():
        for _ in range(30):
            yield bytes(10_000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = ask("POST", path, content=endless(), headers=headers)
    assert response.status_code == 413
    assert "200,000 bytes" in what(response)


def test_a_body_without_end_is_cut_off(ask, monkeypatch):
    monkeypatch.setattr(requests, "DRAINED", 100_000)
    sent = []

    async def endless():
        while True:
            sent.append(10_000)
            yield bytes(10_000)

    assert ask("POST", "/predict/batch", content=endless()).status_code == 413
    assert sum(sent) < 400_000


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nonsense", b"[]", b"{}", b'{"images": 3}', b'{"images": []}', b'{"images": [3]}',
        b'{"images": [{"id": "a"}]}', b'{"images": [{"data": 3}]}', b'{"images": [{"data": "?"}]}',
        b'{"images": [{"id": 3, "data": ""}]}', b'{"images": [{"path": "/etc/passwd"}]}', b"[" * 100_000, b"\xff\xfe",
    ],
)  # fmt: skip
def test_json_that_is_not_what_it_should_be_is_refused(ask, body):
    response = ask("POST", "/predict/batch", content=body)
    assert response.status_code == 400
    assert what(response)


@pytest.mark.parametrize(
    ("known", "code"),
    [
        ({"content": b"x"}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400),
        ({"data": {"image": "no file"}, "files": {}}, 415),
        ({"files": [("image", (None, b"a field"))]}, 400),
    ],
)
def test_forms_that_hold_no_image_are_refused(ask, known, code):
    response = ask("POST", "/predict", **known)
    assert response.status_code == code
    assert what(response)


def test_a_server_that_is_busy_says_so(ask, model, monkeypatch):
    monkeypatch.setattr(type(model), "waiting", property(lambda self: 9))
    response = ask("POST", "/predict", files=form(png(), png()))
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "busy" in what(response)


def test_bodies_of_all_requests_have_a_limit_together_and_leave_room_again(connected):
    body = json.dumps(listed(png(1)) | {"pad": " " * 160_000}).encode()

    async def asked() -> tuple[Any, Any, Any]:
        half_way, go_on = asyncio.Event(), asyncio.Event()

        async def slowly():
            yield body[:-10]
            half_way.set()
            await go_on.wait()
            yield body[-10:]

        async with connected() as client:
            first = asyncio.create_task(client.post("/predict/batch", content=slowly()))
            await half_way.wait()
            second = await client.post("/predict/batch", content=body)
            go_on.set()
            return await first, second, await client.post("/predict/batch", content=body)

    first, second, third = asyncio.run(asked())
    assert (first.status_code, second.status_code, third.status_code) == (200, 503, 200)
    assert "fill the memory" in what(second)
    assert second.headers["retry-after"]
    assert first.json() == third.json()


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_body_that_trickles_in_is_refused(ask, monkeypatch, path):
    monkeypatch.setattr(requests, "PATIENCE_S", 0.01)

    async def trickle():
        yield b"--x"
        await asyncio.Event().wait()

    response = ask("POST", path, content=trickle(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert response.status_code == 408
    assert "too slowly" in what(response)


def test_a_body_has_more_time_the_more_of_it_is_there():
    assert requests.seconds_for(64 << 20) - requests.seconds_for(0) == pytest.approx((64 << 20) / requests.LEAST_RATE)
    assert requests.seconds_for(0) == requests.PATIENCE_S


def test_a_model_that_fails_is_unavailable(ask, model, monkeypatch):
    def fail(*_: object) -> None:
        raise EngineError("the model has ended", remedy="Start the server again")

    monkeypatch.setattr(model, "ask", fail)
    response = ask("POST", "/predict", files=form(png()))
    assert response.status_code == 503
    assert response.json()["error"]["remedy"] == "Start the server again"


def test_its_state_can_be_asked_for(ask, model, monkeypatch):
    assert ask("GET", "/healthz").json() == {"status": "ok"}
    told = ask("GET", "/info").json()
    assert (told["run"], told["classes"]) == ("photos", ["cat", "dog", "eel"])
    assert told["limits"]["images"] == 3
    monkeypatch.setattr(type(model), "alive", property(lambda self: False))
    assert ask("GET", "/healthz").status_code == 503


def test_no_path_of_the_server_is_told(ask, served):
    for path in ("/info", "/", "/metrics"):
        assert str(served) not in ask("GET", path).text


def test_requests_are_counted_and_paths_that_are_not_there_as_one(ask):
    for path in ("/nothing", "/other-nothing"):
        assert ask("GET", path).status_code == 404
    ask("POST", "/predict", files=form(png()))
    counted = ask("GET", "/metrics").text
    assert re.search(r'offshelf_requests_total\{path="/predict",code="200"\} [1-9]', counted)
    assert 'path="other",code="404"' in counted
    assert "nothing" not in counted


def test_a_page_of_the_web_that_points_its_name_here_is_refused(ask):
    assert ask("GET", "/info", headers={"host": "evil.example"}).status_code == 400
    assert ask("GET", "/info", headers={"host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize("top", ["0", "x"])
def test_a_wish_that_is_no_number_is_refused(ask, top):
    response = ask("POST", f"/predict?top={top}", files=form(png()))
    assert response.status_code == 400
    assert "top" in what(response)


def test_the_page_stands_alone_and_its_policy_allows_no_more(ask):
    response = ask("GET", "/")
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    text = response.text
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", text)
    assert "https://" not in text
    tags = Tags(text.replace('<link rel="icon" href="data:,">', "").replace("multiple>", "multiple/>"))
    [label], [field] = tags.all("label"), tags.all("input")
    assert label["for"] == field["id"]
    assert len(tags.all("h1")) == 1
    assert "cat, dog, eel" in tags.text


def test_names_are_escaped_and_long_lists_are_cut():
    shown = page("<b>run", ["<i>", *map(str, range(60))], LIMITS)
    assert "&lt;b&gt;run" in shown
    assert "<i>" not in shown
    assert "and 11 more" in shown


def test_nothing_of_an_upload_reaches_a_disk(ask, monkeypatch, tmp_path):
    monkeypatch.setattr("starlette.formparsers.MultiPartParser.spool_max_size", 10)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    assert ask("POST", "/predict", files=form(png(), bytes(150_000))).status_code == 200
    assert json.loads(ask("GET", "/healthz").text) == {"status": "ok"}
    assert not Path(tmp_path / "not there").exists()


def test_no_upload_is_so_large_that_it_is_written_to_a_disk(ask, monkeypatch):
    sizes = []

    def noted(max_size: int) -> tempfile.SpooledTemporaryFile:
        sizes.append(max_size)
        return tempfile.SpooledTemporaryFile(max_size)

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", noted)
    assert ask("POST", "/predict", files=form(png())).status_code == 200
    assert sizes == [0]  # none at all, in the words of tempfile
