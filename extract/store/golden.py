"""The file `golden.h5` beside features: what their first worker made of the golden images, in fp32."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from extract.errors import StoreError
from extract.store.damages import REPAIR
from extract.store.sealed import Table, open_sealed, parse, read_part

KIND = "golden"


def read_golden(path: Path, key: str, taps: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the rows of each of these taps (n, *shape) float32, and what computed them.

    Raises StoreError where the file is damaged, or of another recipe than `key`.
    """
    try:
        file, table = open_sealed(path, KIND)
        with file:
            rows = {tap: read_part(file, path, KIND, table, f"layers/{tap}") for tap in taps}
    except StoreError as error:
        raise StoreError(f"no row can be proven: {error.what}", where=error.where, remedy=REPAIR) from error
    _check_key(table, path, key)
    try:
        return rows, dict(json.loads(table.attributes["writer"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return rows, {}


def prove_golden(data: bytes, path: Path, key: str) -> None:
    """Raise StoreError unless a file in memory is whole, and has golden rows of the recipe `key`."""
    _check_key(parse(data, path, KIND)[0], path, key)


def _check_key(table: Table, path: Path, key: str) -> None:
    if table.attributes.get("key") != key:
        raise of_another_recipe(path)


def of_another_recipe(path: Path) -> StoreError:
    """Return the error for golden rows that are not of these features."""
    return StoreError("the golden rows are of another recipe", where=str(path), remedy="Remove the file")
