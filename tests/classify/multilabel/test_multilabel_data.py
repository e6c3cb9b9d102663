import numpy as np
import pytest

from classify.multilabel.data import read_multilabel
from extract.errors import FitError

CELLS = ["cat", "dog", "cat|dog", "-", ""]


def features_of(make_features, cells: list[str], **known):
    names = sorted({cell for cell in cells if cell})
    labels = np.array([names.index(cell) if cell else -1 for cell in cells])
    return make_features(labels, names, X={"penultimate": np.zeros((len(cells), 2), np.float32)}, **known)


def test_label_names_become_sets_and_unlabelled_rows_are_left_out(make_features):
    features = features_of(make_features, CELLS * 10)
    features.status[0] = 1
    data = read_multilabel(features)
    assert data.classes == ["cat", "dog"]
    assert (data.n_bad, data.n_unlabelled) == (1, 10)
    assert len(data.train) + len(data.test) == 39
    assert len(data.test) == 8
    for part in (data.train, data.test):
        named = ["|".join(name for name, there in zip(data.classes, row, strict=True) if there) for row in part.Y]
        assert [name or "-" for name in named] == [data.cells[row] for row in part.rows]
    assert "each label in proportion" in data.split
    assert data.warnings == []


def test_cells_from_elsewhere_replace_those_of_the_features(make_features):
    features = features_of(make_features, CELLS * 10)
    data = read_multilabel(features, cells=["sun", "sun|sea", "-", "sea", ""] * 10)
    assert data.classes == ["sea", "sun"]
    assert data.n_unlabelled == 10


def test_rare_classes_are_dropped_with_a_word_and_count_as_unknown(make_features):
    splits = ["train"] * 12 + ["test"] * 4
    cells = ["cat", "dog"] * 5 + ["owl", "-"] + ["cat", "owl|dog", "-", "newt"]
    data = read_multilabel(features_of(make_features, cells, splits=splits))
    assert data.classes == ["cat", "dog"]
    assert data.train.unknown.sum() == 1
    assert data.test.unknown.tolist() == [0, 1, 0, 1]
    assert data.warnings == [
        "fewer than 2 training images have 'newt', 'owl': not learned",
        "2 test images have labels that are not learned: each is a miss in micro F1, and its image is wrong in subset "
        "accuracy",
    ]


@pytest.mark.parametrize(("splits", "given"), [(["train", "test"], "'test'"), (["train", "val"], "'val'")])
def test_a_given_split_is_kept(make_features, splits, given):
    data = read_multilabel(features_of(make_features, ["cat", "dog"] * 10, splits=[splits[0]] * 12 + [splits[1]] * 8))
    assert data.test.rows.tolist() == list(range(12, 20))
    assert given in data.split


def test_groups_near_duplicates_and_equal_images_stay_whole(make_features):
    features = features_of(make_features, ["cat", "dog"] * 20, groups=["a"] * 4 + [""] * 36)
    features.sha256[4] = features.sha256[3]
    near = np.arange(40)
    near[5] = near[4]
    data = read_multilabel(features, near=near)
    groups = {
        int(row): code for part in (data.train, data.test) for row, code in zip(part.rows, part.groups, strict=True)
    }
    assert len({groups[row] for row in range(6)}) == 1
    assert len(set(groups.values())) == 35
    assert not set(data.train.groups) & set(data.test.groups)
    alone = read_multilabel(features, group="none")
    assert len(set(alone.train.groups) | set(alone.test.groups)) == 39


def test_a_given_split_that_parts_groups_is_told_of(make_features):
    features = features_of(make_features, ["cat", "dog"] * 10, splits=["train"] * 12 + ["test"] * 8)
    features.sha256[15] = features.sha256[3]
    assert read_multilabel(features).warnings == [
        "1 groups (equal images are one) are in the training and in the test part: the test is too easy"
    ]


@pytest.mark.parametrize(
    ("cells", "splits", "said"),
    [
        ([""] * 6, [], "no usable image has labels"),
        (["-"] * 6, [], "there is no class"),
        (["cat"] * 6, [], "no label has enough"),
        (["cat", "-"] * 3, ["test"] * 6, "no image is left to train on"),
        (["cat", "-"] * 3 + ["-", "-"], ["train"] * 6 + ["test"] * 2, "none of the 2 test images"),
    ],
)
def test_what_cannot_be_learned_or_tested_is_refused(make_features, cells, splits, said):
    with pytest.raises(FitError, match=said):
        read_multilabel(features_of(make_features, cells, splits=splits))
