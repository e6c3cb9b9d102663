"""What clients send: uploads and JSON, read within limits and never into a file."""

import base64
import binascii
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from extract.sources import Held

DRAINED = 16 << 20
"""Bytes beyond the limit that are still taken and thrown away: who is cut off earlier may not hear why."""

MAX_NAME = 200
"""Letters of an image's name that come back."""

EXAMPLE = '{"images": [{"id": "a", "data": "BASE64"}]}'


@dataclass(frozen=True)
class Limits:
    """The most images of a request, and the bytes of all of it; `waiting` images make the server busy."""

    images: int = 64
    request_bytes: int = 64 << 20
    waiting: int = 256


class Refused(Exception):  # noqa: N818 an answer, not a fault
    """A request that is not carried out: the HTTP status and what is wrong."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code, self.what = code, what


class _InMemory(MultiPartParser):
    """Keeps uploads in memory, which the limit of the request bounds: nothing of them reaches a disk."""

    spool_max_size = max_file_size = 0  # no size is too large; the second is what Starlette before 0.46 calls it


async def uploads(request: Request, limits: Limits) -> list[Held]:
    """Read the images of a form, whatever its fields are called; raises Refused."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused(415, "send images as multipart/form-data, as in curl -F image=@a.jpg")
    body = await _body(request, limits)

    async def parts() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemory(request.headers, parts(), max_files=limits.images, max_fields=limits.images).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        too_many = "Too many" in str(error)
        raise Refused(413 if too_many else 400, f"not a form with images ({error})"[:200]) from error
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        found = [Held.of(_name(part.filename, at), await part.read()) for at, part in enumerate(files)]
    finally:
        await form.close()
    return _some(found, limits)


async def listed(request: Request, limits: Limits) -> list[Held]:
    """Read the images of a JSON object, as in EXAMPLE; raises Refused."""
    body = await _body(request, limits)
    try:
        found = [_of_json(each, at) for at, each in enumerate(_in_json(body, limits))]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Refused(400, f"not as in {EXAMPLE} ({type(error).__name__}: {error})"[:300]) from error
    return _some(found, limits)


def _in_json(body: bytes, limits: Limits) -> list[Any]:
    given = json.loads(body)["images"]
    if not isinstance(given, list):
        raise TypeError("images is no list")
    if len(given) > limits.images:  # before any of them is read
        raise _too_many(limits)
    return given


def _of_json(given: Any, at: int) -> Held:
    name, data = given.get("id", None) if isinstance(given, dict) else None, given["data"]
    if not isinstance(data, str) or not isinstance(name, str | None):
        raise TypeError(f"image {at} has an id or data that is no text")
    try:
        return Held.of(_name(name, at), base64.b64decode(data, validate=True))
    except binascii.Error as error:
        raise ValueError(f"the data of image {at} is no base64") from error


def _name(given: str | None, at: int) -> str:
    return given[:MAX_NAME] if given else str(at)


def _some(images: list[Held], limits: Limits) -> list[Held]:
    if not images:
        raise Refused(400, "no image in the request")
    if len(images) > limits.images:
        raise _too_many(limits)
    return images


def _too_many(limits: Limits) -> Refused:
    return Refused(413, f"more than {limits.images} images in one request")


async def _body(request: Request, limits: Limits) -> bytes:
    """Read the body; raises Refused where it is longer than the limit, whatever its header says."""
    parts, n_bytes = [], 0
    async for part in request.stream():
        n_bytes += len(part)
        if n_bytes <= limits.request_bytes:
            parts.append(part)
        elif n_bytes > limits.request_bytes + DRAINED:
            break
    if n_bytes > limits.request_bytes:
        raise Refused(413, f"more than {limits.request_bytes:,} bytes in one request")
    return b"".join(parts)
