"""The commands about classifiers, one file for each kind."""
