import pytest
from PIL import Image

from classify.demo import write_digits
from extract.errors import StoreError


def test_a_digit_is_there_only_when_whole(tmp_path, monkeypatch):
    def cut_short(image, target, **options):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", cut_short)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        write_digits(tmp_path / "digits")
    assert "--cache" in caught.value.remedy
    assert not list(tmp_path.rglob("*.png"))
    monkeypatch.undo()
    write_digits(tmp_path / "digits")
    assert len(list(tmp_path.rglob("*.png"))) == 1797
