"""Text as HDF5 stores it, that need not be UTF-8: a path may be any bytes."""

import numpy as np


def storable(value: str | int) -> str | int | bytes:
    """Return text as it is where it is UTF-8, and else as bytes: a path need not be text."""
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        return value.encode("utf-8", "surrogateescape")
    return value


def text_array(texts: list[str]) -> np.ndarray:
    """Text as UTF-8 of fixed length, which lies with the data; names that are no UTF-8 keep their bytes."""
    import h5py  # to write alone: bundles answer without it

    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    length = max((len(text) for text in encoded), default=0)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, length)))


def texts_of(values: np.ndarray) -> list[str]:
    """Read what `text_array` wrote."""
    return [value.decode("utf-8", "surrogateescape") for value in values.tolist()]
