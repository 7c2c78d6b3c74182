"""Pretrain the quickstart's backbone: `python -m red_lightning.quickstart.pretrain --output DIR`.

The package ships the result in `red_lightning/quickstart/backbone`. On one machine, with as many threads, the
same seed gives the same files byte for byte.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from red_lightning.quickstart.bpe import EOS_ID, save_tokenizer, train_tokenizer
from red_lightning.quickstart.corpus import pretraining_pairs

VOCAB_SIZE = 1000
MAX_LENGTH = 256
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
TOKENIZER_PAIRS = 8000
POOL = 16
IGNORED = -100

CONFIG: dict[str, Any] = {
    "about": "Pretrained by red_lightning.quickstart.pretrain on sentences of its own grammar; Apache-2.0.",
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "torch_dtype": "float32",
    "activation_function": "gelu_pytorch_tanh",
    "vocab_size": VOCAB_SIZE,
    "n_positions": MAX_LENGTH,
    "n_embd": 128,
    "n_layer": 8,
    "n_head": 4,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "bos_token_id": EOS_ID,
    "eos_token_id": EOS_ID,
}


def pretrain(folder: Path, steps: int = 1200, seed: int = 0) -> None:
    """Train the tokenizer and the backbone, and write both.

    Args:
        folder: Where to write; made if it does not exist.
        steps: How many batches to train on.
        seed: Seeds the weights and the corpus.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    texts = (text for pair in islice(pretraining_pairs(seed), TOKENIZER_PAIRS) for text in pair)
    tokenizer = train_tokenizer(texts, VOCAB_SIZE)
    model = AutoModelForCausalLM.from_config(GPT2Config(**CONFIG), attn_implementation="eager")
    train(model, batches(tokenizer, seed), steps)
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder, MAX_LENGTH)
    save_model(model, folder)


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield input ids and labels without end, each row a pair of like length to its neighbours'."""
    pairs = pretraining_pairs(seed)
    order = random.Random(seed)
    while True:
        pool = [encode(tokenizer, *pair) for pair in islice(pairs, BATCH_SIZE * POOL)]
        # Rows of like length together: a quarter of the work would else be spent on padding.
        pool.sort(key=lambda row: len(row[0]))
        starts = list(range(0, len(pool), BATCH_SIZE))
        order.shuffle(starts)
        for start in starts:
            ids, labels = zip(*pool[start : start + BATCH_SIZE], strict=True)
            yield (
                pad_sequence(list(ids), batch_first=True, padding_value=EOS_ID),
                pad_sequence(list(labels), batch_first=True, padding_value=IGNORED),
            )


def encode(tokenizer: Tokenizer, source: str, target: str) -> tuple[Tensor, Tensor]:
    """Return the ids `source EOS target EOS` and their labels, which are the target's part."""
    prompt = [*tokenizer.encode(source).ids, EOS_ID]
    answer = [*tokenizer.encode(target).ids, EOS_ID]
    return torch.tensor(prompt + answer), torch.tensor([IGNORED] * len(prompt) + answer)


def train(model: GPT2LMHeadModel, data: Iterator[tuple[Tensor, Tensor]], steps: int) -> None:
    """Run the training loop: AdamW, a linear warm-up, then a linear decay to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, 1 - step / steps)
    )
    model.train()
    start = time.monotonic()
    for step, (ids, labels) in enumerate(islice(data, steps), start=1):
        loss = answer_loss(model, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step}/{steps}, loss {loss.item():.3f}, {time.monotonic() - start:.0f} s", flush=True)


def answer_loss(model: GPT2LMHeadModel, ids: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss; only the labelled positions go through the output layer, which saves a tenth."""
    wanted = labels[:, 1:] != IGNORED
    hidden = model.transformer(input_ids=ids).last_hidden_state[:, :-1]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), labels[:, 1:][wanted])


def save_model(model: GPT2LMHeadModel, folder: Path) -> None:
    """Write the weights, halved to 16 bits and without the output layer, which is tied to the embeddings."""
    weights = {
        name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Pretrain the quickstart's backbone.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the backbone to")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pretrain(arguments.output, arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
