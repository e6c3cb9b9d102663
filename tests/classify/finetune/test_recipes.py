import numpy as np
import pytest

from classify.finetune.recipes import REGIMES, Images, bit, by_size, kornblith, regime_of, scaled, with_adamw


@pytest.mark.parametrize(
    ("n", "n_classes", "name"),
    [
        (98, 2, "few"),
        (100, 2, "some"),
        (1000, 2, "some"),
        (1002, 2, "many"),
        (19_999, 400, "few"),
        (20_000, 400, "many"),
    ],
)
def test_the_regime_goes_by_images_a_class_and_by_all_of_them(n, n_classes, name):
    assert regime_of(Images(n, n_classes)) is REGIMES[name]


# reference: science.md 3.3, row by row
@pytest.mark.parametrize(
    ("n", "strategy", "rates", "decays", "steps"),
    [
        (80, "tail", (3e-4, 1e-3), (1e-4,), 300),
        (98, "lp-ft", (1e-4, 3e-4, 1e-3), (1e-4,), 306),
        (400, "lp-ft", (3e-4, 1e-3, 3e-3), (5e-4,), 500),
        (400, "full", (1e-3, 3e-3, 1e-2), (5e-4,), 500),
        (10_000, "full", (1e-3, 3e-3, 1e-2), (0.0, 1e-5, 1e-4), 10_000),
        (10_000, "scratch", (1e-2, 3e-2, 1e-1), (5e-4,), 31_250),
    ],
)
def test_defaults_by_size(n, strategy, rates, decays, steps):
    basis = by_size(Images(n, 2), strategy, None)
    assert (basis.rates, basis.decays, basis.steps) == (rates, decays, steps)


def test_few_decay_the_head_alone_and_many_decay_over_the_rate():
    few, some, many = (by_size(Images(n, 2), "full", None) for n in (80, 400, 10_000))
    assert [basis.decay_below_head for basis in (few, some, many)] == [False, True, True]
    assert [basis.over_rate for basis in (few, some, many)] == [False, False, True]
    assert [basis.mixup for basis in (few, some, many)] == [0, 0, 0.1]


def test_medium_sets_are_seen_twenty_times_and_large_ones_ten_times_at_least():
    assert by_size(Images(10_200, 102), "lp-ft", None).steps == round(20 * 10_200 / 64)
    assert by_size(Images(2_000_000, 2), "full", None).steps == round(10 * 2_000_000 / 64)
    assert by_size(Images(1002, 2), "full", None).steps == round(150 * 1002 / 64)


def test_batch_norm_learns_only_where_all_is_trained_on_much_in_batches_that_suffice():
    modes = {
        strategy: by_size(Images(10_000, 2), strategy, None).bn for strategy in ("tail", "lp-ft", "full", "scratch")
    }
    assert modes == {"tail": "frozen", "lp-ft": "frozen", "full": "train", "scratch": "train"}
    assert by_size(Images(10_000, 2), "full", 31).bn == "frozen"
    assert by_size(Images(10_000, 2), "full", 32).bn == "train"
    assert by_size(Images(400, 2), "full", None).bn == "frozen"


def test_a_fresh_head_on_a_fitted_network_learns_faster():
    rates = [by_size(Images(400, 2), strategy, None).head_rate for strategy in ("tail", "lp-ft", "full", "scratch")]
    assert rates == [1, 1, 10, 1]


def test_scratch_takes_five_times_the_steps_but_not_for_ever():
    assert by_size(Images(10_000, 100), "scratch", None).steps == 5 * by_size(Images(10_000, 100), "full", None).steps
    assert by_size(Images(244, 2), "scratch", None).steps == round(200 * 244 / 32)
    assert by_size(Images(20, 2), "scratch", None).steps == 500


def test_rates_hold_for_32_to_64_images_and_follow_other_batches():
    assert [scaled((1.0,), batch)[0] for batch in (None, 8, 32, 50, 64, 256)] == [1, 0.25, 1, 1, 1, 4]


def test_batches_are_small_for_small_sets_and_never_larger_than_all():
    assert [by_size(Images(n, 2), "tail", None).batch_size for n in (20, 999, 1000)] == [20, 32, 64]
    assert by_size(Images(20, 2), "tail", None).rates == (3e-4, 1e-3)


def test_adamw_has_rates_and_a_decay_of_its_own():
    basis = with_adamw(by_size(Images(10_000, 2), "full", 256), "full")
    assert (basis.rates, basis.decays, basis.over_rate, basis.warmup) == ((3e-5, 1e-4, 3e-4), (1e-3,), False, 0.1)
    assert with_adamw(by_size(Images(80, 2), "scratch", None), "scratch").rates == (3e-4, 1e-3, 3e-3)
    assert with_adamw(by_size(Images(80, 2), "tail", None), "tail").decay_below_head


@pytest.mark.parametrize(
    ("n", "supports", "mixup"),
    [
        (19_999, [100, 200, 300, 400, 500], 0),
        (20_000, [500, 3000, 6000, 9000, 10_000], 0.1),
        (499_999, [500, 3000, 6000, 9000, 10_000], 0.1),
        (500_000, [500, 6000, 12_000, 18_000, 20_000], 0.1),
    ],
)
def test_bit_is_the_published_rule(n, supports, mixup):
    basis = bit(Images(n, 10, crop_share=0.5), "full", None)
    assert np.allclose([basis.steps * share for share in (basis.warmup, *basis.drops, 1)], supports)
    assert (basis.mixup, basis.batch_size, basis.rates, basis.decays) == (mixup, 512, (0.003,), (0.0,))
    assert (basis.head_rate, basis.nesterov, basis.ema, basis.clip_norm, basis.scale) == (1, False, 0, 0, (0.5, 0.5))


def test_bits_rate_follows_the_batch():
    assert bit(Images(10_000, 10), "full", 128).rates == (0.00075,)
    small = bit(Images(64, 2), "full", None)
    assert (small.batch_size, small.rates) == (64, (0.000375,))


def test_kornblith_is_the_published_grid():
    basis = kornblith(Images(5000, 10), "full", None)
    assert np.allclose(basis.rates, np.logspace(-4, -1, 4))
    assert np.allclose(basis.decays, [0, *np.logspace(-6, -3, 4)])
    assert (basis.steps, basis.batch_size, basis.over_rate, basis.nesterov) == (5000, 64, True, True)
    assert (basis.warmup, basis.drops, basis.bn, basis.scale) == (0, (), "train", (0.08, 1))
