import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.multilabel.labels import (
    add_up,
    classes_of,
    format_cell,
    matrix_of,
    parse_cell,
    rare,
    rare_words,
)
from extract.errors import FitError

NAMES = (
    st.text(st.characters(exclude_characters="|", codec="utf-8"), min_size=1)
    .map(str.strip)
    .filter(lambda name: name not in ("", "-"))
)


@given(st.frozensets(NAMES, max_size=4))
def test_a_written_cell_is_read_as_the_same_set(names):
    assert parse_cell(format_cell(names)) == names


def test_cells_make_a_matrix_over_the_sorted_classes():
    cells = ["dog | cat", "-", "cat", "cat|cat", "owl|dog"]
    assert classes_of(cells) == ["cat", "dog", "owl"]
    Y, beyond = matrix_of(cells, ["cat", "dog"])
    assert Y.tolist() == [[True, True], [False, False], [True, False], [True, False], [False, True]]
    assert beyond.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("cell", ["", "cat|", "|", "cat||dog", "-|cat", "cat|-"])
def test_a_cell_with_an_empty_name_or_with_none_beside_one_is_refused(cell):
    with pytest.raises(FitError, match="in the label"):
        parse_cell(cell)


def test_rows_of_one_image_add_up():
    rows = [("b", "cat"), ("a", "dog|cat"), ("b", "dog"), ("c", "-"), ("b", ""), ("d", "")]
    assert add_up(rows, ["a", "b", "c", "d", "e"], "labels.csv") == ["cat|dog", "cat|dog", "-", "", ""]


def test_none_of_them_and_one_of_them_do_not_add_up():
    with pytest.raises(FitError, match="names labels"):
        add_up([("a", "-"), ("a", "cat")], ["a"], "labels.csv")


def test_a_row_of_an_unknown_image_is_refused_with_the_nearest():
    with pytest.raises(FitError, match="nearest: 'one\\.png'"):
        add_up([("ones.png", "cat")], ["one.png", "two.png"], "labels.csv")


def test_classes_that_too_few_have_or_lack_are_rare_and_named():
    Y = np.zeros((6, 5), dtype=bool)
    Y[:1, 0] = Y[:2, 1] = Y[:4, 2] = Y[:5, 3] = True
    assert rare(Y).tolist() == [True, False, False, True, True]
    assert rare_words(list("abcde"), Y) == [
        "fewer than 2 training images have 'a', 'e': not learned",
        "all training images but one at most have 'd': not learned; leave it out of the labels",
    ]
