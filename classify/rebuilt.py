"""The page of a run, made again from the files of its folder; its pictures are those of the page that is there."""

import csv
import html
import json
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from classify.compare.reading import Run, check_size, read_run
from classify.hygiene.tables import FIELDS, unquoted
from classify.report import render, wanted_thumbnails
from classify.report.evidence import Row
from classify.report.text import clipped
from classify.runs import FINDINGS
from extract.errors import FitError, StoreError
from extract.store import files

PAGE, PREDICTIONS = "report.html", "predictions.csv"
MAX_PAGE_BYTES = 64 << 20
MAX_TABLE_BYTES = 512 << 20


def rebuild(run: str) -> dict[str, Any]:
    """Write report.html anew, with the words and plots of this version; -> where it lies, and how many pictures it has.

    Raises FitError where there is no run of that name or path, or its files make no page.
    """
    found = read_run(Path(run))
    path = found.folder / PAGE
    try:
        page, n_pictures, n_wanted = _page(found)
    except (LookupError, TypeError, ValueError, AttributeError, csv.Error) as error:
        said = f"its files make no page ({type(error).__name__}: {error})"[:200]
        raise FitError(said, where=str(found.folder), remedy="Write the run again: pipeline.py fit FEATURES") from error
    try:
        files.replace(path, page.encode("utf-8", "replace"))
    except StoreError as error:
        raise FitError(error.what, where=error.where, remedy="Make room, or check its permissions") from error
    return {"report": str(path), "pictures": n_pictures, "wanted": n_wanted}


def _page(found: Run) -> tuple[str, int, int]:
    predictions = _predictions(found.folder / PREDICTIONS)
    findings = {name: _findings(path) for name in FIELDS if (path := _table(found.folder, name)).exists()}
    wanted = wanted_thumbnails(predictions, findings)
    pictures = _pictures(found.folder / PAGE, wanted)
    return render(found.metrics, predictions, findings, pictures), len(pictures), len(wanted)


def _table(folder: Path, name: str) -> Path:
    return folder / FINDINGS / f"{name}.csv"


def _predictions(path: Path) -> list[Row]:
    """Read answers; the one cell with the probabilities of several labels is JSON."""
    rows = _rows(path)
    return [_several(row) if row["probability"].startswith("{") else row for row in rows]


def _several(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "probability"} | {
        "probabilities": json.loads(row["probability"])
    }


def _findings(path: Path) -> list[Row]:
    return [{name: unquoted(text) for name, text in row.items()} for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, str]]:
    check_size(path, MAX_TABLE_BYTES)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def _pictures(page: Path, wanted: Sequence[str]) -> dict[str, str]:
    """Find the pictures of images in a page, where they are known by their names; names cut to one are of none."""
    if not page.is_file():
        return {}
    check_size(page, MAX_PAGE_BYTES)
    there = _Pictures(page.read_text(encoding="utf-8", errors="replace")).found
    names = {id_: html.unescape(clipped(id_)) for id_ in wanted}
    times = Counter(names.values())
    return {id_: there[name] for id_, name in names.items() if name in there and times[name] == 1}


class _Pictures(HTMLParser):
    """The pictures of a page by what stands for them: {alt: src}."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a picture."""
        said = dict(attrs)
        if tag == "img" and said.get("alt") and said.get("src"):
            self.found[str(said["alt"])] = str(said["src"])
