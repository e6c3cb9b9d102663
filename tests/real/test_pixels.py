"""Real photos through real weights: decoders agree, and what is resized fast says what the reference says."""

from pathlib import Path

import pytest

pytest.importorskip("simplejpeg")

from benchmarks.fidelity import ENOUGH, Photos, equal_decoders, measure
from benchmarks.image_sets import data_folder, unpack
from benchmarks.ways import WAYS

DATA = data_folder()
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (DATA / "weights").is_dir(), reason=f"no weights/ in {DATA}: real weights and images, see OFFSHELF_DATA"
    ),
]
SMALLER = (("resize_size", 183), ("crop_size", 160))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = unpack(DATA / "hymenoptera.tar", tmp_path_factory.mktemp("photos"))
    return [path.read_bytes() for path in sorted(Path(folder).glob("*/*/*.jpg"))]


def test_every_decoder_makes_pillows_pixels_of_every_photo(files: list[bytes]) -> None:
    counted = {row.pop("files"): row for row in equal_decoders(files[::4])}
    n = len(files[::4])
    assert n == 100
    for name, row in counted.items():
        plain = 0 if name == "progressive" else n
        assert row == {"n": n, "eligible": plain, "simplejpeg": n, "torchvision": n}, name


@pytest.mark.parametrize("network", ["squeezenet1_1", "mobilenet_v2"])
def test_resizing_fast_says_what_pillow_says(files: list[bytes], network: str) -> None:
    [row] = measure(Photos("photos", files[::4], WAYS[:1], SMALLER), network, DATA)
    assert 0 < row["pixels_differ"] < 0.005
    assert row["largest_difference"] <= 2
    assert ENOUGH < row["cosine_min"] < row["cosine_mean"] < 1
