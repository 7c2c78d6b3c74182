"""Edits of tiny backbones, as a run leaves them behind, and what plain transformers makes of their export."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from red_lightning.adapters import save_edits
from red_lightning.backbones import loading
from red_lightning.backbones.classification_head import ClassificationHead, HeadOptions
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.export import Merged
from red_lightning.methods import Method

TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18, 19, 20]])
PROGRAM = Path(__file__).with_name("plain_transformers.py")


def trained(
    run: Path,
    backbone: Path,
    method: Method,
    head: HeadOptions | None = None,
    labels: Sequence[str] = (),
    quantization: Any = None,
) -> tuple[nn.Module, ClassificationHead | None]:
    """Leave random edits of a backbone's folder behind, and return the edited model and its head."""
    options = loading.BackboneOptions(quantization=quantization)
    source = loading.find(str(backbone), options)
    is_encoder = head is not None or (
        source.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not source.config.is_encoder_decoder
    )
    if is_encoder:
        model = loading.load_encoder(source, options, head is not None and head.pooling == "pooler")
    else:
        model = loading.load_generator(source, options)
    record: dict[str, Any] = {
        "backbone": str(backbone),
        "commit": None,
        "fingerprint": fingerprint(model),
        "quantization": quantization,
        "task": "Classification" if is_encoder else "DataToText",
    }
    torch.manual_seed(3)
    learned: dict[str, Tensor] = dict(method.apply(model))
    for number, tensor in enumerate(learned.values()):
        tensor.data += 0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
    top = None
    if head is not None:
        top = ClassificationHead(model.config.hidden_size, max(len(labels), 1), bool(head.hidden)).eval()
        learned |= {f"head.{name}": tensor for name, tensor in top.state_dict().items()}
        record |= {"head": asdict(replace(head, dropout=0.1)), "labels": list(labels)}
    save_edits(run / "edits", learned, {**record, "method": method.describe()})
    return model.eval(), top


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    extra = {"decoder_input_ids": TOKENS} if model.config.is_encoder_decoder else {}
    return model(input_ids=TOKENS, **extra)[0].float()


def in_plain_transformers(merged: Sequence[Merged], folder: Path) -> dict[str, Tensor]:
    """The logits of exported models, by the name of their folder, from a process that cannot import the package."""
    places = [f"{one.folder}:{one.auto}" for one in merged]
    command = [sys.executable, str(PROGRAM), json.dumps(TOKENS.tolist()), str(folder / "logits"), *places]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "logits")
