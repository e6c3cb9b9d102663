import itertools
import json
import os
import threading
import time

from extract import loader
from extract.lanes import Stream
from extract.loader import Loader, Sight
from extract.shard import write_shards
from extract.trace import Trace
from tests import instant
from tests.instant import Instant, Sums, numbered


def written(trace: Trace, folder) -> dict:
    trace.write(folder / "trace.json")
    return json.loads((folder / "trace.json").read_text())


def test_a_span_is_an_event_of_chromes_format_in_microseconds(tmp_path):
    trace = Trace()
    trace.span("image", 1.5, 1.75, id="cat/grüße\udcff.png", outcome="ok")
    said = written(trace, tmp_path)
    assert said["displayTimeUnit"] == "ms"
    name, event = said["traceEvents"]
    at = {"pid": os.getpid(), "tid": threading.get_native_id()}
    assert name == {"name": "thread_name", "ph": "M", "args": {"name": "MainThread"}, **at}
    args = {"id": "cat/grüße\udcff.png", "outcome": "ok"}
    assert event == {"name": "image", "ph": "X", "ts": 1.5e6, "dur": 0.25e6, "args": args, **at}


def test_a_trace_of_nothing_is_one(tmp_path):
    assert written(Trace(), tmp_path)["traceEvents"] == []


def test_a_thread_is_named_once_and_one_that_gets_its_number_again(tmp_path):
    trace = Trace()

    def work() -> None:
        for _ in range(3):
            trace.span("work", 0, 1)

    for name in ("lane 0", "lane 1"):
        thread = threading.Thread(target=work, name=name)
        thread.start()
        thread.join()
    names = [event["args"]["name"] for event in written(trace, tmp_path)["traceEvents"] if event["ph"] == "M"]
    assert names == ["lane 0", "lane 1"]


def test_a_trace_tells_what_every_thread_of_a_stream_did_and_when(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "Decoder", Instant)
    trace, given = Trace(), instant.extractor()
    began = time.perf_counter()
    with Loader(Sight.of(given.recipe), workers=2, batch_size=2, trace=trace) as opened:
        stream = Stream(given, Sums(), opened, lanes=2, trace=trace)
        receipts = list(write_shards(stream, numbered(40), tmp_path, most=10, on_rows=lambda *_: None))
    ended = time.perf_counter()
    events = written(trace, tmp_path)["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    spans = [event for event in events if event["ph"] == "X"]
    counts = {kind: sum(event["name"] == kind for event in spans) for kind in ("image", "batch", "shard")}
    assert counts == {"image": 40, "batch": 20, "shard": len(receipts)}
    at_work = {"image": ("load 0", "load 1"), "batch": ("lane 0", "lane 1"), "shard": ("write",)}
    for event in spans:
        assert names[event["tid"]] in at_work[event["name"]]
        assert began * 1e6 <= event["ts"] <= event["ts"] + event["dur"] <= ended * 1e6
    for tid in {event["tid"] for event in spans}:
        mine = sorted((event["ts"], event["ts"] + event["dur"]) for event in spans if event["tid"] == tid)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(mine)), "one after the other"
