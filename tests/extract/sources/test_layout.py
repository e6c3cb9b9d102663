import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import SourceError
from extract.sources.layout import empty_class_notes, infer, is_hidden, is_image, strip_shared_top

names = st.text(string.ascii_letters + "éß -_0", min_size=1, max_size=6).filter(
    lambda name: name.casefold() not in ("train", "val", "valid", "validation", "test")
)
splits = st.sampled_from(
    [("train", "train"), ("val", "val"), ("valid", "val"), ("Validation", "val"), ("TEST", "test")]
)


@given(st.lists(st.tuples(names, st.lists(names, max_size=2), names)))
def test_the_first_folder_is_the_label(items):
    paths = ["/".join([label, *deeper, name]) for label, deeper, name in items]
    assert infer(paths, where="data") == [(label, None) for label, _, _ in items]


@given(st.lists(st.tuples(splits, names, st.lists(names, max_size=2), names)))
def test_a_split_folder_is_the_split_and_the_next_the_label(items):
    paths = ["/".join([folder, label, *deeper, name]) for (folder, _), label, deeper, name in items]
    assert infer(paths, where="data") == [(label, split) for (_, split), label, _, _ in items]


@given(st.lists(names))
def test_flat_images_have_neither(paths):
    assert infer(paths, where="data") == [(None, None)] * len(paths)


@given(st.lists(st.text("ab/", min_size=1).map(lambda path: path.strip("/") or "a")))
def test_any_paths_give_a_place_each_or_a_source_error(paths):
    with suppress(SourceError):
        assert len(infer(paths, where="data")) == len(paths)


def test_a_flat_test_folder_beside_class_folders_is_unlabelled():
    assert infer(["train/a/1.jpg", "test/2.jpg"], where="data") == [("a", "train"), (None, "test")]


@pytest.mark.parametrize(
    ("paths", "what", "where"),
    [
        (["1.jpg", "a/2.jpg"], "images (1.jpg) lie beside folders of images", "data"),
        (["train/1.jpg", "train/a/2.jpg"], "images (1.jpg) lie beside folders of images", "data/train"),
        (
            ["train/a/1.jpg", "bus/2.jpg", "car/3.jpg"],
            "split folders (train) lie beside other folders of images (bus, car)",
            "data",
        ),
    ],
)
def test_two_readings_are_refused(paths, what, where):
    with pytest.raises(SourceError) as caught:
        infer(paths, where=where.partition("/")[0])
    assert (caught.value.what, caught.value.where) == (what, where)
    assert "manifest" in caught.value.remedy


@pytest.mark.parametrize(
    ("paths", "bare"),
    [
        (["h/train/a/x.jpg", "h/val/a/y.jpg"], ["train/a/x.jpg", "val/a/y.jpg"]),
        (["train/a/x.jpg"], ["train/a/x.jpg"]),
        (["h/x.jpg", "y.jpg"], ["h/x.jpg", "y.jpg"]),
        (["a/x.jpg", "b/x.jpg"], ["a/x.jpg", "b/x.jpg"]),
    ],
)
def test_one_folder_around_everything_says_nothing(paths, bare):
    assert strip_shared_top(paths) == bare


@pytest.mark.parametrize(
    ("paths", "folders", "notes"),
    [
        (["a/1.jpg"], ["a", "a/deep", "b"], ["no images in class folder 'b'"]),
        (["train/a/1.jpg"], ["train", "train/a", "val", "val/a", "docs"], ["no images in class folder 'val/a'"]),
        (["a/1.jpg"], ["b", "c", "d", "e"], ["no images in 4 class folders: b, c, d, ..."]),
        (["1.jpg"], ["b"], []),
    ],
)
def test_class_folders_without_images_are_noted(paths, folders, notes):
    assert empty_class_notes(paths, folders) == notes


def test_names_of_images_and_of_hidden_files():
    assert all(map(is_image, ["a.JPG", "a.b.tiff", "x.jfif", "a.webp"]))
    assert not any(map(is_image, ["jpg", "a.jpg.txt", "a", "", "a.svg"]))
    assert is_hidden(".DS_Store")
    assert is_hidden("__MACOSX")
    assert not is_hidden("a.jpg")
