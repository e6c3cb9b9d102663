"""Decoding in processes of their own: a decoder that crashes or hangs costs its image's row and nothing else."""

from extract.decoding.pool import Decoders

__all__ = ["Decoders"]
