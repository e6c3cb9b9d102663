import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extract import forward, golden, images
from extract.decoding import pool
from extract.engines import local
from extract.errors import DriftError, StoreError
from extract.forward import Extractor, build_extractor
from extract.loader import Loader
from extract.run import extract
from extract.spec import ExtractSpec, Record
from extract.store.shards import shards_in
from tests.tiny import put, tiny_folder, tiny_spec

PROGRAM = pool.PROGRAM


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Every test proves the pixels by itself."""
    golden.prove_pixels.cache_clear()
    yield
    golden.prove_pixels.cache_clear()


@pytest.fixture
def pixels_pass(monkeypatch) -> None:
    """Let the comparison of rows stand alone."""
    monkeypatch.setattr(golden, "prove_pixels", lambda: None)


def build(**changes) -> Extractor:
    return build_extractor(tiny_spec("", Path("cache"), taps=("layer1", "layer2:max", "penultimate"), **changes))


def run(folder: Path, extractor: Extractor, **changes) -> int:
    """Extract one image into a feature set's folder, through the engine; return how many shards are there."""
    record = Record("a.png", str(put(folder / "a.png", len(list(shards_in(folder / "shards"))))))
    spec = ExtractSpec("", **{"workers": 1, **changes})
    list(local.run([[record]], extractor, folder / "shards", spec, lambda _: None))
    return len(list(shards_in(folder / "shards")))


def refused(folder: Path, extractor: Extractor, match: str) -> None:
    """Run, and see it refused without a row and without another file of golden rows."""
    before = sorted(path.name for path in folder.rglob("*.h5"))
    with pytest.raises(DriftError, match=match):
        run(folder, extractor)
    assert sorted(path.name for path in folder.rglob("*.h5")) == before


def drifted(patch: str) -> str:
    """The program of a worker that was patched."""
    imports = "import numpy as np\nfrom PIL import Image\nfrom extract import images\n"
    return PROGRAM.replace("main()\n", f"{imports}{patch}\nmain()\n")


LINEAR = (
    "self.transform(size, Image.Transform.AFFINE, (self.width / size[0], 0, 0, 0, self.height / size[1], 0), method)"
)
DECODING = {
    "antialias off": f"Image.Image.resize = lambda self, size, method: {LINEAR}",
    "bicubic": 'images.RESAMPLING["bilinear"] = Image.Resampling.BICUBIC',
    "nearest": 'images.RESAMPLING["bilinear"] = Image.Resampling.NEAREST',
    "crop at the corner": "images._centre = lambda size, side: (0, 0, side, side)",
    "crop rounded otherwise": "images._centre = lambda size, side: (*(c := [(n - side + 1) // 2 for n in size]), "
    "c[0] + side, c[1] + side)",
    "long side rounded": "images._resized = lambda size, short: tuple(round(n * short / min(size)) for n in size)",
    "squashed": "images._resized = lambda size, short: (short, short)",
    "BGR": "rgb = images.pixels; images.pixels = lambda *asked: np.ascontiguousarray(rgb(*asked)[::-1])",
    "orientation ignored": "images._upright = lambda image: image",
    "16 bits clipped": 'images._eight_bits = lambda image: image.convert("L")',
    "on black": "new = Image.new; Image.new = lambda mode, size, color=0: new(mode, size)",
    "draft mode": "images.Image.open = lambda *asked, open=Image.open, **more: "
    '(image := open(*asked, **more), image.draft("RGB", (100, 100)))[0]',
}
"""What a worker may do otherwise, though no key says so."""


def test_the_first_run_writes_the_rows_and_later_runs_are_compared(tmp_path):
    extractor = build()
    assert run(tmp_path, extractor) == 1
    written = (tmp_path / "golden.h5").stat()
    with h5py.File(tmp_path / "golden.h5") as file:
        assert file.attrs["key"] == extractor.recipe.key
        for tap, width in extractor.dims.items():
            assert (file[f"layers/{tap}"].shape, file[f"layers/{tap}"].dtype) == ((5, width), np.float32)
    assert run(tmp_path, build()) == 2
    assert (tmp_path / "golden.h5").stat() == written


def test_nothing_to_compute_is_nothing_to_prove(tmp_path, monkeypatch):
    spec = tiny_spec(tiny_folder(tmp_path / "data"), tmp_path / "cache")
    extract(spec)
    monkeypatch.setattr(golden, "prove", lambda *_: pytest.fail("there is no row to write"))
    assert extract(spec)["computed"] == 0


def test_what_changes_no_number_passes(tmp_path):
    for count, changes in enumerate([{"batch_size": 1}, {"batch_size": 32}, {"workers": 4}], 1):
        assert run(tmp_path, build(), **changes) == count
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert run(tmp_path, build()) == 4
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", DECODING)
def test_other_pixels_are_refused_on_the_very_first_run(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pool, "PROGRAM", drifted(DECODING[name]))
    refused(
        tmp_path, build(), r"golden image .*: it comes out otherwise: by \d+ of 255 grey levels.*No row was written"
    )
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize("name", [name for name in DECODING if name != "crop rounded otherwise"])
def test_other_pixels_of_the_recipes_own_preset_are_refused(tmp_path, monkeypatch, pixels_pass, name):
    run(tmp_path, build())
    monkeypatch.setattr(pool, "PROGRAM", drifted(DECODING[name]))
    refused(tmp_path, build(), "has another row than the features here")


def test_a_decoder_that_refuses_a_golden_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PROGRAM", drifted('images.FORMATS = ("JPEG", "PNG")'))
    refused(tmp_path, build(), r"golden image alpha\.webp: it cannot be decoded: not one of JPEG, PNG")


def test_pixels_that_are_off_by_no_more_than_a_decoder_may_be_pass(tmp_path, monkeypatch):
    off = "exact = images.pixels; images.pixels = lambda *asked: np.minimum(exact(*asked), 255 - {0}) + np.uint8({0})"
    monkeypatch.setattr(pool, "PROGRAM", drifted(off.format(golden.PIXEL_TOLERANCE)))
    golden.prove_pixels()
    monkeypatch.setattr(pool, "PROGRAM", drifted(off.format(golden.PIXEL_TOLERANCE + 1)))
    golden.prove_pixels()  # proven, in this process
    golden.prove_pixels.cache_clear()
    with pytest.raises(DriftError, match="by 5 of 255"):
        golden.prove_pixels()


@pytest.mark.parametrize("name", DECODING)
def test_the_smallest_mistake_is_more_than_twice_the_tolerance(monkeypatch, name):
    monkeypatch.setattr(pool, "PROGRAM", drifted(DECODING[name]))
    with Loader(golden.PRESET, workers=1) as loader:
        got = torch.stack(golden.load(loader)).numpy()
    assert np.abs(got.astype(int) - golden.expected_pixels()).max() > 2 * golden.PIXEL_TOLERANCE


def test_the_pixels_that_come_along_are_those_of_the_policy():
    decoded = [images.decode((golden.HERE / name).read_bytes()) for name in golden.NAMES]
    made = [images.pixels(image, golden.PRESET) for image in decoded if not isinstance(image, images.Failure)]
    assert np.abs(np.stack(made).astype(int) - golden.expected_pixels()).max() <= golden.PIXEL_TOLERANCE


def test_the_golden_images_are_those_that_every_cache_knows():
    """To change one, or the policy: save `pixels.npy` anew, raise SCHEMA_VERSION, and note the digest here."""
    total = hashlib.sha256()
    for name in (*golden.NAMES, "pixels.npy"):
        total.update((golden.HERE / name).read_bytes())
    assert total.hexdigest().startswith("1599e83ddb7d4a5c")


def train(extractor: Extractor) -> None:
    extractor.cut.module.train()


def train_one_layer(extractor: Extractor) -> None:
    next(module for module in extractor.cut.module.modules() if isinstance(module, nn.BatchNorm2d)).train()


@pytest.mark.parametrize("mistake", [train, train_one_layer])
def test_a_network_in_train_mode_is_refused_at_once(tmp_path, mistake):
    extractor = build()
    mistake(extractor)
    refused(tmp_path, extractor, "the network is in train mode")
    assert not list(tmp_path.rglob("*.h5"))


def scale_weight(extractor: Extractor) -> None:
    with torch.no_grad():
        extractor.cut.module.get_parameter("layer2.0.conv1.weight").mul_(1.01)


def shift_mean(extractor: Extractor) -> None:
    extractor.cut.module.get_buffer("bn1.running_mean").add_(0.01)


def scale_variance(extractor: Extractor) -> None:
    extractor.cut.module.get_buffer("layer3.1.bn2.running_var").mul_(1.01)


@pytest.mark.parametrize("change", [scale_weight, shift_mean, scale_variance])
def test_other_weights_in_memory_are_refused(tmp_path, change):
    run(tmp_path, build())
    extractor = build()
    change(extractor)
    refused(
        tmp_path, extractor, r"golden image .* has another row .*: layer \w+.*Changed since: nothing that was noted"
    )


@pytest.mark.parametrize("change", [{"mean": (0.49, 0.48, 0.45)}, {"std": (0.25, 0.24, 0.27)}])
def test_another_normalisation_is_refused(tmp_path, monkeypatch, change):
    run(tmp_path, build())
    real = forward.normalise
    monkeypatch.setattr(forward, "normalise", lambda pixels, preset: real(pixels, replace(preset, **change)))
    refused(tmp_path, build(), "has another row")


def test_half_precision_by_mistake_is_refused(tmp_path, monkeypatch):
    run(tmp_path, build())
    monkeypatch.setattr(Extractor, "_autocast", lambda _: torch.autocast("cpu", torch.bfloat16))
    refused(tmp_path, build(), "has another row")


def test_what_is_noted_of_the_writer_tells_what_changed(tmp_path, monkeypatch):
    run(tmp_path, build())
    monkeypatch.setattr("extract.forward.versions", lambda: {"torch": "9.9"})
    extractor = build()
    scale_weight(extractor)
    refused(
        tmp_path, extractor, r"Changed since: torch \S+ -> 9\.9\. Undo what changed, or extract under another --name"
    )


def reworked(extractor: Extractor, change: Callable[[Tensor], Tensor]) -> Extractor:
    """An extractor whose rows are changed on their way out of the network."""

    def rows(pixels: Tensor) -> dict[str, Tensor]:
        return {tap: change(values) for tap, values in extractor.cut.run(pixels).items()}

    return replace(extractor, cut=replace(extractor.cut, run=rows))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows - 1e-3 * rows.mean(0),
        lambda rows: nn.functional.dropout(rows, 0.01, training=True),
    ],
    ids=["batch statistics", "dropout"],
)
def test_rows_that_depend_on_more_than_their_image_are_refused_at_once(tmp_path, change):
    torch.manual_seed(0)
    refused(tmp_path, reworked(build(), change), "alone it has another row than among others")
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("store", ["float16", "float32"])
def test_the_rows_are_exact_whatever_is_asked_for(tmp_path, precision, store):
    run(tmp_path, build(precision=precision, store=store))
    run(tmp_path / "exact", build())
    with h5py.File(tmp_path / "golden.h5") as rough, h5py.File(tmp_path / "exact" / "golden.h5") as exact:
        assert np.array_equal(rough["layers/penultimate"][:], exact["layers/penultimate"][:])


@pytest.mark.parametrize("value", [float("inf"), 0.0])
def test_half_precision_that_overflows_or_underflows_is_refused(tmp_path, value):
    rough = reworked(build(precision="bf16"), lambda rows: rows * (value if torch.is_autocast_enabled("cpu") else 1))
    refused(tmp_path, rough, "bf16 is too coarse for the layer layer1.*Take --precision fp32")


def test_rows_of_nothing_and_rows_beyond_numbers_are_no_drift(tmp_path):
    for n, value in enumerate((0.0, float("inf"), float("nan"))):
        for count in (1, 2):
            assert run(tmp_path / str(n), reworked(build(), lambda rows, value=value: rows * value)) == count


def test_distances():
    inf, nan = np.inf, np.nan
    expected = np.array([[3, 4], [0, 0], [1e-4, 0], [nan, 5], [5, inf]], np.float32)
    assert golden.distances(expected, expected).tolist() == [0] * 5
    got = np.array([[3, 4.5], [0, 5e-3], [2e-4, 0], [1, 5], [nan, inf]], np.float32)
    np.testing.assert_allclose(golden.distances(got, expected), [0.1, 1, 0.02, inf, inf], rtol=1e-6)
    nothing = np.zeros((3, 2), np.float32)
    assert golden.distances(np.array([[0, 0], [0, 1e-30], [nan, 0]]), nothing).tolist() == [0, inf, inf]
    huge = np.full((1, 4), 3e38, np.float32)
    assert golden.distances(-huge, huge).tolist() == [2]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        data[512 + file["layers/penultimate"].id.get_offset()] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [flip, cut_short])
def test_damaged_golden_rows_are_told_and_made_anew_once_they_are_gone(tmp_path, damage):
    run(tmp_path, build())
    damage(tmp_path / "golden.h5")
    with pytest.raises(StoreError, match=r"no row can be proven: the golden is damaged.*cache verify --repair"):
        run(tmp_path, build())
    assert len(list(shards_in(tmp_path / "shards"))) == 1
    (tmp_path / "golden.h5").unlink()
    assert run(tmp_path, build()) == 2


@pytest.mark.parametrize("other", [{"weights": "auto"}, {"taps": ("layer1",)}])
def test_golden_rows_of_another_recipe_are_not_compared(tmp_path, other):
    run(tmp_path, build_extractor(tiny_spec("", Path("cache"), **other)))
    with pytest.raises(StoreError, match=r"another recipe|no dataset"):
        run(tmp_path, build())


def test_the_first_of_two_workers_is_the_one_to_agree_with(tmp_path, monkeypatch):
    other = build()
    scale_weight(other)
    monkeypatch.setattr(Path, "exists", lambda _: False)  # both looked before either wrote
    run(tmp_path, build())
    refused(tmp_path, other, "has another row")
