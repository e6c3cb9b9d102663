import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_protocol import tiny_data

from classify.protocols import PROTOCOLS, Options
from classify.protocols.measure import average_precision, over_draws, score
from extract.errors import FitError, OptionError
from extract.progress import Silent


class Counted(Silent):
    def __init__(self):
        self.total = self.done = 0

    def start(self, what, total):
        self.total += total

    def advance(self, steps, bad=0):
        self.done += steps


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_gives_all_that_metrics_json_keeps(name):
    seen, data = Counted(), tiny_data(n_train=40, dims=5)
    result = PROTOCOLS[name].run(data, progress=seen)
    said = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert (said["protocol"], said["citation"]) == (name, PROTOCOLS[name].citation)
    assert 0 <= said["value"]["low"] <= said["value"]["value"] <= said["value"]["high"] <= 1
    assert said["tried"]
    assert result.scores.shape == (60, 3)
    assert (result.predicted == result.scores.argmax(axis=1)).all()
    assert 0 < seen.done <= seen.total
    assert (result.scores == PROTOCOLS[name].run(data).scores).all()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_class_needs_an_image_to_learn(name):
    data = tiny_data(n_train=40)
    with pytest.raises(FitError, match="1 of 3 classes have training images"):
        PROTOCOLS[name].run(replace(data, y_train=np.zeros(40, dtype=np.int64)))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_labels_that_only_tests_have_are_errors_of_the_head(name):
    data = tiny_data(n_train=40, dims=5)
    strange = replace(data, y_test=np.where(np.arange(60) < 30, 3, data.y_test))
    assert PROTOCOLS[name].run(strange).value["value"] < PROTOCOLS[name].run(data).value["value"]


rows = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=12)


@given(rows)
def test_a_row_that_is_drawn_twice_counts_as_two(drawn):
    positive, counts = np.array([hit for hit, _ in drawn]), np.array([times for _, times in drawn])
    scores = np.linspace(0, 1, len(drawn))
    found = average_precision(positive, scores, counts[:, None])[0]
    expected = average_precision(np.repeat(positive, counts), np.repeat(scores, counts))[0] if counts.sum() else np.nan
    assert found == pytest.approx(expected, nan_ok=True)


def test_average_precision_by_hand():
    positive, scores = np.array([True, False, True, False]), np.array([4.0, 3.0, 2.0, 1.0])
    assert average_precision(positive, scores)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(average_precision(np.zeros(4, dtype=bool), scores)[0])


def test_the_mean_per_class_counts_each_class_once():
    y, predicted = np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2])
    assert score(y, predicted, "accuracy") == 0.75
    assert score(y, predicted, "balanced_accuracy") == pytest.approx((2 / 3 + 1) / 2)


def test_an_interval_over_draws_stays_within_bounds():
    assert over_draws([1.0, 1.0, 0.6, 1.0, 1.0])["high"] == 1.0
    assert over_draws([0.5] * 5) == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_metrics_are_those_that_papers_have():

    with pytest.raises(OptionError, match="no metric of clip 'macro_f1'"):
        PROTOCOLS["clip"].run(tiny_data(), options=Options(metric="macro_f1"))
