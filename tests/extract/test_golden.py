import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as F

from extract import devices, forward, golden, images, loader, resample, views
from extract.decoding import pool
from extract.engines import local
from extract.errors import DriftError, StoreError
from extract.forward import Extractor, build_extractor
from extract.progress import Silent
from extract.record import Record
from extract.run import extract
from extract.runners import eager, network
from extract.spec import ExtractSpec
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


@pytest.fixture
def any_precision(monkeypatch) -> None:
    """Let bf16 be computed where the processor only emulates it."""
    monkeypatch.setattr(devices, "computes_bf16", lambda _: True)


def build(**changes) -> Extractor:
    return build_extractor(tiny_spec("", Path("cache"), taps=("layer1", "layer2:max", "penultimate"), **changes))


def run(folder: Path, extractor: Extractor, **changes) -> int:
    """Extract eight images into a feature set's folder, through the engine; return how many shards are there."""
    seed = 8 * len(list(shards_in(folder / "shards")))
    records = [Record(f"{i}.png", str(put(folder / f"{i}.png", seed + i))) for i in range(8)]
    spec = ExtractSpec("", **{"workers": 1, "compile": "none", **changes})
    list(local.run([records], extractor, folder / "shards", spec, Silent()))
    return len(list(shards_in(folder / "shards")))


def refused(folder: Path, extractor: Extractor, match: str) -> None:
    """Run, and see it refused without a row and without another file of golden rows."""
    before = sorted(path.name for path in folder.rglob("*.h5"))
    with pytest.raises(DriftError, match=match):
        run(folder, extractor)
    assert sorted(path.name for path in folder.rglob("*.h5")) == before


def drifted(patch: str) -> str:
    """The program of a worker that was patched."""
    imports = "import functools\nimport numpy as np\nfrom PIL import Image\nfrom extract import images\n"
    return PROGRAM.replace("main()\n", f"{imports}{patch}\nmain()\n")


UNSMOOTHED = "chroma not smoothed"
DECODING = {
    "BGR": "rgb = images.decode; images.decode = lambda *data, **asked: np.ascontiguousarray("
    "rgb(*data, **asked)[..., ::-1])",
    "orientation ignored": "images._upright = lambda image: image; images.TURNS.clear()",
    "16 bits clipped": 'images._eight_bits = lambda image: image.convert("L")',
    "on black": "new = Image.new; Image.new = lambda mode, size, color=0: new(mode, size)",
    "scaled as it is decoded": "images._scale = lambda image, short_px: 2",
    UNSMOOTHED: "images.simplejpeg.decode_jpeg = functools.partial(images.simplejpeg.decode_jpeg, fastupsample=True)",
}
"""What a process that decodes may do otherwise, though no key says so."""

BILINEAR = resample.FILTERS["bilinear"]
CENTRE = views._centre


def _kernel(kernel: Callable[..., Tensor]) -> tuple[object, str, object]:
    return resample.FILTERS, "bilinear", replace(BILINEAR, kernel=kernel)


def _seen(change: Callable[[views.Look, int], views.Look]) -> tuple[object, str, object]:
    return views, "_centre", lambda height, width, preset: change(CENTRE(height, width, preset), preset.crop_size)


def _rounded_up(look: views.Look, side: int) -> views.Look:
    return replace(look, crop=((look.size[0] - side + 1) // 2, (look.size[1] - side + 1) // 2, side))


def _long_side_rounded(height: int, width: int, preset: views.Preprocessing) -> views.Look:
    size = tuple(round(length * preset.resize_size / min(height, width)) for length in (height, width))
    return replace(_rounded_up(look := CENTRE(height, width, preset), preset.crop_size), size=size, crop=look.crop)


RESIZING: dict[str, tuple[object, str, object]] = {
    "antialias off": _kernel(torch.ops.aten.upsample_bilinear2d),
    "nearest": _kernel(
        lambda source, size, _, down, across: torch.ops.aten.upsample_nearest2d(source, size, down, across)
    ),
    "bicubic": (resample.FILTERS, "bilinear", resample.FILTERS["bicubic"]),
    "crop at the corner": _seen(lambda look, side: replace(look, crop=(0, 0, side))),
    "crop rounded otherwise": _seen(_rounded_up),
    "long side rounded": (views, "_centre", _long_side_rounded),
    "squashed": (
        views,
        "_centre",
        lambda height, width, preset: replace(
            CENTRE(height, width, preset),
            size=(preset.resize_size,) * 2,
            crop=(*[round((preset.resize_size - preset.crop_size) / 2)] * 2, preset.crop_size),
        ),
    ),
    "mirrored": _seen(lambda look, _: replace(look, flip=True)),
}
"""What this process may do otherwise: in which module or table, under which name, what instead."""

DRIFTS = (*DECODING, *RESIZING)
SEEN = [name for name in DRIFTS if name != UNSMOOTHED]
"""Those that show in the pixels of a small image."""


def drift(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images come out otherwise."""
    if name in DECODING:
        monkeypatch.setattr(pool, "PROGRAM", drifted(DECODING[name]))
        return
    place, key, other = RESIZING[name]
    (monkeypatch.setitem if isinstance(place, dict) else monkeypatch.setattr)(place, key, other)


def test_the_first_run_writes_the_rows_and_later_runs_are_compared(tmp_path):
    extractor = build()
    assert run(tmp_path, extractor) == 1
    written = (tmp_path / "golden.h5").stat()
    with h5py.File(tmp_path / "golden.h5") as file:
        assert file.attrs["key"] == extractor.recipe.key
        for tap, shape in extractor.shapes.items():
            assert (file[f"layers/{tap}"].shape, file[f"layers/{tap}"].dtype) == ((5, *shape), np.float32)
    assert run(tmp_path, build()) == 2
    assert (tmp_path / "golden.h5").stat() == written


def test_nothing_to_compute_is_nothing_to_prove(tmp_path, monkeypatch):
    spec = tiny_spec(tiny_folder(tmp_path / "data"), tmp_path / "cache")
    extract(spec)
    monkeypatch.setattr(golden, "prove", lambda *_: pytest.fail("there is no row to write"))
    assert extract(spec)["computed"] == 0


def test_what_changes_no_number_passes(tmp_path, monkeypatch):
    for count, changes in enumerate([{"batch_size": 1}, {"batch_size": 32}, {"workers": 4}], 1):
        assert run(tmp_path, build(), **changes) == count
    monkeypatch.setattr(local, "lanes_on", lambda *_: 3)
    assert run(tmp_path, build(), batch_size=1) == 4
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert run(tmp_path, build()) == 5
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", SEEN)
def test_other_pixels_are_refused_on_the_very_first_run(tmp_path, monkeypatch, name):
    drift(name, monkeypatch)
    refused(
        tmp_path, build(), r"golden image .*: it comes out otherwise: by \d+ of 255 grey levels.*No row was written"
    )
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize("name", [name for name in DRIFTS if name != "crop rounded otherwise"])
def test_other_pixels_of_the_recipes_own_preset_are_refused(tmp_path, monkeypatch, pixels_pass, name):
    run(tmp_path, build())
    drift(name, monkeypatch)
    refused(tmp_path, build(), "has another row than the features here")


def test_a_decoder_that_refuses_a_golden_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PROGRAM", drifted('images.FORMATS = ("JPEG", "PNG")'))
    refused(tmp_path, build(), r"golden image alpha\.webp: it cannot be decoded: not one of JPEG, PNG")


def test_pixels_that_are_off_by_no_more_than_a_decoder_may_be_pass(monkeypatch):
    exact = loader.render

    def off(by: int) -> Callable[..., None]:
        def render(*given: object) -> None:
            exact(*given)
            given[-1].copy_(given[-1].clamp(max=255 - by) + by)

        return render

    here = golden.load(golden.Sight(golden.PRESET)).numpy()
    monkeypatch.setattr(golden, "expected_pixels", lambda: here)
    monkeypatch.setattr(loader, "render", off(golden.PIXEL_TOLERANCE))
    golden.prove_pixels()
    monkeypatch.setattr(loader, "render", off(golden.PIXEL_TOLERANCE + 1))
    golden.prove_pixels()  # proven, in this process
    golden.prove_pixels.cache_clear()
    with pytest.raises(DriftError, match="by 5 of 255"):
        golden.prove_pixels()


@pytest.mark.parametrize("name", SEEN)
def test_the_smallest_mistake_is_more_than_twice_the_tolerance(monkeypatch, name):
    drift(name, monkeypatch)
    got = golden.load(golden.Sight(golden.PRESET)).numpy()
    assert np.abs(got.astype(int) - golden.expected_pixels()).max() > 2 * golden.PIXEL_TOLERANCE


def test_the_pixels_that_come_along_are_those_of_the_policy():
    """As Pillow makes them, and torchvision's preset: the plain reference."""
    for name, expected in zip(golden.NAMES, golden.expected_pixels(), strict=True):
        image = Image.fromarray(images.decode((golden.HERE / name).read_bytes()))
        made = F.center_crop(F.resize(image, golden.PRESET.resize_size), golden.PRESET.crop_size)
        assert np.abs(np.asarray(made).transpose(2, 0, 1).astype(int) - expected).max() <= golden.PIXEL_TOLERANCE


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


def test_half_precision_by_mistake_is_refused(tmp_path):
    run(tmp_path, build())
    extractor = build()

    def rough(pixels: Tensor) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return extractor.cut.run(pixels)

    refused(tmp_path, replace(extractor, cut=replace(extractor.cut, run=rough)), "has another row")


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


Rows = dict[str, Tensor]


def on_the_fast_road(monkeypatch: pytest.MonkeyPatch, change: Callable[[Rows], Rows]) -> None:
    """Change the rows that runners make, and no others."""
    real = network.Network.forward
    monkeypatch.setattr(network.Network, "forward", lambda self, pixels: change(real(self, pixels)))


def _folded_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    real = network.fold

    def fold(module: nn.Module) -> None:
        real(module)
        with torch.no_grad():
            module.get_parameter("layer2.0.conv1.weight").mul_(1.01)

    monkeypatch.setattr(network, "fold", fold)


def _normalised_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = network.Normalise.__init__
    monkeypatch.setattr(
        network.Normalise, "__init__", lambda self, preset: real(self, replace(preset, mean=(0.49, 0.48, 0.45)))
    )


def _not_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "fold", lambda module: None)
    for where in (network, eager):
        monkeypatch.setattr(where, "freeze", lambda module: module.train().requires_grad_(False))


def _too_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(network.DTYPES, "fp32", torch.bfloat16)


FAST: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a folded weight that is off": _folded_wrongly,
    "another normalisation": _normalised_otherwise,
    "train mode": _not_frozen,
    "half precision": _too_coarse,
    "rows of a neighbour": lambda patch: on_the_fast_road(
        patch, lambda rows: {tap: values.roll(1, 0) for tap, values in rows.items()}
    ),
    "one row for all": lambda patch: on_the_fast_road(
        patch, lambda rows: {tap: values[:1].expand_as(values) for tap, values in rows.items()}
    ),
    "taps mixed up": lambda patch: on_the_fast_road(patch, lambda rows: {**rows, "layer1": rows["layer2:max"][:, :32]}),
    "batch statistics": lambda patch: on_the_fast_road(
        patch, lambda rows: {tap: values - 0.01 * values.mean(0) for tap, values in rows.items()}
    ),
}


@pytest.mark.parametrize(("name", "store"), [*((name, "float32") for name in FAST), (next(iter(FAST)), "float16")])
def test_a_fast_road_that_leads_elsewhere_is_refused(tmp_path, monkeypatch, name, store):
    run(tmp_path, build(store=store))
    FAST[name](monkeypatch)
    refused(tmp_path, build(store=store), r"golden image .*the fast road fails layer .*--compile none.*No row")


def test_another_way_to_the_network_is_refused(tmp_path, monkeypatch):
    """The stream does not look as the plain road does: it is compared where both end."""
    real = local.Sight.of
    monkeypatch.setattr(
        local.Sight,
        "of",
        lambda recipe: replace(real(recipe), preset=replace(recipe.preprocessing, interpolation="bicubic")),
    )
    refused(tmp_path, build(), "the fast road fails layer")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("store", ["float16", "float32"])
def test_the_rows_are_exact_whatever_is_asked_for(tmp_path, any_precision, precision, store):
    run(tmp_path, build(precision=precision, store=store))
    run(tmp_path / "exact", build())
    with h5py.File(tmp_path / "golden.h5") as rough, h5py.File(tmp_path / "exact" / "golden.h5") as exact:
        assert np.array_equal(rough["layers/penultimate"][:], exact["layers/penultimate"][:])


@pytest.mark.parametrize("value", [float("inf"), 0.0])
def test_half_precision_that_overflows_or_underflows_is_refused(tmp_path, monkeypatch, any_precision, value):
    on_the_fast_road(monkeypatch, lambda rows: {tap: values * value for tap, values in rows.items()})
    refused(tmp_path, build(precision="bf16"), "bf16 is too coarse for the layer layer1.*Take --precision fp32")


@pytest.mark.parametrize(
    ("value", "taps"),
    [(0.0, ("layer1",)), (float("inf"), ("layer1",)), (float("nan"), ("layer1", "layer2:max", "penultimate"))],
)
def test_rows_of_nothing_and_rows_beyond_numbers_are_no_drift(tmp_path, monkeypatch, value, taps):
    """Neither in all layers nor in one, which makes the whole image a bad one."""

    def extreme(rows: Rows) -> Rows:
        return {tap: values * value if tap in taps else values for tap, values in rows.items()}

    on_the_fast_road(monkeypatch, extreme)
    for count in (1, 2):
        extractor = build()
        run_plainly = extractor.cut.run
        cut = replace(extractor.cut, run=lambda pixels, run_plainly=run_plainly: extreme(run_plainly(pixels)))
        assert run(tmp_path, replace(extractor, cut=cut)) == count


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
