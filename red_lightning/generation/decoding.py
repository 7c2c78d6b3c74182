"""Batched decoding of a backbone, with or without edits."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from red_lightning.backbones.decoder_start import start_token
from red_lightning.backbones.sharding import needs_every_process
from red_lightning.families import depends_on_length
from red_lightning.generation.beam_search import beam_search
from red_lightning.generation.decoding_options import Decoding
from red_lightning.generation.greedy import greedy
from red_lightning.generation.logits_processors import (
    NoRepeatedNgram,
    Processors,
    RepetitionPenalty,
    Sampling,
    WithoutPadding,
)
from red_lightning.generation.reader import Reader, Reads
from red_lightning.generation.stop_texts import StopTexts, before_stop
from red_lightning.generation.streaming import Stream
from red_lightning.generation.uncached import (
    PlainReader,
    generates_with_cache,
    only,
    reads_with_cache,
    without_published_settings,
)


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
        drawn = decoding.temperature, decoding.top_p, decoding.seed, rows, decoding.top_k, decoding.min_p
        processors.append(Sampling(*drawn))
    stream = None if say is None else Stream(lambda new, all_: _texts([new], tokenizer, decoding, all_)[0], say)
    stops = StopTexts(tokenizer, decoding.stop) if decoding.stop else None
    ends, pad_id = [*dict.fromkeys([tokenizer.eos_token_id, *stop_ids])], tokenizer.pad_token_id
    new = write(backbone, input_ids, attention_mask, decoding, processors, ends, pad_id, encoder_outputs, stream, stops)
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
    stops: StopTexts | None = None,
) -> Tensor:
    """Generate new tokens for each row of a batch.

    Where the way a backbone reads is known, each prompt is read once, and nothing is computed for a row that has its
    text; elsewhere transformers' ``generate`` does what it can. Both are compared with passes that use no cache when
    they are first used; where they differ, each row is generated alone without a cache.

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
        stops: Ends rows without beams early; what is behind a stop text is cut from the text anyway.

    Returns:
        The new tokens: int64, shape (rows, at most ``max_new_tokens``).
    """
    model: Any = backbone
    encodes, ends = model.config.is_encoder_decoder, torch.tensor(stop_ids, device=input_ids.device)

    def search(reader: Reads, prompts: Tensor, own: Processors) -> Tensor:
        if encodes:
            prompts = torch.full_like(prompts[:, :1], start_token(model.config))
        if decoding.num_beams == 1:
            return greedy(reader, prompts, own, decoding.max_new_tokens, ends, pad_id, stream, stops)
        beams = decoding.num_beams, decoding.length_penalty
        return beam_search(reader, prompts, own, *beams, decoding.max_new_tokens, ends, pad_id)

    def by_itself(ids: Tensor, own: Processors) -> Tensor:
        return write(model, ids, torch.ones_like(ids), decoding, own, stop_ids, pad_id, None, stream, stops)

    def plainly(ids: Tensor, own: Processors) -> Tensor:
        return search(PlainReader(model, ids if encodes else None), ids, own)

    if depends_on_length(model.config) and len(input_ids) > 1 and not needs_every_process(model):
        return _each_alone(by_itself, input_ids, attention_mask, processors, pad_id)  # else the longest decides for all
    if not (Reader.suits(model) and reads_with_cache(model, input_ids, attention_mask)):
        if generates_with_cache(model, input_ids, attention_mask) or needs_every_process(model):
            given = (decoding, processors, stop_ids, pad_id, encoder_outputs, stream)
            return _generate(model, input_ids, attention_mask, *given)
        return _each_alone(plainly, input_ids, attention_mask, processors, pad_id)
    if encodes and encoder_outputs is None:
        encoder_outputs = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
    with Reader(model, attention_mask, encoder_outputs) as reader:
        return search(reader, input_ids.masked_fill(attention_mask == 0, -1), processors)


def _each_alone(
    new_tokens: Callable[[Tensor, Processors], Tensor],
    input_ids: Tensor,
    attention_mask: Tensor,
    processors: Processors,
    pad_id: int,
) -> Tensor:
    """What :func:`write` does, one row after another.

    Args:
        new_tokens: Returns the new tokens of one row, given its tokens without padding (each int64, of shape (1,
            tokens)) and its processors.
        input_ids: int64, shape (rows, tokens).
        attention_mask: int64, of that shape.
        processors: Those of all rows.
        pad_id: Fills a row behind its end.
    """
    found = []
    for row, mask in enumerate(attention_mask):
        with only([row], len(input_ids)):
            found.append(new_tokens(input_ids[row, mask > 0][None], processors.of(row))[0])
    return pad_sequence(found, batch_first=True, padding_value=pad_id)


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
        decoder_start_token_id=start_token(config) if config.is_encoder_decoder else None,
    )
    if not config.is_encoder_decoder:
        processors = Processors([WithoutPadding(processors, attention_mask)])
    known = {} if encoder_outputs is None else {"encoder_outputs": encoder_outputs}
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **known}
    with without_published_settings(backbone):
        tokens = backbone.generate(
            **inputs,
            generation_config=settings,
            logits_processor=processors,
            streamer=stream,
            synced_gpus=needs_every_process(backbone) or None,  # None: as transformers sees fit
        )
    return tokens[:, 1 if config.is_encoder_decoder else input_ids.shape[1] :]


def _texts(tokens: Any, tokenizer: Any, decoding: Decoding, whole: bool = True) -> list[str]:
    """The texts of new tokens, without the end that may become a stop text if there are more (not ``whole``)."""
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if decoding.stop_at_blank_line:
        texts = [text.split("\n\n")[0] for text in texts]
    return [before_stop(text, decoding.stop, whole).strip() for text in texts]
