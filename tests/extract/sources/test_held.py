import hashlib

import numpy as np

from extract import images
from extract.decoding import Decoder
from extract.record import Failure, Status
from extract.sources import Held, is_a_file, read_bytes
from tests.tiny import png


def test_held_bytes_are_no_file_and_are_given_as_they_are():
    record = Held.of("a", b"some bytes")
    assert not is_a_file(record)
    assert read_bytes(record, 10) == b"some bytes"


def test_no_bytes_and_too_many_are_refused_as_of_a_file():
    empty, large = read_bytes(Held.of("a", b""), 10), read_bytes(Held.of("a", b"some bytes"), 9)
    assert isinstance(empty, Failure)
    assert isinstance(large, Failure)
    assert (empty.status, large.status) == (Status.EMPTY, Status.TOO_LARGE)


def test_a_decoder_makes_of_held_bytes_what_it_makes_of_a_file():
    expected = images.decode(png())
    assert isinstance(expected, np.ndarray)
    with Decoder() as decoder:
        decoder.submit(Held.of("a", png()))
        decoder.submit(Held.of("b", b"no image"))
        found = decoder.answer()
        np.testing.assert_array_equal(np.asarray(found.outcome), expected)
        refused = decoder.answer().outcome
    assert found.digest == hashlib.sha256(png()).digest()
    assert isinstance(refused, Failure)
    assert refused.status == Status.NOT_AN_IMAGE
