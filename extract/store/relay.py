"""A relay: a place that fsspec knows, such as a bucket, through which shards come from machines without the cache.

Below URL/NAME/KEY12 lie `weights.safetensors` and `golden.h5` for those who compute, and in `shards/` what they have
computed, by the names that it has in a cache. Nothing is removed there, and nothing from there is believed: all of it
is proven before it is used.
"""

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from extract.errors import StoreError, first_line
from extract.recipe import Recipe
from extract.store import files
from extract.store.folders import GOLDEN
from extract.store.golden import prove_golden
from extract.store.reader import SHARDS, WEIGHTS, weights_are_whole
from extract.store.shards import NAME_DIGITS, keep_shard, prove_shard

SHARD = re.compile(rf"[0-9a-f]{{{NAME_DIGITS}}}\.h5")
MAX_BYTES = 1 << 30
"""Of a file that is taken into memory; shards have 64 MiB, or one row."""

PAUSES_S = (1.0, 5.0, 25.0)
"""Between attempts: what fsspec's file systems repeat by themselves takes some seconds, a network may need a minute."""

LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ImportError, ValueError)
"""What is not over after a pause."""

INSTALL = 'Run: pip install "offshelf[cloud]", and what that protocol needs: s3fs for s3://, gcsfs for gs://'
CHECK = "Check that it is there, that this machine reaches it and may list, read and write there; then run it again"

T = TypeVar("T")


class Relay:
    """The place of one feature set, of the folder CACHE/NAME/KEY12, below a URL; any thread may use it.

    All raise StoreError where it cannot be used. What may be over soon is tried again, until `stop`.
    """

    def __init__(self, url: str, folder: Path) -> None:
        inside = "/".join(folder.parts[-2:])
        self.shown, self._secrets = _without_secrets(url)
        self.shown = f"{self.shown.rstrip('/')}/{inside}"
        self._stopped = threading.Event()
        self._fs, root = self._tried("opened", "", lambda: _file_system(url), patient=False)
        self._root = f"{root.rstrip('/')}/{inside}"

    def stop(self) -> None:
        """Try nothing again from now on."""
        self._stopped.set()

    def shards(self) -> list[str]:
        """List the shards there; whatever bears no name of a shard is none."""
        paths = self._tried("listed", SHARDS, lambda: self._listed(SHARDS), patient=False)
        names = (path.rpartition("/")[2] for path in paths)
        return sorted(name for name in names if SHARD.fullmatch(name))

    def lend(self, folder: Path) -> None:
        """Put there what those need who compute; weights are put once, if they are there as a whole."""
        if self._tried("read", WEIGHTS, lambda: self._size(WEIGHTS)) != (folder / WEIGHTS).stat().st_size:
            self.put(WEIGHTS, folder / WEIGHTS)
        self.put(GOLDEN, folder / GOLDEN)

    def borrow(self, folder: Path, recipe: Recipe) -> None:
        """Bring what is lent into a folder of this machine: the weights, which are proven, and the golden rows."""
        for name in (WEIGHTS, GOLDEN):
            target = str(folder / name)
            self._tried("read", name, lambda name=name, target=target: self._fs.get_file(self._at(name), target))
        if not weights_are_whole(folder / WEIGHTS, recipe):
            remedy = "Remove them there: the next run puts them there anew"
            raise StoreError(
                "the weights there are not those of the recipe", where=f"{self.shown}/{WEIGHTS}", remedy=remedy
            )

    def put(self, name: str, path: Path) -> None:
        """Put a file of this machine there."""
        self._tried("written", name, lambda: self._put(name, path))

    def fetch(self, name: str, folder: Path, key: str) -> str:
        """Bring a file of the recipe `key`, by its name in the feature set, into the folder of that, once it is proven.

        Returns "", or why what is there is not that file. Raises StoreError also where the folder cannot be written.
        """
        size = self._tried("read", name, lambda: self._size(name))
        if size is None or size > MAX_BYTES:
            return "it is not there" if size is None else f"no file of ours has {size:,} bytes"
        data = self._tried("read", name, lambda: self._fs.cat_file(self._at(name)))
        prove, keep = (prove_golden, files.publish) if name == GOLDEN else (prove_shard, keep_shard)
        try:
            prove(data, folder / name, key)
        except StoreError as error:
            return error.what
        keep(folder / name, data)
        return ""

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _put(self, name: str, path: Path) -> None:
        if not self._fs.async_impl:  # object stores have no folders: to make one may be to make a bucket
            self._fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
        self._fs.put_file(str(path), self._at(name))

    def _listed(self, name: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            return self._fs.ls(self._at(name), detail=False)
        except FileNotFoundError:
            return []

    def _size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        self._fs.invalidate_cache()  # others write there
        try:
            found = self._fs.info(self._at(name))
        except FileNotFoundError:
            return None
        return found["size"] if found["type"] == "file" else None

    def _tried(self, done: str, name: str, act: Callable[[], T], *, patient: bool = True) -> T:
        left = list(PAUSES_S) if patient else []
        while True:
            try:
                return act()
            except Exception as error:  # each file system has errors of its own
                if isinstance(error, LASTING) or not left or self._stopped.wait(left.pop(0)):
                    raise self._error(done, name, error) from error

    def _error(self, done: str, name: str, error: Exception) -> StoreError:
        said = str(error)
        for secret in sorted(self._secrets, key=len, reverse=True):
            said = said.replace(secret, "***")
        reason = first_line(Exception(said)) if said.strip() else type(error).__name__  # masked before it is cut
        remedy = INSTALL if isinstance(error, ImportError) else CHECK
        where = f"{self.shown}/{name}".rstrip("/")
        return StoreError(f"cannot be {done} by {socket.gethostname()} ({reason})", where=where, remedy=remedy)


def _file_system(url: str) -> tuple[Any, str]:
    """Open what fsspec has for a URL: the file system, and the path in it."""
    from fsspec.core import url_to_fs  # needs an extra

    return url_to_fs(url)


def _without_secrets(url: str) -> tuple[str, list[str]]:
    """Return a URL as it may be shown, and what of it may not be: a password, and a query, which may hold a token."""
    shown, mark, query = url.partition("?")
    found = re.search(r"://([^@]*:.*)@", shown)
    password = found[1].partition(":")[2] if found else ""
    if found:
        shown = shown.replace(found[1], "***", 1)
    known = [password, password.partition("@")[0], query, *query.split("&")]  # a path may hold an @, too
    return shown + (f"{mark}***" if query else ""), [
        secret for each in known if each for secret in (each, unquote(each))
    ]
