"""What a command has taken, with all that it left running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.engines.kin import MARK, Kin

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked at in /proc")

# The first process ends at once; the second, which nobody waits for, works, says so, and waits for its end.
LEAVING = """
import os, subprocess, sys
if sys.argv[1:]:
    import time
    while time.process_time() < 1.0: pass
    print("done", flush=True)
    sys.stdin.read()
else:
    subprocess.Popen([sys.executable, "-c", os.environ["PROGRAM"], "second"])
    os._exit(0)
"""


def test_the_time_of_a_process_that_nobody_waits_for_counts():
    pipe, program = subprocess.PIPE, {"PROGRAM": LEAVING}
    with Kin() as kin:
        first = subprocess.Popen(
            [sys.executable, "-S", "-c", LEAVING], stdin=pipe, stdout=pipe, text=True, env={**os.environ, **program}
        )
        assert first.stdout is not None
        assert first.stdout.readline() == "done\n"
        first.wait()
    first.communicate()  # closes what the second waits for
    assert kin.unwaited_s > 0, "the first, which was waited for, has taken less"
    assert MARK not in os.environ


def test_what_was_waited_for_and_what_others_do_does_not_count_again():
    burn = [sys.executable, "-c", "import time\nwhile time.process_time() < 1.0: pass"]
    with Kin() as kin:
        subprocess.run(burn, check=True)
        subprocess.run(burn, check=True, env={name: value for name, value in os.environ.items() if name != MARK})
    assert kin.unwaited_s == 0
