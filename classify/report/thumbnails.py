"""Pictures on the page: which are wanted, which are let in, and how they are laid out."""

import re
from collections.abc import Iterable, Mapping, Sequence

from classify.report.evidence import Row
from classify.report.text import clipped
from classify.report.worst import worst_errors

MAX_WORST, MAX_SUSPECTS, MAX_PAIRS, MAX_OUTLIERS = 12, 18, 9, 12
"""Images, or pairs of them, that a part of the page shows; the rest lies in its CSV file."""

MAX_PICTURE_CHARS = 100_000
"""Of one data URI: a thumbnail of 128 pixels takes a tenth of that."""

MAX_PICTURES_CHARS = 2_000_000
"""Of all pictures together, each counted once: a page stays small enough to be mailed."""

PICTURE = re.compile(r"data:image/(?:jpeg|webp|png);base64,[A-Za-z0-9+/]+={0,2}\Z")
PAIRS = ("duplicates", "conflicts")


def ordered_pairs(rows: Sequence[Row]) -> list[Row]:
    """Put pairs across the split first, then those with two labels, then the nearest."""
    return sorted(
        rows,
        key=lambda row: (
            row.get("split_a") == row.get("split_b"),
            row.get("label_a") == row.get("label_b"),
            float(row.get("distance") or 0),
        ),
    )


def wanted_thumbnails(predictions: Sequence[Row], findings: Mapping[str, Sequence[Row]]) -> list[str]:
    """List the ids of the images that the page has a place for, each once, the most telling first."""
    single = [*worst_errors(predictions)[:MAX_WORST], *findings.get("suspect_labels", ())[:MAX_SUSPECTS]]
    ids = [row["id"] for row in single]
    for name in PAIRS:
        for row in ordered_pairs(findings.get(name, ()))[:MAX_PAIRS]:
            ids += [row["id_a"], row["id_b"]]
    ids += [row["id"] for row in findings.get("outliers", ())[:MAX_OUTLIERS]]
    return list(dict.fromkeys(ids))


def safe_pictures(thumbnails: Mapping[str, str | None], wanted: Iterable[str]) -> dict[str, str]:
    """Keep what is the data URI of a JPEG, WebP or PNG file and fits on the page, in the order of need."""
    kept, room = {}, MAX_PICTURES_CHARS
    for id_ in wanted:
        uri = thumbnails.get(id_)
        if uri and len(uri) <= min(room, MAX_PICTURE_CHARS) and PICTURE.match(uri):
            kept[id_] = uri
            room -= len(uri)
    return kept


def card(ids: Sequence[str], words: Sequence[str], pictures: Mapping[str, str]) -> str:
    """Lay out one image, or two side by side, with lines of HTML and the ids; without pictures the words stand alone.

    The words come first in the source as on paper: they say why the picture is here.
    """
    shown = "".join(f'<img src="{pictures[id_]}" alt="{clipped(id_)}">' for id_ in ids if id_ in pictures)
    looks = f'<div class="looks">{shown}</div>' if shown else ""
    names = "".join(f'<div class="id">{clipped(id_)}</div>' for id_ in ids)
    return f"<li>{looks}{''.join(f'<div>{line}</div>' for line in words)}{names}</li>"


def cards(items: Iterable[str], kind: str = "cards") -> str:
    """Lay cards out as a grid."""
    return f'<ul class="{kind}">{"".join(items)}</ul>'
