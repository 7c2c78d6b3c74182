"""Decode a batch with a different adapter in each row, against one adapter for all rows."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Table
from red_lightning.benchmark.random_models import build, random_red, shape_of, token_ids
from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import shared_copy
from red_lightning.generation import EditBank

PROMPT = 16
"""Tokens of each prompt."""
SIZES = {"tiny": (3, 2), "small": (16, 16), "paper": (64, 64)}
"""Size -> rows, each with its own adapter, and new tokens of each row."""


def many_edits(settings: Settings) -> Iterator[Table]:
    """Time greedy decoding of a Llama with RED adapters, and with LoRA adapters of peft."""
    rows, tokens = SIZES[settings.size]
    backbone = build("llama", settings).eval()
    backbone.generation_config.eos_token_id = None  # every row gets all its tokens
    prompts = token_ids(shape_of("llama", settings), settings, rows, PROMPT)
    bank = _bank(shared_copy(backbone), rows, settings)
    one = shared_copy(backbone)
    random_red(one)

    def mixed() -> None:
        with bank.use(bank.names):
            _generate(bank.backbone, prompts, tokens)

    def one_by_one() -> None:
        for row, name in enumerate(bank.names):
            with bank.use([name]):
                _generate(bank.backbone, prompts[row : row + 1], tokens)

    variants: dict[str, Callable[[], None]] = {
        "one adapter for all rows": partial(_generate, one, prompts, tokens),
        f"{rows} different adapters": mixed,
        "no adapter": partial(_generate, backbone, prompts, tokens),
        "one row after the other": one_by_one,
    }
    lora = _lora(backbone, bank.names)
    for title, names in (("one LoRA, rank 8", [bank.names[0]] * rows), (f"{rows} LoRAs", bank.names)):
        variants[f"{title}, of peft"] = partial(_generate, lora, prompts, tokens, adapter_names=names)
    title = f"{rows} prompts of {PROMPT} tokens, {tokens} new tokens each; {shape_of('llama', settings).model}"
    checks = {"each row has the logits of a batch with its adapter alone": _same(bank, prompts)}
    yield Table(title, variants, "token", rows * tokens, checks=checks)


def _bank(backbone: Any, number: int, settings: Settings) -> EditBank:
    """Return a bank of random edits of every FFN."""
    generator = torch.Generator().manual_seed(settings.seed)
    bank = EditBank(backbone)
    for index in range(number):
        vectors = {
            f"{site.module}.{vector}": start + 0.1 * torch.randn(site.width, generator=generator)
            for site in find_sites(backbone, ["ffn"])
            for vector, start in (("scaling", 1.0), ("bias", 0.0))
        }
        bank.add(f"adapter_{index}", vectors)
    return bank


def _lora(backbone: nn.Module, names: list[str]) -> Any:
    """Return a peft model with a random LoRA adapter of each name."""
    config = LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model: Any = get_peft_model(shared_copy(backbone), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    return model.eval()


@torch.no_grad()
def _generate(model: Any, prompts: Tensor, tokens: int, **options: Any) -> None:
    greedy = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
    model.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), **greedy, **options)


@torch.no_grad()
def _same(bank: EditBank, prompts: Tensor) -> bool:
    """Whether about four rows of a mixed batch have bitwise the logits of a batch with one adapter."""
    with bank.use(bank.names):
        mixed = bank.backbone(input_ids=prompts).logits
    for row in range(0, len(prompts), max(1, len(prompts) // 4)):
        with bank.use([bank.names[row]] * len(prompts)):
            if not torch.equal(mixed[row], bank.backbone(input_ids=prompts).logits[row]):
                return False
    return True
