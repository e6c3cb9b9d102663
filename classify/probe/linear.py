"""A fitted linear head: what every solver of the engine ends in, and what a bundle of kind "linear" keeps."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores ((Z - mean) / scale) @ coef.T + intercept of rows Z after their row-wise map.

    mean, scale (D,), coef (k, D), intercept (k,), float64. All are finite but the intercept of a class that the
    training rows lack: -inf, so that it never wins. Two classes have a column each. Of ridge the second is sklearn's
    one, and the first its negative.
    """

    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, scale: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> "Linear":
        """Take a scale with inf for features that are dropped: they get weight 0 and scale 1."""
        kept = np.isfinite(scale)
        return cls(mean, np.where(kept, scale, 1.0), np.where(kept, coef, 0.0), intercept)

    def scores(self, Z: np.ndarray) -> np.ndarray:
        """Score each class: (n, D) -> (n, k) float64."""
        return ((Z - self.mean) / self.scale) @ self.coef.T + self.intercept

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by the names that `scoring.SCORERS["linear"]` knows."""
        return {"mean": self.mean, "scale": self.scale, "coef": self.coef, "intercept": self.intercept}
