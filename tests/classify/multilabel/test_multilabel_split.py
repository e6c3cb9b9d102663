import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.multilabel.split import hold_out, make_folds, stratified_parts
from extract.errors import FitError


@st.composite
def labelled(draw, grouped: bool):
    n, k = draw(st.integers(2, 60)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    Y = rng.random((n, k)) < rng.random(k)
    return Y, rng.integers(0, draw(st.integers(2, n)), n) if grouped else None


@given(labelled(grouped=True), st.integers(2, 6), st.integers(0, 3))
def test_parts_are_a_partition_that_keeps_groups_whole_whoever_asks(data, k, seed):
    Y, groups = data
    part = stratified_parts(Y, groups, [1 / k] * k, seed)
    assert part.shape == (len(Y),)
    assert set(part.tolist()) <= set(range(k))
    assert all(len(set(part[groups == group])) == 1 for group in set(groups.tolist()))
    np.testing.assert_array_equal(part, stratified_parts(Y, groups, [1 / k] * k, seed))


@given(labelled(grouped=False), st.integers(2, 6))
def test_the_rarest_class_is_dealt_as_evenly_as_whole_rows_can_be(data, k):
    Y, _ = data
    minority = Y ^ (2 * Y.sum(axis=0) > len(Y))
    counts = minority.sum(axis=0)
    if not counts.any():
        return
    rarest = np.where(counts > 0, counts, len(Y) + 1).argmin()
    part = stratified_parts(Y, None, [1 / k] * k, 0)
    dealt = np.bincount(part[minority[:, rarest]], minlength=k)
    assert dealt.max() - dealt.min() <= 1


@given(st.integers(2, 60), st.integers(2, 6), st.integers(0, 3))
def test_one_label_an_image_is_split_class_by_class(n, k, seed):
    Y = np.eye(3, dtype=bool)[np.arange(n) % 3]
    part = stratified_parts(Y, None, [1 / k] * k, seed)
    table = np.array([np.bincount(part[column], minlength=k) for column in Y.T])
    assert (np.ptp(table, axis=1) <= 1).all()
    assert np.ptp(np.bincount(part, minlength=k)) <= 2


def test_every_class_is_spread_better_than_by_chance():
    rng = np.random.default_rng(0)
    Y = rng.random((500, 12)) < [*np.linspace(0.02, 0.3, 10), 0.9, 0.98]
    folds, said = make_folds(Y, None, 5, 0)
    shares = np.array([Y[test].mean(axis=0) for _, test in folds])
    by_chance = np.array([Y[test].mean(axis=0) for test in np.array_split(rng.permutation(500), 5)])
    assert not said
    assert [len(test) for _, test in folds] == pytest.approx([100] * 5, abs=2)
    assert (np.abs(shares - Y.mean(axis=0)).max(axis=0) < 0.03).all()
    assert shares.std(axis=0).mean() < by_chance.std(axis=0).mean() / 3


def test_seeds_give_other_parts():
    Y = np.random.default_rng(0).random((50, 3)) < 0.4
    assert (stratified_parts(Y, None, [0.5, 0.5], 0) != stratified_parts(Y, None, [0.5, 0.5], 1)).any()


def test_a_hold_out_leaves_rare_classes_to_the_training():
    Y = np.zeros((100, 2), dtype=bool)
    Y[:2, 0] = Y[2:42, 1] = True
    test = hold_out(Y, None, 0.2, 0)
    assert test.sum() == 20
    assert Y[test].sum(axis=0).tolist() == [0, 8]


def test_large_groups_are_dealt_first_so_that_small_ones_even_out():
    groups = np.repeat([0, 1, 2, 3, 4, 5], [3, 6, 12, 3, 6, 6])
    Y = np.ones((36, 1), dtype=bool)
    Y[::2] = False
    part = stratified_parts(Y, groups, [1 / 3] * 3, 0)
    assert np.bincount(part).tolist() == [12, 12, 12]


def test_few_groups_make_few_folds_and_it_is_said():
    Y = np.array([[0, 1], [0, 1], [1, 0], [1, 0], [1, 0]], dtype=bool)
    folds, said = make_folds(Y, np.array([0, 0, 1, 1, 2]), 5, 0)
    assert len(folds) == 3
    assert said[0].startswith("3 folds instead of 5")
    assert said[1].startswith("2 classes have too few images or groups")
    with pytest.raises(FitError, match="one group"):
        make_folds(Y, np.zeros(5, dtype=np.int64), 5, 0)
