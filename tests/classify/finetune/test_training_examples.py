from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.finetune.examples import draws
from tests.classify.finetune.tiny_examples import assert_same, drawn, images, maps


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 50))
def test_every_epoch_has_each_once_and_no_batch_is_short(n, batch_size, seed, start):
    steps = list(islice(draws(n, batch_size=batch_size, seed=seed), start + 3))
    assert all(len(places) == len(epochs) == batch_size for places, epochs in steps)
    places, epochs = (np.concatenate(each) for each in zip(*steps, strict=True))
    assert epochs.tolist() == [i // n for i in range(len(epochs))]
    for epoch in range(len(epochs) // n):
        assert sorted(places[epochs == epoch]) == list(range(n))
    resumed = list(islice(draws(n, batch_size=batch_size, seed=seed, start=start), 3))
    for got, expected in zip(resumed, steps[start:], strict=True):
        assert np.array_equal(got[0], expected[0])
        assert np.array_equal(got[1], expected[1])


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(places.tolist()) for seed in range(3) for places, _ in islice(draws(40, batch_size=40, seed=seed), 3)
    }
    assert len(orders) == 9


@pytest.mark.parametrize("kind", ["images", "maps"])
def test_from_a_step_on_all_is_as_if_it_had_begun_at_0(kind, decoder, tmp_path):
    examples = images() if kind == "images" else maps(tmp_path, views=4)
    whole = drawn(examples, 9)
    assert_same(drawn(examples, 9), whole)
    for start in (1, 4, 8):
        assert_same(drawn(examples, 9 - start, start=start), whole[start:])
    assert not whole[0].x.equal(drawn(examples, 1, seed=2)[0].x)
    if kind == "images":
        examples.close()
