"""Hostile files in the place of an index or a shard: refused before memory is taken, and HDF5 never parses one."""

import dataclasses
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from extract.errors import StoreError
from extract.store import FeatureSet, open_features, sealed
from extract.store.inventory import describe, inventory
from extract.store.sealed import parse, seal
from extract.store.shards import write_shard
from extract.store.texts import text_array
from tests.extract.store.test_reader import RECIPE, entry, feature_set, shard_of
from tests.extract.store.tiny_cache import SEEN, put_set


def external_link(file: h5py.File) -> None:
    file["features"] = h5py.ExternalLink("/etc/passwd", "/")


def relative_link(file: h5py.File) -> None:
    file["features"] = h5py.ExternalLink("../../other.h5", "features")


def soft_link(file: h5py.File) -> None:
    file["features"] = h5py.SoftLink("/features")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("features", (1221,), "u1", external=[("/etc/passwd", 0, 1221)])


def virtual_elsewhere(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("/else/where.h5", "x", (4, 3), "f4")
    file.create_virtual_dataset("features", layout)


def virtual_of_itself(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(".", "features", (4, 3), "f4")
    file.create_virtual_dataset("features", layout)


def variable_text(file: h5py.File) -> None:
    file.create_dataset("filenames", data=["a", "b"], dtype=h5py.string_dtype())


def references(file: h5py.File) -> None:
    file.create_dataset("features", data=[file.ref], dtype=h5py.ref_dtype)


def ragged(file: h5py.File) -> None:
    file.create_dataset("features", (2,), h5py.vlen_dtype("i4"))


def compound(file: h5py.File) -> None:
    file.create_dataset("features", data=np.zeros(3, [("a", "i4"), ("b", "f8")]))


def bomb(file: h5py.File) -> None:
    file.create_dataset("features", (1 << 28,), "f4", chunks=(1 << 20,), compression="gzip")[: 1 << 20] = 0


def absurd(file: h5py.File) -> None:
    file.create_dataset("features", (1 << 40, 1 << 10), "f4")


def absurd_chunks(file: h5py.File) -> None:
    file.create_dataset("features", (1 << 40, 1 << 10), "f4", chunks=(1, 1024))


def deep(file: h5py.File) -> None:
    group: h5py.Group = file
    for _ in range(500):
        group = group.create_group("g")


def around(file: h5py.File) -> None:
    file.create_group("a")["b"] = file["/"]


def other_types(file: h5py.File) -> None:
    file.create_dataset("labels", data=[1.5, 2.5])
    file.create_dataset("features", data=np.zeros((2, 2), np.complex64))


HOSTILE = (
    external_link, relative_link, soft_link, external_storage, virtual_elsewhere, virtual_of_itself, variable_text,
    references, ragged, compound, bomb, absurd, absurd_chunks, deep, around, other_types,
)  # fmt: skip


def image_of(fill: Callable[[h5py.File], None]) -> bytes:
    with h5py.File("hostile", "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        return file.id.get_file_image()


def with_block(kind: str, body: bytes) -> bytes:
    return sealed._block(kind, hashlib.sha256(body).hexdigest(), len(body)) + body


def with_table(kind: str, image: bytes, table: object) -> bytes:
    line = json.dumps(table).encode()
    return with_block(kind, image + line + sealed._footer(line))


WRAPS: dict[str, Callable[[str, bytes], bytes]] = {
    "as it is": lambda _, image: image,
    "behind a block that is right": with_block,
    "with an empty table": lambda kind, image: with_table(kind, image, {"attributes": {}, "parts": {}}),
    "with a table that names it": lambda kind, image: with_table(
        kind,
        image,
        {
            "attributes": {"key": RECIPE.key, "format": "offshelf-features", "format_version": 3},
            "parts": {
                name: {"dtype": "|O", "shape": [1 << 40], "offset": 512, "sha256": "0" * 64}
                for name in ("features", "labels", "sha256")
            },
        },
    ),
}


@pytest.fixture
def features(tmp_path) -> FeatureSet:
    return feature_set(tmp_path, [entry(0), entry(1)], [shard_of([0, 1])])


@pytest.fixture
def no_hdf5(monkeypatch):
    """Let nobody open a file with HDF5 from here on."""

    def refuse(*given: object, **_: object) -> None:
        raise AssertionError(f"HDF5 was asked to open {given}")

    for module, name in ((h5py, "File"), (h5py.h5f, "open"), (h5py.h5f, "open_file_image")):
        monkeypatch.setattr(module, name, refuse)


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_an_honest_feature_set_is_read_without_hdf5(features, no_hdf5, tmp_path):
    opened = open_features("set", tmp_path)
    assert opened.read("a").tolist() == [[0, 0], [1, 1]]
    assert inventory(tmp_path)["damaged"] == []
    assert describe("set", tmp_path)["rows"] == 2


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: fill.__name__)
def test_hostile_hdf5_is_refused_unparsed(features, fill, wrap, request, tmp_path):
    image = image_of(fill)
    index, shard = features.path, next((features.folder / "shards").iterdir())
    honest = index.read_bytes()
    request.getfixturevalue("no_hdf5")
    before, began = megabytes(), time.process_time()
    index.write_bytes(WRAPS[wrap]("index", image))
    with pytest.raises(StoreError):
        open_features("set", tmp_path)
    assert len(inventory(tmp_path)["damaged"]) == 1
    index.write_bytes(honest)
    shard.write_bytes(WRAPS[wrap]("shard", image))
    with pytest.raises(StoreError):
        open_features("set", tmp_path)
    with pytest.raises(StoreError):
        FeatureSet(index).read("a")
    assert megabytes() - before < 100
    assert time.process_time() - began < 2


def rewritten(features: FeatureSet, **changes: np.ndarray) -> Path:
    """An index with every digest right, and other tables in it."""
    table, arrays = parse(features.path.read_bytes(), features.path, "index")

    def fill(file: h5py.File) -> None:
        for name, values in {**arrays, **{name.replace("__", "/"): given for name, given in changes.items()}}.items():
            file.create_dataset(name, data=values)

    features.path.write_bytes(seal("index", table.attributes, fill)[1])
    return features.path


ELSEWHERE = "../../../../../../../etc/passwd"


@pytest.mark.parametrize(
    "lie",
    [
        {"rows__shard": np.array([0, 5])},
        {"rows__shard": np.array([0, -2])},
        {"rows__row": np.array([0, 2])},
        {"rows__row": np.array([0, -1])},
        {"rows__row": np.array([0, 1 << 60])},
        {"rows__shard": np.array([0, -1])},
        {"rows__row": np.array([0])},
        {"labels": np.array([0, 9])},
        {"labels": np.array([-1, -2])},
        {"labels": np.array([0, 0, 0])},
        {"filenames": text_array(["a"])},
        {"status": np.zeros((0,), np.uint8)},
        {"shards__name": text_array([ELSEWHERE])},
        {"shards__name": text_array([ELSEWHERE]), "shards__sha256": text_array([ELSEWHERE])},
        {"shards__sha256": text_array(["0" * 64])},
        {"shards__rows": np.array([1])},
        {"shards__bytes": np.array([7])},
        {"shards__bytes": np.array([7, 7])},
    ],
    ids=str,
)
def test_an_index_that_lies_is_refused(features, lie):
    path = rewritten(features, **lie)
    with pytest.raises(StoreError):
        open_features(str(path), path)


def test_a_shard_that_lies_about_its_shape_is_refused(features, tmp_path):
    rows = shard_of([0, 1])
    narrow = dataclasses.replace(rows, layers={**rows.layers, "a": rows.layers["a"][:, :1]})
    other = features.folder / "shards" / write_shard(features.folder / "shards", narrow, RECIPE.key)
    size = other.stat().st_size
    digest = parse(other.read_bytes(), other, "shard")[0].sha256
    lie = {"shards__name": text_array([other.name]), "shards__sha256": text_array([digest])}
    opened = open_features(str(rewritten(features, **lie, shards__bytes=np.array([size]))), tmp_path)
    with pytest.raises(StoreError, match="another shape or type"):
        opened.read("a")


def described(features: FeatureSet, **changes: object) -> Path:
    """An index with every digest right, that says other things of itself."""
    data = features.path.read_bytes()
    start = len(data) - sealed.FOOTER_BYTES - int(data[-17:-1])
    table = json.loads(data[start : -sealed.FOOTER_BYTES])
    table["attributes"] |= changes
    features.path.write_bytes(with_table("index", data[sealed.BLOCK_BYTES : start], table))
    return features.path


@pytest.mark.parametrize("version", [0, 1, 2, 4, "3", None, [3]])
def test_another_format_version_is_refused(features, version):
    with pytest.raises(StoreError, match="another format"):
        FeatureSet(described(features, format_version=version))


def test_an_index_that_says_nothing_else_of_itself_is_read(features):
    path = described(features, shapes='{"a": [2], "penultimate": [3]}')
    assert FeatureSet(path).check().read("a").tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    "shapes",
    [
        *(None, 3, "", "{", "3", "null", "[]", '"a"', "{}", "[" * 100_000),
        *({"a": [2]}, {"a": [2], "penultimate": [3], "b": [1]}, {"a": [2], "penultimate@1": [3]}),
        *({"a": [2], "penultimate": bad} for bad in (None, 3, True, "3", {"3": 3}, [], [[3]], ["3"], [3.0], [None])),
        *({"a": [2], "penultimate": bad} for bad in ([True], [0], [-3], [3, 1], [3, 1, 1], [1] * 33, [float("nan")])),
        *({"a": [2], "penultimate": [size]} for size in (1 << 31, 1 << 62, 1 << 64, 10**300)),
    ],
    ids=lambda said: str(said)[:40],
)
def test_shapes_that_no_row_has_are_refused(features, shapes):
    path = described(features, shapes=json.dumps(shapes) if isinstance(shapes, dict) else shapes)
    with pytest.raises(StoreError, match="the index is damaged: it"):
        FeatureSet(path)


@pytest.mark.parametrize(
    "shape", [[18], [1, 18], [2, 3, 3, 1], [2, 3, 0], [2, -3, -3], [1 << 20, 1 << 20, 1], [2, 3, True], [2.0, 3, 1]]
)
def test_shapes_that_no_map_has_are_refused(tmp_path, shape):
    features = FeatureSet(put_set(tmp_path, [[0, 1]], SEEN).index)
    path = described(features, shapes=json.dumps({"a:map": shape, "penultimate": [3]}))
    with pytest.raises(StoreError, match="rows of 'a:map' have a shape that no row has"):
        FeatureSet(path)


def test_rows_that_cannot_be_in_their_shards_are_refused_before_memory_is_taken(tmp_path):
    features = FeatureSet(put_set(tmp_path, [[0, 1]], SEEN).index)
    path = described(features, shapes=json.dumps({"a:map": [1 << 10, 1 << 10, 1 << 10], "penultimate": [3]}))
    before = megabytes()
    with pytest.raises(StoreError, match="its rows are larger than its shards"):
        open_features(str(path), tmp_path)
    assert megabytes() - before < 100


def test_a_map_laid_out_otherwise_is_refused(tmp_path):
    features = FeatureSet(put_set(tmp_path, [[0, 1]], SEEN).index)
    path = described(features, shapes=json.dumps({"a:map": [1, 3, 2], "penultimate": [3]}))
    with pytest.raises(StoreError, match="another shape or type"):
        FeatureSet(path).check().read("a:map@1")


@pytest.mark.parametrize(
    "change", [{"views": 0}, {"views": 1 << 40}, {"views": True}, {"tf32": 1}, {"view_seed": -1}, {"store": "object"}]
)
def test_a_recipe_that_no_extraction_has_is_refused(features, change):
    recipe = json.dumps(json.loads(features.recipe.to_json()) | change, sort_keys=True)
    key = hashlib.sha256(recipe.encode()).hexdigest()
    folder = features.folder.rename(features.folder.with_name(key[:12]))
    features.path = folder / "features.h5"
    with pytest.raises(StoreError, match="a recipe of another version"):
        FeatureSet(described(features, recipe=recipe, key=key))


def test_a_pipe_in_the_place_of_a_file_hangs_nobody(features, tmp_path):
    features.path.unlink()
    os.mkfifo(features.path)
    with pytest.raises(StoreError):
        FeatureSet(features.path)
    [shard] = (features.folder / "shards").iterdir()
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(StoreError, match="missing"):
        sealed.open_sealed(shard, "shard")
