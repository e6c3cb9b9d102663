import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_photos import cropped, encoded, photo

from classify.hygiene import near
from classify.hygiene.duplicates import find_duplicates
from classify.hygiene.likeness import likeness
from classify.hygiene.near import candidates
from classify.hygiene.neighbours import to_unit
from classify.hygiene.pixels import open_images

N_PHOTOS = 40
DIMS = 64


VARIANTS = {
    "quality": lambda image: encoded(image, quality=30),
    "format": lambda image: encoded(image, "PNG"),
    "size": lambda image: encoded(image.resize((201, 150)), quality=85),
    "mirror": lambda image: encoded(ImageOps.mirror(image), quality=90),
    "crop": lambda image: encoded(cropped(image, 0.02), quality=90),
    "brighter": lambda image: encoded(image.point(lambda value: min(255, value + 20)), quality=90),
}
PLANTED = {f"b/planted-{name}.img.png": change(photo(at)) for at, (name, change) in enumerate(VARIANTS.items())}
PHOTOS = {f"a/{n:02}.jpg": encoded(photo(n), quality=90) for n in range(N_PHOTOS)}


def features_for(ids: list[str], same: dict[str, str]) -> np.ndarray:
    """Rows as of a network: far apart, and close for an id and the one that it looks the `same` as."""
    rng = np.random.default_rng(7)
    base = {name: np.abs(rng.normal(size=DIMS)) for name in ids if name not in same}
    X = [base[name] if name in base else base[same[name]] + 0.33 * rng.normal(size=DIMS) for name in ids]
    return np.array(X, np.float32)


@pytest.fixture
def planted(make_set):
    """Photographs, variants of the first ones, an equal copy, and one that features take for another."""
    files = {**PHOTOS, **PLANTED, "b/copy.jpg": PHOTOS["a/20.jpg"], "b/double.jpg": encoded(photo(77))}
    same = {name: f"a/{at:02}.jpg" for at, name in enumerate(PLANTED)}
    same |= {"b/copy.jpg": "a/20.jpg", "b/double.jpg": "a/30.jpg"}
    splits = ["train" if name.startswith("a/") else "test" for name in sorted(files)]
    return make_set(files, features_for(sorted(files), same), splits)


def pairs_of(features, found) -> dict[tuple[str, str], str]:
    return {(features.ids[pair.a], features.ids[pair.b]): pair.kind for pair in found.pairs}


EXPECTED = {(f"a/{at:02}.jpg", name): "near" for at, name in enumerate(PLANTED)} | {("a/20.jpg", "b/copy.jpg"): "exact"}


def test_every_planted_variant_is_found_and_no_other_photograph(planted) -> None:
    images, _ = open_images(planted)
    found = find_duplicates(planted, "penultimate", np.arange(len(planted.ids)), images)
    assert pairs_of(planted, found) == EXPECTED
    assert (found.searched, found.confirmed_by, found.notes) == (True, "pixels", [])
    assert all(pair.ncc is not None and pair.ncc >= 0.9 for pair in found.pairs)
    assert found.n_groups == len(EXPECTED)


def test_test_images_that_are_training_images_are_told(planted) -> None:
    images, _ = open_images(planted)
    rows = np.arange(len(planted.ids))
    test = np.array([name.startswith("b/") for name in planted.ids])
    found = find_duplicates(planted, "penultimate", rows, images)
    leaked = found.leaked(rows[~test], rows[test])
    told = {planted.ids[row] for row in rows[test][leaked]}
    assert told == {*PLANTED, "b/copy.jpg"}
    assert found.leaked(rows[test], rows[:0]).tolist() == []


def test_a_part_of_the_rows_in_any_order_is_looked_at_alone(planted) -> None:
    images, _ = open_images(planted)
    at = [planted.ids.index(name) for name in ("b/copy.jpg", "a/05.jpg", "a/20.jpg", *list(PLANTED)[:1], "a/00.jpg")]
    rows = np.array([*at, *range(6, 20)])
    found = find_duplicates(planted, "penultimate", rows, images)
    expected = {("a/20.jpg", "b/copy.jpg"): "exact", ("a/00.jpg", next(iter(PLANTED))): "near"}
    assert pairs_of(planted, found) == expected
    assert found.clusters[0] == found.clusters[2] != found.clusters[1]
    assert found.clusters[3] == found.clusters[4]


def test_without_images_only_the_plainest_are_told_and_it_is_said(planted) -> None:
    X = planted.X["penultimate"]
    a, b = planted.ids.index("a/00.jpg"), planted.ids.index(next(iter(PLANTED)))
    X[b] = X[a] * 1.5
    found = find_duplicates(planted, "penultimate", np.arange(len(planted.ids)))
    assert pairs_of(planted, found)[("a/00.jpg", next(iter(PLANTED)))] == "near"
    assert found.confirmed_by == "features"
    assert "features alone" in found.notes[0]
    assert [pair.ncc for pair in found.pairs if pair.kind == "near"] == [None] * (len(found.pairs) - 1)


def test_a_pair_with_an_image_gone_is_judged_by_features(planted) -> None:
    images, _ = open_images(planted)
    X = planted.X["penultimate"]
    gone = [planted.ids.index(name) for name in list(PLANTED)[:2]]
    X[gone[0]] = X[planted.ids.index("a/00.jpg")]
    planted.sha256[gone] ^= 1
    found = find_duplicates(planted, "penultimate", np.arange(len(planted.ids)), images)
    pairs = pairs_of(planted, found)
    named = list(PLANTED)
    assert ("a/00.jpg", named[0]) in pairs
    assert ("a/01.jpg", named[1]) not in pairs
    assert found.notes == ["2 images are of other content, and could not be looked at"]


def test_what_would_take_too_long_is_left_out_aloud_and_equal_images_are_found(planted) -> None:
    images, _ = open_images(planted)
    found = find_duplicates(planted, "penultimate", np.arange(len(planted.ids)), images, max_seconds=1e-9)
    assert not found.searched
    assert pairs_of(planted, found) == {("a/20.jpg", "b/copy.jpg"): "exact"}
    assert found.notes[0].startswith("near-duplicates were not looked for: among 47 images")
    assert "--duplicates always" in found.notes[0]


def test_it_can_be_left_out_by_the_users_wish(planted) -> None:
    found = find_duplicates(planted, "penultimate", np.arange(len(planted.ids)), max_seconds=0)
    assert not found.searched
    assert found.notes == ["near-duplicates were not looked for, as asked"]


def test_no_more_images_are_decoded_than_allowed_the_nearest_first(planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MAX_LOOKS", 4)
    images, _ = open_images(planted)
    rows = np.array([row for row, name in enumerate(planted.ids) if name != "b/copy.jpg"])
    found = find_duplicates(planted, "penultimate", rows, images)
    suggested = candidates(rows, to_unit(planted.X["penultimate"][rows]))
    nearest_two = {tuple(ends) for ends in suggested.ends[np.argsort(suggested.distance)[:2]].tolist()}
    near_found = {(pair.a, pair.b) for pair in found.pairs if pair.kind == "near"}
    assert near_found
    assert near_found <= nearest_two
    assert found.notes == ["5 of 7 pairs of much alike features were not compared: the farthest"]


def test_a_set_without_duplicates_has_no_groups(make_set) -> None:
    features = make_set(PHOTOS, features_for(sorted(PHOTOS), {}))
    images, _ = open_images(features)
    found = find_duplicates(features, "penultimate", np.arange(N_PHOTOS), images)
    assert (found.pairs, found.n_groups, found.notes) == ([], 0, [])
    assert sorted(found.clusters.tolist()) == list(range(N_PHOTOS))


def test_contents_that_are_not_known_equal_nothing(make_set) -> None:
    features = make_set(PHOTOS, features_for(sorted(PHOTOS), {}))
    features.sha256[:] = 0
    found = find_duplicates(features, "penultimate", np.arange(N_PHOTOS))
    assert found.pairs == []


def test_where_all_images_are_much_alike_none_is_a_candidate() -> None:
    """As pictures of digits are to a network that knows photographs: every distance is small, and none stands out."""
    X = 10 + np.random.default_rng(0).normal(size=(200, 64))
    unit = to_unit(X.astype(np.float32))
    assert (1 - unit @ unit.T).max() < 0.05
    assert len(candidates(np.arange(200), unit)) == 0


def test_how_near_a_candidate_is_goes_by_the_neighbours_of_either_end() -> None:
    """One of two alike rows lies among many others, where to be near says less."""
    X = np.random.default_rng(0).normal(size=(60, 64))
    X[1:15] = X[0] + 0.4 * X[1:15]
    X[20] = X[0] + 0.05 * X[20]
    unit = to_unit(X.astype(np.float32))
    found = candidates(np.arange(60), unit)
    distance = np.sort(1 - unit.astype(np.float64) @ unit.T.astype(np.float64), axis=1)
    tenth = distance[:, 10].clip(1e-7)
    assert len(set(tenth[found.ends].argmin(axis=1).tolist())) == 2
    np.testing.assert_allclose(found.share, found.distance / tenth[found.ends].min(axis=1), rtol=1e-3)


def test_a_burst_of_more_images_than_neighbours_are_looked_at_is_one_group(make_set) -> None:
    frames = {f"c/{n:02}.jpg": encoded(photo(500), quality=70 + n) for n in range(15)}
    ids = sorted({**PHOTOS, **frames})
    X = features_for(ids, dict.fromkeys(list(frames)[1:], "c/00.jpg"))
    features = make_set({**PHOTOS, **frames}, X)
    images, _ = open_images(features)
    found = find_duplicates(features, "penultimate", np.arange(len(ids)), images)
    assert found.n_groups == 1
    assert len(set(found.clusters[[ids.index(name) for name in frames]].tolist())) == 1


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_handful_of_images_is_no_problem(make_set, n: int) -> None:
    features = make_set(PHOTOS, features_for(sorted(PHOTOS), {}))
    found = find_duplicates(features, "penultimate", np.arange(n))
    assert (found.pairs, len(found.clusters)) == ([], n)


def greys(*pictures: Image.Image) -> np.ndarray:
    return np.stack([np.asarray(each.convert("L").resize((64, 64))) for each in pictures])


def plain_likeness(a: np.ndarray, b: np.ndarray) -> float:
    middle = a[2:62, 2:62]
    pairs = [(middle, b[y : y + 60, x : x + 60][:, ::step]) for y in (0, 2, 4) for x in (0, 2, 4) for step in (1, -1)]
    pairs += [(middle, magnified(b)[:, ::step]) for step in (1, -1)]
    pairs += [(magnified(a), b[2:62, 2:62][:, ::step]) for step in (1, -1)]
    return max(np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs)


def magnified(grey: np.ndarray) -> np.ndarray:
    at = 31.5 + (np.arange(60) - 29.5) / 1.04
    wide = np.array([np.interp(at, np.arange(64), row) for row in grey])
    return np.array([np.interp(at, np.arange(64), column) for column in wide.T]).T


def test_likeness_is_the_best_correlation_of_a_plain_loop() -> None:
    shots = [photo(0), ImageOps.mirror(photo(0)), cropped(photo(0), 0.03), photo(1), photo(2)]
    a, b = greys(*[photo(0)] * len(shots)), greys(*shots)
    expected = [plain_likeness(left, right) for left, right in zip(a, b, strict=True)]
    np.testing.assert_allclose(likeness(a, b), expected, atol=1e-4)
    assert likeness(a, b)[:3].min() > 0.9
    assert likeness(a, b)[3:].max() < 0.8


def test_a_moved_picture_is_found_by_the_shifts() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    moved = np.roll(noise, (2, -2), axis=(0, 1))
    assert likeness(noise[None], moved[None])[0] > 0.99
    assert likeness(noise[None], np.roll(noise, 7, axis=0)[None])[0] < 0.2


def test_pictures_that_show_nothing_are_like_none() -> None:
    blank = np.full((1, 64, 64), 200, np.uint8)
    assert likeness(blank, blank).tolist() == [0]
    assert likeness(blank, greys(photo(1))).tolist() == [0]
