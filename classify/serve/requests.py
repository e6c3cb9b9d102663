"""What clients send: uploads and JSON, read within limits and never into a file."""

import asyncio
import base64
import binascii
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from extract.sources import Held

DRAINED = 16 << 20
"""Bytes beyond the limit that are still taken and thrown away: who is cut off earlier may not hear why."""

PATIENCE_S, LEAST_RATE = 20.0, 64 << 10
"""A body has so many seconds, and one more for so many bytes of it: slower ones would hold memory for ever."""

GONE = 499
"""The status that is counted, as nginx does, where the client left in the middle of its request."""

MAX_NAME = 200
"""Letters of an image's name that come back."""

EXAMPLE = '{"images": [{"id": "a", "data": "BASE64"}]}'


@dataclass(frozen=True)
class Limits:
    """The most images of a request, and the bytes of all of it; `waiting` images make the server busy.

    So do bodies of `held_bytes` in all requests that are not answered yet.
    """

    images: int = 64
    request_bytes: int = 64 << 20
    waiting: int = 256
    held_bytes: int = 256 << 20


class Refused(Exception):  # noqa: N818 an answer, not a fault
    """A request that is not carried out: the HTTP status and what is wrong."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code, self.what = code, what


Take = Callable[[int], None]
"""Takes so many bytes of a Room; raises Refused where there are no more."""


class Room:
    """The memory that bodies of all requests share. Who finds none left is refused, and waits for nobody else."""

    def __init__(self, n_bytes: int) -> None:
        self._left = n_bytes

    @contextmanager
    def share(self) -> Iterator[Take]:
        """Take of it what one request needs, bit by bit, and give all of that back at the end."""
        taken = 0

        def take(n_bytes: int) -> None:
            nonlocal taken
            if n_bytes > self._left:
                raise Refused(503, "busy: requests of others fill the memory; try again")
            self._left, taken = self._left - n_bytes, taken + n_bytes

        try:
            yield take
        finally:
            self._left += taken


class _InMemory(MultiPartParser):
    """Keeps uploads in memory, which the limit of the request bounds: nothing of them reaches a disk."""

    spool_max_size = max_file_size = 0  # no size is too large; the second is what Starlette before 0.46 calls it


async def uploads(request: Request, limits: Limits, take: Take) -> list[Held]:
    """Read the images of a form, whatever its fields are called; raises Refused."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused(415, "send images as multipart/form-data, as in curl -F image=@a.jpg")
    body = await _body(request, limits, take)

    async def parts() -> AsyncGenerator[bytes, None]:
        while body:
            yield body.popleft()  # so that nothing is there twice

    try:
        form = await _InMemory(request.headers, parts(), max_files=limits.images, max_fields=limits.images).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        too_many = "Too many" in str(error)
        raise Refused(413 if too_many else 400, f"not a form with images ({error})"[:200]) from error
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        return _some([await _held(part, at) for at, part in enumerate(files)], limits)
    finally:
        await form.close()


async def _held(part: UploadFile, at: int) -> Held:
    """Take the bytes of an upload out of the form."""
    data = await part.read()
    await part.close()
    return Held.of(_name(part.filename, at), data)


async def listed(request: Request, limits: Limits, take: Take) -> list[Held]:
    """Read the images of a JSON object, as in EXAMPLE; raises Refused."""
    body = b"".join(await _body(request, limits, take))
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


def seconds_for(n_bytes: int) -> float:
    """Say how long a body may have been on its way that is here by so many bytes."""
    return PATIENCE_S + n_bytes / LEAST_RATE


async def _body(request: Request, limits: Limits, take: Take) -> deque[bytes]:
    """Read the body, in parts; raises Refused where it is longer than the limit, whatever its header says, or slow."""
    parts: deque[bytes] = deque()
    began, n_bytes = asyncio.get_running_loop().time(), 0
    try:
        async with asyncio.timeout(seconds_for(0)) as patience:
            async for part in request.stream():
                n_bytes += len(part)
                patience.reschedule(began + seconds_for(n_bytes))
                if n_bytes <= limits.request_bytes:
                    take(len(part))
                    parts.append(part)
                elif n_bytes > limits.request_bytes + DRAINED:
                    break
    except TimeoutError as error:
        raise Refused(408, f"the request came too slowly: {n_bytes:,} bytes of it are here") from error
    except ClientDisconnect as error:
        raise Refused(GONE, "the client left in the middle of its request") from error
    if n_bytes > limits.request_bytes:
        raise Refused(413, f"more than {limits.request_bytes:,} bytes in one request")
    return parts
