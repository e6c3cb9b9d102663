"""The data sets that torchvision knows, by name: `torchvision:MNIST`. Images are handed on as lossless BMP."""

import contextlib
import functools
import inspect
import io
import operator
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from extract.errors import SourceError, unknown
from extract.record import SPLITS, Failure, Record, Status
from extract.sources.source import Source, default_name, shown

PREFIX = "torchvision:"
DEFAULT_ROOT = Path("data")
TRAIN_TEST = (("train",), ("test",))
CHOICES = (("train", "trainval", "train-standard"), ("val",), ("valid",), ("test",))
"""What `split=` may be called; of each group the first that the data set takes."""

OURS = {**SPLITS, "trainval": "train", "train-standard": "train"}
TARGETS = ("targets", "labels", "_labels", "y")
SERIAL = {"FakeData": threading.Lock()}
"""FakeData seeds torch's global generator to make an image: two threads at once would get each other's pixels."""

_LOADING = threading.RLock()


class _RefusedError(SourceError):
    """The data set has no such split."""


class _AbsentError(SourceError):
    """The files of a split are not there, and torchvision cannot fetch them."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One split of one data set; `split` is the data set's own word for it, None where it knows no splits."""

    name: str
    split: str | None
    root: str


def open_torchvision(data: str, root: Path | None) -> Source:
    """Read `torchvision:NAME`, all its splits; files are looked for under `root` (default data/), else downloaded.

    Raises SourceError for an unknown name, what is no image classification, and files that cannot be had.
    """
    name = _known_name(data.removeprefix(PREFIX))
    folder = str((root or DEFAULT_ROOT).absolute())
    parts, notes = _parts(name, folder)
    records = [record for part, dataset in parts.items() for record in _records(part, dataset)]
    if not records:
        raise SourceError(
            "the data set is empty", where=PREFIX + name, remedy=f"Look at the files under {shown(folder)}"
        )
    records.sort(key=lambda record: record.id)
    return Source(default_name(name.lower()), f"{PREFIX}{name}, below {folder}", tuple(records), tuple(notes))


def read_image(location: str, max_bytes: int) -> bytes | Failure:
    """Return one image as the bytes of a BMP (mode L or RGB), by the location that its record has as path."""
    try:
        part, index = _parse(location)
        image = _item(part, index)[0]
        buffer = io.BytesIO()
        (image if image.mode in ("L", "RGB") else image.convert("RGB")).save(buffer, "BMP")
    except (SourceError, FileNotFoundError, IndexError) as error:
        return Failure(Status.MISSING, f"torchvision does not have this image ({type(error).__name__})")
    except Exception as error:  # third-party decoders raise anything, and one image must not end the run
        return Failure(Status.DAMAGED, f"torchvision cannot read this image ({type(error).__name__})")
    if buffer.tell() > max_bytes:
        return Failure(Status.TOO_LARGE, f"{buffer.tell()} bytes, more than the limit of {max_bytes}")
    return buffer.getvalue()


def _known_name(name: str) -> str:
    from torchvision import datasets

    names = {known.casefold(): known for known in datasets.__all__ if isinstance(getattr(datasets, known), type)}
    if name.casefold() not in names:
        unknown("torchvision data set", name, names.values(), SourceError, remedy="See torchvision.datasets")
    return names[name.casefold()]


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    """Return what the constructor takes, through the **kwargs that some hand on to their base class."""
    from torchvision import datasets

    found: dict[str, inspect.Parameter] = {}
    for cls in inspect.getmro(getattr(datasets, name)):
        if "__init__" not in vars(cls):
            continue
        own = dict(list(inspect.signature(vars(cls)["__init__"]).parameters.items())[1:])
        found = {**own, **found}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return {name: p for name, p in found.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def _parts(name: str, root: str) -> tuple[dict[_Part, Any], list[str]]:
    """Open every split there is; where some are absent and cannot be fetched, the others will do, with a note."""
    parameters = _parameters(name)
    needed = [p.name for p in parameters.values() if p.default is p.empty and p.name not in ("root", "split", "train")]
    if needed:
        remedy = "Write its images into a folder of class folders, or a manifest"
        raise SourceError(f"{name} cannot be made without {', '.join(needed)}", where=PREFIX + name, remedy=remedy)
    groups = CHOICES if "split" in parameters else TRAIN_TEST if "train" in parameters else ((None,),)
    opened: dict[_Part, Any] = {}
    problems: list[SourceError] = []
    for group in groups:
        opened.update(_first(group, name, root, problems))
    absent = [problem for problem in problems if isinstance(problem, _AbsentError)]
    if not opened:
        raise (absent or problems)[0]
    return opened, [str(problem) for problem in absent]


def _first(
    group: Sequence[str | None], name: str, root: str, problems: list[SourceError]
) -> Iterator[tuple[_Part, Any]]:
    """Yield the first split of a group that the data set takes; what stood against it goes to `problems`."""
    for part in (_Part(name, split, root) for split in group):
        try:
            yield part, _fetched(part)
        except _RefusedError as problem:
            problems.append(problem)
        except _AbsentError as problem:
            problems.append(problem)
            return
        else:
            return


def _fetched(part: _Part) -> Any:
    """Open a split, downloading only what is not there; torchvision checks its own downloads by their hashes."""
    try:
        return _opened(part)
    except Exception as error:  # each data set of torchvision's has its own ways to fail
        if not _says_missing(error):
            raise _unusable(part, error) from error
        if "download" not in _parameters(part.name):
            what, remedy = f"split {part.split}: {_line(error)}", f"Put the files under {shown(part.root)}"
            raise _AbsentError(what, where=PREFIX + part.name, remedy=remedy) from error
    return _downloaded(part)


def _downloaded(part: _Part) -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr), _LOADING:
            _construct(part, download=True)
            return _opened(part)
    except Exception as error:  # as above: URLError, OSError, RuntimeError, and what archives raise
        what = f"{part.name} is not under {shown(part.root)} and cannot be downloaded: {_line(error)}"
        remedy = f"Put its files under {shown(part.root)}, or name their folder with --root"
        raise SourceError(what, where=PREFIX + part.name, remedy=remedy) from error


def _says_missing(error: Exception) -> bool:
    words = ("not found", "download", "not present", "no such file", "couldn't find")
    return isinstance(error, RuntimeError | FileNotFoundError) and any(word in str(error).lower() for word in words)


def _unusable(part: _Part, error: Exception) -> SourceError:
    """Turn what a constructor raised into our error; torchvision says "Unknown value" of a split it does not have."""
    kind = _RefusedError if isinstance(error, ValueError) and "Unknown value" in str(error) else SourceError
    remedy = f"Look at the files under {shown(part.root)}, or use a folder or a manifest"
    return kind(f"it cannot be opened: {_line(error)}", where=PREFIX + part.name, remedy=remedy)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def _construct(part: _Part, *, download: bool) -> Any:
    from torchvision import datasets

    parameters = _parameters(part.name)
    offered: dict[str, Any] = {"root": part.root, "download": download}
    if part.split is not None:
        offered |= {"split": part.split} if "split" in parameters else {"train": part.split == "train"}
    return getattr(datasets, part.name)(**{name: value for name, value in offered.items() if name in parameters})


@functools.lru_cache(maxsize=8)
def _cached(part: _Part) -> Any:
    return _construct(part, download=False)


def _opened(part: _Part) -> Any:
    """Open a split once per process; the lock keeps threads from loading the same file several times over."""
    with _LOADING:
        return _cached(part)


def _item(part: _Part, index: int) -> Any:
    with SERIAL.get(part.name, contextlib.nullcontext()):
        return _opened(part)[index]


def _records(part: _Part, dataset: Any) -> Iterator[Record]:
    ours = OURS[part.split] if part.split is not None else None
    targets, names = _targets(part, dataset), _class_names(dataset)
    width = max(5, len(str(len(targets) - 1)))
    query = {"split": part.split} if part.split is not None else {}
    query = urlencode({**query, "root": part.root}, quote_via=quote, errors="surrogateescape")
    for index, target in enumerate(targets):
        name = f"{index:0{width}d}"
        label = None if target is None or target < 0 else names.get(target, str(target))
        yield Record(f"{ours}/{name}" if ours else name, f"{PREFIX}{part.name}?{query}#{index}", label, ours)


def _parse(location: str) -> tuple[_Part, int]:
    match = re.fullmatch(PREFIX + r"(\w+)\?([^#]*)#(\d+)", location)
    query = parse_qs(match[2], errors="surrogateescape") if match else {}
    if match is None or "root" not in query:
        raise SourceError(f"not a torchvision location: {shown(location)}")
    return _Part(_known_name(match[1]), query.get("split", [None])[0], query["root"][0]), int(match[3])


def _targets(part: _Part, dataset: Any) -> list[int | None]:
    """Return the class index of every image, None where it has none; decodes one image where the rest are listed."""
    from PIL import Image

    try:
        if len(dataset) == 0:
            return []
        image, first = _item(part, 0)
        usable = isinstance(image, Image.Image) and _is_index(first)
    except (TypeError, ValueError):
        usable, first = False, None
    except Exception as error:  # a damaged first image, in whatever words its decoder has
        raise _unusable(part, error) from error
    if not usable:
        remedy = "Write its images into a folder of class folders, or a manifest"
        raise SourceError("not a classification data set", where=PREFIX + part.name, remedy=remedy)
    listed = (values for values in _listed(dataset) if values[0] == (None if first is None else int(first)))
    found = next(listed, None)
    return found if found is not None else [_index(_item(part, index)[1]) for index in range(len(dataset))]


def _listed(dataset: Any) -> Iterator[list[int | None]]:
    """Yield the lists that may be the targets: of the right length, and nothing but integers."""
    pairs = getattr(dataset, "_samples", None)
    lists = [getattr(dataset, name, None) for name in TARGETS]
    lists.append([pair[-1] for pair in pairs] if isinstance(pairs, list) else None)
    for values in lists:
        values = getattr(values, "tolist", lambda values=values: values)()
        if isinstance(values, list | tuple) and len(values) == len(dataset) and all(map(_is_index, values)):
            yield [_index(value) for value in values]


def _is_index(value: Any) -> bool:
    try:
        _index(value)
    except TypeError:
        return False
    return True


def _index(value: Any) -> int | None:
    return None if value is None else operator.index(value)


def _class_names(dataset: Any) -> dict[int, str]:
    """Return the names of classes by index; synonyms are joined, and classes of one name told apart by the index."""
    classes = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    indices = getattr(dataset, "class_to_idx", None)
    if not isinstance(classes, list | tuple):
        return {index: str(name) for name, index in indices.items()} if isinstance(indices, dict) else {}
    names = [", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in classes]
    count = Counter(names)
    return {i: name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)}
