import io
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from extract.decoding import batched
from extract.decoding.batched import decode_batch
from extract.decoding.jpeg import eligible
from extract.errors import DecoderError
from extract.record import Failure, Status
from tests.tiny import picture

CPU = torch.device("cpu")


def file_of(image: Image.Image, **options) -> Tensor:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def as_pillow(file: Tensor) -> Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(file.numpy().tobytes())).convert("RGB")))


@pytest.fixture(autouse=True)
def fresh_decoder():
    batched._decoder.cache_clear()
    yield
    batched._decoder.cache_clear()


FILES = [
    file_of(picture(1, (90, 70))),
    file_of(picture(2, (64, 130)).convert("L")),
    file_of(picture(3, (91, 71)), subsampling=0),
    file_of(picture(4, (77, 99)), subsampling=1, restart_marker_blocks=1),
]
DAMAGED = torch.cat([FILES[0][:300], torch.tensor([0xFF, 0xD9], dtype=torch.uint8)])


def test_a_batch_is_what_pillow_decodes():
    assert all(eligible(file.numpy().tobytes()) for file in FILES)
    for got, file in zip(decode_batch(FILES, CPU), FILES, strict=True):
        assert isinstance(got, Tensor)
        assert got.dtype == torch.uint8
        assert got.equal(as_pillow(file))


def test_no_file_is_no_image():
    assert decode_batch([], CPU) == []


def test_a_damaged_file_costs_no_other():
    first, bad, last = decode_batch([FILES[0], DAMAGED, FILES[1]], CPU)
    assert isinstance(first, Tensor)
    assert isinstance(last, Tensor)
    assert first.equal(as_pillow(FILES[0]))
    assert last.equal(as_pillow(FILES[1]))
    assert isinstance(bad, Failure)
    assert bad.status == Status.DAMAGED
    assert bad.reason
    assert "/" not in bad.reason


def failing(error: Exception, most: int = 0):
    """A decoder that takes so many files at once, and fails of more."""

    def decode(files, device):
        if len(files) > most:
            raise error
        return batched._by_torchvision(files, device)

    return lambda: decode


def test_a_batch_that_is_refused_goes_file_by_file(monkeypatch):
    monkeypatch.setattr(batched, "_decoder", failing(RuntimeError("Failed to decode batch: 6"), most=1))
    got = decode_batch(FILES, CPU)
    assert all(torch.equal(image, as_pillow(file)) for image, file in zip(got, FILES, strict=True))


def test_a_decoder_that_takes_nothing_is_no_fault_of_the_files(monkeypatch):
    monkeypatch.setattr(batched, "_decoder", failing(RuntimeError("not compiled with nvJPEG support")))
    with pytest.raises(DecoderError, match="not compiled with nvJPEG"):
        decode_batch(FILES, CPU)


@pytest.mark.parametrize("of_a_batch", [torch.OutOfMemoryError("CUDA"), RuntimeError("Failed to decode batch: 5")])
def test_a_device_without_memory_is_none_either(monkeypatch, of_a_batch):
    def decode(files, device):
        raise of_a_batch if len(files) > 1 else torch.OutOfMemoryError("CUDA")

    monkeypatch.setattr(batched, "_decoder", lambda: decode)
    with pytest.raises(torch.OutOfMemoryError):
        decode_batch(FILES, CPU)


def test_torchcodec_takes_over_where_torchvision_has_no_decoder(monkeypatch):
    asked = []

    def decode_jpeg(files, *, device):
        asked.append((files, device))
        return [as_pillow(file).permute(2, 0, 1) for file in files]

    monkeypatch.setattr(torch.ops, "image", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", types.SimpleNamespace(decode_jpeg=decode_jpeg))
    got = decode_batch(tuple(FILES), CPU)
    assert [(len(files), device) for files, device in asked] == [(len(FILES), CPU)]
    assert isinstance(asked[0][0], list)
    assert all(torch.equal(image, as_pillow(file)) for image, file in zip(got, FILES, strict=True))


def test_no_decoder_at_all_says_what_to_install(monkeypatch):
    monkeypatch.setattr(torch.ops, "image", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(DecoderError, match="pip install 'torchcodec"):
        decode_batch(FILES, CPU)


def test_on_a_gpu_a_batch_waits_for_memory_that_was_given_back(monkeypatch):
    """Its pixels go to a stream of their own: what this stream still reads must not be overwritten."""
    waited, gpu = [], torch.device("cuda", 0)
    stream = types.SimpleNamespace(synchronize=lambda: waited.append("waited"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream if device == gpu else None)
    decode = lambda files, device: waited.append(device) or batched._by_torchvision(files, CPU)  # noqa: E731
    monkeypatch.setattr(batched, "_decoder", lambda: decode)
    assert len(decode_batch(FILES, gpu)) == len(FILES)
    assert waited == ["waited", gpu]
