"""Several processes of this machine that train together, started by PyTorch's own launcher, `torchrun`.

Everything that listens does so on 127.0.0.1, and the processes meet in a file. Where the process that started them
dies, they do: it holds a lock for as long as they shall live.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from classify.finetune.order import Desk
from classify.finetune.worker import work
from extract.engines.session import told_to_stay_here
from extract.errors import EngineError
from extract.spec import available_cores

try:
    import fcntl
except ImportError:  # not a POSIX system: there the processes of one that was killed train to their end
    fcntl = None

RESTARTS = 3
"""How often all are started anew where one has died."""
GRACE_S = 15
"""What the launcher may take to end the others."""
MEETING, LOCK, OUTPUT = "meeting", "lock", "output"
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


def launch(desk: Desk, devices: Sequence[str]) -> str:
    """Have the order on a desk carried out by a process for each device: -> what was wrong, "" if nothing was."""
    with tempfile.TemporaryDirectory(prefix="offshelf-") as name:
        folder = Path(name)
        with (folder / OUTPUT).open("wb") as output, _locked(folder / LOCK):
            process = _started(_command(desk, devices, folder), len(devices), output.fileno())
            try:
                code = process.wait()
            finally:
                _end(process)
        return _wrong((folder / OUTPUT).read_text(errors="replace")) if code else ""


def _command(desk: Desk, devices: Sequence[str], folder: Path) -> list[str]:
    settings = {
        "nnodes": 1,
        "nproc-per-node": len(devices),
        "max-restarts": RESTARTS,
        "monitor-interval": 0.1,
        "rdzv-backend": "c10d",
        "rdzv-conf": "store_type=file",
        "rdzv-endpoint": folder / MEETING,
        "rdzv-id": desk.digest,
        "local-addr": "127.0.0.1",
    }
    said = [f"--{name}={value}" for name, value in settings.items()]
    mine = [str(desk.folder), desk.digest, ",".join(devices), str(folder)]
    return [sys.executable, "-m", "torch.distributed.run", *said, "-m", __name__, *mine]


def _started(command: list[str], size: int, output: int) -> "subprocess.Popen[bytes]":
    """Start the launcher in a session of its own, so that Ctrl-C reaches it through us, once."""
    environment = {
        "OMP_NUM_THREADS": str(max(1, available_cores() // size)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONSAFEPATH": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # or the launcher would listen for any machine
        **told_to_stay_here(),
    }
    try:
        return subprocess.Popen(  # noqa: S603 ours
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as error:
        said = f"no processes can be started ({error.strerror})"
        raise EngineError(said, where=sys.executable, remedy="Check that it runs, or leave --processes out") from error


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the launcher and, through it, the others, if they run."""
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wrong(output: str) -> str:
    """Find the words in an output that say the most of what was wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line]
    return (told or lines or ["no output"])[-1]


def main(folder: str, digest: str, devices: str, meeting: str) -> None:
    """Be one of the processes: the launcher says which, by the environment."""
    threading.Thread(target=_die_with, args=[Path(meeting) / LOCK, os.getppid()], daemon=True).start()
    rank, size, attempt = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"))
    device = torch.device(devices.split(",")[int(rank)])
    path = str(Path(meeting) / f"group-{attempt}")
    store = dist.FileStore(path, int(size))  # pyright: ignore[reportPrivateImportUsage] documented there
    dist.init_process_group(BACKENDS[device.type], store=store, rank=int(rank), world_size=int(size))
    work(Desk(Path(folder), digest), str(device))
    dist.destroy_process_group()


def _die_with(lock: Path, launcher: int) -> None:
    """Wait for who holds a lock to let go of it, and end this process and the launcher, which would start it again."""
    if fcntl is not None:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.getppid() == launcher:
                os.kill(launcher, signal.SIGTERM)
            os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
