"""A run as a small HTTP server: images in, the answers of `predict` out."""
