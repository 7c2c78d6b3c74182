"""What the tests of methods that act on sequences share: a batch of texts, and a model's outputs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from red_lightning.adapters import apply_edits, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.errors import UsageError
from red_lightning.methods import Method
from tests.backbones_zoo import build

INPUT = torch.tensor([[5, 6, 7, 8, 21], [9, 10, 11, 12, 22], [13, 14, 15, 16, 23]])
TEXTS = [[5, 6, 7], [9, 10, 11, 12, 13, 14], [20, 21, 22, 23]]
"""Texts of different lengths."""


def hidden(model: nn.Module, inputs: Tensor = INPUT, **extra: Any) -> Tensor:
    """The logits, or the last hidden states of a model without a language-model head."""
    config: Any = model.config
    if config.is_encoder_decoder:
        extra = {"decoder_input_ids": INPUT, **extra}
    with torch.no_grad():
        return model(input_ids=inputs, **extra)[0]


def padded(texts: list[list[int]], left: bool) -> dict[str, Tensor]:
    """A batch of texts, padded with EOS, which is masked."""
    width = max(map(len, texts))
    gaps = [[0] * (width - len(text)) for text in texts]
    rows = [gap + text if left else text + gap for gap, text in zip(gaps, texts, strict=True)]
    masks = [[0] * len(gap) + [1] * len(text) for gap, text in zip(gaps, texts, strict=True)]
    mask = torch.tensor(masks if left else [mask[::-1] for mask in masks])
    return {"input_ids": torch.tensor(rows), "attention_mask": mask}


def generated(model: Any, texts: list[list[int]], beams: int) -> list[list[int]]:
    """What a model writes after each text of a padded batch: six new tokens."""
    batch = padded(texts, left=not model.config.is_encoder_decoder)
    rows = model.generate(**batch, max_new_tokens=6, min_new_tokens=6, num_beams=beams, do_sample=False, pad_token_id=0)
    return rows[:, -6:].tolist()


def randomise(parameters: dict[str, nn.Parameter], scale: float = 0.5) -> None:
    """Move what is learned far from its first values."""
    generator = torch.Generator().manual_seed(3)
    for parameter in parameters.values():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)


def two_steps(model: nn.Module, parameters: dict[str, nn.Parameter]) -> set[str]:
    """Take two steps of SGD.

    Returns:
        The names of the parameters that changed.
    """
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(parameters)
    config: Any = model.config
    extra = {"decoder_input_ids": INPUT} if config.is_encoder_decoder else {}
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=INPUT, **extra)[0].float().square().mean().backward()
        optimizer.step()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def check_round_trip(method: Method, family: str, folder: Path) -> None:
    """Edits make a fresh backbone what the trained one was, and cannot be merged."""
    model = build(family)
    record = {"backbone": family, "commit": None, "fingerprint": fingerprint(model), "method": method.describe()}
    parameters = method.apply(model)
    randomise(parameters)
    save_edits(folder, parameters, record)
    fresh = build(family)
    apply_edits(fresh, folder)
    assert torch.equal(hidden(fresh), hidden(model))
    with pytest.raises(UsageError, match=f"{type(method).__name__} cannot be merged"):
        method.fold(fresh)


def check_batch(method: Method, family: str, beams: int) -> None:
    """A padded batch generates what its rows do alone, and something else than the unedited backbone."""
    model = build(family)
    unedited = generated(model, TEXTS, beams)
    randomise(method.apply(model))
    rows = generated(model, TEXTS, beams)
    assert rows == [generated(model, [text], beams)[0] for text in TEXTS]
    assert rows != unedited


def check_cache(method: Method) -> None:
    """Generating with the cache writes what whole passes without it do."""
    model = build("llama")
    randomise(method.apply(model))
    tokens = torch.tensor(TEXTS[:1])
    for _ in range(6):
        tokens = torch.cat([tokens, hidden(model, tokens)[:, -1:].argmax(-1)], dim=1)
    assert tokens[:, -6:].tolist() == generated(model, TEXTS[:1], 1)


def hooks(model: nn.Module) -> int:
    """How many hooks there are."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
