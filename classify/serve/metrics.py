"""What a server counts, in the text that Prometheus reads: https://prometheus.io/docs/instrumenting/exposition_formats/."""

import threading
from collections import Counter
from collections.abc import Iterator

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the bins of latency, in seconds; the last bin has none."""


class Metrics:
    """Counts of requests and images, and how long answers took; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._images: Counter[str] = Counter()
        self._bins: Counter[float] = Counter()
        self._n, self._seconds = 0, 0.0

    def request(self, path: str, code: int) -> None:
        """Count a request and the status it was answered with."""
        with self._lock:
            self._requests[path, code] += 1

    def answered(self, statuses: list[str], seconds: float) -> None:
        """Count the images of a request by their status, and its latency."""
        with self._lock:
            self._images.update(statuses)
            self._n, self._seconds = self._n + 1, self._seconds + seconds
            self._bins.update(end for end in BUCKETS_S if seconds <= end)

    def text(self, waiting: int) -> str:
        """Write all of it; `waiting` images are not answered yet."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines(waiting))

    def _lines(self, waiting: int) -> Iterator[str]:
        yield "# HELP offshelf_requests_total Requests by path and status."
        yield "# TYPE offshelf_requests_total counter"
        for (path, code), n in sorted(self._requests.items()):
            yield f'offshelf_requests_total{{path="{path}",code="{code}"}} {n}'
        yield "# HELP offshelf_images_total Images by what became of them."
        yield "# TYPE offshelf_images_total counter"
        for status, n in sorted(self._images.items()):
            yield f'offshelf_images_total{{status="{status}"}} {n}'
        yield "# HELP offshelf_waiting_images Images that are not answered yet."
        yield "# TYPE offshelf_waiting_images gauge"
        yield f"offshelf_waiting_images {waiting}"
        yield "# HELP offshelf_answer_seconds From the whole request to its answer."
        yield "# TYPE offshelf_answer_seconds histogram"
        for end in BUCKETS_S:
            yield f'offshelf_answer_seconds_bucket{{le="{end}"}} {self._bins[end]}'
        yield f'offshelf_answer_seconds_bucket{{le="+Inf"}} {self._n}'
        yield f"offshelf_answer_seconds_sum {self._seconds:.6f}"
        yield f"offshelf_answer_seconds_count {self._n}"
