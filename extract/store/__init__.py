"""The feature cache: immutable shards, and one small index that says which rows make up the data set now."""

from extract.store.reader import FeatureSet, list_features, open_features

__all__ = ["FeatureSet", "list_features", "open_features"]
