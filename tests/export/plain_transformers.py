"""A program that has never heard of the package: the logits of merged folders, by transformers alone.

``plain_transformers.py TOKENS OUT FOLDER:AUTO ...`` writes a safetensors file of each folder's logits.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

assert "red_lightning" not in sys.modules
sys.modules["red_lightning"] = None  # type: ignore[assignment]  # importing it fails
torch.set_num_threads(1)


@torch.no_grad()
def logits(folder: str, auto: str, tokens: torch.Tensor) -> torch.Tensor:
    model = getattr(transformers, auto).from_pretrained(folder).eval()
    extra = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    mask = torch.ones_like(tokens)
    if auto == "AutoModelForSequenceClassification":
        mask[1, 5:] = 0  # a padded row
    return model(input_ids=tokens, attention_mask=mask, **extra)[0].float()


if __name__ == "__main__":
    tokens = torch.tensor(json.loads(sys.argv[1]))
    places = [place.rsplit(":", 1) for place in sys.argv[3:]]
    save_file({Path(folder).name: logits(folder, auto, tokens).contiguous() for folder, auto in places}, sys.argv[2])
