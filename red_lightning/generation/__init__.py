"""Decoding text with a backbone, edited or not."""

from red_lightning.generation.decoding import Decoding, decode

__all__ = ["Decoding", "decode"]
