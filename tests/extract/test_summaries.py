from typing import Any

import pytest

from extract.summaries import echo_dry_run, echo_extract

DONE = {
    "features": "pets/0123",
    "path": "cache/pets/0123/features.h5",
    "rows": 9,
    "computed": 9,
    "reused": 0,
    "duplicates": 0,
    "dropped": 0,
    "bad": 1,
    "bad_rows": [{"id": "a.png", "status": "empty", "reason": "the file is empty"}],
    "images_per_s": 12.3,
    "seconds": 60,
    "stages": {"read": 0.004, "decode": 0.2, "transfer": 0.0, "forward": 0.796, "write": 0.0},
    "hint": "the network is the limit: a GPU, --precision bf16 (other features)",
    "runner": "eager",
}


def test_a_long_extraction_says_what_held_it_back(capsys):
    echo_extract(DONE)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "pets/0123: 9 rows, 9 computed, 0 reused, 0 dropped, 1 bad, 12 images/s",
        "Time: decode 20%, forward 80% (eager). The network is the limit: a GPU, --precision bf16 (other features)",
        "Features: cache/pets/0123/features.h5",
    ]
    assert said.err == "  bad: a.png: empty (the file is empty)\n"


@pytest.mark.parametrize("changes", [{"seconds": 1}, {"hint": None}])
def test_a_short_one_and_one_that_computed_nothing_say_no_word_of_it(capsys, changes):
    echo_extract(DONE | changes)
    assert "Time" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "said"), [(2.4, "About 2 s at 50"), (600, "About 10 min at 50"), (9000, "About 2.5 h at 50")]
)
def test_a_dry_run_tells_rows_bytes_and_time(capsys, seconds, said):
    plan = {"features": "pets/0123", "rows": 1200, "to_compute": 1000, "bytes": 4_000_000, "free": 5 * 10**9}
    echo_dry_run(plan | {"images_per_s": 50.3, "estimated_s": seconds})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "pets/0123: 1,000 of 1,200 images to compute, 4.0 MB to write; 5.0 GB are free"
    assert second == f"{said} images/s, start-up apart."


def test_a_dry_run_with_nothing_to_do_tells_no_time(capsys):
    plan: dict[str, Any] = {"features": "pets/0123", "rows": 12, "to_compute": 0, "bytes": 0, "free": 1}
    echo_dry_run(plan | {"images_per_s": None, "estimated_s": 0.0})
    assert len(capsys.readouterr().out.splitlines()) == 1
