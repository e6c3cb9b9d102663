"""Every place where an error of ours is made is read: it says what is wrong, where, and what to do about it."""

import ast
import inspect
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import pipeline
from extract import errors
from extract.errors import OffshelfError, OptionError, first_line, unknown

ROOT = Path(pipeline.__file__).parent
FILES = sorted([*ROOT.glob("extract/**/*.py"), *ROOT.glob("classify/**/*.py"), ROOT / "pipeline.py"])
KINDS = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, OffshelfError)}
OF_FILES = {"BundleError", "StoreError", "SourceError", "UnreadableError"}
"""Errors of something that lies somewhere, which is to be named."""

UNWORDED = "{}"
"""Stands for a part of a text that is only known when the program runs."""

STATEMENTS = re.compile(
    "(A|All|An|Are|As|Both|Each|Every|Is|It|Its|Known|Names|No|None|Nothing|One|Only|Or|Perhaps|Some|That|The|There|They|"
    r"This|Those|Times|What|Where)\b"
)
"""What begins a statement; a remedy begins with something to do."""

NOWHERE = {
    ("StoreError", "{} is {} feature sets: {}"): "they are in the text",
    ("StoreError", "{} has parts of {} recipes: {}"): "they are in the text",
    ("SourceError", "{} of {} archives are missing: {}"): "they are in the text",
    ("SourceError", "member {} leads out of the archive"): "the caller adds the archive",
    ("SourceError", "member {} is sparse"): "the caller adds the archive",
    ("SourceError", "not a torchvision location: {}"): "a fault of ours, not of the user's",
    ("BundleError", "the bundle was never written"): "there is no place yet",
}
"""Errors of something that lies somewhere, without a place, and why."""

NO_REMEDY = {
    "classify/advise/": "the advice says what was not measured, and why; nothing is asked of anyone",
    "classify/serve/app.py": "the answer to a request says what is wrong with it",
    "extract/sources/torchvision_sets.py": "a fault of ours, not of the user's",
}
"""Where errors are made that ask nothing of the user."""


@dataclass(frozen=True)
class Site:
    """A call that makes an error: its texts, as far as the source tells; None for what is not given."""

    path: str
    line: int
    kind: str
    what: str | None
    where: str | None
    remedy: str | None

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.kind}"


def text_of(node: ast.expr | None, names: dict[str, ast.expr], depth: int = 4) -> str | None:
    """What a text begins with and holds, names followed to what was last assigned to them above."""
    if node is None:
        return None
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, names, depth) or "" for part in node.values)
    if isinstance(node, ast.FormattedValue):
        inner = text_of(node.value, names, depth)
        return inner if isinstance(node.value, ast.Name) and node.value.id.isupper() and inner else UNWORDED
    if isinstance(node, ast.BinOp):
        return f"{text_of(node.left, names, depth)}{text_of(node.right, names, depth)}"
    if isinstance(node, ast.IfExp):
        return text_of(node.body, names, depth)
    if isinstance(node, ast.Name) and depth and node.id in names:
        return text_of(names[node.id], names, depth - 1)
    return UNWORDED


def assigned(body: ast.AST, before: int) -> dict[str, ast.expr]:
    """The names that statements below a node, above a line, give a value."""
    found: dict[str, ast.expr] = {}
    for node in ast.walk(body):
        if isinstance(node, ast.Assign) and node.lineno < before:
            target, value = node.targets[0], node.value
            several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = zip(target.elts, value.elts, strict=False) if several else [(target, value)]
            found |= {each.id: said for each, said in pairs if isinstance(each, ast.Name)}
    return found


def sites_in(path: Path) -> Iterator[Site]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    shared = ast.Module([each for each in tree.body if isinstance(each, ast.Assign)], [])
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    seen: set[int] = set()
    for block in [*reversed(blocks), tree]:  # of functions in functions the inner one first
        for node in ast.walk(block):
            if isinstance(node, ast.Call) and id(node) not in seen and (kind := kind_of(node)):
                seen.add(id(node))
                names = assigned(shared, 1 << 30) | (assigned(block, node.lineno) if block is not tree else {})
                said = {each.arg: text_of(each.value, names) for each in node.keywords if each.arg}
                what = text_of(node.args[0], names) if node.args else None
                name = path.relative_to(ROOT).as_posix()
                yield Site(name, node.lineno, kind, what, said.get("where"), said.get("remedy"))


def kind_of(call: ast.Call) -> str | None:
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    return name if name in KINDS else None


SITES = [site for path in FILES for site in sites_in(path)]


def faults(wrong: Iterator[Site]) -> str:
    return "\n".join(f"{site}: {site.what!r} where={site.where!r} remedy={site.remedy!r}" for site in wrong)


def test_the_sites_are_found():
    assert len(SITES) > 250
    made = {site.kind for site in SITES}
    by_table = set(re.findall(r"unknown\([^)]*?(\w+Error)\b", "".join(path.read_text() for path in FILES)))
    assert set(KINDS) - {"OffshelfError"} <= made | by_table, "an error that nothing makes"


def test_all_say_what_is_wrong_in_a_phrase_without_a_full_stop():
    assert not faults(site for site in SITES if not site.what or site.what.endswith((".", "!")))


def test_all_say_what_to_do():
    asked = [site for site in SITES if not site.path.startswith(tuple(NO_REMEDY))]
    assert not faults(site for site in asked if not site.remedy)


def begins_with_advice(remedy: str) -> bool:
    return (
        remedy.startswith((UNWORDED, "pip install"))
        or "--" in remedy
        or (remedy[0].isupper() and not STATEMENTS.match(remedy))
    )


def test_what_to_do_begins_with_a_verb_or_names_an_option():
    assert not faults(site for site in SITES if site.remedy and not begins_with_advice(site.remedy))


def test_what_to_do_ends_without_a_full_stop():
    assert not faults(site for site in SITES if site.remedy and site.remedy.endswith("."))


def test_errors_of_something_that_lies_somewhere_name_the_place():
    there = [site for site in SITES if site.kind in OF_FILES and (site.kind, site.what) not in NOWHERE]
    assert not faults(site for site in there if site.where in (None, ""))


def test_the_exceptions_are_still_needed():
    said = {(site.kind, site.what) for site in SITES if not site.where}
    assert set(NOWHERE) <= said
    without = [site.path for site in SITES if not site.remedy]
    assert [place for place in NO_REMEDY if not any(path.startswith(place) for path in without)] == []


def test_no_text_names_a_place_of_one_machine():
    places = re.compile(r"(?<![\w.])/(home|work|tmp|root|Users|mnt)/")
    assert not faults(site for site in SITES if places.search(f"{site.what} {site.where} {site.remedy}"))


@pytest.mark.parametrize("name", KINDS)
def test_an_error_says_all_of_it_in_a_line_and_travels_whole(name):
    kind = KINDS[name]
    assert kind.__doc__
    assert kind.__doc__.splitlines()[0].endswith(".")
    error = kind("what is wrong", where="a place", remedy="Take another")
    assert str(error) == "a place: what is wrong. Take another"
    assert error.as_dict() == {"type": name, "what": "what is wrong", "where": "a place", "remedy": "Take another"}
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 our own
    assert (type(twin), twin.as_dict()) == (kind, error.as_dict())


@pytest.mark.parametrize(
    ("known", "remedy", "said"),
    [
        (["avg", "max"], "", "no pool 'mex' (nearest: 'max'). Known: avg, max"),
        (["avg", "max"], "Take one", "no pool 'mex' (nearest: 'max'). Take one. Known: avg, max"),
        ([f"p{i}" for i in range(20)], "List them", "no pool 'mex'. List them"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_and_a_short_list(known, remedy, said):
    with pytest.raises(OptionError) as raised:
        unknown("pool", "mex", known, OptionError, remedy=remedy)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("\n a\nb"), "a"),
        (AssertionError(), "AssertionError"),
        (ValueError(" \n"), "ValueError"),
        (ValueError("x" * 300), "x" * 200),
    ],
)
def test_of_an_error_of_others_a_line_is_said_even_where_it_has_none(error, said):
    assert first_line(error) == said
