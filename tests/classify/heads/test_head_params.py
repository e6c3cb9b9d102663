import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.heads import parse_params
from classify.heads.params import settings
from extract.errors import OptionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n=100,300", {"n": [100, 300]}),
        ("depth = None, 5", {"depth": [None, 5]}),
        ("features=sqrt,'log2',0.5", {"features": ["sqrt", "log2", 0.5]}),
        ("sizes=(100, 50),(20,)", {"sizes": [(100, 50), (20,)]}),
        ("weights={0: 1, 1: 2.5}", {"weights": [{0: 1, 1: 2.5}]}),
        ("rate=-1e-3", {"rate": [-1e-3]}),
        ("on=True", {"on": [True]}),
    ],
)
def test_values_are_python_literals_or_words(text, expected):
    assert parse_params([text]) == expected


literals = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.lists(literals, min_size=1, max_size=5))
def test_what_repr_writes_is_read(values):
    text = ",".join(map(repr, values))
    if len(text) <= 1000:
        assert parse_params([f"a={text}"]) == {"a": values}


@pytest.mark.parametrize(
    "text",
    ["", "n", "=3", "n=", "1n=3", "n=f(3)", "n=a-b", "n=[", "n=1];[2", "n=" + "(" * 900, "n=" + "1" * 2000, "n=a.b"],
)
def test_anything_else_is_refused(text):
    with pytest.raises(OptionError):
        parse_params([text])


def test_a_name_is_given_once():
    with pytest.raises(OptionError, match="n is given twice"):
        parse_params(["n=1", "n=2"])


def test_settings_are_the_product_and_are_capped():
    assert settings({"a": [1, 2], "b": ["x"]}) == ({"a": 1, "b": "x"}, {"a": 2, "b": "x"})
    assert settings({}) == ({},)
    with pytest.raises(OptionError, match="100 settings"):
        settings({"a": range(10), "b": range(10)})
