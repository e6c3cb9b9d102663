import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from extract import resample
from extract.errors import OptionError
from extract.recipe import INTERPOLATIONS, Preprocessing
from extract.resample import ON_A_DEVICE, render, render_on
from extract.views import Look, looks
from tests.tiny import picture

CENTRE = Look((0, 0, 375, 500), (256, 341), (16, 58, 224))
# Without AVX2 torchvision resizes floats; and ATen's plain code is wrong where one pixel is as wide as the image.
needs_avx2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="torchvision resizes floats here"
)


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    """Black, white and grey values at random: sums come close to rounding either way, and to both ends."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (height, width, 3), np.uint8)
    extreme = 255 * rng.integers(0, 2, (height, width, 1), np.uint8)
    return torch.from_numpy(np.where(rng.random((height, width, 1)) < 0.5, values, extreme))


def rendered(image: np.ndarray | Tensor, look: Look, interpolation: str) -> Tensor:
    batch = batch_of(2, look.crop[2])
    render(image, look, interpolation, batch[1])
    assert not batch[0].any()
    return batch[1]


def batch_of(n: int, side: int) -> Tensor:
    return torch.zeros(n, 3, side, side, dtype=torch.uint8).to(memory_format=torch.channels_last)


def plainly(image: Tensor, look: Look, interpolation: str) -> Tensor:
    """Resize the whole region as torchvision does, then crop and mirror."""
    top, left, height, width = look.region
    region = image[top : top + height, left : left + width].permute(2, 0, 1)
    resized = F.resize(region, list(look.size), InterpolationMode(interpolation), antialias=True)
    top, left, side = look.crop
    shown = resized[:, top : top + side, left : left + side]
    return shown.flip(2) if look.flip else shown


@st.composite
def sights(draw: st.DrawFn, side: int) -> tuple[Tensor, Look]:
    """An image and a look at it: up to 90 pixels a side, resized up or down, or on one side not at all."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    high, wide = draw(st.integers(1, height)), draw(st.integers(1, width))
    top, left = draw(st.integers(0, height - high)), draw(st.integers(0, width - wide))
    size = tuple(max(side, draw(st.sampled_from([side, length, 17, 40, 101]))) for length in (high, wide))
    down, across = (draw(st.integers(0, length - side)) for length in size)
    image = noise(height, width, draw(st.integers(0, 9)))
    return image, Look((top, left, high, wide), (size[0], size[1]), (down, across, side), draw(st.booleans()))


@needs_avx2
@settings(max_examples=150)
@given(seen=st.integers(2, 24).flatmap(sights), interpolation=st.sampled_from(ON_A_DEVICE))
def test_every_look_is_bitwise_as_torchvision_resizes_the_whole(seen, interpolation):
    assert rendered(*seen, interpolation).equal(plainly(*seen, interpolation))


@settings(max_examples=150)
@given(
    seen=st.integers(2, 24).flatmap(lambda side: st.lists(sights(side), min_size=1, max_size=4)),
    interpolation=st.sampled_from(ON_A_DEVICE),
)
def test_a_device_gives_the_very_pixels_of_a_cpu(seen, interpolation):
    out = batch_of(len(seen), seen[0][1].crop[2])
    render_on([image for image, _ in seen], [(look,) for _, look in seen], interpolation, out)
    for got, (image, look) in zip(out, seen, strict=True):
        assert got.equal(rendered(image, look, interpolation))


@needs_avx2
@pytest.mark.parametrize("interpolation", ON_A_DEVICE)
@pytest.mark.parametrize("size", [(375, 500), (500, 375), (256, 341), (240, 282), (1000, 750), (224, 224), (97, 130)])
def test_photos_are_bitwise_as_torchvision_resizes_them(size, interpolation):
    preset = Preprocessing(256, 224, interpolation, (0.5,) * 3, (0.5,) * 3)
    image = noise(*size)
    chosen = looks(*size, preset, digest=b"", views=3, seed=0)
    assert isinstance(chosen, tuple)
    out = batch_of(3, 224)
    render_on([image], [chosen], interpolation, out)
    for got, look in zip(out, chosen, strict=True):
        expected = plainly(image, look, interpolation)
        assert got.equal(expected)
        assert rendered(image, look, interpolation).equal(expected)


def test_views_of_several_images_come_image_by_image(monkeypatch):
    monkeypatch.setattr(resample, "PORTION_PIXELS", 3000)
    monkeypatch.setattr(resample, "PORTION_PRODUCTS", 1000)
    preset = Preprocessing(20, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)
    images = [noise(height, width, height) for height, width in ((64, 64), (40, 36), (40, 36), (9, 70), (5, 5))]
    chosen = [looks(*image.shape[:2], preset, digest=bytes([i]), views=4, seed=0) for i, image in enumerate(images)]
    out = batch_of(20, 16)
    render_on(images, chosen, "bilinear", out)
    expected = [rendered(image, look, "bilinear") for image, mine in zip(images, chosen, strict=True) for look in mine]
    assert out.equal(torch.stack(expected))


def test_planar_images_on_a_device_are_images_too():
    """As nvJPEG leaves them."""
    out, expected = batch_of(1, 224), batch_of(1, 224)
    planar = noise(375, 500).permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not planar.is_contiguous()
    render_on([planar], [[CENTRE]], "bilinear", out)
    render(noise(375, 500), CENTRE, "bilinear", expected[0])
    assert out.equal(expected)


def test_no_image_on_a_device_is_no_work():
    render_on([], [], "bilinear", batch_of(0, 8))


@pytest.mark.parametrize("interpolation", sorted(set(INTERPOLATIONS) - set(ON_A_DEVICE)))
def test_other_interpolations_are_left_to_pillow(interpolation):
    image = picture(1, (60, 45))
    look = Look((2, 3, 40, 50), (30, 35), (4, 5, 20), flip=True)
    expected = F.resize(image.crop((3, 2, 53, 42)), [30, 35], InterpolationMode(interpolation))
    expected = F.horizontal_flip(F.crop(expected, 4, 5, 20, 20))
    assert rendered(np.asarray(image), look, interpolation).equal(F.pil_to_tensor(expected))
    with pytest.raises(OptionError, match="on a device"):
        render_on([torch.from_numpy(np.array(image))], [[look]], interpolation, batch_of(1, 20))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (640, 480)])
def test_pillow_is_never_far(size):
    """The reference; on real photos features say the same (benchmarks/fidelity.json)."""
    image = picture(3, size)
    preset = Preprocessing(256, 224, "bilinear", (0.5,) * 3, (0.5,) * 3)
    chosen = looks(size[1], size[0], preset, digest=b"", views=1, seed=0)
    assert isinstance(chosen, tuple)
    high, wide = chosen[0].size
    reference = F.center_crop(F.pil_to_tensor(image.resize((wide, high), Image.Resampling.BILINEAR)), [224])
    assert (rendered(np.asarray(image), chosen[0], "bilinear").int() - reference.int()).abs().max() <= 2


@pytest.mark.parametrize("turned", [lambda a: a, lambda a: a[:, ::-1], lambda a: a.swapaxes(0, 1), lambda a: a[::2]])
def test_arrays_may_be_views_and_read_only(turned):
    array = turned(np.asarray(picture(1, (40, 40))))
    array.flags.writeable = False
    look = Look((0, 0, 20, 30), (20, 17), (1, 0, 16))
    assert rendered(array, look, "bilinear").equal(rendered(torch.from_numpy(array.copy()), look, "bilinear"))


def test_an_axis_is_cut_short_where_the_ratio_allows_it():
    assert resample._extent(500, 341, 282, 1.0) == (414, 282, np.nextafter(341 / 500, 0))
    assert resample._extent(500, 341, 341, 1.0) == (500, 341, None)
    assert resample._extent(256, 256, 240, 1.0) == (256, 256, None)
    assert resample._extent(282, 341, 282, 1.0) == (282, 341, None)  # ATen would take it for an axis to be kept
    assert resample._extent(49, 256, 240, 1.0) == (49, 256, None)  # 1 / (256 / 49) is not 49 / 256, nor are others
    assert resample._extent(49, 98, 60, 1.0) == (31, 60, 2.0)
