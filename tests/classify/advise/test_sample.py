import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from classify.advise.sample import FEWEST, subset
from classify.folds import Part


def part(counts: list[int], seed: int = 0) -> Part:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    return Part(1000 + np.arange(len(y)), y, None)


def test_few_rows_are_all_taken():
    assert np.array_equal(subset(part([5, 7]), 0, 12), np.arange(12))


def test_classes_keep_their_shares():
    train = part([600, 300, 100])
    assert np.bincount(train.y[subset(train, 0, 100)]).tolist() == [60, 30, 10]


def test_a_rare_class_stays_even_where_that_takes_more():
    train = part([1000, 3, 2])
    assert np.bincount(train.y[subset(train, 0, 20)]).tolist() == [16, 2, 2]
    assert np.bincount(train.y[subset(train, 0, 3)]).tolist() == [2, 2, 2]


def test_the_seed_decides_and_nothing_else():
    train = part([50, 50])
    assert np.array_equal(subset(train, 4, 20), subset(train, 4, 20))
    assert not np.array_equal(subset(train, 4, 20), subset(train, 5, 20))


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    most=st.integers(1, 120),
    fewer=st.integers(1, 120),
    seed=st.integers(0, 9),
)
def test_the_choice_is_stratified_and_a_smaller_one_is_part_of_it(counts, most, fewer, seed):
    train = part(counts, seed)
    chosen = subset(train, seed, most)
    assert (np.diff(chosen) > 0).all()
    sure = sum(min(count, FEWEST) for count in counts)
    assert len(chosen) == min(len(train), max(most, sure))
    taken = np.bincount(train.y[chosen], minlength=len(counts))
    assert (taken >= np.minimum(counts, FEWEST)).all()
    if min(counts) * most >= FEWEST * len(train):  # no class needs more than its share
        assert (np.abs(taken - np.array(counts) * len(chosen) / len(train)) <= 2).all()
    assert set(subset(train, seed, min(most, fewer))) <= set(chosen)
