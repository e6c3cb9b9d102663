import importlib
import os
import signal
import socket
from errno import EADDRNOTAVAIL
from typing import Any

import pytest
from click.testing import CliRunner

import pipeline
from classify.predict import PredictSpec
from classify.serve.server import HERE, ServeSpec, _listen, hosts_of
from extract.errors import OptionError
from tests.served import server, start
from tests.tiny import png

httpx = pytest.importorskip("httpx")
for name in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(name)


PATIENT_S = 120
"""How long a client waits on a machine that is busy."""


def client_of(url: str) -> Any:
    return httpx.Client(base_url=url, timeout=PATIENT_S)


def test_a_client_is_answered_within_the_limits(served):
    with server(served / "run", "--max-images", "2", "--max-mb", "1") as url, client_of(url) as client:
        assert url.startswith("http://127.0.0.1:")
        assert client.get("/healthz").json() == {"status": "ok"}
        told = client.get("/info").json()
        assert (told["run"], told["limits"]["images"]) == ("run", 2)
        found = client.post("/predict", files=[("image", ("a.png", png())), ("image", ("b.png", b"none"))])
        assert [answer["status"] for answer in found.json()["answers"]] == ["ok", "not an image"]
        assert client.post("/predict", files=[("image", ("a.png", png()))] * 3).status_code == 413
        assert client.post("/predict", files={"image": bytes(2 << 20)}).status_code == 413
        assert 'offshelf_images_total{status="ok"} 1' in client.get("/metrics").text


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_order_when_it_is_told_to(served, number):
    process, url = start(served / "run")
    try:
        with client_of(url) as client:
            assert client.post("/predict", files={"image": png()}).status_code == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENT_S)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, ""), err
    assert "Traceback" not in err


def test_an_address_that_is_taken_is_an_error_of_ours(served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(pipeline.main, ["serve", str(served / "run"), "--port", str(port)])
    assert done.exit_code == 1
    assert f"127.0.0.1:{port}: cannot listen there" in done.stderr
    assert "Take another --port" in done.stderr


@pytest.mark.parametrize("said", [OSError(EADDRNOTAVAIL, "no such address"), socket.gaierror(socket.EAI_NONAME, "?")])
def test_an_address_of_no_card_here_is_not_blamed_on_the_port(monkeypatch, said):
    def refused(*_, **__):
        raise said

    monkeypatch.setattr("socket.create_server", refused)
    with pytest.raises(OptionError, match=r"cannot listen there .*Take an address of this machine as --host"):
        _listen("192.0.2.1", 0)


def test_a_run_that_is_none_is_an_error_of_ours(tmp_path):
    done = CliRunner().invoke(pipeline.main, ["serve", str(tmp_path / "nothing"), "--port", "0"])
    assert done.exit_code == 1
    assert "nothing" in done.stderr


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    done = CliRunner().invoke(pipeline.main, ["serve", "run"])
    assert done.exit_code == 1
    assert "uvicorn is not installed. pip install 'offshelf[serve]'" in done.stderr


def test_by_default_only_this_machine_is_let_in():
    assert ServeSpec(PredictSpec("run")).host == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "address", "more"),
    [
        ("127.0.0.1", "127.0.0.1", ()),
        ("localhost", "127.0.0.1", ()),
        ("::1", "::1", ()),
        ("127.0.0.2", "127.0.0.2", ("127.0.0.2",)),
        ("My-Laptop", "127.0.1.1", ("my-laptop", "127.0.1.1")),
    ],
)
def test_on_every_loopback_address_only_its_own_names_are_let_in(host, address, more):
    known = hosts_of(host, address)
    assert set(more) <= set(known) - set(HERE) if more else set(known) == set(HERE) | {f"[{address}]"}
    assert "*" not in known


@pytest.mark.parametrize("address", ["192.168.1.7", "::", "fe80::1"])
def test_who_listens_for_other_machines_is_called_by_any_name(address):
    assert hosts_of(address, address) == ("*",)
