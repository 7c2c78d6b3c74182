"""What a batch writes is what transformers' generate writes for each row alone, whatever ends when."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList, NoRepeatNGramLogitsProcessor

from red_lightning.backbones.sharding import generate_in_step
from red_lightning.data.collation import pad
from red_lightning.editing.sites import find_sites
from red_lightning.generation import Decoding, EditBank
from red_lightning.generation.beam_cache import ROOM
from red_lightning.generation.decoding import write
from red_lightning.generation.logits_processors import NoRepeatedNgram, Processors, RepetitionPenalty
from red_lightning.generation.reader import Reader
from red_lightning.methods import Method, PrefixTuning, PromptTuning
from tests.backbones_zoo import FAMILIES, MASKED, build
from tests.generation.test_decoding import edited, one_thread  # noqa: F401 - one_thread is a fixture

WRITERS = [family for family in FAMILIES if family not in MASKED]
PADDING, EOS = 1, 0
LENGTHS = (1, 9, 4, 9, 13, 2)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(2, 300, (length,), generator=generator).tolist() for length in LENGTHS]


def padded(model: Any, rows: list[list[int]], padding: int = PADDING) -> tuple[Tensor, Tensor]:
    side: Any = "right" if model.config.is_encoder_decoder else "left"
    return pad(rows, padding, side), pad([[1] * len(row) for row in rows], 0, side)


def processors_of(decoding: Decoding) -> Processors:
    processors = Processors([Ending()])
    if decoding.repetition_penalty != 1:
        processors.append(RepetitionPenalty(decoding.repetition_penalty))
    if decoding.no_repeat_ngram_size:
        processors.append(NoRepeatedNgram(decoding.no_repeat_ngram_size))
    return processors


def cut(tokens: list[int], stop_ids: list[int]) -> list[int]:
    """The tokens up to the first that ends a text."""
    ends = [place for place, token in enumerate(tokens) if token in stop_ids]
    return tokens[: ends[0] + 1] if ends else tokens


def plainly(model: Any, rows: list[list[int]], decoding: Decoding, stop_ids: list[int]) -> list[list[int]]:
    """Each row alone, without padding, by transformers and nothing else."""
    options = {
        "do_sample": False,
        "num_beams": decoding.num_beams,
        "repetition_penalty": decoding.repetition_penalty,
        "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
        "max_new_tokens": decoding.max_new_tokens,
        "eos_token_id": stop_ids,
        "pad_token_id": PADDING,
    }
    if decoding.num_beams > 1:
        options["length_penalty"] = decoding.length_penalty
    written = []
    for row in rows:
        ids = torch.tensor([row])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        tokens = model.generate(**inputs, **options, logits_processor=LogitsProcessorList([Ending()]))[0]
        new = tokens[1 if model.config.is_encoder_decoder else len(row) :].tolist()
        written.append(cut(new, stop_ids))
    return written


def together(
    model: Any, rows: list[list[int]], decoding: Decoding, stop_ids: list[int], **more: Any
) -> list[list[int]]:
    """All rows in one batch, by the package."""
    options = {"pad_id": PADDING, **more}
    new = write(model, *padded(model, rows), decoding, processors_of(decoding), stop_ids, **options)
    return [cut(row, stop_ids) for row in new.tolist()]


class Ending(LogitsProcessor):
    """Ends texts at different places, which depend on their last token and on how many tokens there are."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        count = (input_ids >= 0).sum(dim=1)
        ends = ((input_ids[:, -1] + 3 * count) % 11 == 0) | (count >= 18)
        return scores.index_put((ends, torch.tensor(EOS)), torch.tensor(1e4))


def tried(family: str) -> list[Decoding]:
    """Ways to decode: many for one family of each kind of cache, and few for the others."""
    options = [(1, 0.9, 2, 1.3), (4, 0.9, 4, 1.2)]
    more = [(1, 0.9, 0, 1.0), (2, 0.9, 2, 1.0), (4, -1.0, 0, 1.0), (3, 2.0, 3, 1.0), (5, 0.0, 1, 1.0)]
    options += more if family in ("gpt2", "mistral", "t5") else []
    return [Decoding(*option, max_new_tokens=14) for option in options]


@pytest.mark.parametrize("family", WRITERS)
def test_every_row_gets_what_it_gets_alone(family: str) -> None:
    model, rows = edited(family), prompts()
    lengths = set()
    for decoding in tried(family):
        stop_ids = [EOS, *range(20, 20 + decoding.num_beams)]
        expected = plainly(model, rows, decoding, stop_ids)
        assert together(model, rows, decoding, stop_ids) == expected, decoding
        lengths |= {len(row) for row in expected}
    assert len(lengths) > 3  # rows end at different steps


@pytest.mark.parametrize("padding", [PADDING, EOS])
def test_padding_is_never_seen(padding: int) -> None:
    """GPT-2 and Llama pad with EOS: single tokens that occurred are banned here, and padding did not occur."""
    model, rows = edited("gpt2"), prompts()
    decoding = Decoding(3, 0.9, 1, 1.0, max_new_tokens=6)
    expected = plainly(model, rows, decoding, [EOS])
    inputs = padded(model, rows, padding)
    new = write(model, *inputs, decoding, processors_of(decoding), [EOS], padding)
    assert [cut(row, [EOS]) for row in new.tolist()] == expected


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "t5"])
def test_long_texts_outgrow_the_buffers(family: str) -> None:
    model, rows = edited(family), [[5, 6, 7], [8] * 5]
    decoding = Decoding(3, 0.9, 3, 1.0, max_new_tokens=2 * ROOM + 8)
    without = Processors([NoRepeatedNgram(3)])
    tokens = write(model, *padded(model, rows), decoding, without, [EOS], PADDING)
    plain = type(f"Own{type(model).__name__}", (type(model),), {"__module__": "elsewhere"})
    model.__class__ = plain
    assert not Reader.suits(model)
    expected = write(model, *padded(model, rows), decoding, without, [EOS], PADDING)
    assert tokens.shape[1] > 2 * ROOM
    assert torch.equal(tokens, expected)


class Slots:
    """Counts the tokens that a backbone reads."""

    def __init__(self, model: nn.Module) -> None:
        self.steps: list[tuple[int, int]] = []
        stack: Any = model.get_decoder()  # type: ignore[operator]
        stack.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: nn.Module, args: Any, named: dict[str, Any]) -> None:
        self.steps.append(tuple(named["input_ids"].shape))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("beams", [1, 4])
def test_a_prompt_is_read_once_and_a_row_that_has_its_text_no_more(family: str, beams: int) -> None:
    model, rows = edited(family, seed=7), prompts()  # whose rows end after different numbers of steps
    decoding = Decoding(beams, 0.9, 0, 1.0, max_new_tokens=14)
    stop_ids = [EOS, 20]
    together(model, rows, decoding, stop_ids)  # compares with the plain way, once
    alone = []
    for row in rows:  # how many steps each row takes
        counted = edited(family, seed=7)
        slots = Slots(counted)
        together(counted, [row], decoding, stop_ids)
        alone.append(len(slots.steps))
    slots = Slots(model)
    together(model, rows, decoding, stop_ids)
    width = 1 if family == "t5" else max(LENGTHS)
    running = [(beams * sum(length > step for length in alone), 1) for step in range(1, max(alone))]
    assert slots.steps == [(len(rows), width), *running]
    assert len({*running}) > 2


@pytest.mark.parametrize("method", [PrefixTuning(length=3), PromptTuning(length=3)])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "t5"])
def test_virtual_tokens_stand_before_every_beam(family: str, method: Method) -> None:
    model, rows = build(family), prompts()
    learned = method.apply(model)
    with torch.no_grad():
        for parameter in learned.values():
            parameter.normal_()
    model.eval()
    decoding = Decoding(4, 0.9, 3, 1.0, max_new_tokens=10)
    stop_ids = [EOS, 20]
    assert together(model, rows, decoding, stop_ids) == plainly(model, rows, decoding, stop_ids)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("beams", [1, 4])
def test_every_row_keeps_its_edit_when_others_have_ended(family: str, beams: int) -> None:
    rows, names = prompts(), ["a", None, "b", "a", "b", None]
    bank = EditBank(build(family))
    generator = torch.Generator().manual_seed(1)
    for name in ("a", "b"):
        sites = {site.module: site.width for site in find_sites(bank.backbone, ["ffn"])}
        vectors = {f"{module}.bias": torch.randn(width or 32, generator=generator) for module, width in sites.items()}
        bank.add(name, vectors)
    decoding = Decoding(beams, 0.9, 0, 1.0, max_new_tokens=14)
    stop_ids = [EOS, 20]
    expected = []
    for row, name in zip(rows, names, strict=True):
        with bank.use([name]):
            expected += plainly(bank.backbone, [row], decoding, stop_ids)
    with bank.use(names):
        assert together(bank.backbone, rows, decoding, stop_ids) == expected
        assert together(bank.backbone, rows, decoding, stop_ids) == expected  # the batch is whole again
    with bank.use(names[:2]):  # rows that lie side by side share an edit
        shared = together(bank.backbone, rows, decoding, stop_ids)
    with bank.use(["a"]):
        assert shared[:3] == plainly(bank.backbone, rows[:3], decoding, stop_ids)
    assert shared[3:] == plainly(bank.backbone, rows[3:], decoding, stop_ids)
    assert len({len(row) for row in expected}) > 2


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_ban_is_that_of_transformers(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    for length in (1, 2, 3, 5, 30):
        ids = torch.randint(0, 4, (20, length), generator=generator)
        scores = torch.randn(20, 6, generator=generator)
        before = scores.clone()
        banned = NoRepeatedNgram(size)(ids, scores)
        assert torch.equal(banned, NoRepeatNGramLogitsProcessor(size)(ids, before.clone()))
        assert torch.equal(scores, before)
        hidden = torch.cat([torch.full((20, 3), -1), ids], dim=1)
        assert torch.equal(NoRepeatedNgram(size)(hidden, scores), banned)


def test_what_reads_otherwise_is_left_to_transformers() -> None:
    assert [family for family in WRITERS if not Reader.suits(build(family))] == ["phi3"]
    model = build("gpt2")
    generate_in_step(model)  # a forward pass needs all processes
    assert not Reader.suits(model)
