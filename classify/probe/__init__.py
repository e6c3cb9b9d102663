"""The probe engine: linear heads fitted for many folds, penalties and transforms from shared work."""
