import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from extract.decoding.worker import ANSWER, JOB, MAX_MEMORY, READY
from extract.spec import Preprocessing, Status

PRESET = Preprocessing(33, 32, "bilinear", (0.5,) * 3, (0.5,) * 3)
ROOT = Path(__file__).parents[3]


def output_of(program: str, jobs: bytes = b"") -> bytes:
    """What a worker says before it ends at the end of its input."""
    command = [sys.executable, "-c", program, json.dumps(asdict(PRESET))]
    return subprocess.run(command, cwd=ROOT, input=jobs, capture_output=True, check=True).stdout


def test_the_limits_are_set_and_those_of_time_are_off_between_images():
    said = output_of("""
import atexit, os, resource, signal
from extract.decoding import worker
out = os.dup(1)
worker.main()
figures = [*resource.getrlimit(resource.RLIMIT_AS), *resource.getrlimit(resource.RLIMIT_CORE)]
timers = [*signal.getitimer(signal.ITIMER_PROF), *signal.getitimer(signal.ITIMER_REAL)]
os.write(out, repr([figures, timers]).encode())
""")
    memory, _, core, _ = json.loads(said.removeprefix(READY).decode())[0]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    assert memory == (MAX_MEMORY if soft == resource.RLIM_INFINITY else min(soft, MAX_MEMORY))
    assert core == 0
    assert json.loads(said.removeprefix(READY).decode())[1] == [0, 0, 0, 0]


def test_a_job_that_breaks_off_ends_the_worker():
    assert output_of("from extract.decoding.worker import main; main()", JOB.pack(99)[:5]) == READY


def test_a_worker_does_not_load_what_it_does_not_need():
    said = output_of("""
import sys
from extract.decoding.worker import main
heavy = {"torch", "torchvision", "h5py", "sklearn"} & sys.modules.keys()
assert not heavy, heavy
main()
""")
    assert said == READY


def test_an_answer_is_a_status_and_a_reason():
    said = output_of("from extract.decoding.worker import main; main()", JOB.pack(0)).removeprefix(READY)
    status, n_bytes = ANSWER.unpack(said[: ANSWER.size])
    assert status == Status.EMPTY
    assert said[ANSWER.size :].decode() == "the file is empty"
    assert n_bytes == len("the file is empty")
