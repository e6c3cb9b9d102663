"""Whether a sealed file is whole, byte for byte, and which of its datasets are damaged where it is not."""

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from extract.errors import StoreError, UnreadableError
from extract.store.damages import not_recorded, unreadable
from extract.store.sealed import BLOCK_BYTES, digest_of, open_sealed, read_table


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with a sealed file, and the datasets that it is in, where it is in some."""

    what: str
    datasets: tuple[str, ...] = ()


def damage(path: Path, kind: str) -> Damage | None:
    """Look at every byte of a sealed file and say what is wrong; None where all is well.

    Raises UnreadableError where the disk fails.
    """
    try:
        file, table = open_sealed(path, kind)
    except UnreadableError:
        raise
    except StoreError as error:
        return Damage(error.what)
    with file:
        try:
            if digest_of(file, BLOCK_BYTES, table.n_bytes) == table.sha256:
                return None
            bad = [
                name for name, part in table.parts.items() if digest_of(file, part.offset, part.n_bytes) != part.sha256
            ]
        except OSError as error:
            raise unreadable(path, kind, error) from error
    return Damage(not_recorded(bad), tuple(bad))


def same_content(path: Path, kind: str, data: bytes, *, but: Collection[str]) -> bool:
    """Tell whether a file is whole and says what `data`, a sealed file in memory, does; `but` names attributes."""
    try:
        if damage(path, kind):
            return False
    except UnreadableError:
        return False
    file, there = open_sealed(path, kind)
    file.close()
    new = read_table(io.BytesIO(data), path, kind)
    said, says = ({k: v for k, v in table.attributes.items() if k not in but} for table in (there, new))
    return said == says and there.parts == new.parts
