import hashlib
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from extract.decoding.slots import Slot, open_slot
from extract.decoding.worker import ANSWER, JOB, MAX_MEMORY, NO_DIGEST, READY
from extract.record import Status
from tests.tiny import picture

ROOT = Path(__file__).parents[3]
MAIN = "from extract.decoding.worker import main; main()"


@pytest.fixture
def slot() -> Iterator[int]:
    descriptor = open_slot()
    yield descriptor
    os.close(descriptor)


def output_of(program: str, jobs: bytes = b"", slots: tuple[int, ...] = (), **orders: object) -> bytes:
    """What a worker says before it ends at the end of its input."""
    command = [sys.executable, "-c", program, json.dumps({"slots": slots, **orders})]
    done = subprocess.run(command, cwd=ROOT, input=jobs, capture_output=True, check=True, pass_fds=slots)
    return done.stdout


def answers_of(jobs: bytes, slots: tuple[int, ...] = (), **orders: object) -> list[tuple]:
    """The answers to some jobs: the numbers of each, and its reason."""
    said, answers = output_of(MAIN, jobs, slots, **orders).removeprefix(READY), []
    while said:
        *numbers, n_reason = ANSWER.unpack(said[: ANSWER.size])
        reason = said[ANSWER.size : ANSWER.size + n_reason].decode()
        answers.append((*numbers, reason))
        said = said[ANSWER.size + n_reason :]
    return answers


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_limits_are_set_and_those_of_time_are_off_between_images(slot):
    data = png(1)
    said = output_of(
        """
import os, resource, signal
from extract.decoding import worker
out = os.dup(1)
worker.main()
figures = [*resource.getrlimit(resource.RLIMIT_AS), *resource.getrlimit(resource.RLIMIT_CORE)]
timers = [*signal.getitimer(signal.ITIMER_PROF), *signal.getitimer(signal.ITIMER_REAL)]
os.write(out, repr([figures, timers]).encode())
""",
        JOB.pack(0, 1, -1, -1, len(data)) + data,
        (slot,),
    )
    figures, timers = json.loads(said[len(READY) + ANSWER.size :].decode())
    memory, _, core, _ = figures
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    assert memory == (MAX_MEMORY if soft == resource.RLIM_INFINITY else min(soft, MAX_MEMORY))
    assert core == 0
    assert timers == [0, 0, 0, 0]


def test_a_job_that_breaks_off_ends_the_worker():
    assert output_of(MAIN, JOB.pack(0, 1, -1, -1, 99)[:5]) == READY


def test_a_worker_does_not_load_what_it_does_not_need():
    said = output_of("""
import sys
from extract.decoding.worker import main
heavy = {"torch", "torchvision", "h5py", "sklearn", "pyarrow", "multiprocessing"} & sys.modules.keys()
assert not heavy, heavy
main()
""")
    assert said == READY


def test_an_answer_is_a_status_a_digest_a_shape_and_a_reason(slot, tmp_path):
    data = png(1)
    (tmp_path / "image").write_bytes(b"0123" + data + b"56")
    path = os.fsencode(tmp_path / "image")
    jobs = [
        JOB.pack(0, 1, -1, -1, 0),
        JOB.pack(0, 0, 4, len(data), len(path)) + path,
        JOB.pack(0, 0, -1, -1, len(path)) + path,
        JOB.pack(0, 1, -1, -1, len(data)) + data,
    ]
    empty, image, words, inline = answers_of(b"".join(jobs), (slot,))
    digest = hashlib.sha256(data).digest()
    assert (empty[:5], empty[-1]) == ((Status.EMPTY, hashlib.sha256().digest(), 0, 0, 0), "the file is empty")
    assert image[:5] == inline[:5] == (Status.OK, digest, 36, 40, 3 * 36 * 40)
    assert words[0] == Status.NOT_AN_IMAGE
    assert words[1] == hashlib.sha256(b"0123" + data + b"56").digest()
    assert Slot(slot).bytes(3 * 36 * 40).tobytes() == np.asarray(picture(1)).tobytes()


def test_what_cannot_be_read_has_no_digest(slot, tmp_path):
    path = os.fsencode(tmp_path / "gone")
    [gone] = answers_of(JOB.pack(0, 0, -1, -1, len(path)) + path, (slot,))
    assert gone[:2] == (Status.MISSING, NO_DIGEST)
    assert gone[-1] == "No such file or directory"


def test_the_time_to_read_is_by_the_clock_and_that_to_decode_is_cpu_time(slot, tmp_path):
    (tmp_path / "image").write_bytes(png(1))
    path = os.fsencode(tmp_path / "image")
    [image] = answers_of(JOB.pack(0, 0, -1, -1, len(path)) + path, (slot,))
    read_s, decode_s = image[5:7]
    assert read_s > 0
    assert decode_s > 0


def test_a_worker_takes_what_it_is_asked_to_at_the_slot_it_is_told(tmp_path):
    descriptors = open_slot(), open_slot()
    buffer = io.BytesIO()
    picture(1, (400, 300)).save(buffer, "JPEG")
    data = buffer.getvalue()
    job = JOB.pack(1, 1, -1, -1, len(data)) + data
    [scaled] = answers_of(job, descriptors, short_px=100)
    assert scaled[2:5] == (150, 200, 3 * 150 * 200)
    assert [os.fstat(descriptor).st_size for descriptor in descriptors] == [0, 3 * 150 * 200]
    [left] = answers_of(job, descriptors, leave_jpeg=True)
    assert left[2:5] == (0, 0, len(data))
    assert Slot(descriptors[1]).bytes(len(data)).tobytes() == data
    for descriptor in descriptors:
        os.close(descriptor)


NO_ROOM = """
import os
from extract.decoding import worker

real = os.posix_fallocate

def fallocate(descriptor, offset, n_bytes):
    if n_bytes > 999:
        raise OSError(28, "No space left on device")
    real(descriptor, offset, n_bytes)

os.posix_fallocate = fallocate
worker.main()
"""


def test_memory_that_the_machine_does_not_have_is_a_failure_of_its_image_for_now(slot):
    jobs = b"".join(JOB.pack(0, 1, -1, -1, len(data)) + data for data in (png(1), png(2)))
    assert {answer[0] for answer in answers_of(jobs, (slot,))} == {Status.OK}
    os.ftruncate(slot, 0)
    small = io.BytesIO()
    picture(3, (9, 9)).save(small, "PNG")
    jobs += JOB.pack(0, 1, -1, -1, len(small.getvalue())) + small.getvalue()
    said = output_of(NO_ROOM, jobs, (slot,)).removeprefix(READY)
    assert said.count(b"the machine has no memory left for its pixels") == 2
    assert said[0] == Status.KILLED
    assert ANSWER.unpack(said[-ANSWER.size :])[0] == Status.OK


GIANT = """
import os
import resource
from extract.decoding import slots, worker

slots.KEPT_BYTES = 1000
out = os.dup(1)
seen = []
real = worker._send

def send(answers, answer):
    seen.append(sum("memfd:offshelf" in line for line in open("/proc/self/maps")))
    real(answers, answer)

worker._send = send
worker.main()
os.write(out, repr(seen).encode())
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_what_an_image_may_take_does_not_depend_on_those_before(tmp_path):
    """The limit of memory counts addresses: those of giants that are done are given back."""
    descriptors = open_slot(), open_slot(), open_slot()
    jobs = b"".join(JOB.pack(i, 1, -1, -1, len(png(i))) + png(i) for i in range(3))
    assert output_of(GIANT, jobs, descriptors).endswith(b"[0, 0, 0]")
    assert output_of(GIANT.replace("1000", "9999"), jobs, descriptors).endswith(b"[1, 2, 3]")
    for descriptor in descriptors:
        os.close(descriptor)
