"""A server in a process of its own, as a user starts it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pipeline

ROOT = Path(pipeline.__file__).parent


def start(run: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Serve a run at a port that is free; -> the process and its address, once it listens there."""
    command = [sys.executable, str(ROOT / "pipeline.py"), "serve", str(run), "--port", "0", "-j", "1", "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--device", "cpu", *options], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    return process, json.loads(line)["url"]


@contextmanager
def server(run: Path, *options: str) -> Iterator[str]:
    """Serve a run for a while; -> the address."""
    process, url = start(run, *options)
    try:
        yield url
    finally:
        process.kill()
        process.communicate()
