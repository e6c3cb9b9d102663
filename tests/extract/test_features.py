import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract import extract_features, features, loader
from extract.errors import ImageError, OptionError
from extract.run import extract
from extract.store import open_features
from tests.faults.storage import InProcess
from tests.tiny import picture, put, tiny_folder, tiny_spec

LAYERS = ("layer1", "penultimate")
WIDTH = 32 + 128


@pytest.fixture(autouse=True)
def decoded_here(monkeypatch):
    monkeypatch.setattr(loader, "Decoder", InProcess)


@pytest.fixture
def options(tmp_path) -> dict:
    return {"model": "builtin", "layers": LAYERS, "cache": tmp_path / "cache"}


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    return [put(tmp_path / f"{seed}.png", seed) for seed in range(5)]


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many images each call computed."""
    seen, plain = [], features.compute

    def counting(job, plan, stored):
        seen.append(plan.computed)
        return plain(job, plan, stored)

    monkeypatch.setattr(features, "compute", counting)
    return seen


def test_data_on_disk_is_extracted_as_by_the_command(tmp_path, options):
    data = tiny_folder(tmp_path / "pets")
    X, ids = extract_features(data, **options)
    done = extract(tiny_spec(data, tmp_path / "cache", weights="auto", taps=LAYERS))
    stored = open_features(done["features"], tmp_path / "cache")
    assert done["computed"] == 0
    assert ids == stored.ids
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, np.hstack([stored.read("layer1"), stored.read("penultimate")]))


def test_images_have_the_rows_of_their_folder_in_the_order_given(tmp_path, options):
    data = tiny_folder(tmp_path / "pets")
    whole, ids = extract_features(data, **options)
    listed = [data / name for name in reversed(ids)]
    X, names = extract_features(listed, **options)
    assert names == [str(path) for path in listed]
    np.testing.assert_allclose(X, whole[::-1], rtol=1e-5, atol=1e-6)


def test_files_arrays_and_images_of_the_same_pixels_have_the_same_rows(paths, options):
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    of_files, _ = extract_features(paths, **options)
    of_pixels, numbers = extract_features(pixels, **options)
    of_images, _ = extract_features([picture(seed) for seed in range(5)], **options)
    assert numbers == ["0", "1", "2", "3", "4"]
    np.testing.assert_allclose(of_pixels, of_files, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(of_images, of_pixels)


def test_only_new_content_is_computed_and_nothing_is_forgotten(paths, options, computed, tmp_path):
    first, _ = extract_features(paths[:3], **options)
    again, _ = extract_features([paths[1], paths[0], paths[1]], **options)
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[4].read_bytes())
    more, _ = extract_features([paths[4], paths[2], copy], **options)
    assert computed == [3, 1]
    np.testing.assert_array_equal(again, first[[1, 0, 1]])
    np.testing.assert_array_equal(more[1], first[2])
    np.testing.assert_array_equal(more[0], more[2])
    assert len(open_features(features.NAME, tmp_path / "cache")) == 4


def test_a_changed_image_is_computed_again(paths, options, computed):
    before, _ = extract_features(paths[:1], **options)
    put(paths[0], 77)
    after, _ = extract_features(paths[:1], **options)
    assert computed == [1, 1]
    assert not np.allclose(before, after)


def test_another_recipe_is_another_feature_set(paths, options, computed, tmp_path):
    extract_features(paths[:1], **options)
    X, _ = extract_features(paths[:1], **{**options, "layers": "layer2"})
    assert X.shape == (1, 64)
    assert computed == [1, 1]
    assert len(list((tmp_path / "cache" / features.NAME).glob("[0-9a-f]*"))) == 2


def test_a_damaged_shard_is_computed_again_for_who_asks(paths, options, computed, tmp_path):
    first, _ = extract_features(paths[:2], **options)
    extract_features(paths[2:3], **options)
    largest = max((tmp_path / "cache").glob("by-content/*/shards/*.h5"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"no shard")
    extract_features(paths[3:4], **options)  # drops the rows that are lost
    again, _ = extract_features(paths[:2], **options)
    np.testing.assert_allclose(again, first, rtol=1e-5, atol=1e-6)
    assert computed == [2, 1, 1, 2]


def test_a_shard_that_is_gone_is_computed_again(paths, options, computed, tmp_path, caplog):
    first, _ = extract_features(paths[:2], **options)
    [shard] = (tmp_path / "cache").glob("by-content/*/shards/*.h5")
    shard.unlink()
    again, _ = extract_features(paths[:2], **options)
    np.testing.assert_allclose(again, first, rtol=1e-5, atol=1e-6)
    assert computed == [2, 2]
    assert "is missing" in caplog.text


def test_where_nothing_can_be_read_nothing_is_written(options, tmp_path):
    X, ids = extract_features([tmp_path / "gone.png"], **options, errors="nan")
    assert (X.shape, ids) == ((1, WIDTH), [str(tmp_path / "gone.png")])
    assert np.isnan(X).all()
    assert not (tmp_path / "cache").exists()


def test_bad_images_raise_or_have_rows_of_nan(paths, options, tmp_path, caplog):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    mixed = [paths[0], broken, tmp_path / "gone.png"]
    with pytest.raises(ImageError, match="2 of 3 images have no features: not one of JPEG") as raised:
        extract_features(mixed, **options)
    assert raised.value.where == str(broken)
    X, _ = extract_features(mixed, **options, errors="nan")
    assert np.isfinite(X).all(axis=1).tolist() == [True, False, False]
    assert np.isnan(X[1:]).all()
    assert "2 of 3 images" in caplog.text


def test_bad_images_of_a_folder_too(tmp_path, options):
    data = tiny_folder(tmp_path / "pets")
    (data / "cat" / "99.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match="1 of 9 images") as raised:
        extract_features(str(data), **options)
    assert raised.value.where == "cat/99.jpg"
    X, ids = extract_features(str(data), **options, errors="nan")
    assert [ids[row] for row in np.flatnonzero(np.isnan(X).any(axis=1))] == ["cat/99.jpg"]


@pytest.mark.parametrize(
    ("change", "said"), [({"layers": ("layer3:map",)}, "maps"), ({"errors": "skip"}, "treat errors 'skip'")]
)
def test_what_makes_no_rows_is_refused_before_anything_is_computed(paths, options, change, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        extract_features(paths, **{**options, **change})
    assert not (tmp_path / "cache").exists()


def test_what_another_process_wrote_meanwhile_is_kept(paths, options, computed, monkeypatch, tmp_path):
    plain = features.held

    def late(*args, **kwargs):
        monkeypatch.setattr(features, "held", plain)
        extract_features(paths[:3], **options)
        return plain(*args, **kwargs)

    monkeypatch.setattr(features, "held", late)
    extract_features(paths[2:], **options)
    assert computed == [3, 2]
    assert len(open_features(features.NAME, tmp_path / "cache")) == len(paths)


def test_the_packages_are_imported_without_what_they_offer():
    code = "import sys, extract, classify; sys.exit(bool({'torch', 'sklearn', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_package_offers_what_it_names_and_nothing_else():
    import extract as package

    assert package.extract_features is extract_features
    assert [getattr(package, name).__name__ for name in package.__all__] == package.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
