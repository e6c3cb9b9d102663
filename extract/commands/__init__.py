"""The commands about images and features, one file for each kind."""
