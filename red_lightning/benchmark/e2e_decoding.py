"""Decode E2E's test split with ten beams: each distinct source once and in batches, against row by row.

The baseline is the authors' way: the beam search of transformers for one row at a time, and the same source as often as
it has references. Both have the settings of the paper (Table 11) and generate the same tokens.

Random weights never generate EOS, so every text gets the same length. A sample is timed. The tokens that the model
reads for the whole split are counted.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Table
from red_lightning.benchmark.random_models import (
    config_of,
    given_by,
    random_model,
    random_red,
    shape_of,
    tokenizer_of,
)
from red_lightning.benchmark.training_steps import evenly
from red_lightning.data import E2E
from red_lightning.data.collation import pad
from red_lightning.generation import FOR_E2E
from red_lightning.generation.decoding import write
from red_lightning.generation.logits_processors import NoRepeatedNgram, Processors

LENGTH = 30
"""Tokens of a text. E2E's references have 28 on average."""
SAMPLES = {"tiny": (1, 2), "small": (2, 6), "paper": (20, 40)}
"""Size -> timed batches of the package, and timed rows of the baseline."""
AUTHORS, OURS = "row by row (transformers)", "each source once, in batches"

Rows = list[dict[str, Any]]


def e2e_decoding(settings: Settings) -> Iterator[Table]:
    """Time both on a model shaped like GPT-2, and count the tokens that it reads for the whole split."""
    with given_by("gpt2_tokenizer"):
        tokenizer = tokenizer_of(settings.gpt2_tokenizer)
    batches = _batches(tokenizer, settings)
    every_row, sources = _rows(batches), sum(map(len, batches))
    number, singles = SAMPLES[settings.size]
    chosen = evenly(batches, number)
    rows = evenly(_rows(chosen), singles)
    search = _Search(tokenizer, settings)
    read = {AUTHORS: search.read_alone(every_row), OURS: search.read_together(batches)}
    work = {AUTHORS: len(rows), OURS: len(_rows(chosen))}
    variants = {
        AUTHORS: lambda: [search.alone(row) for row in rows],
        OURS: lambda: [search.together(batch) for batch in chosen],
    }
    title = f"{len(every_row):,} rows, {sources} sources, {LENGTH} new tokens; {shape_of('gpt2', settings).model}"
    checks = {"both generate the same tokens": search.same(chosen, rows)} if settings.exact else {}
    yield Table(title, variants, "row", work, {"tokens read": read}, checks)


class NoEnd(LogitsProcessor):
    """Give EOS no probability.

    Args:
        eos_id: The token of EOS.
    """

    def __init__(self, eos_id: int) -> None:
        self.eos_id = eos_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return ``scores`` (rows x beams, vocabulary) without EOS."""
        return scores.index_fill(1, torch.tensor([self.eos_id], device=scores.device), -torch.inf)


class _Search:
    """Both ways to decode with a random edited GPT-2.

    Args:
        tokenizer: Its vocabulary and EOS, which is also the padding.
        settings: Size, dtype and device.
    """

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        shape = shape_of("gpt2", settings)
        config = config_of(replace(shape, vocabulary=max(shape.vocabulary, len(tokenizer))))
        self.model = random_model(config, settings, settings.seed).eval()
        random_red(self.model)
        self.decoding, self.device = replace(FOR_E2E, max_new_tokens=LENGTH), settings.device
        self.eos_id: int = tokenizer.eos_token_id

    @torch.inference_mode()
    def alone(self, row: dict[str, Any]) -> list[int]:
        """Return the new tokens of one row, by transformers."""
        ids = torch.tensor([row["source"]], device=self.device)
        tokens = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=self.decoding.num_beams,
            length_penalty=self.decoding.length_penalty,
            no_repeat_ngram_size=self.decoding.no_repeat_ngram_size,
            max_new_tokens=LENGTH,
            eos_token_id=self.eos_id,
            pad_token_id=self.eos_id,
            logits_processor=LogitsProcessorList([NoEnd(self.eos_id)]),
        )
        return tokens[0, len(row["source"]) :].tolist()

    @torch.inference_mode()
    def together(self, batch: Rows) -> list[list[int]]:
        """Return the new tokens of each row of a batch, by the package."""
        ids = pad([row["source"] for row in batch], self.eos_id, "left").to(self.device)
        mask = pad([[1] * len(row["source"]) for row in batch], 0, "left").to(self.device)
        processors = Processors([NoRepeatedNgram(self.decoding.no_repeat_ngram_size), NoEnd(self.eos_id)])
        return write(self.model, ids, mask, self.decoding, processors, [self.eos_id], self.eos_id).tolist()

    def same(self, batches: list[Rows], rows: Rows) -> bool:
        """Whether both give the rows the same tokens, as many as they should get."""
        found = {s["row"]: tokens for batch in batches for s, tokens in zip(batch, self.together(batch), strict=True)}
        return all(found[row["row"]] == self.alone(row) and len(found[row["row"]]) == LENGTH for row in rows)

    def read_alone(self, rows: Rows) -> float:
        """Return the tokens that the baseline reads: for every beam its prompt and all new tokens but the last."""
        return float(self.decoding.num_beams * sum(len(row["source"]) + LENGTH - 1 for row in rows))

    def read_together(self, batches: list[Rows]) -> float:
        """Return the tokens that the package reads: padded prompts, and for every beam all new tokens but the last."""
        beams = self.decoding.num_beams
        longest = (max(len(row["source"]) for row in batch) for batch in batches)
        return float(sum(len(own) * (most + beams * (LENGTH - 1)) for own, most in zip(batches, longest, strict=True)))


def _batches(tokenizer: Any, settings: Settings) -> list[Rows]:
    """Return the package's batches of the test split."""
    data = E2E(settings.e2e_path, seed=settings.seed)
    data.connect(tokenizer, encoder_decoder=False)
    with given_by("e2e_path"):
        data.setup("test")
    rows: Any = data.test_dataloader().dataset
    size = data.eval_batch_size
    return [[rows[i] for i in range(first, min(first + size, len(rows)))] for first in range(0, len(rows), size)]


def _rows(batches: list[Rows]) -> Rows:
    """Return the rows of the file that batches stand for: one for each reference of a source."""
    return [source for batch in batches for source in batch for _ in source["references"]]
