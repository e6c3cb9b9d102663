"""The feature cache: immutable shards, and one small index that says which rows make up the data set now."""

from extract.store.folders import open_features
from extract.store.reader import FeatureSet

__all__ = ["FeatureSet", "open_features"]
