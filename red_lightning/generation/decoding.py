"""Batched decoding of a backbone, edited or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from red_lightning.errors import require_range


@dataclass
class Decoding:
    """How text is decoded: beam search, or greedy with one beam. The defaults are the paper's for E2E (Table 11).

    Those for instruction tuning are the defaults of :class:`~red_lightning.tasks.InstructionTuning`.

    Attributes:
        num_beams: Beams kept; 1 is greedy decoding.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        no_repeat_ngram_size: No n-gram of this size occurs twice; those of a decoder's prompt count. 0 allows all.
        repetition_penalty: What divides the logit of a token that has occurred (multiplies it if it is negative); those
            of a decoder's prompt count. 1 is no penalty.
        max_new_tokens: Most tokens to generate (authors' code: 256).
        stop_at_blank_line: Keep the text before the first blank line only (authors' code).
    """

    num_beams: int = 10
    length_penalty: float = 0.9
    no_repeat_ngram_size: int = 4
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop_at_blank_line: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that no decoding has."""
        require_range("model.decoding.num_beams", self.num_beams, 1)
        require_range("model.decoding.max_new_tokens", self.max_new_tokens, 1)
        require_range("model.decoding.no_repeat_ngram_size", self.no_repeat_ngram_size, 0)
        require_range("model.decoding.repetition_penalty", self.repetition_penalty, 0.01)


@torch.no_grad()
def decode(
    backbone: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    tokenizer: Any,
    decoding: Decoding,
    encoder_outputs: Any = None,
    stop_ids: Sequence[int] = (),
) -> list[str]:
    """Generate a text for each row of a batch.

    Args:
        backbone: A decoder or an encoder-decoder, in evaluation mode.
        input_ids: int64, shape (rows, tokens); left-padded for a decoder.
        attention_mask: int64, shape (rows, tokens).
        tokenizer: The backbone's tokenizer.
        decoding: How to decode.
        encoder_outputs: What the encoder of an encoder-decoder made of the batch, if it has been run already.
        stop_ids: Tokens that end a text, besides the tokenizer's EOS.

    Returns:
        One text per row, without special tokens and outer blanks; the same that decoding each row alone gives.
    """
    model: Any = backbone
    config = model.config
    settings = GenerationConfig(
        do_sample=False,
        num_beams=decoding.num_beams,
        length_penalty=decoding.length_penalty if decoding.num_beams > 1 else None,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size,
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=[*dict.fromkeys([tokenizer.eos_token_id, *stop_ids])],
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
    )
    published = model.generation_config
    model.generation_config = GenerationConfig()  # generate takes from here whatever is not set above
    try:
        known = {} if encoder_outputs is None else {"encoder_outputs": encoder_outputs}
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **known}
        processors = LogitsProcessorList()
        if decoding.repetition_penalty != 1:
            prompt = None if config.is_encoder_decoder else attention_mask
            processors.append(_RepetitionPenalty(decoding.repetition_penalty, prompt))
        sequences = model.generate(**inputs, generation_config=settings, logits_processor=processors)
    finally:
        model.generation_config = published
    new = sequences if config.is_encoder_decoder else sequences[:, input_ids.shape[1] :]
    texts = tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if decoding.stop_at_blank_line:
        texts = [text.split("\n\n")[0] for text in texts]
    return [text.strip() for text in texts]


class _RepetitionPenalty(LogitsProcessor):
    """transformers' penalty, which would also count padding: EOS, with which Llama pads, would seem to have occurred.

    Args:
        penalty: What divides a logit.
        prompt: The attention mask of left-padded prompts: int64, shape (rows, tokens); None without a prompt.
    """

    def __init__(self, penalty: float, prompt: Tensor | None) -> None:
        self.penalty, self.prompt = RepetitionPenaltyLogitsProcessor(penalty), prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Penalise what has occurred: ``input_ids`` (rows x beams, tokens), ``scores`` (rows x beams, vocabulary)."""
        if self.prompt is not None:
            rows, width = self.prompt.shape
            real = self.prompt.repeat_interleave(len(input_ids) // rows, dim=0).bool()
            prompt, new = input_ids[:, :width], input_ids[:, width:]
            input_ids = torch.cat([torch.where(real, prompt, prompt[:, -1:]), new], dim=1)
        return self.penalty(input_ids, scores)
