"""So many images of each class, drawn several times."""

import numpy as np


def draw_shots(y: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Draw `shots` rows of each class, or all where it has fewer: (n,) codes -> row numbers, class by class.

    As big_vision's evaluators do; the draws of one seed are nested: more images a class are these and others.
    """
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(y == code))[:shots] for code in np.unique(y)])


def too_few(y: np.ndarray, shots: int, classes: list[str]) -> list[str]:
    """Say which classes have fewer images than are drawn."""
    counts = np.bincount(y, minlength=len(classes))
    small = [f"{classes[code]} ({counts[code]})" for code in np.flatnonzero((counts > 0) & (counts < shots))]
    if not small:
        return []
    listed = ", ".join(small[:5]) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
    return [f"of {len(small)} classes all images are taken, as there are fewer than {shots}: {listed}"]
