"""One extraction or prediction in a process of its own, timed from the first image asked for to the last one done.

python -m benchmarks.predict.pace '{"way": "predict", "run": ..., "data": ..., "cache": null}'
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.extract.harness import Numbers
from classify.answering import PredictSpec, open_run
from classify.commands.predict import cores_for_the_network
from classify.listing import Images, records_of
from classify.predict import answers_from
from extract.progress import Silent
from extract.record import Record
from extract.run import extract
from extract.spec import BackboneSpec, ExtractSpec


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        """Keep a line."""
        self.said.append(text)


def predicted(said: Numbers) -> Numbers:
    """Answer for a folder: -> images/s, and what was said of a cache."""
    began: list[float] = []

    def noted(records: Iterable[Record]) -> Iterator[Record]:
        began.append(time.perf_counter())
        yield from records

    heard, records = Heard(), records_of((said["data"],))
    spec = PredictSpec(said["run"], cache=said["cache"] and Path(said["cache"]))
    with cores_for_the_network():  # as the command does
        answers = list(answers_from(spec, *open_run(spec), Images(noted(records), len(records)), heard))
    seconds = time.perf_counter() - began[0]
    bad = sum(answer["status"] != "ok" for answer in answers)
    return {"images_per_s": len(answers) / seconds, "n": len(answers), "bad": bad, "said": heard.said}


def extracted(said: Numbers) -> Numbers:
    """Extract a folder into a cache: -> images/s."""
    backbone = BackboneSpec(said["network"], said["weights"])
    done = extract(ExtractSpec(said["data"], backbone=backbone, cache=Path(said["cache"])))
    return {"images_per_s": done["images_per_s"], "n": done["rows"], "bad": done["bad"], "said": []}


WAYS = {"predict": predicted, "extract": extracted}


def peak_mib() -> int:
    """Return the most memory that this process has had, processes that decode apart."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    found = WAYS[given["way"]](given)
    print(json.dumps({**found, "peak_mib": peak_mib()}))
