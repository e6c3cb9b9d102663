import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from classify.advise.prior import FAR_SD, TRANSFER_SD, Measured, Prediction, predict

ERRORS = st.floats(0.0, 1.0)
MEASURED = st.lists(st.builds(Measured, st.floats(-0.3, 0.3), st.floats(0.0, 0.2)), max_size=4)


@pytest.mark.parametrize(("error", "gain", "sd"), [(0.1, 0.044, 0.045), (0.4, 0.176, 0.105), (0.9, 0.396, 0.205)])
def test_the_prior_is_the_published_share_of_the_errors(error, gain, sd):
    found = predict(error)
    assert (found.mean, found.sd, found.top) == (pytest.approx(gain), pytest.approx(sd), error)


def test_on_the_published_table_the_prior_says_what_it_said_of_them():
    # CIFAR-10, ResNet-18: an error of 8.36 % and a gain of 5.5 points; Cars: 54.33 % and 42.55.
    assert predict(0.0836).quantile(0.975) > 0.055
    assert predict(0.5433).quantile(0.975) > 0.4255
    assert predict(0.0836).above(0.01) == pytest.approx(norm.sf((0.01 - 0.44 * 0.0836) / (0.025 + 0.2 * 0.0836)))


def test_what_was_published_elsewhere_is_within_what_the_prior_allows_for():
    """CIFAR-100 (Hoiem et al. 2021): the probe's error, and the gain of training, with 25 to 400 images a class."""
    for error, gain in ((0.456, 0.009), (0.409, 0.085), (0.375, 0.111), (0.346, 0.125), (0.324, 0.135)):
        found = predict(error)
        assert abs(gain - found.mean) < 2 * found.sd


@pytest.mark.parametrize(("mean", "sd", "top"), [(0.02, 0.08, 0.1), (-0.2, 0.05, 0.3), (0.5, 0.1, 0.3), (0.1, 0.01, 1)])
def test_the_clipped_gain_agrees_with_quadrature(mean, sd, top):
    found = Prediction(mean, sd, top)
    p = (np.arange(400_000) + 0.5) / 400_000
    drawn = np.clip(norm.ppf(p, mean, sd), 0, top)
    assert found.expected == pytest.approx(drawn.mean(), abs=1e-6)
    assert found.quantile(0.3) == pytest.approx(np.quantile(drawn, 0.3), abs=1e-6)
    for gain in (0.0, 0.01, 0.08):
        assert found.above(gain) == pytest.approx((drawn > gain).mean(), abs=1e-5)


@pytest.mark.parametrize("transfer_sd", [TRANSFER_SD, FAR_SD])
def test_a_measurement_moves_the_gain_by_its_own_error_and_by_how_ways_differ(transfer_sd):
    error, seen = 0.2, Measured(0.05, 0.02)
    found = predict(error, [seen], transfer_sd=transfer_sd)
    g = np.linspace(-0.6, 0.8, 20_001)
    weight = norm.pdf(g, 0.088, 0.065) * norm.pdf(seen.gain, g, np.hypot(seen.error, transfer_sd))
    mean = (g * weight).sum() / weight.sum()
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.sd == pytest.approx(np.sqrt(((g - mean) ** 2 * weight).sum() / weight.sum()), abs=1e-9)


def test_the_gain_over_the_best_agrees_with_a_grid_over_both_gains():
    error, seen = 0.2, (Measured(0.05, 0.02), Measured(-0.01, 0.03))
    found = predict(error, seen, best=0)
    step = np.linspace(-0.4, 0.5, 151)
    G, G0, G1 = np.meshgrid(step, step, step, indexing="ij")
    weight = norm.pdf(G, 0.088, 0.065) * norm.pdf(G0, G, TRANSFER_SD) * norm.pdf(G1, G, TRANSFER_SD)
    for truth, each in ((G0, seen[0]), (G1, seen[1])):
        weight = weight * norm.pdf(each.gain, truth, each.error)
    over = G - G0
    mean = (over * weight).sum() / weight.sum()
    assert found.mean == pytest.approx(mean, abs=1e-6)
    assert found.sd == pytest.approx(np.sqrt(((over - mean) ** 2 * weight).sum() / weight.sum()), abs=1e-5)
    assert found.top == pytest.approx(0.15)


def test_what_was_measured_itself_is_held_against_the_prior_and_how_ways_differ():
    error, seen = 0.4, Measured(-0.07, 0.05)
    found = predict(error, [seen], transfer_sd=FAR_SD, asked=0)
    mean, sd = 0.44 * error, np.hypot(0.025 + 0.2 * error, FAR_SD)
    share = sd**2 / (sd**2 + seen.error**2)
    assert found.mean == pytest.approx(mean + share * (seen.gain - mean))
    assert found.sd == pytest.approx(seen.error * np.sqrt(share))
    assert found.above(0.01) < 0.2 < predict(error, [seen], transfer_sd=FAR_SD).above(0.01)


@given(ERRORS, st.floats(-0.3, 0.3), st.sampled_from([TRANSFER_SD, FAR_SD]))
def test_what_was_measured_without_an_error_is_known_for_sure(error, gain, transfer_sd):
    found = predict(error, [Measured(gain, 0.0)], transfer_sd=transfer_sd, asked=0)
    assert found.mean == pytest.approx(gain, abs=1e-9)
    assert 0 < found.sd < 1e-5
    assert all(np.isfinite(value) for value in found.as_dict(0.01).values())


def test_that_few_images_are_answered_alike_leaves_doubt():
    n, found = 4, Measured.on(0.0, 0.0, 4)
    gained, lost = 1 / (n + 2), 1 / (n + 2)
    assert found.error == pytest.approx(np.sqrt((gained + lost - (gained - lost) ** 2) / (n + 2)))
    assert Measured.on(0.1, 0.05, 100) == Measured(0.1, 0.05)
    assert predict(0.3, [found], asked=0).above(0.01) > 0.2


@given(ERRORS, MEASURED)
def test_probabilities_fall_with_the_gain_and_means_lie_within_the_interval_of_what_can_be(error, measured):
    found = predict(error, measured)
    said = [found.above(gain) for gain in (0.0, 0.01, 0.05, 0.2, 1.0)]
    assert said == sorted(said, reverse=True)
    assert said[-1] == 0
    assert all(0 <= p <= 1 for p in said)
    assert -1e-12 <= found.expected <= found.top + 1e-12
    assert 0 <= found.quantile(0.025) <= found.quantile(0.975) <= found.top


@given(ERRORS, MEASURED, st.integers(0, 3))
def test_measurements_only_narrow_it_and_their_order_is_nothing(error, measured, at):
    found = predict(error, measured)
    assert found.sd <= predict(error).sd + 1e-12
    again = predict(error, measured[::-1])
    assert (again.mean, again.sd) == (pytest.approx(found.mean, abs=1e-9), pytest.approx(found.sd))
    if at < len(measured):
        plain, turned = predict(error, measured, at), predict(error, measured[::-1], len(measured) - 1 - at)
        assert (turned.mean, turned.sd) == (pytest.approx(plain.mean, abs=1e-9), pytest.approx(plain.sd))


def test_nothing_is_gained_where_nothing_is_wrong_or_no_more_than_is_asked_for():
    assert predict(0.0).expected == 0
    assert predict(0.008).above(0.01) == 0
    assert predict(0.1, [Measured(0.095, 0.01)], best=0).above(0.01) == 0


def test_what_is_said_is_the_gain_its_interval_and_the_probability():
    said = predict(0.3).as_dict(0.01)
    assert list(said) == ["gain", "low", "high", "p"]
    assert said["low"] <= said["gain"] <= said["high"]
