"""Batched decoding of a backbone, edited or not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from red_lightning.backbones.sharding import needs_every_process
from red_lightning.errors import UsageError, require_range
from red_lightning.generation.beam_search import beam_search
from red_lightning.generation.greedy import greedy
from red_lightning.generation.processors import NoRepeatedNgram, Processors, RepetitionPenalty, Sampling, WithoutPadding
from red_lightning.generation.reader import Reader
from red_lightning.generation.streaming import Stream


@dataclass
class Decoding:
    """How text is decoded: beam search, greedily with one beam, or by sampling.

    The defaults are the paper's for E2E (Table 11); :data:`FOR_INSTRUCTIONS` has those for instruction tuning.

    Attributes:
        num_beams: Beams kept; 1 is greedy decoding.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        no_repeat_ngram_size: No n-gram of this size occurs twice; those of a decoder's prompt count. 0 allows all.
        repetition_penalty: What divides the logit of a token that has occurred (multiplies it if it is negative); those
            of a decoder's prompt count. 1 is no penalty.
        max_new_tokens: Most tokens to generate (authors' code: 256).
        stop_at_blank_line: Keep the text before the first blank line only (authors' code).
        temperature: What divides the logits before a token is drawn; 0 draws nothing, but takes the likeliest.
        top_p: Draw from the likeliest tokens alone whose probabilities reach this sum.
        seed: Seeds what is drawn, together with the prompt: a prompt's text does not depend on those beside it.
    """

    num_beams: int = 10
    length_penalty: float = 0.9
    no_repeat_ngram_size: int = 4
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop_at_blank_line: bool = True
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that no decoding has."""
        require_range("decoding.num_beams", self.num_beams, 1, 1000)
        require_range("decoding.max_new_tokens", self.max_new_tokens, 1)
        require_range("decoding.no_repeat_ngram_size", self.no_repeat_ngram_size, 0)
        require_range("decoding.repetition_penalty", self.repetition_penalty, 0.01)
        require_range("decoding.temperature", self.temperature, 0)
        require_range("decoding.top_p", self.top_p, 1e-6, 1)
        if self.temperature > 0 and self.num_beams > 1:
            raise UsageError(
                f"decoding.temperature {self.temperature:g} draws one text, but decoding.num_beams is "
                f"{self.num_beams}; give num_beams 1, or temperature 0"
            )


FOR_INSTRUCTIONS = Decoding(
    num_beams=1,
    length_penalty=1.0,
    no_repeat_ngram_size=5,
    repetition_penalty=1.1,
    max_new_tokens=768,
    stop_at_blank_line=False,
)
"""The paper's decoding after instruction tuning (section 4.4; the authors' code: at most 768 new tokens)."""


@dataclass
class DecodingChanges:
    """What is decoded otherwise than a run did; null leaves it as it was.

    Attributes:
        num_beams: Beams kept; 1 is greedy decoding, or sampling.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        no_repeat_ngram_size: No n-gram of this size occurs twice; those of a decoder's prompt count. 0 allows all.
        repetition_penalty: What divides the logit of a token that has occurred; 1 is no penalty.
        max_new_tokens: Most tokens to generate.
        stop_at_blank_line: Keep the text before the first blank line only.
        temperature: What divides the logits before a token is drawn; 0 draws nothing, but takes the likeliest.
        top_p: Draw from the likeliest tokens alone whose probabilities reach this sum.
        seed: Seeds what is drawn.
    """

    num_beams: int | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    stop_at_blank_line: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def of(self, decoding: Decoding) -> Decoding:
        """The decoding with the changes.

        Raises:
            UsageError: There is no such decoding.
        """
        return replace(decoding, **{name: value for name, value in vars(self).items() if value is not None})


@torch.no_grad()
def decode(
    backbone: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    tokenizer: Any,
    decoding: Decoding,
    encoder_outputs: Any = None,
    stop_ids: Sequence[int] = (),
    say: Callable[[str], None] | None = None,
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
        say: Is called with each piece of the text as it comes, all of which make the text; for one row and one beam.

    Returns:
        One text per row, without special tokens and outer blanks; the same that decoding each row alone gives.
    """
    processors = Processors()
    if decoding.repetition_penalty != 1:
        processors.append(RepetitionPenalty(decoding.repetition_penalty))
    if decoding.no_repeat_ngram_size:
        processors.append(NoRepeatedNgram(decoding.no_repeat_ngram_size))
    if decoding.temperature > 0:
        rows = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        processors.append(Sampling(decoding.temperature, decoding.top_p, decoding.seed, rows))
    stream = None if say is None else Stream(lambda tokens: _texts([tokens], tokenizer, decoding)[0], say)
    ends, pad_id = [*dict.fromkeys([tokenizer.eos_token_id, *stop_ids])], tokenizer.pad_token_id
    new = write(backbone, input_ids, attention_mask, decoding, processors, ends, pad_id, encoder_outputs, stream)
    return _texts(new, tokenizer, decoding)


@torch.no_grad()
def write(
    backbone: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    decoding: Decoding,
    processors: Processors,
    stop_ids: Sequence[int],
    pad_id: int,
    encoder_outputs: Any = None,
    stream: Stream | None = None,
) -> Tensor:
    """Generate new tokens for each row of a batch.

    Where the way a backbone reads is known, each prompt is read once, and nothing is computed for a row that has its
    text; elsewhere transformers' ``generate`` does what it can.

    Args:
        backbone: A decoder or an encoder-decoder, in evaluation mode.
        input_ids: int64, shape (rows, tokens); left-padded for a decoder.
        attention_mask: int64, shape (rows, tokens).
        decoding: How many beams, how long they get, and how length counts.
        processors: Change the logits (of beams, the log-probabilities) of the next token; the tokens so far that they
            are given are negative at padding.
        stop_ids: Tokens that end a text.
        pad_id: Fills a row behind its end.
        encoder_outputs: What the encoder of an encoder-decoder made of the batch, if it has been run already.
        stream: Is given each token of one row and one beam.

    Returns:
        The new tokens: int64, shape (rows, at most ``max_new_tokens``).
    """
    if not Reader.suits(backbone):
        return _generate(
            backbone, input_ids, attention_mask, decoding, processors, stop_ids, pad_id, encoder_outputs, stream
        )
    model: Any = backbone
    prompts = input_ids.masked_fill(attention_mask == 0, -1)
    if model.config.is_encoder_decoder:
        if encoder_outputs is None:
            encoder_outputs = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
        prompts = torch.full_like(input_ids[:, :1], model.config.decoder_start_token_id)
    ends = torch.tensor(stop_ids, device=input_ids.device)
    with Reader(backbone, attention_mask, encoder_outputs) as reader:
        if decoding.num_beams == 1:
            return greedy(reader, prompts, processors, decoding.max_new_tokens, ends, pad_id, stream)
        beams = decoding.num_beams, decoding.length_penalty
        return beam_search(reader, prompts, processors, *beams, decoding.max_new_tokens, ends, pad_id)


def _generate(
    backbone: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    decoding: Decoding,
    processors: Processors,
    stop_ids: Sequence[int],
    pad_id: int,
    encoder_outputs: Any,
    stream: Stream | None,
) -> Tensor:
    """What :func:`write` does, by transformers' ``generate``."""
    config = backbone.config
    settings = GenerationConfig(
        do_sample=False,
        num_beams=decoding.num_beams,
        length_penalty=decoding.length_penalty if decoding.num_beams > 1 else None,
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=[*stop_ids],
        pad_token_id=pad_id,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
    )
    if not config.is_encoder_decoder:
        processors = Processors([WithoutPadding(processors, attention_mask)])
    known = {} if encoder_outputs is None else {"encoder_outputs": encoder_outputs}
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **known}
    published = backbone.generation_config
    backbone.generation_config = GenerationConfig()  # generate takes from here whatever is not set above
    try:
        tokens = backbone.generate(
            **inputs,
            generation_config=settings,
            logits_processor=processors,
            streamer=stream,
            synced_gpus=needs_every_process(backbone) or None,  # None: as transformers sees fit
        )
    finally:
        backbone.generation_config = published
    return tokens[:, 1 if config.is_encoder_decoder else input_ids.shape[1] :]


def _texts(tokens: Any, tokenizer: Any, decoding: Decoding) -> list[str]:
    """The texts of new tokens."""
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if decoding.stop_at_blank_line:
        texts = [text.split("\n\n")[0] for text in texts]
    return [text.strip() for text in texts]
