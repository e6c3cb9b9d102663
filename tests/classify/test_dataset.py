from pathlib import Path

import numpy as np
import pytest

from classify.dataset import read_dataset
from classify.folds import Part, make_folds
from extract.errors import FitError, OptionError


def test_codes_follow_the_names_and_not_the_order_they_were_stored_in(make_features):
    labels = np.arange(30) % 3
    data = read_dataset(make_features(labels, ["wasp", "ant", "bee"]))
    assert data.classes == ["ant", "bee", "wasp"]
    assert [data.classes[code] for code in data.train.y] == [["wasp", "ant", "bee"][row % 3] for row in data.train.rows]


def test_bad_and_unlabelled_rows_are_counted_and_left_out(make_features):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    features.labels[:3] = -1
    features.status[2:7] = 4
    data = read_dataset(features)
    assert (data.n_bad, data.n_unlabelled) == (5, 2)
    assert sorted([*data.train.rows, *data.test.rows]) == list(range(7, 40))


def test_a_hold_out_is_a_fifth_of_each_class_and_the_same_for_a_seed(make_features):
    features = make_features(np.repeat([0, 1], [20, 60]), ["a", "b"])
    data, again, other = (read_dataset(features, seed=seed) for seed in (0, 0, 1))
    assert np.bincount(data.test.y).tolist() == [4, 12]
    assert (data.test.rows == again.test.rows).all()
    assert (data.test.rows != other.test.rows).any()
    assert "no split is given: 16 images" in data.split


@pytest.mark.parametrize(
    ("splits", "tested"),
    [
        (["train"] * 20 + ["val"] * 10 + ["test"] * 10, range(30, 40)),
        (["train"] * 30 + ["val"] * 10, range(30, 40)),
        ([""] * 30 + ["test"] * 10, range(30, 40)),
    ],
)
def test_given_splits_are_kept(make_features, splits, tested):
    data = read_dataset(make_features(np.arange(40) % 2, ["a", "b"], splits=splits))
    assert data.test.rows.tolist() == list(tested)
    assert len(data.train) == 30
    assert f"the split {splits[-1]!r}" in data.split


def test_val_alone_is_no_test(make_features):
    data = read_dataset(make_features(np.arange(40) % 2, ["a", "b"], splits=["val"] * 40))
    assert (len(data.train), len(data.test)) == (32, 8)


def test_a_label_that_only_the_test_has_is_kept_and_told(make_features):
    labels = np.array([0, 1] * 10 + [0, 1, 2, 2])
    data = read_dataset(make_features(labels, ["b", "c", "a"], splits=["train"] * 20 + ["test"] * 4))
    assert (data.classes, data.labels) == (["b", "c"], ["b", "c", "a"])
    assert data.test.y.tolist() == [0, 1, 2, 2]
    assert "2 test images of 'a'" in data.warnings[0]


def test_groups_never_cross_the_hold_out_nor_the_folds(make_features):
    labels, groups = np.arange(120) % 3, [f"g{row // 6}" for row in range(120)]
    data = read_dataset(make_features(labels, ["a", "b", "c"], groups=groups))
    assert not set(data.train.groups) & set(data.test.groups)
    folds, said = make_folds(data.train, 5, 0)
    assert not said
    for train, test in folds:
        assert not set(data.train.groups[train]) & set(data.train.groups[test])
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(data.train)))


def test_images_without_a_group_stand_alone_and_groups_can_be_ignored(make_features):
    groups = ["g"] * 4 + [""] * 36
    features = make_features(np.arange(40) % 2, ["a", "b"], groups=groups)
    data = read_dataset(features)
    assert len({*data.train.groups, *data.test.groups}) == 37
    assert read_dataset(features, group="none").train.groups is None


def test_groups_on_both_sides_of_a_given_split_are_told(make_features):
    splits = ["train"] * 20 + ["test"] * 20
    features = make_features(np.arange(40) % 2, ["a", "b"], splits=splits, groups=[f"g{row % 10}" for row in range(40)])
    assert "10 groups" in read_dataset(features).warnings[0]


def test_equal_images_never_cross_the_hold_out_nor_the_folds(make_features):
    features = make_features(np.arange(120) % 2, ["a", "b"])
    features.sha256[60:] = features.sha256[:60]
    for group in ("auto", "none"):
        data = read_dataset(features, group=group)
        assert not set(data.train.rows % 60) & set(data.test.rows % 60)
        assert not data.warnings
        for train, test in make_folds(data.train, 5, 0)[0]:
            assert not set(data.train.rows[train] % 60) & set(data.train.rows[test] % 60)


def test_near_duplicates_never_cross_the_hold_out_nor_the_folds(make_features):
    features = make_features(np.arange(60) % 2, ["a", "b"])
    near = np.arange(60) + 100
    near[[3, 17, 44]] = 7
    data = read_dataset(features, near=near)
    sides = [np.isin([3, 17, 44], part.rows).sum() for part in (data.train, data.test)]
    assert sorted(sides) == [0, 3]
    assert data.n_named_groups == 0


@pytest.mark.parametrize(("n_groups", "said"), [(1, "of one group"), (2, "of 2 groups"), (3, "")])
def test_a_test_part_of_a_group_or_two_is_told(make_features, n_groups, said):
    groups = [f"g{row % 5}" for row in range(40)] + [f"t{row % n_groups}" for row in range(20)]
    splits = ["train"] * 40 + ["test"] * 20
    warnings = read_dataset(make_features(np.arange(60) % 2, ["a", "b"], splits=splits, groups=groups)).warnings
    assert [f"the test images are {said}" in each for each in warnings] == ([True] if said else [])


def test_labels_that_look_like_several_are_told(make_features):
    [said] = read_dataset(make_features(np.arange(40) % 2, ["cat", "cat|dog"])).warnings
    assert said.startswith("1 of 2 labels hold '|', such as 'cat|dog'")
    assert "--multi-label" in said


def test_a_pattern_finds_groups_in_the_names_of_the_images(make_features):
    ids = [f"{row % 2}_{'jackson' if row < 20 else 'theo'}_{row}.png" for row in range(40)]
    features = make_features(np.arange(40) % 2, ["0", "1"], ids=ids)
    data = read_dataset(features, group="_([a-z]+)_")
    assert data.n_named_groups == 2
    assert len({ids[row].split("_")[1] for row in data.test.rows}) == 1
    # Judged without the groups, only twins stay together.
    assert data.train.twins is None
    with pytest.raises(FitError, match="matches no image"):
        read_dataset(features, group="nobody")
    with pytest.raises(OptionError, match="no pattern"):
        read_dataset(features, group="(")


def test_test_images_that_were_trained_on_are_counted(make_features):
    features = make_features(np.arange(40) % 2, ["a", "b"], splits=["train"] * 20 + ["test"] * 20)
    features.sha256[30:37] = features.sha256[3]
    said = read_dataset(features).warnings
    assert said == ["7 test images are also training images, byte for byte: the test is too easy"]


def test_folds_are_no_more_than_the_smallest_class_has_images():
    y = np.repeat([0, 1], [30, 3])
    folds, said = make_folds(Part(np.arange(33), y, None), 5, 0)
    assert len(folds) == 3
    assert "3 folds instead of 5" in said[0]


def test_a_class_of_one_group_is_missing_from_a_fold_and_that_is_told():
    y, groups = np.repeat([0, 1, 2], 12), np.concatenate([np.arange(24) // 2, np.full(12, 99)])
    folds, said = make_folds(Part(np.arange(36), y, groups), 4, 0)
    assert any(2 not in y[train] for train, _ in folds)
    assert "1 classes have too few groups" in said[-1]


def test_one_group_cannot_be_cross_validated():
    with pytest.raises(FitError, match="--group none"):
        make_folds(Part(np.arange(8), np.arange(8) % 2, np.zeros(8)), 5, 0)


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ([-1] * 6, [], "no image has a label.*--labels FILE"),
        ([0] * 10, ["a"], "all 8 training images are 'a'"),
        ([0] * 8 + [1, 2, 3, 4], list("abcde"), "fewer than 2 training images of 'b', 'c', 'd' and 1 more"),
        ([0, 0, 1, 1], ["a", "b"], "too few images"),
    ],
)
def test_what_cannot_be_fitted_says_why(make_features, labels, names, said):
    with pytest.raises(FitError, match=said):
        read_dataset(make_features(np.array(labels), names, X={}))


def test_no_usable_row(make_features):
    features = make_features(np.array([0, 1]), ["a", "b"])
    features.status[:] = 1
    with pytest.raises(FitError, match=r"none of the 2 images has features. See why: .*cache info"):
        read_dataset(features)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def test_a_label_file_replaces_the_labels(make_features, tmp_path):
    ids = [f"{row}.png" for row in range(39)] + ["bad\udcff.png"]
    features = make_features(np.zeros(40, dtype=int), ["old"], ids=ids)
    rows = "".join(f"{id_},{'xy'[at % 2]}\r\n" for at, id_ in enumerate(ids) if at != 1)
    data = read_dataset(features, labels=write(tmp_path / "l.csv", "\ufeffpath,label\r\n" + rows))
    assert data.classes == ["x", "y"]
    assert data.n_unlabelled == 1
    assert 39 in [*data.train.rows, *data.test.rows]


def test_blanks_around_a_label_do_not_count(make_features, tmp_path):
    text = "path,label\n" + "".join(f"{row:04d}.png,{' x' if row % 3 else 'y '}\n" for row in range(20))
    text += "0000.png,y\n"
    data = read_dataset(make_features(np.zeros(20, dtype=int), ["old"]), labels=write(tmp_path / "l.csv", text))
    assert data.classes == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\n", "first line is not path,label"),
        ("", "first line is not path,label"),
        ("path,label\n0000.png,a,b\n", "line 2: 3 cells"),
        ("path,label\n0000.png,a\n0000.png,b\n", "line 3: two labels for '0000.png'"),
        ("path,label\n0000.pgn,a\n", "nearest: '0000.png'"),
        ('path,label\n"0000.png,a\n', "cannot read the labels"),
    ],
)
def test_a_broken_label_file_says_where(make_features, tmp_path, text, said):
    with pytest.raises(FitError, match=said):
        read_dataset(make_features(np.arange(20) % 2, ["a", "b"]), labels=write(tmp_path / "l.csv", text))
