"""Uploads that kill, hold up or blow up what decodes them: a row each, and the server goes on."""

import os

import pytest

from classify.answering import PredictSpec
from classify.serve.model import Model
from extract.decoding import pool
from extract.sources import Held
from tests import hostile
from tests.tiny import png

BOMB = b"BM" + bytes(12) + (40).to_bytes(4, "little") + (60_000).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24)
"""The header of a BMP of 3.6 gigapixels."""


@pytest.mark.skipif(os.name != "posix", reason="processes are limited on POSIX systems only")
def test_uploads_that_kill_their_decoder_are_rows_and_the_next_one_is_answered(served, monkeypatch):
    monkeypatch.setattr(pool, "PROGRAM", hostile.PROGRAM)
    given = [png(1), png(2) + b"SEGV", png(3) + b"SPIN", BOMB, png(1)]
    with Model(PredictSpec(str(served / "run"), device="cpu", workers=1)) as model:
        answers = model.ask([Held.of(str(at), data) for at, data in enumerate(given)], 5).result(200)
        again = model.ask([Held.of("0", given[0])], 5).result(200)
    statuses = [answer["status"] for answer in answers]
    assert statuses == ["ok", "crashed the decoder", "too slow", "too large", "ok"]
    assert again[0]["label"] == answers[0]["label"] == answers[4]["label"]
