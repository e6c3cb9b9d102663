from dataclasses import asdict, replace

import numpy as np
import pytest
from tiny_features import blobs
from tiny_task import tiny_task

from classify.choice import Pool, beside, by_fold, choose, selection, shortlist
from classify.evaluate import wilson
from classify.heads import HEADS
from classify.probe import loo
from classify.probe.memo import Kept, memo
from classify.search import candidates, scan_one, search, side_by_side
from classify.solvers import solver_of
from classify.statistics import corrected_t, drawn, paired_errors
from classify.trials import Candidate, Trial

LOGISTIC = solver_of(HEADS["logistic"])


def taps_of(y, **distances):
    return {name: blobs(y, 8, seed, distance) for seed, (name, distance) in enumerate(distances.items())}


def dims_of(taps):
    return {name: X.shape[1] for name, X in taps.items()}


def test_every_tap_is_scanned_in_every_transform_and_the_best_are_refined():
    y = np.arange(90) % 3
    taps = taps_of(y, early=0.0, middle=0.2, late=3.0)
    task = tiny_task(y, taps)
    found = search(task, LOGISTIC, dims_of(taps))
    scanned = [trial for trial in found.trials if trial.stage == "scan"]
    assert len(scanned) == 9
    assert {trial.how for trial in scanned} == {"exact leave-one-out"}
    assert found.best.candidate.layers == ("late",)
    assert found.best.stage == "refine"
    assert [trial.candidate.layers for trial in found.per_layer] == [("early",), ("middle",), ("late",)]
    refined = {trial.candidate.layers for trial in found.trials if trial.stage == "refine"}
    assert ("early", "middle", "late") in refined
    n_lams = len(scanned[0].tried)
    assert found.selection["n_configurations"] == 9 * n_lams + len(found.trials) - 9


def test_sixty_configurations_of_noise_are_corrected_to_chance():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    taps = {f"tap{number}": rng.normal(size=(200, 4)).astype(np.float32) for number in range(20)}
    found = search(tiny_task(y, taps), LOGISTIC, dims_of(taps))
    corrected, naive = found.selection["corrected"], found.selection["naive"]
    assert corrected["low"] <= 0.5 <= corrected["high"]
    assert corrected["value"] < naive["value"]


def test_a_second_search_scans_nothing_and_one_with_other_labels_decomposes_nothing(tmp_path, monkeypatch):
    y = np.arange(60) % 3
    taps = taps_of(y, a=1.0)
    kept = Kept(memo(tmp_path), {"features": "these"})
    first = search(tiny_task(y, taps, kept=kept), LOGISTIC, dims_of(taps))
    monkeypatch.setattr(loo, "_decomposed", None)
    other = search(tiny_task(1 - y % 2, taps, kept=kept), LOGISTIC, dims_of(taps))
    assert other.selection == search(tiny_task(1 - y % 2, taps, kept=kept), LOGISTIC, dims_of(taps)).selection
    monkeypatch.setattr("classify.search.scan", None)
    again = search(tiny_task(y, taps, kept=kept), LOGISTIC, dims_of(taps))
    assert again.selection == first.selection
    with pytest.raises(TypeError):
        search(tiny_task(y, taps, kept=kept.about(features="others")), LOGISTIC, dims_of(taps))


def test_the_correction_is_what_choosing_adds_and_not_what_more_training_rows_do():
    y = np.arange(200) % 2
    task = tiny_task(y, {"tap": blobs(y, 2)})
    # The scan's trial is better throughout, as one that was fitted on more rows; nothing hangs on which is chosen.
    scanned, best = trial(0, 8, "std", 0.95, y), trial(0, 8, "std", 0.9, y)
    found = selection(task, best, [scanned], [best], "")
    assert found["naive"]["value"] == 0.9
    assert found["corrected"]["value"] == pytest.approx(0.9, abs=0.005)
    assert found["corrected"]["low"] < 0.9 < found["corrected"]["high"]


def test_the_corrected_interval_holds_the_score_however_few_draws_err():
    y = np.arange(24) % 2
    task = tiny_task(y, {"tap": blobs(y, 2)})
    best = trial(0, 8, "std", 1.0, y)
    found = selection(task, best, [best], [best], "")
    assert found["corrected"] == {"value": 1.0, "low": found["naive"]["low"], "high": 1.0}
    assert found["naive"]["low"] < 0.9


def trial(depth, dims, transform, accuracy, y, strength=0.0, seed=0):
    rng = np.random.default_rng(seed)
    predicted = y.copy()
    wrong = rng.permutation(len(y))[: round((1 - accuracy) * len(y))]
    predicted[wrong] = 1 - predicted[wrong]
    at = Candidate((f"tap{depth}",), transform, dims, depth)
    value = float((predicted == y).mean())
    metrics = {"accuracy": dict(zip(("value", "low", "high"), (value, *wilson(value * len(y), len(y))), strict=True))}
    return Trial(at, "logistic", {"C": -strength}, predicted, metrics, 0.0, strength=strength)


def test_ties_go_to_the_shallower_the_narrower_the_plainer_and_the_more_regularised():
    y = np.arange(200) % 2
    task = tiny_task(y, {"tap": blobs(y, 2)})
    deep, wide = trial(2, 8, "std", 0.9, y), trial(1, 64, "std", 0.9, y)
    rooted, free = trial(1, 8, "pow", 0.9, y), trial(1, 8, "std", 0.9, y, strength=-10.0)
    plain = trial(1, 8, "std", 0.9, y, strength=-0.1)
    for order in ([deep, wide, rooted, free, plain], [plain, free, rooted, wide, deep]):
        assert choose(task, order)[0] is plain


def test_one_standard_error_takes_the_cheap_one_and_says_so_and_no_further():
    y = np.arange(400) % 2
    task = tiny_task(y, {"tap": blobs(y, 2)})
    best, near, far = trial(3, 64, "std", 0.95, y), trial(1, 8, "std", 0.94, y, seed=1), trial(0, 4, "std", 0.8, y)
    chosen, rule = choose(task, [best, near, far])
    assert chosen is near
    assert "tap3" in rule


def test_the_scan_keeps_the_best_three():
    y = np.arange(60) % 3
    taps = taps_of(y, a=0.0, b=1.0)
    task = tiny_task(y, taps)
    scanned = [scan_one(task, each) for each in candidates(task, LOGISTIC, dims_of(taps))]
    kept = shortlist(task, scanned)
    assert 1 <= len(kept) <= 3
    assert all(each.layers == ("b",) for each in kept)


def test_what_is_clearly_worse_than_the_best_is_not_refined():
    y = np.arange(400) % 2
    task = tiny_task(y, {"tap": blobs(y, 2)})
    best, near, far = trial(0, 8, "std", 0.95, y), trial(1, 8, "std", 0.945, y, seed=1), trial(2, 8, "std", 0.85, y)
    assert shortlist(task, [far, near, best]) == [best.candidate, near.candidate]


def test_heads_are_given_the_transforms_that_they_take():
    y = np.arange(60) % 3
    taps = taps_of(y, a=1.0, b=1.0)
    knn = solver_of(HEADS["knn"])
    assert {each.transform for each in candidates(tiny_task(y, taps), knn, dims_of(taps))} == {"l2", "pow"}
    assert side_by_side(dims_of(taps), knn) == []
    assert side_by_side({"a": 8}, LOGISTIC) == []


@pytest.mark.parametrize("limit", [False, True])
def test_what_makes_the_choice_less_sure_is_told(limit, monkeypatch):
    y = np.arange(60) % 3
    taps = taps_of(y, a=1.0)

    class Stuck:
        head, transforms = LOGISTIC.head, LOGISTIC.transforms

        def refine(self, *given):
            return [replace(each, converged=False, at_limit=limit) for each in LOGISTIC.refine(*given)]

    notes = " ".join(search(tiny_task(y, taps), Stuck(), dims_of(taps)).notes)
    assert "did not converge, the chosen one among them" in notes
    assert ("a better one may lie beyond" in notes) == limit


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_made_anew_in_each_draw_as_the_search_makes_it(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 120)
    taps = {f"t{at}": blobs(y, int(rng.integers(4, 7)), seed * 10 + at, rng.uniform(0.1, 0.4)) for at in range(4)}
    task = tiny_task(y, taps)
    found = search(task, LOGISTIC, dims_of(taps))
    scanned, refined = ([t for t in found.trials if t.stage == stage] for stage in ("scan", "refine"))
    pool = Pool.of(scanned, refined)
    draws = drawn(pool.predicted, y, task.resamples, task.metric)
    values = task.values(pool.predicted)[:, None]
    [row] = pool.chosen(values, paired_errors(draws))
    assert (pool.predicted[row] == found.best.predicted).all()
    assert len(pool.predicted) == found.selection["n_configurations"]
    chosen = pool.choose(draws)
    assert pool.final[chosen].all()


def test_what_choosing_takes_is_taken_off_and_no_more():
    """The cheap one is chosen by the rule: the score of the dear one, which it did not reach, is none of its own."""
    y = np.arange(400) % 2
    task = tiny_task(y, {"tap": blobs(y, 2)})
    trials = [replace(trial(at, 8, "std", accuracy, y, seed=3), stage="scan") for at, accuracy in ((1, 0.9), (2, 0.91))]
    found = selection(task, trials[0], trials, [replace(each, stage="refine") for each in trials], "")
    assert found["naive"]["value"] == 0.9
    assert 0.88 < found["corrected"]["value"] <= 0.9
    assert found["corrected"]["low"] < 0.9 < found["corrected"]["high"]


def test_the_others_are_compared_fold_by_fold():
    y = np.arange(400) % 2
    task = tiny_task(y, {"tap": blobs(y, 2)})
    best, near, worse = trial(1, 8, "std", 0.9, y), trial(2, 8, "std", 0.88, y, seed=1), trial(2, 8, "std", 0.7, y)
    [found] = beside(task, best, [best, near, worse])
    assert (found["layers"], found["value"]) == (["tap2"], 0.88)
    rates = [[(each.predicted[test] == y[test]).mean() for _, test in task.folds] for each in (best, near)]
    expected = corrected_t(np.subtract(*rates), 300, 100)
    assert by_fold(task, best, near) == expected
    assert (found["mean"], found["low"], found["high"], found["p"]) == tuple(asdict(expected).values())


def test_a_tap_that_gives_the_rows_of_another_takes_no_place():
    y = np.arange(90) % 3
    taps = taps_of(y, early=0.2, late=0.6, other=0.5)
    rounded = taps["late"].astype(np.float16).astype(np.float32)
    taps = {"early": taps["early"], "late": taps["late"], "again": rounded, "other": taps["other"]}
    found = search(tiny_task(y, taps), LOGISTIC, dims_of(taps))
    refined = {each.candidate.layers for each in found.trials if each.stage == "refine"}
    assert ("early", "late", "other") in refined
    assert not any("again" in layers for layers in refined)
    assert [each.candidate.layers[0] for each in found.per_layer] == list(taps)
    assert found.per_layer[2].how == "exact leave-one-out; the rows of late, and not refined"
    assert "late" not in found.per_layer[3].how
