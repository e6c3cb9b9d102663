"""A Python that has imported what is heavy, and does what others ask for in forks of itself.

    python tests/warm.py ask SOCKET -c CODE ARGUMENTS...
    python tests/warm.py ask SOCKET SCRIPT ARGUMENTS...

do what `python` would, without the seconds that every start takes to import torch. What asks imports next to nothing;
input, output, environment and end are its own.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def warm(root: Path, *modules: str) -> Iterator[list[str]]:
    """Have such a Python for a while, with these modules: -> the words that stand for `python` in a command."""
    base = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 the path of a socket may have some 100 letters
    with tempfile.TemporaryDirectory(prefix="warm-", dir=base) as folder:
        path = str(Path(folder) / "socket")
        env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        command, pipe = [sys.executable, __file__, "serve", path, *modules], subprocess.PIPE
        with subprocess.Popen(command, cwd=root, env=env, stdin=pipe, stdout=pipe) as server:
            assert server.stdout
            assert server.stdout.readline() == b"ready\n"
            yield [sys.executable, "-S", "-E", __file__, "ask", path]


def ask(path: str, *argv: str) -> None:
    """Have the server do something with our input and output, and end as that ended."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [b"."], [0, 1, 2])
        told = {"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}
        server.sendall(json.dumps(told).encode() + b"\n")
        code = int(server.makefile("rb").read())
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


def serve(path: str, *modules: str) -> None:
    """Answer until the input ends, with whoever started this."""
    for name in modules:
        with contextlib.suppress(ModuleNotFoundError):  # some are optional
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)  # noqa: T201
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            given, _ = listener.accept()
            if not os.fork():
                listener.close()
                _answer(given)
            given.close()
    os._exit(0)  # there is nothing to tear down, and that takes seconds


def _answer(given: socket.socket) -> None:
    """Have a fork do what is asked for, and say how it ended: its exit code, or the signal below zero."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, *_ = socket.recv_fds(given, 1, 3)
    told = json.loads(given.makefile("rb").readline())
    for to, descriptor in enumerate(descriptors):
        os.dup2(descriptor, to)
        os.close(descriptor)
    child = os.fork()
    if not child:
        given.close()
        _become(**told)
    given.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def _become(argv: list[str], cwd: str, env: dict[str, str]) -> None:
    """Be `python` with these arguments, there."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    code = _code(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # some libraries would wait for threads that no fork has


def _code(argv: list[str]) -> int:
    """Do what `python` does with these arguments: -> its exit code."""
    try:
        _run(argv)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _run(argv: list[str]) -> None:
    if argv[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *argv[2:]], ""
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(argv[1], vars(module))  # noqa: S102 it is what was asked for
    else:
        sys.argv, sys.path[0] = argv, str(Path(argv[0]).parent)
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    {"ask": ask, "serve": serve}[sys.argv[1]](*sys.argv[2:])
