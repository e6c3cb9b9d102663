"""A trace: what every thread did when, for the viewers of browsers (chrome://tracing, ui.perfetto.dev)."""

import json
import os
import threading
from pathlib import Path
from typing import Any


class Trace:
    """Collects spans of time, from any thread; `write` makes a file of Chrome's trace event format."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._named: set[tuple[int | None, str]] = set()

    def span(self, name: str, began_s: float, ended_s: float, **details: object) -> None:
        """Note that this thread did something between two readings of `time.perf_counter`."""
        thread = threading.current_thread()
        at = {"pid": os.getpid(), "tid": thread.native_id}
        if (thread.native_id, thread.name) not in self._named:  # the numbers of threads that ended are given again
            self._named.add((thread.native_id, thread.name))
            self._events.append({"name": "thread_name", "ph": "M", "args": {"name": thread.name}, **at})
        times = {"ts": began_s * 1e6, "dur": (ended_s - began_s) * 1e6}
        self._events.append({"name": name, "ph": "X", "args": details, **times, **at})

    def write(self, path: Path) -> None:
        """Write what was collected as JSON."""
        path.write_text(json.dumps({"traceEvents": self._events, "displayTimeUnit": "ms"}))
