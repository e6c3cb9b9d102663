"""Several labels an image: label sets, their split, metrics, thresholds, and a classifier for each class."""
