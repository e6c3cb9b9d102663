import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.finetune.inner import FEWEST, MOST, inner_split
from extract.errors import FitError


@pytest.mark.parametrize(
    ("n", "expected"), [(244, 37), (100, 20), (60, 20), (30, 10), (6, 2), (10_000, 1500), (100_000, MOST)]
)
def test_about_a_seventh_but_neither_too_few_nor_too_many(n, expected):
    train, val = inner_split(np.arange(n) % 2, None, 0)
    assert len(val) == expected
    assert FEWEST == 20
    assert sorted([*train, *val]) == list(range(n))
    assert train.dtype == val.dtype == np.int64


def test_classes_come_in_proportion():
    y = np.repeat([0, 1, 2], [400, 200, 100])
    for seed in range(20):
        _, val = inner_split(y, None, seed)
        assert np.abs(np.bincount(y[val]) - np.array([60, 30, 15])).max() <= 1


def test_small_classes_take_turns():
    y = np.arange(300) % 100
    shares = np.mean([np.bincount(y[inner_split(y, None, seed)[1]], minlength=100) for seed in range(200)], axis=0)
    assert shares.min() > 0.2
    assert shares.max() < 0.7


def test_the_seed_alone_decides():
    y = np.arange(100) % 3
    first, again, other = (inner_split(y, None, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_last_image_of_a_class_is_trained_on():
    y = np.array([0] * 50 + [1] + [2] * 2)
    for seed in range(30):
        train, _ = inner_split(y, None, seed)
        assert set(y[train]) == {0, 1, 2}


def test_large_groups_are_taken_whole_where_nothing_smaller_is_there():
    groups = np.repeat(["a", "b", "c"], [300, 250, 200])
    train, val = inner_split(np.arange(750) % 2, groups, 0)
    assert len(set(groups[val])) == 1
    assert not set(groups[val]) & set(groups[train])
    train, val = inner_split(np.arange(20) % 2, np.repeat([0, 1], 10), 0)
    assert (len(train), len(val)) == (10, 10)


def test_groups_that_are_much_too_large_are_left_where_small_ones_do():
    groups = np.repeat(np.arange(13), [80, *[10] * 12])
    for seed in range(30):
        val = inner_split(np.arange(200) % 2, groups, seed)[1]
        assert len(val) == 30
        assert 0 not in groups[val]


def test_a_group_that_has_a_class_to_itself_is_trained_on():
    y, groups = np.array([0] * 30 + [1] * 10 + [0] * 10), np.repeat([0, 1, 2], [30, 10, 10])
    for seed in range(10):
        assert inner_split(y, groups, seed)[1].tolist() == list(range(40, 50))


@pytest.mark.parametrize(
    ("y", "groups"), [(np.arange(5), None), (np.zeros(9, int), np.zeros(9, int)), (np.array([0]), None)]
)
def test_where_nothing_can_be_set_apart_that_is_said(y, groups):
    with pytest.raises(FitError, match="set apart"):
        inner_split(y, groups, 0)


@given(st.data())
def test_every_image_once_groups_whole_and_every_class_trained_on(data):
    n = data.draw(st.integers(2, 120))
    y = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    groups = data.draw(st.none() | st.lists(st.integers(0, 12), min_size=n, max_size=n))
    groups = None if groups is None else np.array(groups)
    try:
        train, val = inner_split(y, groups, data.draw(st.integers(0, 99)))
    except FitError:
        return
    assert sorted([*train, *val]) == list(range(n))
    assert len(val) > 0
    assert set(y[train]) == set(y)
    assert len(val) <= max(n // 2, 1)
    if groups is not None:
        assert not set(groups[train]) & set(groups[val])
