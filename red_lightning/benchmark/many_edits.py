"""Serving: many edits of one backbone at once, another one in each row of a batch that is decoded.

The baseline decodes the same batch with one edit for all rows. Beside it stand the unedited model, one tenant after the
other, and peft's batch of mixed LoRA adapters.
"""

from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.benchmark.measure import Case, Goal, Variant, compare
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import build, shape_of, token_ids
from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import shared_copy
from red_lightning.generation import EditBank
from red_lightning.methods import RED

PROMPT = 16
"""Tokens of each prompt."""
SIZES = {"tiny": (3, 2), "small": (16, 16), "paper": (64, 64)}
"""Size -> rows, each with an edit of its own, and tokens that are written to each."""


def measure(settings: Settings) -> Case:
    """Compare ways to decode a batch on a model shaped like Llama.

    Args:
        settings: How to measure.
    """
    rows, tokens = SIZES[settings.size]
    backbone = build("llama", settings).eval()
    backbone.generation_config.eos_token_id = None  # every row is written to its end
    shape = shape_of("llama", settings)
    prompts = token_ids(shape, settings, rows, PROMPT)
    bank = _bank(shared_copy(backbone), rows, settings)
    one = shared_copy(backbone)
    with torch.no_grad():
        for parameter in RED().apply(one).values():
            parameter.add_(0.1)

    def mixed() -> None:
        with bank.use(bank.names):
            _write(bank.backbone, prompts, tokens)

    def apart() -> None:
        for row, name in enumerate(bank.names):
            with bank.use([name]):
                _write(bank.backbone, prompts[row : row + 1], tokens)

    base, ours, work = "one edit for all rows", f"{rows} different edits", rows * tokens
    variants = [
        Variant(base, lambda: _write(one, prompts, tokens), work),
        Variant(ours, mixed, work),
        Variant("no edit", lambda: _write(backbone, prompts, tokens), work),
        Variant("one tenant after the other", apart, work),
    ]
    lora, notes = _peft(backbone, bank.names)
    if lora is not None:
        alone = [bank.names[0]] * rows
        variants += [
            Variant("peft: one LoRA, rank 8", lambda: _write(lora, prompts, tokens, adapter_names=alone), work),
            Variant(f"peft: {rows} LoRAs", lambda: _write(lora, prompts, tokens, adapter_names=bank.names), work),
        ]
    title = f"{rows} prompts of {PROMPT} tokens, {tokens} greedy tokens each; {shape.family}, {shape.layers} layers"
    measured = compare(title, variants, settings, "token", goals={ours: Goal(cpu=1.02, cuda=1.03)})
    checks = {"each row of a mixed batch has the logits of a batch with its edit alone": _same(bank, prompts)}
    return Case("Decoding with another edit in each row", measured, checks, notes)


def _bank(backbone: Any, edits: int, settings: Settings) -> EditBank:
    """A bank of random edits at every FFN."""
    generator = torch.Generator().manual_seed(settings.seed)
    sites = find_sites(backbone, ["ffn"], None)
    bank = EditBank(backbone)
    for number in range(edits):
        bank.add(
            f"tenant_{number}",
            {
                f"{site.module}.{vector}": start + 0.1 * torch.randn(site.width, generator=generator)
                for site in sites
                for vector, start in (("scaling", 1.0), ("bias", 0.0))
            },
        )
    return bank


def _peft(backbone: nn.Module, names: list[str]) -> tuple[Any, list[str]]:
    """A model of peft's with a random LoRA adapter of each name; None and why if there is no peft."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        return None, ["peft is not installed, so that its LoRAs are left out"]
    config = LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model: Any = get_peft_model(shared_copy(backbone), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    return model.eval(), []


def _write(model: Any, prompts: Tensor, tokens: int, **options: Any) -> None:
    with torch.no_grad():
        model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
            **options,
        )


@torch.no_grad()
def _same(bank: EditBank, prompts: Tensor) -> bool:
    """Whether some rows of a mixed batch are bit for bit those of a batch with one edit."""
    with bank.use(bank.names):
        mixed = bank.backbone(input_ids=prompts).logits
    for row in range(0, len(prompts), max(1, len(prompts) // 4)):
        with bank.use([bank.names[row]] * len(prompts)):
            if not torch.equal(mixed[row], bank.backbone(input_ids=prompts).logits[row]):
                return False
    return True
