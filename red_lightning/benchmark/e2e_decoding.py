"""Decoding E2E's test split with ten beams: each distinct source once and in batches, against every row by itself.

The baseline is the authors' way: one row after the other through transformers' beam search, the same source as often as
it has references. Both have the paper's settings (Table 11), and write the same tokens.

Random weights never write EOS. So both are made to end each text where the first reference of its source ends, and not
before: a text of a trained model is about as long. What is timed is a sample: some of the package's own batches, at
even distances of their length, and some of the rows of the file that have their sources. The time of either way for all
rows follows from the tokens that the model reads then, which are counted exactly, duplicates included.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from red_lightning.benchmark.measure import Case, Goal, Variant, compare, count
from red_lightning.benchmark.optimizer_steps import evenly
from red_lightning.benchmark.random_tasks import given_by, tokenizer_of
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import config_of, random_model, shape_of
from red_lightning.data import E2E
from red_lightning.data.collation import pad
from red_lightning.generation import Decoding
from red_lightning.generation.decoding import write
from red_lightning.generation.logits_processors import NoRepeatedNgram, Processors
from red_lightning.methods import RED

SAMPLES = {"tiny": (1, 2), "small": (2, 6), "paper": (20, 40)}
"""Size -> batches of the package, and rows of the baseline, that are timed."""
PLAIN, OURS = "every row, one by one (transformers)", "each source once, in batches"


def measure(settings: Settings) -> Case:
    """Time both on a model shaped like GPT-2, and count the tokens that it reads for the whole split.

    Args:
        settings: How to measure; ``e2e_path`` and ``gpt2_tokenizer`` say where data and tokenizer are.
    """
    with given_by("gpt2_tokenizer"):
        tokenizer = tokenizer_of(settings.gpt2_tokenizer)
    decoding = Decoding()
    batches, beams = _batches(tokenizer, settings), decoding.num_beams
    sources, every_row = [source for batch in batches for source in batch], _rows(batches)
    number, singles = SAMPLES[settings.size]
    chosen = evenly(batches, number)
    rows = evenly(_rows(chosen), singles)
    model = _model(tokenizer, settings)
    ends = EndsAsReferences(sources, tokenizer.eos_token_id, settings.device)
    search = _Search(model, decoding, ends, tokenizer.eos_token_id, settings.device)
    plain, ours = _read_alone(every_row, beams), _read_together(batches, beams)
    work = {PLAIN: _read_alone(rows, beams) / plain, OURS: _read_together(chosen, beams) / ours}
    variants = [
        Variant(PLAIN, lambda: [search.alone(row) for row in rows], len(every_row) * work[PLAIN]),
        Variant(OURS, lambda: [search.together(batch) for batch in chosen], len(every_row) * work[OURS]),
    ]
    shape = shape_of("gpt2", settings)
    title = f"{len(every_row):,} rows, {len(sources)} sources, {beams} beams; GPT-2, {shape.layers} layers"
    measured = compare(title, variants, settings, "row", gain=True, goals={OURS: Goal(cpu=14, cuda=150)})
    slots = count(title, {PLAIN: plain, OURS: ours}, settings, "tokens read", gain=True)
    checks = {"both write the same tokens": search.same(chosen, rows)} if settings.dtype == "float32" else {}
    return Case("Decoding the E2E test split", [*measured, *slots], checks)


class EndsAsReferences(LogitsProcessor):
    """Ends each text behind as many tokens as the first reference of its source has, and not before.

    Args:
        sources: Each with the tokens of its ``source``, EOS last, and the ``length`` of what is written, EOS included.
        eos_id: EOS.
        device: Where the scores are.
    """

    def __init__(self, sources: list[dict[str, Any]], eos_id: int, device: str) -> None:
        self.eos_id = eos_id
        self.keys = torch.cat([self._key(torch.tensor([source["source"]])) for source in sources]).to(device)
        self.lengths = torch.tensor([source["length"] for source in sources], device=device)
        assert len(self.keys.unique()) == len(self.keys)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Allow EOS alone, or all but EOS: ``input_ids`` (rows x beams, tokens), ``scores`` (.., vocabulary)."""
        written = self._behind(input_ids).sum(dim=1) - 1
        source = (self._key(input_ids)[:, None] == self.keys).int().argmax(dim=1)
        ends = written + 1 == self.lengths[source]
        eos = torch.arange(scores.shape[1], device=scores.device) == self.eos_id
        scores = scores.masked_fill(eos != ends[:, None], -torch.inf)
        return scores.masked_fill(eos & ends[:, None], 0.0)

    def _behind(self, input_ids: Tensor) -> Tensor:
        """Whether each token is the EOS of the source, or behind it."""
        return (input_ids == self.eos_id).cumsum(dim=1) > 0

    def _key(self, input_ids: Tensor) -> Tensor:
        """A number for each row's source, which padding (negative tokens) does not change."""
        place = (input_ids >= 0).cumsum(dim=1)
        return (input_ids * place.square() * ~self._behind(input_ids) * (input_ids >= 0)).sum(dim=1)


class _Search:
    """Both ways to decode.

    Args:
        model: Writes.
        decoding: How.
        ends: Where texts end.
        eos_id: EOS, which is also the padding.
        device: Where the model is.
    """

    def __init__(self, model: Any, decoding: Decoding, ends: EndsAsReferences, eos_id: int, device: str) -> None:
        self.model, self.decoding, self.ends = model, decoding, ends
        self.eos_id, self.device = eos_id, device

    @torch.inference_mode()
    def alone(self, row: dict[str, Any]) -> list[int]:
        """The new tokens of one row, by transformers."""
        ids = torch.tensor([row["source"]], device=self.device)
        tokens = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=self.decoding.num_beams,
            length_penalty=self.decoding.length_penalty,
            no_repeat_ngram_size=self.decoding.no_repeat_ngram_size,
            max_new_tokens=self.decoding.max_new_tokens,
            eos_token_id=self.eos_id,
            pad_token_id=self.eos_id,
            logits_processor=LogitsProcessorList([self.ends]),
        )
        return tokens[0, len(row["source"]) :].tolist()

    @torch.inference_mode()
    def together(self, batch: list[dict[str, Any]]) -> list[list[int]]:
        """The new tokens of a batch, by the package."""
        ids = pad([row["source"] for row in batch], self.eos_id, "left").to(self.device)
        mask = pad([[1] * len(row["source"]) for row in batch], 0, "left").to(self.device)
        processors = Processors([NoRepeatedNgram(self.decoding.no_repeat_ngram_size), self.ends])
        tokens = write(self.model, ids, mask, self.decoding, processors, [self.eos_id], self.eos_id).tolist()
        return [row[: source["length"]] for row, source in zip(tokens, batch, strict=True)]

    def same(self, batches: list[list[dict[str, Any]]], rows: list[dict[str, Any]]) -> bool:
        """Whether the sampled rows get the same tokens, as long as they shall be."""
        written = {s["row"]: tokens for batch in batches for s, tokens in zip(batch, self.together(batch), strict=True)}
        alone = [self.alone(row) for row in rows]
        return all(
            tokens == written[row["row"]] and len(tokens) == row["length"]
            for row, tokens in zip(rows, alone, strict=True)
        )


def _batches(tokenizer: Any, settings: Settings) -> list[list[dict[str, Any]]]:
    """The package's batches of the test split, each source with the ``length`` of what is written to it."""
    data = E2E(settings.e2e_path, seed=settings.seed)
    data.connect(tokenizer, encoder_decoder=False)
    with given_by("e2e_path"):
        data.setup("test")
    rows: Any = data.test_dataloader().dataset
    sources = [rows[index] for index in range(len(rows))]
    for source in sources:
        source["length"] = len(tokenizer(source["references"][0])["input_ids"]) + 1
    size = data.eval_batch_size
    return [sources[first : first + size] for first in range(0, len(sources), size)]


def _model(tokenizer: Any, settings: Settings) -> Any:
    """A random edited GPT-2 that knows the tokenizer's tokens."""
    shape = shape_of("gpt2", settings)
    config = config_of(replace(shape, vocabulary=max(shape.vocabulary, len(tokenizer))))
    model = random_model(config, settings, settings.seed).eval()
    with torch.no_grad():
        for parameter in RED().apply(model).values():
            parameter.add_(0.1)
    return model


def _rows(batches: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of the file that some batches stand for: one for each reference of a source."""
    return [source for batch in batches for source in batch for _ in source["references"]]


def _read_alone(rows: list[dict[str, Any]], beams: int) -> int:
    """The tokens that the baseline reads: of every beam its prompt, and what is written but for the last token."""
    return sum(beams * (len(row["source"]) + row["length"] - 1) for row in rows)


def _read_together(batches: list[list[dict[str, Any]]], beams: int) -> int:
    """The tokens that the package reads: padded prompts, and of every beam what is written but for the last token."""
    prompts = sum(len(batch) * max(len(source["source"]) for source in batch) for batch in batches)
    return prompts + sum(beams * (source["length"] - 1) for batch in batches for source in batch)
