"""The program of a run: pixels of cropped images -> probabilities, as one module that exporters can trace.

What `classify.scoring` says in numpy and float64 is said here in torch and float32; `check` holds one against the
other, and both against `predict`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from classify.deployed import Bundle
from classify.scoring import CENTRE_WIDTH, COSINE_TEMPERATURE, VOTE_FLOOR, Arrays
from extract.errors import ExportError
from extract.forward import Extractor
from extract.runners.network import build_network, rounded


def unit(rows: Tensor) -> Tensor:
    """Scale each row to length 1, zero rows left as they are: (N, D) -> (N, D)."""
    norms = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(norms == 0, torch.ones_like(norms), norms)


def signed_root_unit(rows: Tensor) -> Tensor:
    """Take sign(x) sqrt(|x|), then scale each row to length 1: (N, D) -> (N, D)."""
    return unit(rows.sign() * rows.abs().sqrt())


def unchanged(rows: Tensor) -> Tensor:
    """Return the rows as they are."""
    return rows


ROWWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "none": unchanged,
    "std": unchanged,
    "l2": unit,
    "pow": signed_root_unit,
    "pcaw": unchanged,
}
"""By transform, the part of it that needs no fitting, as `scoring.ROWWISE`."""

SHARES: dict[str, Callable[[Tensor], Tensor]] = {"single": lambda scores: scores.softmax(1), "multi": torch.sigmoid}
"""By task, scores (N, C) -> probabilities."""


class LinearHead(nn.Module):
    """Rows (N, D) -> scores (N, C); what standardises them is part of the weights."""

    mean: Tensor
    coef: Tensor
    intercept: Tensor

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        _keep(self, {**arrays, "coef": arrays["coef"] / arrays["scale"]}, ("mean", "coef", "intercept"))

    def forward(self, rows: Tensor) -> Tensor:
        """Score rows."""
        return (rows - self.mean) @ self.coef.T + self.intercept


class CentroidHead(nn.Module):
    """Rows (N, D) -> scores (N, C) by the squared distance of unit rows to each centre."""

    centroids: Tensor

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        _keep(self, arrays, ("centroids",))

    def forward(self, rows: Tensor) -> Tensor:
        """Score rows."""
        near, centres = unit(rows), self.centroids
        squared = (near**2).sum(1, keepdim=True) - 2 * near @ centres.T + (centres**2).sum(1)
        return -squared / CENTRE_WIDTH


class KnnHead(nn.Module):
    """Rows (N, D) -> scores (N, C): log of the shares of votes of the k nearest, weighted exp(cosine / 0.07)."""

    known: Tensor
    codes: Tensor

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        known = arrays["rows"].astype(np.float64)
        norms = np.linalg.norm(known, axis=1, keepdims=True)
        _keep(self, {"known": known / np.where(norms == 0, 1, norms)}, ("known",))
        self.register_buffer("codes", torch.from_numpy(arrays["codes"].astype(np.int64)))
        self.k, self.n_classes = int(arrays["k"]), int(arrays["codes"].max()) + 1

    def forward(self, rows: Tensor) -> Tensor:
        """Score rows."""
        asked, known = unit(rows), self.known
        near = asked @ known.T - ((asked**2).sum(1, keepdim=True) + (known**2).sum(1)) / 2
        nearest, at = near.topk(self.k, dim=1)
        votes = rows.new_zeros(rows.shape[0], self.n_classes)
        votes = votes.scatter_add(1, self.codes[at], (nearest / COSINE_TEMPERATURE).exp())
        return (votes / votes.sum(1, keepdim=True)).clamp(min=VOTE_FLOOR).log()


HEADS: Mapping[str, Callable[[Arrays], nn.Module]] = {
    "linear": LinearHead,
    "centroid": CentroidHead,
    "knn": KnnHead,
}
"""By the kind of a head, as `scoring.SCORERS`."""


class Program(nn.Module):
    """Pixels (N, 3, S, S) uint8, RGB, resized and cropped -> probabilities (N, C) float32.

    It normalises, runs the network up to the run's layers, pools, joins, transforms, scores and calibrates. The network
    computes in fp32 whatever the run's precision is; rows are rounded to float16 where the run's are.
    """

    def __init__(self, bundle: Bundle, extractor: Extractor) -> None:
        super().__init__()
        if bundle.kind not in HEADS:
            said = f"the head {bundle.head} is a model of scikit-learn's and no formula"
            raise ExportError(
                said, where=" + ".join(bundle.layers), remedy="Fit again with a head of ours: --head logistic"
            )
        # In the plain order of memory: `torch.export` takes weights in another one for parts of something larger.
        self.network = build_network(extractor, "fp32").to(memory_format=torch.contiguous_format)
        self.head = HEADS[bundle.kind](bundle.arrays)
        self._layers, self._store = bundle.layers, extractor.recipe.store
        self._rowwise, self._shares = ROWWISE[bundle.transform], SHARES[bundle.task]
        self._temperature = bundle.temperature

    def forward(self, pixels: Tensor) -> Tensor:
        """Answer for images."""
        found = rounded(self.network(pixels), self._store)
        rows = [found[layer].float() for layer in self._layers]
        joined = rows[0] if len(rows) == 1 else torch.cat([unit(each) for each in rows], 1)
        return self._shares(self.head(self._rowwise(joined)) / self._temperature)


def _keep(module: nn.Module, arrays: Arrays, names: tuple[str, ...]) -> None:
    """Keep arrays in a module as float32."""
    for name in names:
        module.register_buffer(name, torch.from_numpy(np.asarray(arrays[name], np.float32)))
