"""Decoding in processes of their own: a decoder that crashes or hangs costs its image's row and nothing else."""

from extract.decoding.pool import Decoded, Decoder, allow_decoders
from extract.decoding.worker import NO_DIGEST

__all__ = ["NO_DIGEST", "Decoded", "Decoder", "allow_decoders"]
