"""The server: a socket, the application on it, and an orderly end."""

import contextlib
import importlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EADDRNOTAVAIL, EAFNOSUPPORT
from pathlib import Path
from typing import Any

from classify.answering import PredictSpec
from classify.serve.model import Model
from extract.errors import OptionError

GRACE_S = 5
"""How long requests that are being answered may take to end after Ctrl-C."""

HERE = ("127.0.0.1", "localhost", "[::1]", "::1")
"""What the machine itself is called."""

OF_NO_CARD = (EADDRNOTAVAIL, EAFNOSUPPORT, socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL)
"""What the system says of an address that this machine does not have, or of a name that leads to none."""

EVERY = ("*",)
"""All names."""

HELD_REQUESTS = 4
"""Requests of the largest size that may be in memory at once; of smaller ones as many more."""

CONNECTIONS = 256
"""From more on, requests are refused; the memory that each takes besides its request is some hundred kB."""


@dataclass(frozen=True)
class ServeSpec:
    """Which run to serve, and where; port 0 takes one that is free. The most images and bytes of one request."""

    predict: PredictSpec
    host: str = "127.0.0.1"
    port: int = 8000
    images: int = 64
    request_bytes: int = 64 << 20


def serve(spec: ServeSpec, told: Callable[[str], None]) -> None:
    """Serve a run until the process is told to stop; `told` hears the address once there is an answer at it.

    Raises OptionError where the extra is not installed or the address cannot be had, and whatever `open_run` does.
    """
    uvicorn = _need("uvicorn")
    for name in ("fastapi", "python_multipart"):
        _need(name)
    from classify.serve.app import make_app
    from classify.serve.connections import Impatient
    from classify.serve.requests import Limits

    limits = Limits(spec.images, spec.request_bytes, max(256, spec.images), HELD_REQUESTS * spec.request_bytes)
    with contextlib.closing(_listen(spec.host, spec.port)) as listening, Model(spec.predict) as model:
        app = make_app(model, _name(spec.predict.run), limits, hosts_of(spec.host, listening.getsockname()[0]))
        config = uvicorn.Config(
            app,
            http=Impatient,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=CONNECTIONS + 1,  # of which the one that asks is counted
            timeout_graceful_shutdown=GRACE_S,
        )
        with _ending_in_order():
            told(_url(spec.host, listening))
            uvicorn.Server(config).run(sockets=[listening])


def hosts_of(host: str, address: str) -> tuple[str, ...]:
    """List the names that requests may call a server by, which listens at `address`, asked for as `host`.

    A page of the web can let its own name point to an address of this machine, and then read what the server answers:
    where that is for this machine alone, such names are refused.
    """
    if not ipaddress.ip_address(address).is_loopback:
        return EVERY
    return tuple(dict.fromkeys((*HERE, host.lower(), address, f"[{address}]")))


def _name(run: str) -> str:
    """Call a run by its folder, without the path to it, which is nobody's business."""
    path = Path(run).resolve()
    return path.parent.name if path.name == "bundle" else path.stem


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM end the server as Ctrl-C does: it is how a server ends, and no error."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        said, elsewhere = f"cannot listen there ({error.strerror or error})", error.errno in OF_NO_CARD
        remedy = "Take an address of this machine as --host" if elsewhere else "Take another --port; 0 finds a free one"
        raise OptionError(said, where=f"{host}:{port}", remedy=remedy) from error


def _url(host: str, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OptionError(f"{name} is not installed", remedy="pip install 'offshelf[serve]'") from error
