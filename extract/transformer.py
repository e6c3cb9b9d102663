"""Features as a step of scikit-learn: images in, rows out, nothing computed twice."""

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from extract.errors import BackboneError
from extract.features import check_errors, judge, rows_of, spec_of
from extract.forward import build_extractor
from extract.given import as_given, name_of
from extract.recipe import PENULTIMATE
from extract.spec import ExtractSpec


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Turns images into the features of a frozen network, which the cache keeps by content and recipe.

    X is a list or an array (n,) or (n, 1) of image files, a list of images of Pillow's, or uint8 RGB pixels
    (n, H, W, 3). `layers` are taps as in `layer3:gem`, side by side in the result (n, D) float32. An image without
    features raises ImageError, or with `errors="nan"` has a row of NaN, for a later step to take.

    After `fit`, which learns nothing from X: `key_`, the key of the recipe; `layers_`, the taps from shallow to deep;
    `widths_`, how many numbers each gives. It pickles as what it was told, without the network.
    """

    def __init__(
        self,
        model: str = "resnet18",
        *,
        layers: str | Sequence[str] = (PENULTIMATE,),
        weights: str = "auto",
        cache: str | os.PathLike[str] = "cache",
        errors: str = "raise",
        device: str = "auto",
    ) -> None:
        self.model = model
        self.layers = layers
        self.weights = weights
        self.cache = cache
        self.errors = errors
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check X and the options, and find out which recipe they make; y is ignored."""
        del y
        check_errors(self.errors)
        as_given(X)
        extractor = build_extractor(self._spec())
        self.key_ = extractor.recipe.key
        self.layers_ = [tap.name for tap in extractor.recipe.taps]
        self.widths_ = [extractor.shapes[layer][0] for layer in self.layers_]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of images: -> (n, D) float32.

        Raises ImageError for images that have none, and BackboneError where the weights are other ones than those of
        `fit`.
        """
        check_is_fitted(self)
        images, spec = as_given(X), self._spec()
        extractor = build_extractor(spec)
        if extractor.recipe.key != self.key_:
            said = "the weights, or the precision of the device, are not those of fit: features would be others"
            raise BackboneError(said, where=self.model, remedy="Fit again")
        rows, reasons = rows_of(images, extractor, spec)
        judge(reasons, [name_of(image, number) for number, image in enumerate(images)], self.errors)
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the numbers of a row, as in `layer4_17`: -> (D,) of str."""
        del input_features
        check_is_fitted(self)
        names = zip(self.layers_, self.widths_, strict=True)
        return np.array([f"{layer}_{i}" for layer, width in names for i in range(width)], object)

    def _spec(self) -> ExtractSpec:
        return spec_of(self.model, self.layers, self.weights, self.cache, self.device)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags
