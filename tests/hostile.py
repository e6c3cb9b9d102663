"""Worker programs whose decoder does what an image's bytes tell it: the tests' stand-in for decoders with bugs."""

from extract.decoding import pool

ATTACK = """\
import json, os, signal, sys, time
sys.path[:] = json.loads(sys.argv[1])
from extract import images
from extract.decoding import worker

real = images.decode
images.MAX_SECONDS, worker.MAX_WALL_SECONDS = 0.3, 60

def spin():
    while True:
        pass

def wait():
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    time.sleep(60)

def shout():
    print("a library says hello", flush=True)
    os.write(1, b"and from C, too" * 999)

ATTACKS = {
    b"SEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    b"ABRT": os.abort,
    b"KILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"EXIT": lambda: os._exit(3),
    b"SPIN": spin,
    b"WAIT": wait,
    b"TALK": shout,
    b"BLOW": lambda: bytearray(5 << 30),
}

def decode(data, **options):
    attack = ATTACKS.get(data[-4:])
    if attack:
        attack()
    return real(data, **options)

images.decode = decode
"""

PROGRAM = ATTACK + pool.PROGRAM
