"""The parameters of an imported classifier, as they are written on a command line."""

import ast
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from extract.errors import OptionError

MAX_SETTINGS = 64
MAX_CHARACTERS = 1000
FORM = "Write NAME=VALUE[,VALUE...], as in n_estimators=100,300"


def parse_params(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read each `NAME=VALUE[,VALUE...]`: -> the values to try of each name. OptionError on anything else.

    Values are Python literals, `(100, 50)` and `None` among them; a bare word is itself: `max_features=sqrt,log2`.
    """
    params: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise OptionError(f"{text!r} names no parameter and its values", remedy=FORM)
        if name in params:
            raise OptionError(f"{name} is given twice", remedy=f"Write its values in one: {name}=A,B")
        params[name] = _values(text, values)
    return params


def _values(text: str, values: str) -> list[Any]:
    if len(values) > MAX_CHARACTERS:
        raise OptionError(f"{len(values)} characters of values", remedy=f"Take {MAX_CHARACTERS} at most")
    try:
        [row] = ast.parse(f"[{values}]").body
        elements = row.value.elts  # type: ignore[attr-defined]
        found = [element.id if isinstance(element, ast.Name) else ast.literal_eval(element) for element in elements]
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise OptionError(f"{text!r} holds what is no Python value", remedy=f"{FORM}; quote words: a='x-y'") from error
    if not found:
        raise OptionError(f"{text!r} has no value", remedy=FORM)
    return found


def settings(params: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], ...]:
    """Combine the values of all parameters: {"a": [1, 2]} -> ({"a": 1}, {"a": 2}). OptionError beyond MAX_SETTINGS."""
    combined = [dict(zip(params, values, strict=True)) for values in itertools.product(*params.values())]
    if len(combined) > MAX_SETTINGS:
        raise OptionError(f"{len(combined)} settings", remedy=f"Give fewer values: at most {MAX_SETTINGS} in all")
    return tuple(combined)
