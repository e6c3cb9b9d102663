import numpy as np
import pytest

from classify.evaluate import draw_resamples
from classify.multilabel.choose import cheapest_of_the_best, corrected
from classify.multilabel.ranking import average_precisions, drawn_aps, mean_ap


def test_the_cheapest_within_one_error_of_the_paired_difference_is_chosen():
    luck = np.random.default_rng(0).normal(size=200) * 0.1
    own = np.random.default_rng(1).normal(size=(3, 200)) * [[0.0], [0.01], [0.01]]
    values = np.array([0.9, 0.895, 0.85])
    drawn = values[:, None] + luck + own
    assert cheapest_of_the_best(values, drawn, [2, 1, 0]) == 1  # one alone errs by 0.1, two together by 0.01
    assert cheapest_of_the_best(values, drawn, [0, 1, 2]) == 0


def test_of_equal_bests_the_cheapest_is_the_measure():
    assert cheapest_of_the_best(np.array([0.5, 0.5]), np.full((2, 10), 0.5), [1, 0]) == 1


def test_the_best_of_many_guesses_is_worth_no_more_than_the_others():
    naive, fair = zip(*(best_of_guesses(seed) for seed in range(6)), strict=True)
    assert np.mean(naive) > 0.06
    assert np.mean([each["value"] for each in fair]) == pytest.approx(0, abs=0.02)
    assert all(each["low"] < 0 < each["high"] for each in fair)


def best_of_guesses(seed: int) -> tuple[float, dict[str, float]]:
    """How far the best of 40 guesses is above their mean: as it stands, and corrected."""
    rng = np.random.default_rng(seed)
    Y, guesses, resamples = rng.random((100, 2)) < 0.5, rng.normal(size=(40, 100, 2)), draw_resamples(100, None, seed)

    def drawn(at: int, counts: np.ndarray) -> np.ndarray:
        return mean_ap(drawn_aps(Y, guesses[at], resamples.unit, counts))

    counts = resamples.counts[:, :60]
    everything = np.stack([drawn(at, counts) for at in range(40)])
    values = np.array([float(mean_ap(average_precisions(Y, each))) for each in guesses])
    fair = corrected(values, everything, int(values.argmax()), counts, drawn)
    return values.max() - values.mean(), {name: each - values.mean() for name, each in fair.items()}


def test_one_alone_needs_no_correction():
    counts = draw_resamples(30, None, 0).counts[:, :50]
    fair = corrected(np.array([0.7]), np.full((1, 50), 0.7), 0, counts, lambda _, some: some.mean(axis=0))
    assert fair["value"] == pytest.approx(0.7)
