"""A session of Ray: a private one that only this machine hears, or one in a cluster that somebody else started."""

import importlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from extract.errors import EngineError
from extract.spec import EngineSpec, available_cores

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""A machine with much else to do may take longer to start Ray's processes than they wait for each other (15 s)."""

STORE_BYTES = 80 << 20
"""Of memory that Ray shares between processes: it takes no less, and nothing of ours goes through it."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}
"""Tell nobody that Ray is used, do not warn of what a later version will do about GPUs, and say nothing of what becomes
of actors that were dropped."""

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable: 0 has all that Ray starts listen on 127.0.0.1 alone, on any system."""

TOKENS = "RAY_AUTH_MODE"
"""Environment variable: whether processes have to show a token to each other. Ray sets it where it starts itself."""

DEBUGGER = "PYTHONBREAKPOINT"
"""Environment variable: what `breakpoint()` calls. Ray puts its own there."""


@contextmanager
def session(engine: EngineSpec) -> Iterator[Any]:
    """Connect to Ray, and yield the package; one that this process is connected to already is left as it is.

    Raises EngineError where the extra is missing, or Ray cannot be started or reached.
    """
    environment = {**QUIET, **({} if engine.address else _private())}
    with _environment(environment), _own_signals():
        ray = _import_ray()
        if ray.is_initialized():
            _check_free(engine)
            yield ray
            return
        with (
            _temporary() as folder,
            _own_output(ray),
            _heard_here(ray, alone=not engine.address),
            _token_forgotten(ray),
        ):
            try:
                _connect(ray, engine, folder)
                yield ray
            finally:
                ray.shutdown()


def _check_free(engine: EngineSpec) -> None:
    if engine.address:
        remedy = "Leave the address out to take that session, or call ray.shutdown() before"
        raise EngineError("this process is connected to Ray already", where=engine.address, remedy=remedy)


def _private() -> dict[str, str]:
    """Return what the processes of a private session are to find: the modules that this one finds, and no network."""
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    return {LOOPBACK: "0", "PYTHONPATH": paths, **told_to_stay_here()}


def told_to_stay_here() -> dict[str, str]:
    """Return the environment in which gloo and NCCL join processes of this machine over its loopback."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which processes inherit, and set them back, and with them what Ray sets for itself."""
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in {*wanted, DEBUGGER, *(each for each in os.environ if each.startswith("RAY_"))}:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise EngineError("ray is not installed", remedy='Run: pip install "offshelf[ray]"') from error


@contextmanager
def _heard_here(ray: Any, *, alone: bool) -> Iterator[None]:
    """Have this process be heard on the loopback alone, or by a cluster: Ray read that when it was first imported."""
    constants = ray._private.ray_constants
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, not alone
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _token_forgotten(ray: Any) -> Iterator[None]:
    """Have this process forget by which token a private session knows its own: a cluster may know of none.

    Its head would not be answered, take this process for dead, and end all actors that are asked for.
    """
    before = os.environ.get(TOKENS)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(TOKENS, None)
        ray._raylet.Config.initialize("")  # which reads the environment, and comes first, as Ray's own tests do it
        ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _temporary() -> Iterator[str]:
    """Make a folder for Ray's sockets and logs; its path is short, as that of a socket may have some 100 letters."""
    base = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 the folder in it has a name of its own
    with tempfile.TemporaryDirectory(prefix="ray-", dir=base, ignore_cleanup_errors=True) as folder:
        yield folder


def _connect(ray: Any, engine: EngineSpec, folder: str) -> None:
    """Start Ray, or connect to where it runs; signals go on to who heard them before."""
    said = {"log_to_driver": False, "logging_level": "ERROR"}
    where = {"address": engine.address} if engine.address else _resources(engine) | {"_temp_dir": folder}
    for left in reversed(range(1 if engine.address else ATTEMPTS)):
        try:
            with _own_signals():
                ray.init(**where, **said)
        except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
            ray.shutdown()
            if not left:
                raise _unreachable(engine, error) from error
        else:
            return


def _resources(engine: EngineSpec) -> dict[str, Any]:
    """Return what a private session is started with: as many CPUs as its actors were promised."""
    return {
        "address": "local",
        "num_cpus": max(available_cores(), ceil((engine.actors or 1) * engine.cpus)),
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
    }


def _unreachable(engine: EngineSpec, error: Exception) -> EngineError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if engine.address is None:
        return EngineError(f"Ray cannot be started ({reason})", remedy="Try again, or take --engine local")
    remedy = "Start a cluster there with the same versions of Python and Ray, or leave --address out"
    return EngineError(f"no cluster of Ray can be reached ({reason})", where=engine.address, remedy=remedy)


@contextmanager
def _own_output(ray: Any) -> Iterator[None]:
    """Log what Ray says of its processes: it prints that, whatever is set, where our results go."""
    worker = ray._private.worker
    before, worker.print_to_stdstream = worker.print_to_stdstream, lambda data, **_: log.debug("%s", data["lines"])
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep who hears a signal: Ray takes SIGTERM for itself, and Ray Train leaves SIGINT with what is gone then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, heard_by in before.items():
            if (getattr(signal.getsignal(each), "__module__", None) or "").startswith("ray."):
                signal.signal(each, heard_by)
