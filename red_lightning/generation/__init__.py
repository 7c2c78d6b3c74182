"""Decoding text with a backbone, edited or not."""

from red_lightning.generation.decoding import decode
from red_lightning.generation.decoding_options import FOR_E2E, FOR_INSTRUCTIONS, Decoding
from red_lightning.generation.edit_bank import EditBank
from red_lightning.generation.prompts import Prompt, PromptStyle
from red_lightning.generation.writer import Writer

__all__ = ["FOR_E2E", "FOR_INSTRUCTIONS", "Decoding", "EditBank", "Prompt", "PromptStyle", "Writer", "decode"]
