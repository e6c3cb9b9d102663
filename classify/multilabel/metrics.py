"""How good, with several labels an image: each metric with its 95 % interval, and the classes one by one."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, hstack

from classify.evaluate import Resamples, interval, mean_of, per_unit
from classify.multilabel.data import Part
from classify.multilabel.ranking import average_precisions, drawn_aps, mean_ap
from extract.errors import FitError

METRICS = ("map", "micro_f1", "macro_f1", "subset_accuracy")
PER_CLASS = ("precision", "recall", "f1")
Interval = dict[str, float]


@dataclass(frozen=True)
class Measures:
    """`overall` has an interval for each metric; `per_class` one for ap, precision, recall and f1, None for 0 / 0."""

    overall: dict[str, Interval]
    per_class: list[dict[str, Interval | None]]


def evaluate_multi(
    part: Part,
    scores: np.ndarray,
    predicted: np.ndarray,
    resamples: Resamples,
    *,
    form: str = "area",
    losses: np.ndarray | None = None,
) -> Measures:
    """Measure scores (n, k) by ranking and predicted (n, k) bool as sets; losses (n,) add a log-loss.

    mAP and macro F1 are means over the classes that occur; a label that is no class is a miss in micro F1, and its
    image is wrong in subset accuracy. Raises FitError where no row has any of the classes.
    """
    if not part.Y.any():
        said = f"none of the {len(part)} images has a label that was learned"
        raise FitError(said, remedy="Give labels such as cat|dog, of the classes that the run knows")
    ap, aps = average_precisions(part.Y, scores, form), drawn_aps(part.Y, scores, *_drawn(resamples), form)
    tallies = _tallies(part, predicted)
    counts = per_unit(tallies, resamples.unit).T @ resamples.counts
    value, drawn = (_from_tallies(each) for each in (tallies.sum(axis=0)[:, None], counts))
    wide = resamples.widening
    overall = {"map": interval(float(mean_ap(ap)), mean_ap(aps), wide)}
    overall |= {name: interval(float(value[name][0]), drawn[name], wide) for name in METRICS[1:]}
    if losses is not None:
        overall["log_loss"] = mean_of(losses, resamples)
    classes = range(part.Y.shape[1])
    by_class = [{name: _maybe(value[name][at], drawn[name][at], wide) for name in PER_CLASS} for at in classes]
    return Measures(overall, [{"ap": _maybe(ap[at : at + 1], aps[at], wide)} | by_class[at] for at in classes])


def _drawn(resamples: Resamples) -> tuple[np.ndarray, np.ndarray]:
    return resamples.unit, resamples.counts


def _maybe(value: np.ndarray, drawn: np.ndarray, widening: float) -> Interval | None:
    return None if np.isnan(value[0]) else interval(float(value[0]), drawn, widening)


def _tallies(part: Part, predicted: np.ndarray) -> csr_array:
    """Count for each row its labels, its predictions, where they agree, unknown labels, and 1 if all is right."""
    exact = (predicted == part.Y).all(axis=1) & (part.unknown == 0)
    blocks = [part.Y, predicted, part.Y & predicted, part.unknown[:, None], exact[:, None], np.ones((len(part), 1))]
    return csr_array(hstack([csr_array(block.astype(np.float32)) for block in blocks], format="csr"))


def _from_tallies(tallies: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics of each draw: (3 k + 3, B) -> (B,), and (k, B) of single classes; NaN for 0 / 0."""
    tallies = np.asarray(tallies, dtype=np.float64)
    support, guesses, hits = np.split(tallies[:-3], 3)
    unknown, exact, n = tallies[-3:]
    f1 = _share(2 * hits, support + guesses)
    micro = _share(2 * hits.sum(axis=0), (support + guesses).sum(axis=0) + unknown)
    return {
        "precision": _share(hits, guesses),
        "recall": _share(hits, support),
        "f1": f1,
        "micro_f1": micro,
        "macro_f1": mean_ap(f1),
        "subset_accuracy": exact / n,
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
