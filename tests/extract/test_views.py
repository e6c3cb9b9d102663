import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as F

from extract.recipe import Preprocessing
from extract.record import Failure, Status
from extract.views import RATIO, SCALE, Augment, Look, looks, training_look

PRESET = Preprocessing(256, 224, "bilinear", (0.5,) * 3, (0.5,) * 3)
DIGEST = bytes(range(32))


def seen(height: int, width: int, preset: Preprocessing = PRESET, **changes) -> tuple[Look, ...]:
    found = looks(height, width, preset, **{"digest": DIGEST, "views": 1, "seed": 0, **changes})
    assert not isinstance(found, Failure)
    return found


@given(height=st.integers(1, 90), width=st.integers(1, 90), resize=st.integers(1, 40), cut=st.integers(0, 39))
def test_the_first_view_is_the_centre_as_torchvision_crops_it(height, width, resize, cut):
    preset = replace(PRESET, resize_size=resize, crop_size=max(1, resize - cut))
    [centre] = seen(height, width, preset)

    wide, high = F.resize(Image.new("L", (width, height)), [resize]).size
    places = torch.arange(high * wide).view(1, high, wide)
    first = int(F.center_crop(places, [preset.crop_size])[0, 0, 0])
    assert centre == Look((0, 0, height, width), (high, wide), (*divmod(first, wide), preset.crop_size))


def test_the_second_view_is_its_mirror_image():
    centre, mirrored = seen(375, 500, views=2)
    assert centre == Look((0, 0, 375, 500), (256, 341), (16, 58, 224), flip=False)
    assert mirrored == replace(centre, flip=True)


@given(height=st.integers(1, 2000), width=st.integers(1, 2000), seed=st.integers(0, 2**40), digest=st.binary())
def test_random_crops_lie_in_the_image_and_keep_their_area_and_ratio(height, width, seed, digest):
    if max(height, width) > 200 * min(height, width):
        return
    for look in seen(height, width, views=6, seed=seed, digest=digest)[2:]:
        top, left, high, wide = look.region
        assert 0 <= top < top + high <= height
        assert 0 <= left < left + wide <= width
        assert (look.size, look.crop) == ((224, 224), (0, 0, 224))
        if min(height, width) > 100 and RATIO[0] < width / height < RATIO[1]:
            assert 0.98 * RATIO[0] < wide / high < 1.02 * RATIO[1]
            assert 0.96 * SCALE[0] < high * wide / (height * width) <= 1


def test_random_crops_differ_in_size_and_place():
    drawn = seen(500, 500, views=60)[2:]
    areas = [look.region[2] * look.region[3] / 500**2 for look in drawn]
    assert min(areas) < 0.35
    assert max(areas) > 0.85
    assert len({look.region for look in drawn}) == len(drawn)
    places = [look.region[0] / max(1, 500 - look.region[2]) for look in drawn]
    assert min(places) < 0.15
    assert max(places) > 0.85


def test_half_of_the_random_crops_are_mirrored():
    flips = [look.flip for seed in range(10) for look in seen(40, 36, views=64, seed=seed)[2:]]
    assert 260 < sum(flips) < 360


def test_a_view_depends_on_content_seed_and_number_alone():
    first = seen(375, 500, views=8)
    assert seen(375, 500, views=8) == first
    assert seen(375, 500, views=3) == first[:3]
    others = [seen(375, 500, views=8, seed=1), seen(375, 500, views=8, digest=DIGEST[::-1])]
    for other in others:
        assert other[:2] == first[:2]
        assert not set(other[2:]) & set(first[2:])


def test_a_view_is_the_same_for_ever():
    """Rows are kept under it: who changes these numbers changes what caches mean."""
    assert seen(375, 500, views=4)[2:] == (
        Look((51, 217, 315, 253), (224, 224), (0, 0, 224), flip=True),
        Look((14, 6, 309, 348), (224, 224), (0, 0, 224), flip=False),
    )


@pytest.mark.parametrize(
    ("size", "region"),
    [((10, 1999), (0, 993, 10, 13)), ((1999, 10), (993, 0, 13, 10)), ((1, 150), (0, 74, 1, 1))],
)
def test_of_a_strip_that_no_crop_fits_into_the_middle_is_shown(size, region):
    [look] = seen(*size, views=3)[2:]
    assert look.region == region


def test_without_flips_the_random_crops_follow_the_centre_and_none_is_mirrored():
    for views in (1, 2, 3, 20):
        found = seen(375, 500, views=views, flips=False)
        assert len(found) == views
        assert found[0] == seen(375, 500)[0]
        assert found[2:] == tuple(replace(look, flip=False) for look in seen(375, 500, views=views)[2:])
        assert not any(look.flip for look in found)
    assert seen(375, 500, views=2, flips=False)[1].crop == (0, 0, 224), "a random crop"


def shown(draw: int, *, augment: Augment = (True, True, SCALE), seed: int = 0, digest: bytes = DIGEST) -> Look:
    look = training_look(375, 500, PRESET, digest=digest, seed=seed, draw=draw, augment=augment)
    assert isinstance(look, Look)
    return look


def test_a_training_look_is_the_random_view_of_its_number():
    assert tuple(map(shown, range(2, 8))) == seen(375, 500, views=8)[2:]


@given(draw=st.integers(0), seed=st.integers(0), digest=st.binary())
def test_what_is_not_drawn_of_a_training_image_is_as_in_the_centre(draw, seed, digest):
    [centre] = seen(375, 500)
    both, crop, flip, neither = (
        shown(draw, augment=(crop, flip, SCALE), seed=seed, digest=digest)
        for crop, flip in ((True, True), (True, False), (False, True), (False, False))
    )
    assert crop == replace(both, flip=False)
    assert flip == replace(centre, flip=both.flip), "one coin, whatever else is drawn"
    assert neither == centre


@given(draw=st.integers(0), scale=st.tuples(st.floats(0.1, 0.5), st.floats(0.5, 0.7)))
def test_a_training_crop_keeps_to_its_share_of_the_area(draw, scale):
    _, _, high, wide = shown(draw, augment=(True, True, scale)).region
    assert 0.98 * scale[0] < high * wide / (375 * 500) < 1.02 * scale[1]


def test_training_looks_differ_from_draw_to_draw_seed_to_seed_and_image_to_image():
    drawn = {shown(draw, seed=seed, digest=digest) for draw in range(5) for seed in (0, 1) for digest in (b"a", b"b")}
    assert len(drawn) == 20
    flips = [shown(draw, augment=(False, True, SCALE)).flip for draw in range(600)]
    assert 240 < sum(flips) < 360


@pytest.mark.parametrize("size", [(1, 200), (200, 1)])
def test_a_strip_that_resizing_would_blow_up_is_refused(size):
    preset = replace(PRESET, resize_size=4096, crop_size=4096)
    refused = looks(*size, preset, digest=DIGEST, views=1, seed=0)
    assert isinstance(refused, Failure)
    assert refused.status == Status.TOO_LARGE
    assert training_look(*size, preset, digest=DIGEST, seed=0, draw=0, augment=(True, True, SCALE)) == refused
    assert not isinstance(looks(4, 4, preset, digest=DIGEST, views=1, seed=0), Failure)


def test_views_are_known_without_torch():
    subprocess.run(
        [sys.executable, "-c", "import sys, extract.views; sys.exit('torch' in sys.modules)"], check=True, timeout=60
    )
