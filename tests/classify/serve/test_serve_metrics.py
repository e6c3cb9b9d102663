import re

from classify.serve.metrics import BUCKETS_S, Metrics

LINE = re.compile(r'(# (HELP|TYPE) \w+ .+)|(\w+(\{\w+="[^"\n]*"(,\w+="[^"\n]*")*\})? [0-9.e+-]+)')
"""A line of the text format."""


def test_counts_and_latencies_are_written_as_prometheus_reads_them():
    metrics = Metrics()
    for code in (200, 200, 413):
        metrics.request("/predict", code)
    metrics.answered(["ok", "damaged"], 0.03)
    metrics.answered(["ok"], 99.0)
    lines = metrics.text(7).splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert {
        'offshelf_requests_total{path="/predict",code="200"} 2',
        'offshelf_requests_total{path="/predict",code="413"} 1',
        'offshelf_images_total{status="ok"} 2',
        'offshelf_images_total{status="damaged"} 1',
        "offshelf_waiting_images 7",
        'offshelf_answer_seconds_bucket{le="0.025"} 0',
        'offshelf_answer_seconds_bucket{le="0.05"} 1',
        'offshelf_answer_seconds_bucket{le="30.0"} 1',
        'offshelf_answer_seconds_bucket{le="+Inf"} 2',
        "offshelf_answer_seconds_sum 99.030000",
        "offshelf_answer_seconds_count 2",
    } <= set(lines)
    assert len([line for line in lines if "_bucket" in line]) == len(BUCKETS_S) + 1
