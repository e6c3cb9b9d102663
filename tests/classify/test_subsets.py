from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from classify.folds import Part
from classify.subsets import deal, deal_folds, subsets


@given(st.lists(st.integers(0, 2), min_size=40, max_size=80), st.integers(0, 2**32 - 1))
def test_subsets_of_rows_are_disjoint_nested_and_stratified(y, seed):
    part, rng = Part(np.arange(len(y)), np.asarray(y), None), np.random.default_rng(seed)
    train = rng.permutation(len(y))[: len(y) - 5]
    leaf = deal(part, train, 8, rng)
    sizes = subsets(train, leaf)
    assert [len(parts) for parts in sizes] == [1, 2, 4, 8]
    for parts in sizes:
        assert sorted(np.concatenate(parts)) == sorted(train)
        counts = np.array([np.bincount(part.y[rows], minlength=3) for rows in parts])
        assert np.ptp(counts, axis=0).max() <= 8 // len(parts)
    for larger, smaller in pairwise(sizes):
        for at, rows in enumerate(smaller):
            assert set(rows) <= set(larger[at // 2])


@given(st.lists(st.integers(0, 15), min_size=40, max_size=80), st.integers(0, 2**32 - 1))
def test_groups_are_never_parted(groups, seed):
    part, rng = Part(np.arange(len(groups)), np.asarray(groups) % 2, np.asarray(groups)), np.random.default_rng(seed)
    leaf = deal(part, np.arange(len(groups)), 4, rng)
    assert all(len(set(leaf[np.asarray(groups) == group])) == 1 for group in set(groups))


def test_as_many_leaves_as_the_smallest_class_fills():
    folds = [(np.arange(40), np.arange(40, 44))]
    for few, n_leaves in ((8, 8), (7, 4), (4, 4)):
        y = (np.arange(44) < few).astype(int)
        [leaf] = deal_folds(Part(np.arange(44), y, None), folds, 0) or []
        assert len(set(leaf[:few])) == len(set(leaf)) == n_leaves
    y = (np.arange(44) < 3).astype(int)
    assert deal_folds(Part(np.arange(44), y, None), folds, 0) is None


def test_large_and_small_groups_make_leaves_of_one_size():
    groups = np.repeat(np.arange(16), np.arange(16) + 1)
    part = Part(np.arange(136), np.zeros(136, dtype=int), groups)
    leaf = deal(part, np.arange(136), 8, np.random.default_rng(0))
    assert set(np.bincount(leaf)) == {17}
