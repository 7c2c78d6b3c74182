"""Steering vector: ``h + v``, v the mean difference of paired texts' activations (arXiv 2312.06681, section 3)."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import attach, edited_modules, freeze, require_unedited, trainable
from red_lightning.errors import UsageError
from red_lightning.families import Architecture
from red_lightning.families.positions import position_limit
from red_lightning.methods.method import Method
from red_lightning.methods.red import RepresentationEditor

SIDES = ("positive", "negative")
"""The columns of the file of pairs."""


class SteeringVector(Method):
    """Contrastive activation addition: a vector that is computed from pairs of texts, without training.

    The vector is the mean over the pairs of the difference of a block's output at the last token, positive minus
    negative. It is added to the block's output at every token. The paper adds it after the user's prompt only, but a
    text to classify has no such place. ``fit`` computes it, validates once and tests. A classification head is trained
    on top of it as usual.

    Args:
        pairs: JSONL file with a ``positive`` and a ``negative`` text per line, which differ only in what is steered. In
            the paper: a question with either answer.
        layer: Block whose output is steered, counted from 0 (negative: from the last). Middle layers work best (paper,
            section 4: 13 for Llama 2 7B).
        strength: Factor of the vector. A negative factor steers away.
    """

    combines = "affine"
    computed = True
    files = ("pairs",)

    def __init__(self, pairs: str, layer: int, strength: float = 1.0) -> None:
        self.pairs, self.layer, self.strength = pairs, layer, strength

    @classmethod
    def limit(cls, record: Architecture | None, has_head: bool) -> str:
        """Refuse encoder-decoders, and families whose blocks' output is no module."""
        if record and record.encoder_decoder:
            return (
                "is the difference that a text makes to the decoder which continues it, but in "
                f"{record.name} the encoder reads the text; choose a decoder"
            )
        if record and "residual" not in record.sites:
            return f"is added to the output of a block, which in {record.name} is the output of no module; choose RED"
        return super().limit(record, has_head)

    def apply(self, backbone: Any) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach the vector, which is zero until it is computed.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The vector, such as ``model.layers.13.editor.bias``: float32, shape (width,).

        Raises:
            UsageError: The layer does not exist, or the backbone is an encoder-decoder.
        """
        require_unedited(backbone)
        if backbone.config.is_encoder_decoder:
            raise UsageError("SteeringVector steers the decoder that reads a text, not an encoder-decoder")
        sites = find_sites(backbone, ["residual"], [self.layer])
        freeze(backbone)
        for site in sites:
            attach(backbone, site, RepresentationEditor(site.width, scaling=False))
        return trainable(backbone)

    @torch.no_grad()
    def compute(self, backbone: nn.Module, tokenizer: Any) -> None:
        """Compute the vector from the pairs.

        Raises:
            UsageError: The file cannot be read, or one of its texts is too long.
        """
        pairs = _read(Path(self.pairs))
        ((_, module),) = edited_modules(backbone)
        (vector,) = trainable(backbone).values()
        vector.zero_()
        training = backbone.training
        backbone.eval()
        differences = []
        for number, pair in enumerate(pairs, start=1):
            where = f"line {number} of '{self.pairs}'"
            positive, negative = (_last_state(backbone, module, tokenizer, pair[side], where) for side in SIDES)
            differences.append(positive - negative)
        backbone.train(training)
        vector.copy_(self.strength * torch.stack(differences).mean(0))


def _read(path: Path) -> list[dict[str, str]]:
    """Read the pairs of texts."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"model.method.pairs '{path}' cannot be read: {reason}") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        try:
            pair = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"line {number} of model.method.pairs '{path}' is no JSON: {error}") from error
        for side in SIDES:
            text = pair.get(side) if isinstance(pair, dict) else None
            if not isinstance(text, str) or not text:
                raise UsageError(
                    f"line {number} of model.method.pairs '{path}' has no text '{side}'; each line needs both, as in "
                    '{"positive": "...", "negative": "..."}'
                )
        pairs.append(pair)
    if not pairs:
        raise UsageError(f"model.method.pairs '{path}' is empty; give a pair of texts in each line")
    return pairs


def _last_state(backbone: Any, module: nn.Module, tokenizer: Any, text: str, where: str) -> Tensor:
    """Return a module's output at the last token of a text: float32, shape (width,)."""
    tokens = tokenizer(text, return_tensors="pt")["input_ids"].to(backbone.device)
    limit = position_limit(backbone.config)
    if limit is not None and tokens.shape[1] > limit:
        raise UsageError(
            f"{where} has a text of {tokens.shape[1]} tokens, but the backbone has {limit} positions; shorten it"
        )
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, args, output: seen.append(output))
    try:
        backbone(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    finally:
        hook.remove()
    hidden = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    return hidden[0, -1].float()
