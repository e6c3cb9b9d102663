import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from extract import shard as story
from extract.backbones import open_backbone
from extract.forward import Extractor, build_extractor
from extract.images import pixels
from extract.loader import Loader
from extract.shard import STAGES, Receipt, extract_shard
from extract.spec import BackboneSpec, Record, Status
from extract.store.shards import read_shard, shards_in
from tests.tiny import picture, put, tiny_spec


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return build_extractor(tiny_spec("", Path("cache")))


def records(folder: Path, n: int) -> list[Record]:
    return [Record(f"{i}.png", str(put(folder / f"{i}.png", i))) for i in range(n)]


def made(
    listed: list[Record],
    extractor: Extractor,
    folder: Path,
    *,
    batch_size: int = 3,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Receipt:
    with Loader(extractor.recipe.preprocessing, workers=2) as loader:
        return extract_shard(listed, extractor, loader, folder, batch_size=batch_size, on_rows=on_rows)


def stored(folder: Path, name: str, layer: str = "penultimate") -> np.ndarray:
    with h5py.File(folder / name) as file:
        return file[f"layers/{layer}"][:]


def of_picture(seed: int, extractor: Extractor) -> torch.Tensor:
    values = pixels(picture(seed), extractor.recipe.preprocessing)
    assert isinstance(values, np.ndarray)
    return torch.from_numpy(values)


def test_rows_lie_where_their_records_stood(tmp_path, extractor):
    steps = []
    receipt = made(records(tmp_path, 8), extractor, tmp_path / "out", on_rows=steps.append)
    assert (receipt.rows, receipt.bad, steps) == (8, 0, [3, 3, 2])
    assert set(receipt.stages.seconds) == set(STAGES)
    assert [path.name for path in shards_in(tmp_path / "out")] == [receipt.name]
    for layer in ("layer1", "penultimate"):
        rows = stored(tmp_path / "out", receipt.name, layer)
        for i, row in enumerate(rows):
            alone = extractor(extractor.send([of_picture(i, extractor)]))[layer][0]
            np.testing.assert_allclose(row, alone, rtol=1e-5, atol=1e-6)


def test_a_shard_depends_on_its_arguments_only(tmp_path, extractor):
    listed = records(tmp_path, 5)
    one, other = made(listed, extractor, tmp_path / "one"), made(listed, extractor, tmp_path / "other")
    assert one.name == other.name
    assert (tmp_path / "one" / one.name).read_bytes() == (tmp_path / "other" / one.name).read_bytes()


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_bad_record_is_a_row_with_its_reason_and_moves_no_other(tmp_path, extractor, batch_size):
    listed = records(tmp_path, 4)
    (tmp_path / "text.png").write_text("no image")
    bad = [Record(name, str(tmp_path / name)) for name in ("text.png", "gone.png")]
    mixed = [bad[0], listed[0], listed[1], bad[1], listed[2], listed[3], bad[0]]
    receipt = made(mixed, extractor, tmp_path / "out", batch_size=batch_size)
    shard, rows = (
        read_shard(tmp_path / "out" / receipt.name, extractor.recipe.key),
        stored(tmp_path / "out", receipt.name),
    )
    assert (receipt.rows, receipt.bad) == (7, 3)
    statuses = [Status.NOT_AN_IMAGE, 0, 0, Status.MISSING, 0, 0, Status.NOT_AN_IMAGE]
    assert shard.status.tolist() == statuses
    assert [bool(reason) for reason in shard.errors.tolist()] == [bool(status) for status in statuses]
    assert np.isnan(rows).all(1).tolist() == [bool(status) for status in statuses]
    expected = stored(tmp_path / "good", made(listed, extractor, tmp_path / "good").name)
    np.testing.assert_allclose(rows[shard.status == 0], expected, rtol=1e-5, atol=1e-6)
    assert not shard.digests[3].any()


def test_a_shard_of_nothing_but_bad_records_is_one(tmp_path, extractor):
    receipt = made([Record("gone", str(tmp_path / "gone"))] * 3, extractor, tmp_path / "out")
    assert (receipt.rows, receipt.bad) == (3, 3)
    assert np.isnan(stored(tmp_path / "out", receipt.name)).all()


@pytest.mark.parametrize("store", ["float16", "float32"])
def test_what_the_stored_type_cannot_hold_is_a_bad_row_and_never_infinite(tmp_path, store):
    state = open_backbone(BackboneSpec("builtin", "none")).read()
    state["conv1.weight"].zero_()
    state["conv1.weight"][0, :, 1, 1] = 20_000  # the sum of the three normalised channels: about 6 for white
    torch.save(state, tmp_path / "loud.pt")
    loud = build_extractor(tiny_spec("", tmp_path, weights=str(tmp_path / "loud.pt"), taps=("conv1",), store=store))
    for name, level in (("dim", 125), ("white", 255)):
        Image.new("RGB", (32, 32), (level,) * 3).save(tmp_path / f"{name}.png")
    listed = [Record(name, str(tmp_path / f"{name}.png")) for name in ("dim", "white", "dim")]
    receipt = made(listed, loud, tmp_path / "out")
    shard, rows = (
        read_shard(tmp_path / "out" / receipt.name, loud.recipe.key),
        stored(tmp_path / "out", receipt.name, "conv1"),
    )
    assert rows.dtype == store
    if store == "float32":
        assert shard.status.tolist() == [0, 0, 0]
        assert rows[1].max() > np.finfo(np.float16).max
    else:
        assert shard.status.tolist() == [0, Status.NOT_FINITE, 0]
        assert b"float16" in shard.errors[1]
        assert np.isnan(rows[1]).all()
        assert np.isfinite(rows[[0, 2]]).all()


def test_one_tap_out_of_range_takes_the_whole_row(tmp_path):
    state = open_backbone(BackboneSpec("builtin", "none")).read()
    state["layer3.1.bn2.bias"].fill_(1e6)
    torch.save(state, tmp_path / "loud.pt")
    loud = build_extractor(tiny_spec("", tmp_path, weights=str(tmp_path / "loud.pt"), store="float16"))
    receipt = made(records(tmp_path, 2), loud, tmp_path / "out")
    assert receipt.bad == 2
    assert np.isnan(stored(tmp_path / "out", receipt.name, "layer1")).all()


def test_an_exception_while_computing_leaves_no_file(tmp_path, extractor, monkeypatch):
    monkeypatch.setattr(Extractor, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made(records(tmp_path, 2), extractor, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def interrupt_after(n: int) -> Callable[[int], None]:
    """Press Ctrl-C when n rows are done."""
    seen = 0

    def on_rows(rows: int) -> None:
        nonlocal seen
        seen += rows
        if seen >= n:
            signal.raise_signal(signal.SIGINT)

    return on_rows


@pytest.mark.parametrize(("after", "kept"), [(1, 3), (4, 6), (8, 8)])
def test_an_interrupt_keeps_the_rows_that_are_done(tmp_path, extractor, after, kept):
    listed = records(tmp_path, 8)
    receipt = made(listed, extractor, tmp_path / "out", on_rows=interrupt_after(after))
    assert (receipt.rows, receipt.interrupted) == (kept, True)
    whole = made(listed, extractor, tmp_path / "whole")
    shard = read_shard(tmp_path / "out" / receipt.name, extractor.recipe.key)
    assert len(shard) == kept
    rows = stored(tmp_path / "out", receipt.name)
    np.testing.assert_array_equal(rows, stored(tmp_path / "whole", whole.name)[:kept])
    assert not whole.interrupted


def test_an_interrupt_before_the_first_rows_leaves_no_file(tmp_path, extractor, monkeypatch):
    monkeypatch.setattr(Extractor, "__call__", lambda *_: signal.raise_signal(signal.SIGINT))
    receipt = made(records(tmp_path, 2), extractor, tmp_path / "out")
    assert (receipt.rows, receipt.interrupted) == (0, True)
    assert not (tmp_path / "out").exists()


def test_an_interrupt_while_the_shard_is_written_does_not_cost_it(tmp_path, extractor, monkeypatch):
    real, calls = story.write_shard, []

    def write(*given: object) -> str:
        calls.append(given)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return real(*given)

    monkeypatch.setattr(story, "write_shard", write)
    receipt = made(records(tmp_path, 5), extractor, tmp_path / "out")
    assert (receipt.rows, receipt.interrupted) == (5, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [receipt.name]
