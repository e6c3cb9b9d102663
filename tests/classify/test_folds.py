import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from classify.folds import BUNDLES, Part, bundled, fold_of, make_folds


def some_pairs(n: int, n_pairs: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stand alone but for a few pairs: -> y (n,) and groups (n,)."""
    rng = np.random.default_rng(seed)
    y, groups = rng.integers(0, n_classes, n), np.arange(n)
    a, b = rng.choice(n, (2, n_pairs), replace=False)
    groups[b] = groups[a]
    return y, groups


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_bundles_hold_rows_of_one_class_and_leave_groups_as_they_are(seed, most):
    y, groups = some_pairs(200, 20, 3, seed)
    codes = bundled(y, groups, most, seed)
    alone = np.bincount(groups, minlength=200)[groups] == 1
    same = groups[:, None] == groups
    assert ((codes[:, None] == codes)[~alone] == same[~alone]).all()
    for code in np.unique(codes[alone]):
        assert len(set(y[codes == code].tolist())) == 1
    for label in range(3):
        sizes = np.unique(codes[alone & (y == label)], return_counts=True)[1]
        assert len(sizes) == min(most, (alone & (y == label)).sum())
        assert np.ptp(sizes) <= 1


def test_few_rows_are_dealt_one_by_one():
    groups = np.arange(30)
    assert len(set(bundled(np.arange(30) % 3, groups, 10, 0).tolist())) == 30


def test_folds_of_many_rows_and_a_few_duplicates_are_even_and_part_none():
    y, groups = some_pairs(3000, 60, 5, 0)
    folds, said = make_folds(Part(np.arange(3000), y, groups), 5, 0)
    assert not said
    for train, test in folds:
        assert not set(groups[train].tolist()) & set(groups[test].tolist())
        assert abs(np.bincount(y[test]) - np.bincount(y) / 5).max() < 3000 / 5 / (BUNDLES * 5)
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(3000))


def test_folds_follow_the_seed():
    y, groups = some_pairs(600, 30, 3, 1)
    first, again, other = (make_folds(Part(np.arange(600), y, groups), 5, seed)[0] for seed in (0, 0, 1))
    assert all((a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
    assert any(len(a[1]) != len(b[1]) or (a[1] != b[1]).any() for a, b in zip(first, other, strict=True))


def test_every_row_is_told_the_fold_that_tests_it_and_none_where_there_is_none():
    folds = [(np.array([2, 3, 5]), np.array([0, 4])), (np.array([0, 4]), np.array([2, 3]))]
    assert fold_of(folds, 6).tolist() == [1, 0, 2, 2, 1, 0]
    y = np.arange(40) % 4
    made, _ = make_folds(Part(np.arange(40), y, None), 5, 0)
    numbers = fold_of(made, 40)
    assert np.array_equal(np.bincount(numbers), [0, 8, 8, 8, 8, 8])
    for number, (train, _) in enumerate(made, start=1):
        assert not (numbers[train] == number).any()
