"""Figures that others have published, and what ours come to where the weights and images are at hand."""
