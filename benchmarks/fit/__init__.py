"""Fitting beside scikit-learn on the same data and folds."""
