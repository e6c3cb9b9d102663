import numpy as np
import pytest
from tiny_features import blobs, noise

from classify.grouping import _words
from classify.statistics import Comparison

GROUPS, EACH, DIMS = 40, 5, 60


def shot_together(make_features, labels):
    """Images of which each has its session in its name and in its features; `labels` (GROUPS,) are of the sessions."""
    session = np.repeat(np.arange(GROUPS), EACH)
    X = noise(GROUPS, DIMS)[session] + 0.1 * noise(GROUPS * EACH, DIMS, seed=1)
    ids = [f"s{number:02}_{row:03}.png" for row, number in enumerate(session)]
    return make_features(labels[session], ["a", "b"], X={"x": X}, ids=ids)


def test_a_planted_leak_is_what_grouping_takes_away(make_features, run):
    features = shot_together(make_features, np.random.default_rng(0).permutation(GROUPS) % 2)
    loose, kept = (run(features, group=group) for group in ("none", "^(s[0-9]+)_"))
    assert loose["grouping"] is None
    assert loose["cv"]["accuracy"]["value"] > 0.9
    found = kept["grouping"]
    assert found["n_groups"] == GROUPS
    assert found["grouped"] == kept["cv"]["accuracy"]
    assert found["ungrouped"]["value"] > 0.9
    assert found["ungrouped"]["value"] - found["grouped"]["value"] > 0.3
    assert found["grouped"]["low"] < 0.5 < found["grouped"]["high"]
    assert kept["test"]["accuracy"]["low"] < 0.5
    assert found["difference"]["value"] == pytest.approx(found["ungrouped"]["value"] - found["grouped"]["value"])
    assert found["difference"]["low"] > 0
    assert "are what the head knows of the groups" in found["words"]


def test_groups_that_say_nothing_change_nothing_and_that_is_said(make_features, run, tmp_path):
    labels = np.arange(120) % 2
    features = make_features(labels, ["a", "b"], groups=[f"g{row // 4}" for row in range(120)])
    features.X["penultimate"] = blobs(labels, 4, distance=0.5)
    found = run(features)["grouping"]
    assert abs(found["ungrouped"]["value"] - found["grouped"]["value"]) < 0.05
    assert found["words"].startswith("30 groups: ")
    assert found["difference"]["low"] <= 0 <= found["difference"]["high"]
    assert "grouping changes little" in found["words"]
    assert "grouping changes little" in (tmp_path / "run" / "report.html").read_text()


def test_scattered_groups_still_keep_twins_together(make_features, run):
    rng = np.random.default_rng(0)
    labels, X = rng.integers(0, 2, 100), noise(100, 60)
    features = make_features(np.tile(labels, 2), ["a", "b"], X={"x": np.tile(X, (2, 1))})
    features.groups = [f"g{row % 10}" for row in range(200)]
    features.sha256[100:] = features.sha256[:100]
    found = run(features)["grouping"]
    assert found["ungrouped"]["low"] < 0.5 < found["ungrouped"]["high"]


@pytest.mark.parametrize(
    ("gap", "ungrouped", "said"),
    [
        (Comparison(0.15, 0.02, 0.28, 0.02), {"value": 0.95, "low": 0.9, "high": 0.97}, "The 15.0 points between are"),
        (
            Comparison(0.15, -0.01, 0.31, 0.06),
            {"value": 0.95, "low": 0.91, "high": 0.97},
            "The 15.0 points between are",
        ),
        (Comparison(0.15, -0.01, 0.31, 0.06), {"value": 0.95, "low": 0.9, "high": 0.97}, "may be chance"),
        (Comparison(0.04, -0.01, 0.09, 0.06), {"value": 0.84, "low": 0.8, "high": 0.9}, "changes little"),
        (Comparison(-0.1, -0.2, 0.0, 0.06), {"value": 0.7, "low": 0.6, "high": 0.8}, "changes little"),
    ],
)
def test_a_gap_is_called_what_it_is(gap, ungrouped, said):
    assert said in _words(6, {"value": 0.8, "low": 0.6, "high": 0.9}, ungrouped, gap)
